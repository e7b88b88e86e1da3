"""Reading a part of a bundle as a stream: once, in bounded memory, every fault named."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from local_imager.deliver.bundle.reception import LookOnly, PartReading, PieceSink, Reception
from local_imager.events import EventSink

__all__ = ["LookOnly", "PartReading", "PieceSink", "Reception", "open_part", "read_part"]


@contextlib.contextmanager
def open_part(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a part to be read once; ``-`` is standard input. Raises :class:`InputError`."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    raise NotImplementedError


def read_part(stream: BinaryIO, name: str, reception: Reception, sink: EventSink) -> PartReading:
    """Read one part to its end and return what was found; the stream is never sought in.

    ``name`` is what messages call the file. Faults are values, not exceptions: reading goes on
    after each wherever the stream can be followed. Raises :class:`InputError` (not-a-bundle) for
    what is no bundle at all, and whatever the reception raises.
    """
    raise NotImplementedError
