"""xz, gzip and zstd with bytes that depend on the content alone, not on host or core count.

For xz and gzip the content is cut at fixed offsets, the pieces are compressed by themselves on all
cores and joined into one ordinary stream: an xz stream of several blocks, a gzip member of several
deflate blocks. A piece of zeros is compressed once and repeated. zstd is quick enough in one frame.
A disk is mostly files that are compressed already (kernel, initramfs, squashfs): xz would spend a
second on each ten megabytes to make them a little larger, so a piece of which a sample does not
shrink is stored as it is, in the same format.
Levels: the imager uses xz -0, pigz -6 and zstd -18 (Talos pkg/imager/post.go). zstd is the
exception here: its level 3 takes a tenth of the time for a file 12 % larger.
Formats: xz file format 1.2, RFC 1952, RFC 8878.
"""

from __future__ import annotations

import contextlib
import lzma
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

from local_imager.build.chunks import CHUNK_BYTES, Chunk, file_chunks_ahead, in_order
from local_imager.errors import Interrupted

XZ_PRESET: Final = 0
GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3
# Larger than the dictionary of preset 0 (256 KiB), so little is lost between blocks.
XZ_BLOCK_BYTES: Final = 2 * 1024 * 1024
# What is looked at of a piece before it is compressed: slices at fixed places, joined.
_SAMPLE_SLICES: Final = 8
_SAMPLE_BYTES: Final = 8 * 1024
# LZMA2 chunks hold at most this much when they are stored (xz file format 1.2, section 5.3.1).
_STORED_BYTES: Final = 64 * 1024
# Each worker holds pieces before and after compression; more than this gains little and costs
# memory on hosts with many cores.
MAX_WORKERS: Final = 8

_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
# CRC-32, as the imager's own xz files for the kernel have; zlib computes it for stored blocks.
_XZ_FLAGS: Final = bytes([0, lzma.CHECK_CRC32])
_XZ_ENDS_BYTES: Final = 12  # stream header and stream footer are equally long


@dataclass(frozen=True, slots=True)
class _Piece:
    """A compressed piece: its bytes, the content's length and a number that the format needs."""

    data: bytes
    length: int
    number: int


def compress_file(
    source: Path,
    target: Path,
    out_format: str,
    workers: int,
    cancel: threading.Event,
    *,
    use_up: bool = False,
) -> None:
    """Write ``source`` compressed to the new file ``target``; ``.xz``, ``.gz`` or ``.zst``.

    ``use_up`` gives the source's room back while it is read. Raises :class:`Interrupted` when
    ``cancel`` is set, ``OSError`` when the disk is full.
    """
    workers = min(workers, MAX_WORKERS)
    size_bytes = source.stat().st_size
    chunk_bytes = XZ_BLOCK_BYTES if out_format == ".xz" else CHUNK_BYTES
    chunks = file_chunks_ahead(source, chunk_bytes, cancel, use_up=use_up)
    with target.open("xb") as stream, contextlib.closing(chunks):
        if out_format == ".xz":
            write_xz(chunks, stream, workers, cancel)
        elif out_format == ".gz":
            write_gzip(chunks, stream, workers, cancel)
        elif out_format == ".zst":
            write_zstd(chunks, size_bytes, stream, cancel)
        else:
            raise ValueError(f"unknown compression {out_format!r}")


def _with_zeros_once(work: Callable[[bytes], _Piece]) -> Callable[[Chunk], _Piece]:
    """Let pieces of zeros of one length be compressed once only."""
    zeros = lru_cache(maxsize=2)(lambda length: work(bytes(length)))
    return lambda chunk: zeros(chunk.length) if chunk.data is None else work(chunk.data)


def write_xz(
    chunks: Iterable[Chunk], stream: BinaryIO, workers: int, cancel: threading.Event
) -> None:
    """Write one xz stream with a block for each piece."""
    stream.write(_XZ_MAGIC + _XZ_FLAGS + _crc_bytes(_XZ_FLAGS))
    records: list[tuple[int, int]] = []
    for piece in in_order(_with_zeros_once(_xz_block), chunks, workers, cancel):
        stream.write(piece.data)
        records.append((piece.number, piece.length))
    index = b"\x00" + _xz_number(len(records))
    index += b"".join(_xz_number(unpadded) + _xz_number(length) for unpadded, length in records)
    index += bytes(-len(index) % 4)
    index += _crc_bytes(index)
    footer = struct.pack("<I", len(index) // 4 - 1) + _XZ_FLAGS
    stream.write(index + _crc_bytes(footer) + footer + b"YZ")


def _xz_block(data: bytes) -> _Piece:
    return _xz_packed(data) if _shrinks(data) else _xz_stored(data)


def _shrinks(data: bytes) -> bool:
    """Say from a sample whether a piece is worth compressing; depends on its bytes alone."""
    step = max(len(data) // _SAMPLE_SLICES, _SAMPLE_BYTES)
    sample = b"".join(data[at : at + _SAMPLE_BYTES] for at in range(0, len(data), step))
    packed = lzma.compress(sample, lzma.FORMAT_XZ, check=lzma.CHECK_NONE, preset=XZ_PRESET)
    return len(packed) * 100 < len(sample) * 97


def _xz_stored(data: bytes) -> _Piece:
    """Make a block of stored LZMA2 chunks, with the unpadded size that the index names."""
    # Size of the header in words less one, no optional fields, filter LZMA2 with a dictionary of
    # 256 KiB (the dictionary has 2 << (12 // 2 + 11) bytes), padding.
    header = bytes([0x02, 0x00, 0x21, 0x01, 0x0C, 0, 0, 0])
    parts = [header, _crc_bytes(header)]
    for at in range(0, len(data), _STORED_BYTES):
        chunk = data[at : at + _STORED_BYTES]
        # 1 resets the dictionary, which the first chunk has to; 2 goes on.
        parts.append(struct.pack(">BH", 2 if at else 1, len(chunk) - 1) + chunk)
    parts.append(b"\x00")
    body_bytes = sum(map(len, parts))
    parts += [bytes(-body_bytes % 4), _crc_bytes(data)]
    return _Piece(b"".join(parts), len(data), body_bytes + 4)


def _xz_packed(data: bytes) -> _Piece:
    """Take the only block out of a whole xz stream, with the unpadded size its index names."""
    whole = lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=XZ_PRESET)
    (backward,) = struct.unpack_from("<I", whole, len(whole) - 8)
    index_start = len(whole) - _XZ_ENDS_BYTES - (backward + 1) * 4
    # Index: a zero byte, the number of records (1), then the unpadded size.
    unpadded = _read_xz_number(whole, index_start + 2)
    return _Piece(whole[_XZ_ENDS_BYTES:index_start], len(data), unpadded)


def _xz_number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_xz_number(data: bytes, position: int) -> int:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        position, shift = position + 1, shift + 7


def _crc_bytes(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def write_gzip(
    chunks: Iterable[Chunk], stream: BinaryIO, workers: int, cancel: threading.Event
) -> None:
    """Write one gzip member without name and time, as ``pigz --no-time`` does."""
    stream.write(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\x03")
    checksum = size_bytes = 0
    for piece in in_order(_with_zeros_once(_deflate), chunks, workers, cancel):
        stream.write(piece.data)
        checksum = combine_crc32(checksum, piece.number, piece.length)
        size_bytes += piece.length
    stream.write(b"\x03\x00" + struct.pack("<II", checksum, size_bytes & 0xFFFFFFFF))


def _deflate(data: bytes) -> _Piece:
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -15)
    # A sync flush ends on a byte boundary without marking the last block.
    deflated = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _Piece(deflated, len(data), zlib.crc32(data))


_CRC32_POLYNOMIAL: Final = 0xEDB88320


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two byte strings joined, from the CRC-32 of each.

    Appending n bytes multiplies the first remainder by x^8n modulo the CRC's polynomial.
    """
    return _crc_multiply(_crc_power(8 * second_bytes), first) ^ second


def _crc_multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_CRC32_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=8)
def _crc_power(exponent: int) -> int:
    """x^exponent modulo the polynomial, bits reflected: the highest bit is x^0."""
    result, base = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            result = _crc_multiply(base, result)
        base = _crc_multiply(base, base)
        exponent >>= 1
    return result


def write_zstd(
    chunks: Iterable[Chunk], size_bytes: int, stream: BinaryIO, cancel: threading.Event
) -> None:
    """Write one zstd frame with content size and checksum.

    One thread: for gigabytes of zeros around little content it is quicker than zstd's workers,
    which copy everything once more.
    """
    import zstandard

    compressor = zstandard.ZstdCompressor(
        level=ZSTD_LEVEL, write_checksum=True, write_content_size=True
    )
    zeros = bytes(CHUNK_BYTES)
    frame = compressor.compressobj(size=size_bytes)
    for chunk in chunks:
        if cancel.is_set():
            raise Interrupted("the compression was stopped")
        data = zeros[: chunk.length] if chunk.data is None else chunk.data
        if output := frame.compress(data):
            stream.write(output)
    stream.write(frame.flush())
