"""Reading a part of a bundle as a stream: once, in bounded memory, every fault named."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from local_imager.deliver.bundle.reading.course import Course
from local_imager.deliver.bundle.reading.faults import Ended, FaultList
from local_imager.deliver.bundle.reading.front import Front, read_front
from local_imager.deliver.bundle.reading.packing import filler_for
from local_imager.deliver.bundle.reading.partstream import PartStream
from local_imager.deliver.bundle.reading.reception import (
    LookOnly,
    PartReading,
    PieceSink,
    Reception,
)
from local_imager.deliver.bundle.reading.taking import STEP, Taking
from local_imager.deliver.bundle.reading.walk import Walk
from local_imager.errors import InputError
from local_imager.events import EventSink, printable, step
from local_imager.oci.blobs import open_regular
from local_imager.oci.model import Digest

__all__ = ["LookOnly", "PartReading", "PieceSink", "Reception", "open_part", "read_part"]

STANDARD_INPUT = "-"


@contextlib.contextmanager
def open_part(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a part to be read once; ``-`` is standard input. Raises :class:`InputError`."""
    if str(path) == STANDARD_INPUT:
        # Without the buffer of the standard library, whose lock a thread that waits would hold.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
            yield cast(BinaryIO, stream)
        return
    try:
        handle = _open(Path(path))
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{printable(str(path))} cannot be read: {why}") from error
    with open(handle, "rb", buffering=0) as stream:
        yield cast(BinaryIO, stream)


def _open(path: Path) -> int:
    """A file, or what a shell makes of ``<(…)``; a folder or a device is no bundle."""
    if path.is_fifo():
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    handle = open_regular(path.resolve(strict=True))
    with contextlib.suppress(OSError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return handle


def read_part(stream: BinaryIO, name: str, reception: Reception, sink: EventSink) -> PartReading:
    """Read one part to its end and return what was found; the stream is never sought in.

    ``name`` is what messages call the file. Faults are values, not exceptions: reading goes on
    after each wherever the stream can be followed. The reception is told nothing of a part whose
    manifest or label is damaged. Raises :class:`InputError` (not-a-bundle) for what is no bundle
    at all, and whatever the reception raises.
    """
    with step(sink, STEP, name):
        part = PartStream(filler_for(stream, name))
        try:
            return _read(part, name, reception, sink)
        finally:
            part.close()


def _read(part: PartStream, name: str, reception: Reception, sink: EventSink) -> PartReading:
    faults = FaultList()
    front, taking = None, None
    try:
        front = read_front(part, name, faults)
    except Ended as end:
        faults.add(end.kind, end.untrusted_member, end.text)
    if front is not None and front.label is not None:
        if front.sound:
            reception.opened(front.bundle, front.label, front.manifest)
        wanted = reception if front.sound else LookOnly()
        course = Course(front.bundle, front.label.number, len(front.manifest))
        taking = Taking(part, course, wanted, faults, (sink, name))
        try:
            Walk(part, course, taking, faults).run()
        finally:
            taking.close()
    return _reading(part, front, taking, faults)


def _reading(
    part: PartStream, front: Front | None, taking: Taking | None, faults: FaultList
) -> PartReading:
    return PartReading(
        front.label if front else None,
        front.bundle if front else None,
        Digest.of(front.manifest) if front else None,
        tuple(faults.kept),
        frozenset(taking.intact) if taking else frozenset(),
        frozenset(taking.segments) if taking else frozenset(),
        taking.pieces_seen if taking else 0,
        part.filler.packed_bytes,
        faults.more,
    )
