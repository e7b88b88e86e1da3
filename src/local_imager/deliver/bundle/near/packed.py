"""Compressing a bundle with zstd so that the same bytes come out each time."""

from __future__ import annotations

from typing import Final

import zstandard

from local_imager.deliver.bundle.near.pump import Write
from local_imager.deliver.bundle.reading.packing import MAX_RATIO, RATIO_FREE_BYTES
from local_imager.errors import InputError

# Layers are compressed already; more effort would cost time and win next to nothing.
LEVEL: Final = 3
# With workers the frame is cut into jobs of a fixed size, so their number does not show in it; a
# frame made without any is another one.
_THREADS: Final = 2
# Several jobs wait in memory, packed and not; left to itself zstd takes 8 MiB for each.
_JOB_BYTES: Final = 2 * 1024**2
_MAX_HEADER_BYTES: Final = 18
_BLOCK_HEADER_BYTES: Final = 3
_MAX_BLOCK_BYTES: Final = 128 * 1024
_RAW: Final = 0
_RLE: Final = 1


class Packed:
    """Takes the bytes of a tar and hands on those of one zstd frame."""

    def __init__(self, write: Write, size_bytes: int) -> None:
        """``size_bytes`` is what will come in all; it is written into the frame's header."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            threads=_THREADS,
            job_size=_JOB_BYTES,
            write_checksum=True,
            write_content_size=True,
        )
        self._write, self._ratio = write, _Ratio()
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._frame = compressor.compressobj(size=size_bytes)

    def write(self, data: memoryview) -> None:
        """Compress the next bytes; raises :class:`InputError` (``ratio``), see :class:`_Ratio`."""
        packed = self._frame.compress(data)
        if packed:
            self._put(packed)

    def end(self) -> None:
        """Write the end of the frame."""
        self._put(self._frame.flush())

    def _put(self, packed: bytes) -> None:
        self._ratio.add(packed)
        self._write(memoryview(packed))


class _Ratio:
    """Walks the blocks of a frame and refuses what a reader would take for a bomb.

    Each block counts as the most that it can unpack to, so whatever passes is read. Rule: RFC 8878,
    sections 3.1.1.1 (frame header) and 3.1.1.2 (blocks).
    """

    def __init__(self) -> None:
        self._held, self._skip = b"", 0
        self._begun = self._ended = False
        self._packed_bytes = self._unpacked_bytes = 0

    def add(self, data: bytes) -> None:
        """Look at the next bytes of the frame; raises :class:`InputError` (``ratio``)."""
        held, at = self._held + data, self._skip
        if not self._begun:
            if len(held) < _MAX_HEADER_BYTES:
                self._held = held
                return
            self._begun, at = True, _header_bytes(held[4])
        while at + _BLOCK_HEADER_BYTES <= len(held) and not self._ended:
            number = int.from_bytes(held[at : at + _BLOCK_HEADER_BYTES], "little")
            self._ended, kind, size_bytes = bool(number & 1), number >> 1 & 3, number >> 3
            at += _BLOCK_HEADER_BYTES + (1 if kind == _RLE else size_bytes)
            self._unpacked_bytes += size_bytes if kind in (_RAW, _RLE) else _MAX_BLOCK_BYTES
            self._check(self._packed_bytes + at)
        self._packed_bytes += min(at, len(held))
        self._held, self._skip = held[at:], max(0, at - len(held))

    def _check(self, packed_bytes: int) -> None:
        total = self._unpacked_bytes
        if total > RATIO_FREE_BYTES and total > MAX_RATIO * packed_bytes:
            raise InputError(
                "the bundle begins with so much that packs to next to nothing that whoever reads "
                "it would take it for a decompression bomb",
                hint="leave --zstd out: layers are compressed already",
                code="ratio",
            )


def _header_bytes(descriptor: int) -> int:
    single = bool(descriptor & 0x20)
    size_bytes = (0, 2, 4, 8)[descriptor >> 6] or int(single)
    return 5 + int(not single) + size_bytes
