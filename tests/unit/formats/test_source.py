"""Bytes at offsets: files with holes, parts, pieces, what was unpacked."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.formats.source import (
    CHUNK_BYTES,
    BytesSource,
    FileSource,
    FormatError,
    Joined,
    Slice,
    Source,
    Spill,
    sha256_of,
    sparse_sha256_of,
    stream,
)

HOLE = 1 << 20
_RANDOM = random.Random(1)
NOISE = _RANDOM.randbytes(300_000)


@pytest.fixture
def sparse(tmp_path: Path) -> tuple[Path, bytes]:
    """A file of a hole, data, a hole, data, a hole; and its bytes."""
    path = tmp_path / "sparse"
    with path.open("wb") as stream_:
        for _ in range(2):
            stream_.seek(HOLE, 1)
            stream_.write(NOISE)
        stream_.truncate(2 * (HOLE + len(NOISE)) + HOLE)
    return path, path.read_bytes()


def all_of(source: Source) -> bytes:
    return b"".join(stream(source))


def check(source: Source, wanted: bytes) -> None:
    """Whatever way a source is asked, it says the same."""
    assert source.size_bytes == len(wanted)
    assert all_of(source) == wanted
    assert sha256_of(source) == f"sha256:{hashlib.sha256(wanted).hexdigest()}"
    for _ in range(20):
        offset = _RANDOM.randint(0, len(wanted))
        length = _RANDOM.randint(0, len(wanted) - offset)
        assert source.read(offset, length) == wanted[offset : offset + length]
        held, behind = bytearray(length), offset
        for start, count in source.data_runs(offset, length):
            assert behind <= start < start + count <= offset + length
            behind = start + count
            held[start - offset : behind - offset] = wanted[start:behind]
        assert held == wanted[offset : offset + length]
    for offset, length in ((0, len(wanted) + 1), (len(wanted), 1), (-1, 1), (1, -1)):
        with pytest.raises(FormatError):
            source.read(offset, length)
        with pytest.raises(FormatError):
            all_of(Slice(source, offset, length))
        with pytest.raises(FormatError):
            list(stream(source, offset, length))


def test_bytes_in_memory() -> None:
    check(BytesSource(NOISE), NOISE)
    check(BytesSource(b""), b"")
    assert list(BytesSource(b"abc").data_runs(1, 99)) == [(1, 2)]


def test_a_file_with_holes(sparse: tuple[Path, bytes]) -> None:
    path, data = sparse
    with FileSource(path) as source:
        check(source, data)
        runs = list(source.data_runs(0, len(data)))
        assert sum(count for _, count in runs) < len(data) - 2 * HOLE
        assert list(source.data_runs(len(data) - 5, 100)) == []


def test_a_file_that_becomes_shorter(sparse: tuple[Path, bytes]) -> None:
    path, data = sparse
    with FileSource(path) as source:
        with path.open("r+b") as writer:
            writer.truncate(HOLE + 10)
        with pytest.raises(FormatError, match="shorter"):
            source.read(0, len(data))


def test_a_file_is_closed_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with path.open("rb") as opened, FileSource(opened) as source:
        opened.close()
        assert source.read(0, 3) == b"abc"
    source.close()
    with pytest.raises(OSError, match="descriptor"):
        source.read(0, 3)


def test_parts_of_parts(sparse: tuple[Path, bytes]) -> None:
    path, data = sparse
    with FileSource(path) as source:
        inner = Slice(Slice(source, 1000, len(data) - 2000), 500, len(data) - 5000)
        check(inner, data[1500 : 1500 + len(data) - 5000])


def test_pieces_and_holes_in_any_order(sparse: tuple[Path, bytes]) -> None:
    path, data = sparse
    with FileSource(path) as source:
        pieces: list[tuple[Source | None, int, int]] = [
            (source, HOLE + 5, 1000),
            (None, 0, 70_000),
            (BytesSource(b"between"), 2, 3),
            (source, 100, 0),
            (source, 10, len(data) - 10),
            (None, 0, 1),
        ]
        wanted = data[HOLE + 5 : HOLE + 1005] + bytes(70_000) + b"twe" + data[10:] + b"\0"
        check(Joined(pieces), wanted)
        with pytest.raises(FormatError, match="outside"):
            Joined([(source, len(data), 1)])


def test_a_read_of_many_pieces_touches_only_those_it_needs() -> None:
    class Counting(BytesSource):
        reads = 0

        def read(self, offset: int, length: int) -> bytes:
            self.reads += 1
            return super().read(offset, length)

    source = Counting(bytes(range(256)))
    joined = Joined((source, number % 256, 1) for number in range(100_000))
    assert joined.read(70_000, 3) == bytes(number % 256 for number in range(70_000, 70_003))
    assert source.reads == 3


def chunks(data: bytes, sizes: tuple[int, ...] = (7, 65536, 1 << 20, 3 << 20)) -> Iterator[bytes]:
    at, number = 0, 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        yield data[at : at + size]
        at, number = at + size, number + 1


def test_a_small_stream_stays_in_memory() -> None:
    check(Spill.of(chunks(NOISE), max_bytes=len(NOISE)), NOISE)
    check(Spill.of([], max_bytes=0), b"")


def test_zeros_of_a_stream_become_holes() -> None:
    data = NOISE + bytes(5 * HOLE) + NOISE + bytes(9 * HOLE) + b"x" + bytes(HOLE)
    spill = Spill.of(chunks(data), max_bytes=len(data))
    check(spill, data)
    held = sum(count for _, count in spill.data_runs(0, len(data)))
    assert len(NOISE) * 2 < held < len(NOISE) * 2 + 8 * 65536
    spill.close()


def test_what_was_unpacked_is_read_right_between_two_runs() -> None:
    # data_runs moves the position of the file below the buffer that reads might go through.
    blocks = [NOISE[number * 1000 : number * 1000 + 65536] for number in range(6)]
    data = b"".join(block + bytes(2 * HOLE) for block in blocks)
    spill = Spill.of(chunks(data, (CHUNK_BYTES,)), max_bytes=len(data))
    spill.read(0, 100)
    for start, count in spill.data_runs(0, len(data)):
        assert spill.read(50, 20_000) == data[50:20_050]
        assert spill.read(start, count) == data[start : start + count]


def test_a_stream_that_is_too_long_is_refused() -> None:
    seen: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            seen.append(1)
            yield bytes(CHUNK_BYTES)

    with pytest.raises(FormatError, match="more than 10000000 bytes"):
        Spill.of(endless(), max_bytes=10_000_000)
    assert len(seen) == 10


def test_a_table_larger_than_any_real_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as stream_:
        stream_.truncate(1 << 40)
    with FileSource(path) as source, pytest.raises(FormatError, match="larger than any"):
        source.read(0, 1 << 30)


def test_a_sparse_digest_tells_what_a_digest_tells_and_no_holes(tmp_path: Path) -> None:
    size = 5 * HOLE + 77
    pieces = {100: b"a", HOLE - 3: b"bcdef", 5 * HOLE + 70: b"end"}
    full, holed = bytearray(size), tmp_path / "holed"
    with holed.open("wb") as file:
        file.truncate(size)
        for at, data in pieces.items():
            full[at : at + len(data)] = data
            file.seek(at)
            file.write(data)
    with FileSource(holed) as source:
        assert sparse_sha256_of(source) == sparse_sha256_of(BytesSource(bytes(full)))
    assert sparse_sha256_of(BytesSource(bytes(full))).startswith("sparse-sha256:")
    digests = {sparse_sha256_of(BytesSource(bytes(full)))}
    for at in (0, 100, HOLE, 3 * HOLE, size - 1):
        changed = bytearray(full)
        changed[at] ^= 1
        digests.add(sparse_sha256_of(BytesSource(bytes(changed))))
    assert len(digests) == 6
