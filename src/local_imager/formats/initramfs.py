"""An initramfs: cpio archives one after the other, each plain or packed, zeros between them.

The kernel (``init/initramfs.c``) unpacks them in order, later ones over earlier ones. Talos' imager
puts plain archives (CPU microcode) before its own segment and the extensions behind it, packed with
zstd from v1.8 on and with xz before (``pkg/imager/extensions/rebuild.go``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from local_imager.formats.cpio import CpioEntry, CpioReading, pass_archive
from local_imager.formats.packing import (
    HEAD_BYTES,
    PackedStream,
    Packing,
    after_zeros,
    packing_of,
    unpack_one,
    xz_check_of,
)
from local_imager.formats.source import FormatError, Source, stream

T = TypeVar("T")

# All of an initramfs is held in memory by the machine that boots it.
MAX_UNPACKED_BYTES: Final = 16 << 30
_MAX_SEGMENTS: Final = 1000


class InitramfsSegment:
    """One archive of an initramfs, read as it passes: either :meth:`entries` or :meth:`unpacked`.

    ``number`` counts from 1, ``offset`` is where it begins in the file, ``packing`` how it is
    packed ("" for plain), ``xz_check`` the check of an xz stream (the kernel knows ``crc32``).
    :attr:`size_bytes` is known at the end: asking for it reads what was left.
    """

    def __init__(self, source: Source, number: int, offset: int, max_bytes: int) -> None:
        self._source, self.number, self.offset = source, number, offset
        head = source.read(offset, min(HEAD_BYTES, source.size_bytes - offset))
        self.packing: Packing = packing_of(head)
        self.xz_check = xz_check_of(head) if self.packing == "xz" else ""
        if not self.packing and not head.startswith(b"07070"):
            raise FormatError(f"neither an archive nor a packed one begins at byte {offset}")
        if not self.packing and offset % 4:
            raise FormatError(f"a plain archive begins at byte {offset}, not at a multiple of 4")
        self._packed: PackedStream | None = None
        if self.packing:
            self._packed = unpack_one(source, offset, max_bytes=max_bytes)
        self._passing: Iterator[object] | None = None
        self._unpacked_bytes = 0
        self._done = False

    def unpacked(self) -> Iterator[bytes]:
        """Yield the bytes of the archive; for a plain one up to the end of its trailer."""
        return self._begin(self._counted(pass_archive(self._plain()) if not self._packed else None))

    def entries(self) -> Iterator[CpioEntry]:
        """Yield what the archive holds; a packed segment may hold several archives."""
        return self._begin(self._read())

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes in the file, without the zeros that follow."""
        self._drain()
        if self._packed is not None:
            return self._packed.end - self.offset
        return self._unpacked_bytes

    @property
    def unpacked_bytes(self) -> int:
        """How long the archive is when it is not packed."""
        self._drain()
        return self._unpacked_bytes

    def _plain(self) -> Iterator[bytes]:
        return stream(self._source, self.offset, self._source.size_bytes - self.offset)

    def _counted(self, chunks: Iterator[bytes] | None) -> Iterator[bytes]:
        """Pass the pieces on and count them; the packed stream where there are none."""
        for piece in chunks if chunks is not None else self._packed or ():
            self._unpacked_bytes += len(piece)
            yield piece
        self._done = True

    def _read(self) -> Iterator[CpioEntry]:
        if self._packed is not None:
            yield from CpioReading(self._counted(None))
        else:
            reading = CpioReading(self._plain(), several=False)
            yield from reading
            self._unpacked_bytes = reading.end
        self._done = True

    def _begin(self, passing: Iterator[T]) -> Iterator[T]:
        if self._passing is not None:
            raise ValueError("a segment is read once")
        self._passing = passing
        return passing

    def _drain(self) -> None:
        if self._passing is None:
            self.entries()
        for _ in self._passing or ():
            pass
        if not self._done:
            raise FormatError("the segment was not read to its end")


def segments(source: Source, *, max_bytes: int = MAX_UNPACKED_BYTES) -> Iterator[InitramfsSegment]:
    """Yield the segments of an initramfs in order; what is not read of one is read over.

    Raises :class:`FormatError` for damage, for bytes between segments that are not zeros, and for
    one that unpacks to more than ``max_bytes``.
    """
    position, number = after_zeros(source, 0), 0
    if position == source.size_bytes:
        raise FormatError("there is no archive in it, only zeros")
    while position < source.size_bytes:
        number += 1
        if number > _MAX_SEGMENTS:
            raise FormatError(f"an initramfs of more than {_MAX_SEGMENTS} segments")
        segment = InitramfsSegment(source, number, position, max_bytes)
        yield segment
        position = after_zeros(source, position + segment.size_bytes)
