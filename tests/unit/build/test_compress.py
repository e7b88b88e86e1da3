"""Compression: readable by the reference decoders, and the same bytes on every host."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import threading
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.build.chunks import (
    CHUNK_BYTES,
    Chunk,
    dig_holes,
    file_chunks,
    in_order,
    rechunk,
)
from local_imager.build.compress import XZ_BLOCK_BYTES, combine_crc32, compress_file
from local_imager.errors import Interrupted

FORMATS = (".xz", ".gz", ".zst")
MIB = 1 << 20


def expand(out_format: str, path: Path) -> bytes:
    data = path.read_bytes()
    if out_format == ".xz":
        return lzma.decompress(data)
    if out_format == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().decompress(data)


def disk(path: Path, *, size: int = 11 * MIB + 123, holes: bool = True) -> bytes:
    """A file with content here and there, its zeros as holes or written out."""
    generator = random.Random(4)
    content = bytearray(size)
    for offset in (0, 70_000, XZ_BLOCK_BYTES - 5, 9 * MIB, size - 3):
        part = generator.randbytes(min(50_000, size - offset))
        content[offset : offset + len(part)] = part
    if holes:
        with path.open("wb") as stream:
            stream.truncate(size)
            for start in range(0, size, 4096):
                block = bytes(content[start : start + 4096])
                if any(block):
                    stream.seek(start)
                    stream.write(block)
    else:
        path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("out_format", FORMATS)
@pytest.mark.parametrize("size", [0, 1, MIB, XZ_BLOCK_BYTES, 11 * MIB + 123])
def test_what_comes_out_is_what_went_in(tmp_path: Path, out_format: str, size: int) -> None:
    source, target = tmp_path / "disk", tmp_path / "packed"
    content = disk(source, size=size) if size > 10 * MIB else b"\x01" * size
    if size <= 10 * MIB:
        source.write_bytes(content)
    compress_file(source, target, out_format, 2, threading.Event())
    assert expand(out_format, target) == content


@pytest.mark.parametrize("out_format", FORMATS)
def test_bytes_depend_on_content_only(tmp_path: Path, out_format: str) -> None:
    results = set()
    for workers in (1, 2, 5):
        for holes in (True, False):
            source = tmp_path / f"{workers}{holes}"
            disk(source, holes=holes)
            target = source.with_suffix(".packed")
            compress_file(source, target, out_format, workers, threading.Event())
            results.add(target.read_bytes())
    assert len(results) == 1


@pytest.mark.parametrize(
    "size", [1, 65_535, 65_536, 65_537, XZ_BLOCK_BYTES, 2 * XZ_BLOCK_BYTES + 7]
)
def test_what_does_not_shrink_is_stored_in_a_stream_that_xz_reads(
    tmp_path: Path, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(data)
    target = tmp_path / "a.xz"
    compress_file(tmp_path / "a", target, ".xz", 2, threading.Event())
    packed = target.read_bytes()
    assert lzma.decompress(packed) == data
    # Stored chunks cost three bytes each; the block, its index and the ends some dozens.
    assert len(packed) <= size + 3 * (size // 65_536 + 1) + 64 * (size // XZ_BLOCK_BYTES + 2)
    with pytest.raises(lzma.LZMAError):  # the block's checksum and sizes are looked at
        lzma.decompress(packed[:40] + bytes([packed[40] ^ 1]) + packed[41:])


def test_text_beside_what_does_not_shrink_is_still_compressed(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(XZ_BLOCK_BYTES) + b"the same again. " * (XZ_BLOCK_BYTES // 16)
    (tmp_path / "a").write_bytes(data)
    compress_file(tmp_path / "a", tmp_path / "a.xz", ".xz", 2, threading.Event())
    assert (tmp_path / "a.xz").stat().st_size < XZ_BLOCK_BYTES * 1.01
    assert lzma.decompress((tmp_path / "a.xz").read_bytes()) == data


def test_a_gzip_file_has_no_name_and_no_time(tmp_path: Path) -> None:
    source, target = tmp_path / "disk", tmp_path / "packed"
    source.write_bytes(b"x")
    compress_file(source, target, ".gz", 1, threading.Event())
    assert target.read_bytes()[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"


def test_a_zstd_frame_names_its_size(tmp_path: Path) -> None:
    source, target = tmp_path / "disk", tmp_path / "packed"
    content = disk(source)
    compress_file(source, target, ".zst", 2, threading.Event())
    assert zstandard.frame_content_size(target.read_bytes()) == len(content)


def test_gigabytes_of_zeros_are_small_and_quick(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    with source.open("wb") as stream:
        stream.truncate(3 << 30)
    for out_format, most in ((".xz", 1_000_000), (".gz", 4_000_000), (".zst", 400_000)):
        target = tmp_path / f"packed{out_format}"
        compress_file(source, target, out_format, 2, threading.Event())
        assert target.stat().st_size < most


@pytest.mark.parametrize("out_format", FORMATS)
def test_a_stop_ends_a_compression(tmp_path: Path, out_format: str) -> None:
    source, stop = tmp_path / "disk", threading.Event()
    disk(source)
    stop.set()
    with pytest.raises(Interrupted):
        compress_file(source, tmp_path / "packed", out_format, 2, stop)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x")
    (tmp_path / "packed").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        compress_file(tmp_path / "disk", tmp_path / "packed", ".gz", 1, threading.Event())
    assert (tmp_path / "packed").read_bytes() == b"mine"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_parts_combine(first: bytes, second: bytes) -> None:
    joined = combine_crc32(zlib.crc32(first), zlib.crc32(second), len(second))
    assert joined == zlib.crc32(first + second)


def test_checksums_combine_over_gigabytes() -> None:
    zeros = bytes(1 << 24)
    expected, combined = zlib.crc32(b"head"), zlib.crc32(b"head")
    for _ in range(20):
        expected = zlib.crc32(zeros, expected)
    combined = combine_crc32(combined, zlib.crc32(bytes(20 << 24)), 20 << 24)
    assert combined == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 64))
def test_rechunking_keeps_every_byte(parts: list[bytes], size: int) -> None:
    chunks = list(rechunk(parts, size))
    assert b"".join(chunk.data or b"" for chunk in chunks) == b"".join(parts)
    assert all(chunk.length == size for chunk in chunks[:-1])
    assert all(0 < chunk.length <= size for chunk in chunks)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chunks_of_a_file_with_holes_are_its_content(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 300_000))
    writes = data.draw(st.lists(st.tuples(st.integers(0, 300_000), st.binary(max_size=200))))
    chunk_bytes = data.draw(st.sampled_from([4096, 65536, 10_000]))
    path = Path(f"/dev/shm/chunks-{os.getpid()}")
    try:
        with path.open("wb") as stream:
            stream.truncate(size)
            for offset, content in writes:
                stream.seek(offset)
                stream.write(content)
        whole = path.read_bytes()
        chunks = list(file_chunks(path, chunk_bytes))
        assert b"".join(c.data or bytes(c.length) for c in chunks) == whole
        assert all(c.data is None or any(c.data) for c in chunks)
    finally:
        path.unlink(missing_ok=True)


def test_zeros_become_holes_in_place(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    content = disk(path, holes=False)
    before = path.stat().st_blocks
    dig_holes(path)
    assert path.read_bytes() == content
    assert path.stat().st_blocks < before // 4


def test_results_come_in_order_and_faults_come_out() -> None:
    chunks = [Chunk(bytes([number]), 1) for number in range(50)]
    assert list(in_order(lambda c: c.data, chunks, 4, threading.Event())) == [
        bytes([number]) for number in range(50)
    ]

    def fail(chunk: Chunk) -> bytes:
        if chunk.data == b"\x07":
            raise OSError("disk full")
        return b""

    with pytest.raises(OSError, match="disk full"):
        list(in_order(fail, chunks, 4, threading.Event()))


def test_memory_stays_bounded_by_the_pieces_in_flight() -> None:
    taken = 0

    def count() -> io.BytesIO:
        return io.BytesIO()

    def chunks() -> object:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield Chunk(None, CHUNK_BYTES)

    results = in_order(lambda _: count(), chunks(), 2, threading.Event())  # type: ignore[arg-type]
    next(results)
    assert taken <= 6
    results.close()  # type: ignore[attr-defined]
