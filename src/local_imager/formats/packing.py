"""Compressed streams: told by their first bytes, unpacked piece by piece within bounds.

A disk of zeros packs a thousand times smaller, so no ratio is refused; a caller says how many bytes
it is ready to take. No piece that is handed out, and no window of a decoder, is larger than its
ceiling here, whatever the stream asks for.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Generator, Iterator
from typing import Final, Literal, Protocol

from local_imager.formats import lz4
from local_imager.formats.source import CHUNK_BYTES, FormatError, Source
from local_imager.formats.zstdframe import unpack_frame

Packing = Literal["xz", "gzip", "zstd", "bzip2", "lz4", ""]

# `packing_of` needs no more than this many first bytes.
HEAD_BYTES: Final = 16
# xz -9 needs 65 MiB; a header can ask for 4 GiB.
_MAX_XZ_MEMORY: Final = 96 << 20
# Reads grow from small to large: many short streams are no more work than one long stream.
_FIRST_READ_BYTES: Final = 4 << 10
_READ_BYTES: Final = 128 << 10
# bgzip writes one per 64 KiB: a disk of 12 GiB.
_MAX_STREAMS: Final = 200_000
_SKIPPABLE_ZSTD: Final = (b"\x2a\x4d\x18", range(0x50, 0x60))
_BZIP2_BLOCKS: Final = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
_XZ_CHECKS: Final = {0: "none", 1: "crc32", 4: "crc64", 10: "sha256"}


def packing_of(head: bytes) -> Packing:
    """Tell by its first bytes (:data:`HEAD_BYTES`) how something is packed, "" when it is not."""
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if head[1:4] == _SKIPPABLE_ZSTD[0] and head[0] in _SKIPPABLE_ZSTD[1]:
        return "zstd"
    if head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS:
        return "bzip2"
    if head.startswith(lz4.MAGICS):
        return "lz4"
    return ""


def xz_check_of(head: bytes) -> str:
    """Name the check that an xz stream carries, by its first 8 bytes (xz format, 2.1.1.2)."""
    return _XZ_CHECKS.get(head[7] & 15, f"unknown {head[7] & 15}") if len(head) > 7 else ""


class PackedStream:
    """One compressed stream that begins inside other bytes.

    Iterate over it once: pieces of at most ``CHUNK_BYTES``. Then :attr:`end` says where what
    follows it begins. Raises :class:`FormatError` for a damaged stream and for one that unpacks to
    more than ``max_bytes``.
    """

    def __init__(self, source: Source, offset: int, packing: Packing, max_bytes: int) -> None:
        self.packing: Packing = packing
        self._source, self._offset, self._max_bytes = source, offset, max_bytes
        self._end = -1

    @property
    def end(self) -> int:
        """The offset in the source after the stream; known when all of it was unpacked."""
        if self._end < 0:
            raise ValueError("the stream was not unpacked to its end")
        return self._end

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for piece in self._pieces():
            total += len(piece)
            if total > self._max_bytes:
                raise FormatError(f"unpacks to more than {self._max_bytes} bytes")
            yield piece

    def _pieces(self) -> Iterator[bytes]:
        try:
            if self.packing == "zstd":
                self._end = yield from unpack_frame(self._source, self._offset)
            elif self.packing == "gzip":
                self._end = yield from _gunzip(self._source, self._offset)
            elif self.packing == "lz4":
                self._end = yield from lz4.unpack_frame(self._source, self._offset)
            elif self.packing == "xz":
                engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
                self._end = yield from _decompress(engine, self._source, self._offset)
            elif self.packing == "bzip2":
                self._end = yield from _decompress(
                    bz2.BZ2Decompressor(), self._source, self._offset
                )
            else:
                raise FormatError("it is not packed in a known way")
        except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError) as error:
            raise FormatError(f"the {self.packing} stream is damaged: {error}") from error


def unpack_one(source: Source, offset: int = 0, *, max_bytes: int) -> PackedStream:
    """Return the one compressed stream that begins at the offset, to be iterated over.

    Raises :class:`FormatError` when nothing packed begins there.
    """
    head = source.read(offset, min(HEAD_BYTES, source.size_bytes - offset))
    packing = packing_of(head)
    if not packing:
        raise FormatError(f"no compressed stream begins at byte {offset}")
    return PackedStream(source, offset, packing, max_bytes)


def unpack(source: Source, packing: Packing, *, max_bytes: int) -> Iterator[bytes]:
    """Yield what a compressed file holds: all streams or frames, with zeros allowed after each.

    Zeros behind a stream are what xz (2.2, stream padding), tape blocks and block devices leave.
    Raises :class:`FormatError` as :class:`PackedStream` does, and for anything else behind it.
    """
    position, left, streams = 0, max_bytes, 0
    while position < source.size_bytes:
        head = source.read(position, min(HEAD_BYTES, source.size_bytes - position))
        if position == 0 or packing_of(head) == packing:
            streams += 1
            if streams > _MAX_STREAMS:
                raise FormatError(f"more than {_MAX_STREAMS} {packing} streams in one file")
            opened = PackedStream(source, position, packing, left)
            for piece in opened:
                left -= len(piece)
                yield piece
            position = max(opened.end, position + 1)
            continue
        following = after_zeros(source, position)
        if following == position:
            raise FormatError(f"something else follows the {packing} stream at byte {position}")
        position = following


def after_zeros(source: Source, offset: int) -> int:
    """Return the offset of the first byte from ``offset`` on that is not zero, or the end."""
    for start, count in source.data_runs(offset, source.size_bytes - offset):
        position, size = start, _FIRST_READ_BYTES
        while position < start + count:
            piece = source.read(position, min(size, start + count - position))
            rest = piece.lstrip(b"\0")
            if rest:
                return position + len(piece) - len(rest)
            position += len(piece)
            size = min(2 * size, CHUNK_BYTES)
    return source.size_bytes


class _Engine(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decompress(engine: _Engine, source: Source, offset: int) -> Generator[bytes, None, int]:
    """Drive a decoder of the standard library; returns the offset after the stream."""
    position, size = offset, _FIRST_READ_BYTES
    while not engine.eof:
        data = b""
        if engine.needs_input:
            data = source.read(position, min(size, source.size_bytes - position))
            if not data:
                raise FormatError("the file ends inside of a compressed stream")
            position, size = position + len(data), min(2 * size, _READ_BYTES)
        piece = engine.decompress(data, CHUNK_BYTES)
        if piece:
            yield piece
    return position - len(engine.unused_data)


def _gunzip(source: Source, offset: int) -> Generator[bytes, None, int]:
    """Unpack one gzip member; returns the offset after it."""
    engine, data = zlib.decompressobj(31), b""
    position, size = offset, _FIRST_READ_BYTES
    while not engine.eof:
        if not data:
            data = source.read(position, min(size, source.size_bytes - position))
            position, size = position + len(data), min(2 * size, _READ_BYTES)
        piece = engine.decompress(data, CHUNK_BYTES)
        if piece:
            yield piece
        elif not data:
            raise FormatError("the file ends inside of a compressed stream")
        data = engine.unconsumed_tail
    return position - len(engine.unused_data)
