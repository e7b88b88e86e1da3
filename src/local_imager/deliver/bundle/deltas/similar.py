"""How much two contents resemble each other, and where: from marks that the content itself sets.

A mark is a place where three bytes come together that are rare together; what it is called is the
checksum of what follows. The same run of bytes has the same marks wherever it lies, so files that
moved are found again, and only a regular expression (in C) looks at every byte.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

# Of bytes that are all equally frequent one place in 11,000; of programs and text one in 400. No
# zero among the first: most of a disk image is zeros, and they say nothing.
_ANCHOR: Final = re.compile(
    rb"[\x04\x2d\x48\x65\x72\x8b\xc3\xe8][\x08\x24\x41\x61\x89\xb4\xd1\xf6]"
    rb"[\x00\x0f\x10\x20\x31\x38\x45\x4c\x50\x54\x5d\x63\x69\x6e\x74\x78\x83\x85\x90\xa0\xb8\xc7\xe0]"
)
_MARK_BYTES: Final = 32
# One mark in 32 KiB of a GiB; about 4 MB of memory.
MAX_MARKS: Final = 32_768


def marks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marks of a run of bytes as ``(name, offset)``; the name is a 32-bit number."""
    last = len(data) - _MARK_BYTES
    for match in _ANCHOR.finditer(data):
        offset = match.start()
        if offset > last:
            return
        yield zlib.crc32(data[offset : offset + _MARK_BYTES]), offset


@dataclass(frozen=True, slots=True)
class Sample:
    """Some marks of a content and where they first stand.

    Only names that ``step`` divides are kept, so two samples agree on which marks they leave out.
    """

    places: dict[int, int]
    step: int
    size_bytes: int

    def place(self, name: int) -> int | None:
        """Return where a mark stands, None when it is not there (or was left out)."""
        return self.places.get(name) if name % self.step == 0 else None

    def share_in(self, other: Sample) -> float:
        """Return which part of this content's marks the other one has too, from 0 to 1."""
        step = max(self.step, other.step)
        names = [name for name in self.places if name % step == 0]
        return sum(name in other.places for name in names) / len(names) if names else 0.0


def take_sample(chunks: Iterable[bytes]) -> Sample:
    """Read a content once and return its sample; memory is bounded whatever its size."""
    places: dict[int, int] = {}
    step, position, rest = 1, 0, b""
    for chunk in chunks:
        data = rest + chunk
        for name, offset in marks(data):
            if name % step == 0:
                places.setdefault(name, position + offset)
        while len(places) > MAX_MARKS:
            step *= 2
            places = {name: place for name, place in places.items() if name % step == 0}
        # A mark that begins in the last bytes is seen with the next chunk.
        keep = min(len(data), _MARK_BYTES - 1)
        position += len(data) - keep
        rest = data[len(data) - keep :]
    return Sample(places, step, position + len(rest))


def best_range(window: bytes, base: Sample, size_bytes: int) -> tuple[int, int]:
    """Return the range of the base (offset, size) that has most marks of a window.

    It is at most ``size_bytes`` long, and ``(0, 0)`` when the base has none of them.
    """
    found = (base.place(name) for name, _ in marks(window))
    places = sorted({place for place in found if place is not None})
    if not places:
        return 0, 0
    best, first, last = 0, 0, 0
    begin = 0
    for end, place in enumerate(places):
        while place - places[begin] >= size_bytes:
            begin += 1
        if end - begin + 1 > best:
            best, first, last = end - begin + 1, places[begin], place
    middle = (first + last) // 2
    length = min(size_bytes, base.size_bytes)
    offset = max(0, min(middle - length // 2, base.size_bytes - length))
    return offset, length
