"""What to say, and how to go on, when a header is not the one that must come.

A header that is wrong only in a few bytes is taken for the one expected; one that can be read is
named and passed over by the size that it states; else the stream is searched for the next header
of the manifest, whole and to the byte, so one damaged place does not hide the faults after it.
"""

from __future__ import annotations

from typing import Final

from local_imager.deliver.bundle.form.tarform import BLOCK, padding
from local_imager.deliver.bundle.reading.course import Course
from local_imager.deliver.bundle.reading.faults import Ended, FaultList
from local_imager.deliver.bundle.reading.partstream import CHUNK_BYTES, PartStream
from local_imager.deliver.bundle.reading.stray import (
    Stray,
    hostile,
    long_name,
    parse_stray,
    pax_overrides,
    slightly_damaged,
)
from local_imager.deliver.bundle.reading.taking import Taking, ended_early

MAX_STRAYS: Final = 10_000
MAX_EXTENDED_BYTES: Final = 64 * 1024
_MAX_SPARSE_BLOCKS: Final = 1000
_MAX_CANDIDATES: Final = 50_000
_MAGIC: Final = b"ustar\x0000"
_MAGIC_AT: Final = 257
ZEROS: Final = bytes(BLOCK)


class Astray:
    """Judges headers that were not expected; ``next`` is the place that was."""

    def __init__(
        self, stream: PartStream, course: Course, taking: Taking, faults: FaultList
    ) -> None:
        self._stream, self._course = stream, course
        self._taking, self._faults = taking, faults
        self._strays = 0
        self._candidates = 0
        # What an extended header says of the member after it.
        self._overrides: dict[str, str] = {}
        self._sparse = False

    @property
    def pending(self) -> bool:
        """Whether an extended header went by whose member has not come yet."""
        return bool(self._overrides) or self._sparse

    def judge(self, block: bytes, following: int) -> int:
        """Name what a block is and pass it over; return the place that must come next.

        Raises :class:`Ended` when there is nothing more to follow.
        """
        if len(block) < BLOCK:
            raise ended_early(self._stream, "", "where a header has to be")
        self._strays += 1
        if self._strays > MAX_STRAYS:
            raise Ended("count", "", f"it has more than {MAX_STRAYS} headers that do not belong")
        stray = parse_stray(block)
        if not stray.readable:
            return self._unreadable(block, following)
        if stray.extended:
            self._extended(stray)
            return following
        return self._member(stray, following)

    def _unreadable(self, block: bytes, following: int) -> int:
        if following < len(self._course):
            expected = self._course.at(following)
            if slightly_damaged(block, expected.header):
                self._faults.add(
                    "header",
                    expected.name,
                    f"its header is damaged ({parse_stray(block).differing(expected.header)})",
                    self._course.affects([following]),
                )
                self._taking.take(following, deliver=True)
                return following + 1
        what = "is empty" if block == ZEROS else "cannot be read"
        why = f"the header at byte {self._stream.position - BLOCK} {what}"
        blamed = following if following < len(self._course) else self._taking.seen.find(0)
        if blamed < 0:
            raise Ended("trailing", "", "more bytes follow where the end mark has to be")
        found = self._search(block, Ended("header", self._course.at(blamed).name, why, blamed))
        if found != blamed:
            self._taking.seen[blamed] = 1
        return following

    def _search(self, block: bytes, why: Ended) -> int:
        """Go on to the next header of the manifest, wherever it stands; return its place."""
        begin = self._stream.position - len(block)
        window = block[1:]
        while (found := self._find(window)) is None:
            more = self._stream.read(CHUNK_BYTES)
            if not more and self._stream.filler.problem is not None:
                raise ended_early(self._stream, why.untrusted_member, "", why.broken)
            if not more or self._stream.position > self._course.limit_bytes:
                text = f"{why.text}, and no header of this bundle follows"
                raise Ended(why.kind, why.untrusted_member, text, why.broken)
            window = window[-(BLOCK - 1) :] + more
        at, place = found
        self._stream.give_back(window[at:])
        passed = self._stream.position - begin
        self._faults.add(
            why.kind,
            why.untrusted_member,
            f"{why.text}; {passed} bytes were passed over",
            () if why.broken is None else self._course.affects([why.broken]),
        )
        return place

    def _find(self, window: bytes) -> tuple[int, int] | None:
        """Return where a header of the manifest stands whole in these bytes, and its place."""
        at = window.find(_MAGIC, _MAGIC_AT)
        while at >= 0:
            begin = at - _MAGIC_AT
            block = window[begin : begin + BLOCK]
            if len(block) == BLOCK:
                self._candidates += 1
                if self._candidates > _MAX_CANDIDATES:
                    raise Ended("count", "", "it has headers without number that do not belong")
                place = self._course.place_of(parse_stray(block).untrusted_name)
                if place is not None and self._course.at(place).header == block:
                    return begin, place
            at = window.find(_MAGIC, at + 1)
        return None

    def _extended(self, stray: Stray) -> None:
        """Read what a pax or GNU header says of the next member: others would believe it."""
        size = stray.size_bytes
        member = stray.untrusted_name
        text = "an extended header (pax or GNU) stands before a member; a bundle has none"
        if size is None or size > MAX_EXTENDED_BYTES:
            self._faults.add("count", member, f"{text}, and this one states {size} bytes")
            self._pass_over(stray, size)
            return
        data = self._stream.read(size)
        self._stream.read(padding(size))
        if stray.type_flag in (b"x", b"X"):
            found, self._sparse = pax_overrides(data)
            self._overrides.update(found)
        elif stray.type_flag == b"L":
            self._overrides["path"] = long_name(data)
        self._faults.add("sparse" if self._sparse else "header", member, text)

    def _named(self, stray: Stray) -> tuple[str, int | None]:
        name = self._overrides.pop("path", None) or stray.untrusted_name
        size, told = stray.content_bytes, self._overrides.pop("size", "")
        if told:
            size = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None
        return name, size

    def _member(self, stray: Stray, following: int) -> int:
        """A header that other programs would follow: name what is wrong with it."""
        sparse, self._sparse = self._sparse or stray.old_sparse, False
        name, size = self._named(stray)
        place = self._course.place_of(name)
        taken = place is not None and bool(self._taking.seen[place])
        plain = stray.regular and not sparse
        why = hostile(name)
        affects = () if place is None else self._course.affects([place])
        front = self._course.in_front(name)
        if why:
            self._faults.add("hostile-path", name, f"its name {why}")
        if not plain:
            kind, text = stray.what(sparse=sparse)
            self._faults.add(kind, name, f"it {text}; a bundle holds plain files only", affects)
        if taken or front:
            affects = self._course.everything if front else affects
            self._faults.add("duplicate", name, "the name is there twice", affects)
        elif place is None and plain and not why:
            self._faults.add("extra", name, "the manifest names no such file")
        if plain and place is not None and not taken:
            return self._known(stray, place, size, following)
        if place is not None:
            self._taking.seen[place] = 1
        self._pass_over(stray, size)
        return following if place is None or place < following else place + 1

    def _known(self, stray: Stray, place: int, size: int | None, following: int) -> int:
        """A plain member of the manifest, but not where or not as it has to be."""
        expected, affects = self._course.at(place), self._course.affects([place])
        if place < following:
            self._faults.add("wrong-order", expected.name, "it comes later than it has to", affects)
        if size != expected.size_bytes:
            stated = f"it states {'no size' if size is None else f'{size} bytes'}"
            text = f"{stated}, and the manifest {expected.size_bytes}"
            self._faults.add("header", expected.name, text, affects)
            self._taking.seen[place] = 1
            self._pass_over(stray, size)
        else:
            if stray.block != expected.header:
                fields = stray.differing(expected.header)
                text = f"its header is another than a bundle's ({fields}); nothing may hide there"
                self._faults.add("header", expected.name, text, affects)
            self._taking.take(place, deliver=place >= following)
        return max(following, place + 1)

    def _pass_over(self, stray: Stray, size: int | None) -> None:
        """Read over a content by its stated size, if a file of this kind can have it at all."""
        if stray.old_sparse:
            self._pass_sparse_map(stray)
        left = self._course.limit_bytes - self._stream.position
        if size is None or size > left:
            told = "a size that is no number" if size is None else f"{size} bytes"
            text = f"its header states {told}, more than the whole file has"
            self._search(b"", Ended("count", stray.untrusted_name, text))
            return
        total = size + padding(size)
        passed = sum(len(view) for view in self._stream.content(total))
        if passed < total:
            raise ended_early(self._stream, stray.untrusted_name, "in a file that does not belong")

    def _pass_sparse_map(self, stray: Stray) -> None:
        more = stray.block[482]
        for _ in range(_MAX_SPARSE_BLOCKS):
            if not more:
                return
            block = self._stream.read(BLOCK)
            more = block[504] if len(block) == BLOCK else 0
