"""From the layout's marker to the end of a part: every member once, in order, and then nothing."""

from __future__ import annotations

from local_imager.deliver.bundle.form.tarform import BLOCK
from local_imager.deliver.bundle.reading.astray import ZEROS, Astray
from local_imager.deliver.bundle.reading.course import Course
from local_imager.deliver.bundle.reading.faults import Ended, FaultList
from local_imager.deliver.bundle.reading.partstream import CHUNK_BYTES, PartStream
from local_imager.deliver.bundle.reading.stray import slightly_damaged
from local_imager.deliver.bundle.reading.taking import Taking, ended_early


class Walk:
    """One pass over the members of a part."""

    def __init__(
        self, stream: PartStream, course: Course, taking: Taking, faults: FaultList
    ) -> None:
        self._stream, self._course = stream, course
        self._taking, self._faults = taking, faults
        self._next = 0

    def run(self) -> None:
        """Go to the end; every fault is in the list then, and all documents were told over."""
        try:
            self._members()
            self._missing(len(self._course))
            self._end()
        except Ended as end:
            self._missing(self._next)
            self._broken_off(end)
        self._taking.documents_over()

    def _broken_off(self, end: Ended) -> None:
        """One fault for all that did not come: a list of what was never reached helps nobody."""
        rest = [p for p in range(self._next, len(self._course)) if not self._taking.seen[p]]
        touched = rest if end.broken is None else [end.broken, *rest]
        text = end.text
        if rest:
            text += (
                f"; {len(rest)} of the {len(self._course)} members that have to come are missing"
            )
        self._faults.add(end.kind, end.untrusted_member, text, self._course.affects(touched))

    def _members(self) -> None:
        astray = Astray(self._stream, self._course, self._taking, self._faults)
        while True:
            block = self._stream.read(BLOCK)
            if self._next < len(self._course):
                if block == self._course.at(self._next).header and not astray.pending:
                    self._taking.take(self._next, deliver=True)
                    self._next += 1
                    continue
            elif slightly_damaged(block.ljust(BLOCK, b"\1"), ZEROS):
                self._stream.give_back(block)
                return
            if block == ZEROS and self._at_end():
                self._stream.give_back(block)
                return
            self._next = astray.judge(block, self._next)

    def _at_end(self) -> bool:
        """Say whether an empty block where a header has to be is the end mark of a short file."""
        return len(self._stream.peek(2 * BLOCK)) <= BLOCK

    def _missing(self, end: int) -> None:
        for place in range(end):
            if not self._taking.seen[place]:
                affects = () if self._faults.full else self._course.affects([place])
                text = f"it is not there{self._course.purpose(place)}"
                self._faults.add("missing", self._course.at(place).name, text, affects)

    def _end(self) -> None:
        """Two empty blocks, then nothing."""
        mark = self._stream.read(2 * BLOCK)
        if len(mark) < 2 * BLOCK:
            raise ended_early(self._stream, "", "in its end mark")
        if any(mark):
            self._faults.add("trailing", "", "the end mark is damaged: it has to be empty blocks")
        rest = self._stream.read(CHUNK_BYTES)
        if rest:
            what = "zeros" if rest.count(0) == len(rest) else "bytes"
            count = f"{len(rest)}" if len(rest) < CHUNK_BYTES else f"more than {CHUNK_BYTES}"
            text = f"{count} {what} follow after the end mark, where nothing may be"
            self._faults.add("trailing", "", text)
        elif self._stream.filler.problem is not None:
            kind, text = self._stream.filler.problem
            self._faults.add(kind, "", text)
