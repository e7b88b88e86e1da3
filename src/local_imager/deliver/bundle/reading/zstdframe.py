"""Walking the one zstd frame of a compressed bundle, block by block, before it is unpacked.

A decompressor alone takes whatever comes: more frames, frames to be skipped, windows of any size.
The walk hands on the bytes of one plain frame and stops at its end, so what follows is seen.
Rule: RFC 8878, sections 3.1.1 (frames) and 3.1.1.2 (blocks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAGIC: Final = b"\x28\xb5\x2f\xfd"
# Level 19 takes 8 MiB and `--long` asks for 128: more than a reader of bounded memory has.
MAX_WINDOW_BYTES: Final = 64 * 1024 * 1024
_GATHER_BYTES: Final = 128 * 1024
# A compressor fills its blocks; empty ones without end would only cost time.
_LEAST_BLOCK_BYTES: Final = 256
_FREE_BLOCKS: Final = 10_000
_CONTENT_SIZE_BYTES: Final = (0, 2, 4, 8)
_RLE: Final = 1
_RESERVED: Final = 3


class BadFrame(Exception):
    """The bytes are no frame that is read here; the text says why."""


class FrameBytes:
    """The bytes of one frame, as a file that is read once: empty bytes are its end."""

    def __init__(self, take: Callable[[int], bytes]) -> None:
        """``take`` returns exactly so many bytes of the file, fewer only at its end."""
        self._take = take
        self._begun = self._last = False
        self._has_checksum = False
        self._blocks = 0
        self.packed_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the whole frame was handed on."""
        return self._last

    def read(self, _size: int = -1) -> bytes:
        """Return some whole blocks; raises :class:`BadFrame`."""
        gathered = bytearray()
        if not self._begun:
            self._begun = True
            gathered += self._header()
        while not self._last and len(gathered) < _GATHER_BYTES:
            gathered += self._block()
        self.packed_bytes += len(gathered)
        return bytes(gathered)

    def _exactly(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) != count:
            raise BadFrame("the compressed bytes end in the middle")
        return data

    def _header(self) -> bytes:
        front = self._exactly(5)
        if front[:4] != MAGIC:
            raise BadFrame("the compressed bytes do not begin as zstd")
        descriptor = front[4]
        single = bool(descriptor & 0x20)
        if descriptor & 0x18 or descriptor & 0x03:
            raise BadFrame("the zstd header has a dictionary or bits that mean nothing")
        self._has_checksum = bool(descriptor & 0x04)
        size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or int(single)
        window = b"" if single else self._exactly(1)
        content = self._exactly(size_bytes)
        if single:
            wanted = int.from_bytes(content, "little") + (256 if size_bytes == 2 else 0)
        else:
            base = 1 << (10 + (window[0] >> 3))
            wanted = base + (base >> 3) * (window[0] & 7)
        if wanted > MAX_WINDOW_BYTES:
            raise BadFrame(f"unpacking it takes a window of {wanted} bytes of memory")
        return front + window + content

    def _block(self) -> bytes:
        header = self._exactly(3)
        number = int.from_bytes(header, "little")
        kind, size_bytes = number >> 1 & 3, number >> 3
        if kind == _RESERVED:
            raise BadFrame("a compressed block is of no known kind")
        self._last = bool(number & 1)
        self._blocks += 1
        if self._blocks > _FREE_BLOCKS + self.packed_bytes // _LEAST_BLOCK_BYTES and kind != _RLE:
            raise BadFrame("it is made of blocks that hold next to nothing")
        checksum = 4 if self._last and self._has_checksum else 0
        return header + self._exactly((1 if kind == _RLE else size_bytes) + checksum)
