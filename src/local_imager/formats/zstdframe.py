"""Where a zstd frame ends, and what is in it (RFC 8878, section 3.1).

The library does not say how much of its input a frame took, so the blocks are walked here while
they are handed to it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from local_imager.formats.source import CHUNK_BYTES, FormatError, Source

# zstd --ultra -22 needs 128 MiB; a frame may ask for terabytes.
_MAX_WINDOW_BYTES: Final = 128 << 20
_MAX_BLOCK_BYTES: Final = 128 << 10
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_RLE, _RESERVED = 1, 3
# Reads grow from small to large: many short frames are no more work than one long frame.
_FIRST_READ_BYTES: Final = 4 << 10
_LARGEST_READ_BYTES: Final = 2 * CHUNK_BYTES
# A frame of blocks that hold next to nothing; a disk of 512 GiB has as many whole ones.
_MAX_BLOCKS: Final = 1 << 22


class _Frame:
    """The bytes of one frame, as a file that the library reads from."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source, self._position = source, offset
        self._buffer, self._buffered = b"", offset
        self._open, self._window, self._blocks = True, _FIRST_READ_BYTES, 0
        descriptor = self._peek(5)[4]
        single, dictionary = bool(descriptor & 0x20), (0, 1, 2, 4)[descriptor & 3]
        content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
        self._header_bytes = 5 + (not single) + dictionary + content
        self._has_checksum = bool(descriptor & 4)

    @property
    def end(self) -> int:
        """Where the frame ends, once everything was read."""
        if self._open:
            raise FormatError("a zstd frame ends before its blocks do")
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return some bytes of the frame, none at its end."""
        taken = bytearray()
        if self._header_bytes:
            taken += self._take(self._header_bytes)
            self._header_bytes = 0
        while self._open and (size < 0 or len(taken) + _MAX_BLOCK_BYTES + 3 <= size or not taken):
            self._block(taken)
        return bytes(taken)

    def _block(self, taken: bytearray) -> None:
        self._blocks += 1
        if self._blocks > _MAX_BLOCKS:
            raise FormatError(f"a zstd frame has more than {_MAX_BLOCKS} blocks")
        head = int.from_bytes(self._peek(3), "little")
        kind, length = head >> 1 & 3, head >> 3
        if kind == _RESERVED or (kind != _RLE and length > _MAX_BLOCK_BYTES):
            raise FormatError("a zstd block breaks the rules of its format")
        taken += self._take(3 + (1 if kind == _RLE else length))
        if head & 1:
            self._open = False
            if self._has_checksum:
                taken += self._take(4)

    def _peek(self, count: int) -> bytes:
        begin = self._position - self._buffered
        if begin + count > len(self._buffer):
            left = self._source.size_bytes - self._position
            size = max(self._window, count)
            self._buffer = self._source.read(self._position, max(min(left, size), 0))
            self._window = min(2 * self._window, _LARGEST_READ_BYTES)
            self._buffered, begin = self._position, 0
            if count > len(self._buffer):
                raise FormatError("the file ends inside of a compressed stream")
        return self._buffer[begin : begin + count]

    def _take(self, count: int) -> bytes:
        data = self._peek(count)
        self._position += count
        return data


def unpack_frame(source: Source, offset: int) -> Generator[bytes, None, int]:
    """Yield what one zstd frame holds; returns the offset after it.

    A skippable frame holds nothing. Raises :class:`FormatError` for a damaged one.
    """
    import zstandard

    head = source.read(offset, min(8, source.size_bytes - offset))
    if head[:4] != _MAGIC:
        end = offset + 8 + int.from_bytes(head[4:8], "little")
        if len(head) < 8 or end > source.size_bytes:
            raise FormatError("the file ends inside of a compressed stream")
        return end
    frame = _Frame(source, offset)
    engine = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    try:
        with engine.stream_reader(
            frame,  # type: ignore[arg-type]
            read_size=2 * _MAX_BLOCK_BYTES,
            read_across_frames=False,
            closefd=False,
        ) as reader:
            while piece := reader.read(CHUNK_BYTES):
                yield piece
    except zstandard.ZstdError as error:
        raise FormatError(f"the zstd stream is damaged: {error}") from error
    return frame.end
