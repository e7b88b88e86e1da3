"""Taking the content of members: each byte hashed once, handed on where somebody wants it."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from local_imager.deliver.bundle.form.model import Piece
from local_imager.deliver.bundle.form.tarform import padding
from local_imager.deliver.bundle.reading.course import INDEX_PLACE, Course, Expected
from local_imager.deliver.bundle.reading.faults import Ended, FaultKind, FaultList
from local_imager.deliver.bundle.reading.partstream import PartStream
from local_imager.deliver.bundle.reading.reception import PieceSink, Reception
from local_imager.events import EventSink, Progress
from local_imager.oci.model import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

STEP: Final = "read"
_PROGRESS_BYTES: Final = 8 * 1024 * 1024
# Below this, telling another thread to hash costs more than hashing.
_ALONGSIDE_BYTES: Final = 128 * 1024


def ended_early(stream: PartStream, member: str, where: str, broken: int | None = None) -> Ended:
    """Say why the stream ended too soon: cut off, damaged in its compression, unreadable.

    ``broken`` is the place of the member whose content broke off.
    """
    if stream.filler.problem is not None:
        return Ended(*_with(member, stream.filler.problem), broken)
    text = f"the file is cut off at byte {stream.position}, {where}"
    return Ended("truncated", member, text, broken)


def _with(member: str, problem: tuple[FaultKind, str]) -> tuple[FaultKind, str, str]:
    return problem[0], member, problem[1]


class Taking:
    """The members that are at hand; knows which came right and when all documents went by."""

    def __init__(
        self,
        stream: PartStream,
        course: Course,
        reception: Reception,
        faults: FaultList,
        progress: tuple[EventSink, str],
    ) -> None:
        self._stream, self._course = stream, course
        self._reception, self._faults = reception, faults
        self._events, self._name = progress
        self._reported = 0
        self._pool: ThreadPoolExecutor | None = None
        self._documents_done = False
        self.seen = bytearray(len(course))
        self.intact: set[Digest] = set()
        self.segments: set[str] = set()
        self.pieces_seen = 0

    def take(self, place: int, *, deliver: bool) -> None:
        """Read the content of the member at this place; its header went by.

        One out of its order is hashed and not delivered. Raises :class:`Ended`.
        """
        self.seen[place] = 1
        if place >= self._course.documents_end:
            self.documents_over()
        expected = self._course.at(place)
        if expected.piece is None:
            right = self._take_small(place, expected, deliver)
        else:
            self.pieces_seen += 1
            sink = self._wanted(expected.piece) if deliver else None
            right = self._pour(place, expected, sink)
            if right and deliver:
                self._note(expected)
        if not right:
            self._faults.add(
                "bit-flip",
                expected.name,
                f"its bytes are not those that its digest names{self._course.purpose(place)}: "
                "damaged on the way, or changed",
                self._course.affects([place]),
            )
        self._take_padding(place, expected)

    def _wanted(self, piece: Piece) -> PieceSink | None:
        return self._reception.piece(self._course.bundle.by_digest[piece.blob], piece)

    def _note(self, expected: Expected) -> None:
        if expected.piece is None or not expected.piece.whole:
            self.segments.add(expected.name)
        else:
            self.intact.add(expected.digest)

    def _take_small(self, place: int, expected: Expected, deliver: bool) -> bool:
        kept = _Kept()
        right = self._pour(place, expected, kept)
        if right and deliver and place == INDEX_PLACE:
            self._reception.index(bytes(kept.data))
        return right

    def _pour(self, place: int, expected: Expected, sink: PieceSink | None) -> bool:
        """Hash the content, and write it to the sink, which is closed in any case."""
        hasher = hashlib.sha256()
        left = expected.size_bytes
        try:
            for view in self._stream.content(expected.size_bytes):
                left -= len(view)
                self._hash(hasher, view, sink)
                self._report()
            right = left == 0 and hasher.hexdigest() == expected.digest.hex
        except BaseException:
            if sink is not None:
                sink.close(False)
            raise
        if sink is not None:
            sink.close(right)
        if left:
            where = f"where {left} more bytes of this member have to be"
            raise ended_early(self._stream, expected.name, where, place)
        return right

    def _hash(self, hasher: _Hash, view: memoryview, sink: PieceSink | None) -> None:
        if sink is None or len(view) < _ALONGSIDE_BYTES:
            hasher.update(view)
            if sink is not None:
                sink.write(view)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        hashed = self._pool.submit(hasher.update, view)
        try:
            sink.write(view)
        finally:
            hashed.result()

    def _take_padding(self, place: int, expected: Expected) -> None:
        count = padding(expected.size_bytes)
        zeros = self._stream.read(count)
        if len(zeros) < count:
            raise ended_early(self._stream, expected.name, "right after this member", place)
        if zeros.count(0) != count:
            self._faults.add(
                "padding",
                expected.name,
                f"the {count} bytes that fill up its last block are not zeros: "
                "damaged, or something is hidden there",
                self._course.affects([place]),
            )

    def documents_over(self) -> None:
        """Tell, once, that no document comes any more."""
        if self._documents_done:
            return
        self._documents_done = True
        faulty = (d for _, d in self._course.documents() if d not in self.intact)
        self._reception.documents_done(frozenset(faulty))

    def _report(self) -> None:
        position = self._stream.position
        if position - self._reported >= _PROGRESS_BYTES:
            self._reported = position
            total = max(position, self._course.size_bytes)
            self._events.emit(Progress(STEP, self._name, position, total))

    def close(self) -> None:
        """End the hashing thread."""
        if self._pool is not None:
            self._pool.shutdown()


class _Kept:
    """Keeps what is small enough to be kept: its size was checked with the manifest."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data

    def close(self, intact: bool) -> None:
        pass
