"""Ceilings of one inspection; they count parts and bytes, never time, so results repeat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.formats.charges import metered
from local_imager.formats.source import CHUNK_BYTES, FormatError

Digests = Literal["meaning", "parts", "content", "all"]
"""How much is hashed: what the meaning needs; every part but the largest; these too, but by what of
them is no zero, as a comparison needs it; everything."""

_GIB = 1 << 30
_ZEROS = bytes(CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one inspection may cost.

    ``parts`` is a count, ``depth`` of parts (and directories) within parts. ``stream_bytes`` bounds
    what one stream unpacks to, ``unpacked_bytes`` all of them together, ``written_bytes`` what of
    them is not zero, for that lies on the disk meanwhile. The largest image that Talos makes has a
    disk of 8 GiB, nearly all of it zeros; a whole installer has far fewer parts. ``hashed_bytes``
    bounds what is hashed, for many parts can claim the same bytes, and ``rest_bytes`` what is read
    outside of all parts: a disk may be all gaps, which lead to the same bytes again.
    ``packed_work`` bounds the unpacking of files in packed file systems, and of lz4: in bytes,
    where those of slow formats count more (:mod:`local_imager.formats.charges`). Of all texts
    together ``text_bytes`` of memory are kept, and what comes later has none.
    """

    parts: int = 60_000
    depth: int = 64
    stream_bytes: int = 32 * _GIB
    unpacked_bytes: int = 48 * _GIB
    written_bytes: int = 12 * _GIB
    hashed_bytes: int = 64 * _GIB
    rest_bytes: int = 8 * _GIB
    packed_work: int = 8 * _GIB
    text_bytes: int = 16 << 20


class Spent:
    """Counts what an inspection has cost; every charge over a limit is a :class:`FormatError`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.parts = 0
        self.unpacked_bytes = 0
        self.written_bytes = 0
        self.text_bytes = 0
        self.hashed_bytes = 0
        self.rest_bytes = 0
        self.packed_work = 0

    def may_hash(self, size_bytes: int) -> bool:
        """Charge the hashing of a part, or say that there is no room for it."""
        if self.hashed_bytes + size_bytes > self.limits.hashed_bytes:
            return False
        self.hashed_bytes += size_bytes
        return True

    def read_rest(self, size_bytes: int) -> None:
        """Charge the reading of bytes that no part shows."""
        self.rest_bytes += size_bytes
        if self.rest_bytes > self.limits.rest_bytes:
            raise OutOfBudget(f"more than {self.limits.rest_bytes} bytes lie outside of its parts")

    def unpack(self, work: int) -> None:
        """Charge the work of unpacking; one file too much is not read, the others stay."""
        self.packed_work += work
        if self.packed_work > self.limits.packed_work:
            raise FormatError("unpacking all of the file would take more work than is allowed")

    def kept(self, text: str | None) -> str | None:
        """Return the text of a part, or None when those kept already are enough."""
        size = 0 if text is None else _memory_bytes(text)
        if self.text_bytes + size > self.limits.text_bytes:
            return None
        self.text_bytes += size
        return text

    def count_parts(self, number: int = 1) -> None:
        """Charge parts of the tree."""
        self.parts += number
        if self.parts > self.limits.parts:
            raise OutOfBudget(f"it has more than {self.limits.parts} parts")

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a stream on, charging what it unpacks to."""
        own = 0
        for chunk in chunks:
            size = len(chunk)
            own += size
            self.unpacked_bytes += size
            if own > self.limits.stream_bytes or self.unpacked_bytes > self.limits.unpacked_bytes:
                raise OutOfBudget(f"it unpacks to more than {min(own, self.unpacked_bytes)} bytes")
            if size > len(_ZEROS) or chunk != _ZEROS[:size]:
                self.written_bytes += size
                if self.written_bytes > self.limits.written_bytes:
                    raise OutOfBudget(f"it unpacks to more than {self.written_bytes} bytes of data")
            yield chunk


# The inspection that runs in this thread. Whoever reads what lies between parts is deep in a
# reader, and must not be able to forget the charge.
_CURRENT: Final[ContextVar[Spent | None]] = ContextVar("inspection", default=None)


@contextmanager
def charging(spent: Spent) -> Iterator[None]:
    """Let :func:`charge_rest` and what unpacks charge this inspection meanwhile."""
    token = _CURRENT.set(spent)
    try:
        with metered(spent.unpack):
            yield
    finally:
        _CURRENT.reset(token)


def charge_rest(size_bytes: int) -> None:
    """Charge the running inspection, if one runs; see :meth:`Spent.read_rest`."""
    spent = _CURRENT.get()
    if spent is not None:
        spent.read_rest(size_bytes)


def _memory_bytes(text: str) -> int:
    """Return what a text takes at most: one wide character makes all of them wide."""
    return len(text) if text.isascii() else 4 * len(text)


class OutOfBudget(FormatError):
    """The file asks for more work than any real one does; ends the whole inspection."""

    code = "inspect-limit"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="no real boot file is like this; it may be a bomb")
