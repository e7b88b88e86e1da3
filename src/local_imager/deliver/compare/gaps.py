"""Finds where two containers differ outside of their parts: in a header, a gap, behind the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.compare.layouts import Layout, Piece, layout_of
from local_imager.deliver.inspect.parts import Part
from local_imager.formats.source import CHUNK_BYTES, BytesSource, Source

# Reading costs time; a place that needs more is not looked for.
_MAX_BYTES: Final = 1 << 30
_MAX_PLACES: Final = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes of a part differ: offset of the first, how many up to the last, where in words.

    Without an offset only the words are known. ``restates`` says that it is in a header, which
    tells once more what other differences tell, or where a part of the other side lies.
    """

    offset: int | None
    size_bytes: int | None
    where: str = ""
    restates: bool = False

    @property
    def in_gap(self) -> bool:
        """Whether bytes differ that no other part of the file says anything of."""
        return self.offset is not None and not self.restates


def outside_place(left: Source, right: Source, parts: tuple[Part, Part]) -> Place | None:
    """Return the first place where two containers differ outside of what they hold.

    Both count from their own begin; zeros follow the end of the shorter one. Raises
    :class:`~local_imager.formats.source.FormatError` for damaged ones.
    """
    layouts = [layout_of(side, part) for side, part in zip((left, right), parts, strict=True)]
    first, second = layouts
    if first is None or second is None:
        return None
    end = max(left.size_bytes, right.size_bytes)
    free = list(_between((*_covered(first), *_covered(second)), end))
    found = _all_differing(left, right, free)
    if not found:
        return _left_behind((left, right), (first, second), free, end)
    head = max(first.head_bytes, second.head_bytes)
    offset, size = next((place for place in found if place[0] >= head), found[0])
    where = _where(first if offset < left.size_bytes else second, offset)
    more = len(found) - 1
    if more:
        where += f", and at {more:,} more place{'s' if more > 1 else ''}"
    return Place(offset, size, where, restates=offset < head)


def _left_behind(
    sources: tuple[Source, Source],
    layouts: tuple[Layout, Layout],
    free: Sequence[tuple[int, int]],
    end: int,
) -> Place | None:
    """Return where one side has bytes in a gap in which the other one has a part: of a file that
    was replaced, say."""
    taken = list(_between(((begin, stop - begin) for begin, stop in free), end))
    for number, word in enumerate(("left", "right")):
        own = list(_between(_covered(layouts[number]), sources[number].size_bytes))
        pieces = list(_overlaps(own, taken))
        found = _all_differing(sources[number], BytesSource(b""), pieces)
        if found:
            offset, size = found[0]
            where = f"{_where(layouts[number], offset)}, of the {word} side"
            return Place(offset, size, where, restates=True)
    return Place(None, None, layouts[0].otherwise) if layouts[0].otherwise else None


def _covered(layout: Layout) -> Iterator[Piece]:
    yield from (piece for piece, _ in layout.named)
    yield from layout.told


def _all_differing(
    left: Source, right: Source, pieces: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return of each piece where it differs, as long as reading takes no more than is allowed."""
    found: list[tuple[int, int]] = []
    budget = _MAX_BYTES
    for begin, stop in pieces:
        budget -= _data_bytes(left, begin, stop) + _data_bytes(right, begin, stop)
        if budget < 0 or len(found) > _MAX_PLACES:
            break
        place = _differing(left, right, begin, stop)
        if place is not None:
            found.append(place)
    return found


def _overlaps(
    left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of what two lists in order, each without overlaps, have in common."""
    here = there = 0
    while here < len(left) and there < len(right):
        begin = max(left[here][0], right[there][0])
        end = min(left[here][1], right[there][1])
        if begin < end:
            yield begin, end
        if left[here][1] < right[there][1]:
            here += 1
        else:
            there += 1


def _between(covered: Iterable[Piece], end: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of what no piece covers."""
    position = 0
    for offset, length in sorted(covered):
        if length > 0 and position < min(offset, end):
            yield position, min(offset, end)
        position = max(position, offset + max(length, 0))
    if position < end:
        yield position, end


def _runs(source: Source, begin: int, end: int) -> Iterator[tuple[int, int]]:
    stop = min(end, source.size_bytes)
    return source.data_runs(begin, stop - begin) if begin < stop else iter(())


def _data_bytes(source: Source, begin: int, end: int) -> int:
    return sum(length for _, length in _runs(source, begin, end))


def _differing(left: Source, right: Source, begin: int, end: int) -> tuple[int, int] | None:
    """Return (offset, bytes up to the last differing one) within a gap, None for equal bytes."""
    chunks = sorted(
        {
            number
            for side in (left, right)
            for start, length in _runs(side, begin, end)
            for number in range(
                (start - begin) // CHUNK_BYTES, (start + length - 1 - begin) // CHUNK_BYTES + 1
            )
        }
    )
    first = last = -1
    for number in chunks:
        start = begin + number * CHUNK_BYTES
        size = min(CHUNK_BYTES, end - start)
        here, there = _padded(left, start, size), _padded(right, start, size)
        if here == there:
            continue
        marks = int.from_bytes(here, "big") ^ int.from_bytes(there, "big")
        if first < 0:
            first = start + size - (marks.bit_length() + 7) // 8
        last = start + size - 1 - ((marks & -marks).bit_length() - 1) // 8
    return None if first < 0 else (first, last - first + 1)


def _padded(source: Source, offset: int, length: int) -> bytes:
    there = min(max(source.size_bytes - offset, 0), length)
    return (source.read(offset, there) if there else b"").ljust(length, b"\0")


def _where(layout: Layout, offset: int) -> str:
    """Say in words where a byte lies that is of no part."""
    for (begin, length), words in layout.zones:
        if begin <= offset < begin + length:
            return words
    before = _nearest(layout.named, offset, ends=True)
    behind = _nearest(layout.named, offset, ends=False)
    if before and behind:
        return f"between {before} and {behind}"
    return f"behind {before}" if before else f"in front of {behind}" if behind else ""


def _nearest(named: Sequence[tuple[Piece, str]], offset: int, *, ends: bool) -> str:
    """Return the name of the piece that ends last before an offset, or begins first behind it."""
    if ends:
        return max(
            ((at + length, name) for (at, length), name in named if at + length <= offset),
            default=(0, ""),
        )[1]
    return min(((at, name) for (at, _), name in named if at > offset), default=(0, ""))[1]
