"""The digest of what no part shows: it sees what is hidden, and is blind to what is told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.inspect.rest import (
    ArchiveRest,
    disk_rest,
    meta_rest,
    program_rest,
    rest_digest,
)
from local_imager.formats.cpio import CpioHeader
from local_imager.formats.gpt import Partition, PartitionTable
from local_imager.formats.meta import write_meta
from local_imager.formats.pe import read_pe
from local_imager.formats.source import BytesSource, FileSource
from tests.pebytes import make_pe

DISK_BYTES = 256 * 512
TABLE = PartitionTable("gpt", "g", 512, (Partition(1, 64 * 512, 64 * 512),), b"", (), 128)


def test_only_what_is_not_covered_counts() -> None:
    data = bytearray(4096)
    assert rest_digest(BytesSource(bytes(data)), [(0, 512)]) == ""
    data[100] = 1
    assert rest_digest(BytesSource(bytes(data)), [(0, 512)]) == ""
    data[600] = 1
    first = rest_digest(BytesSource(bytes(data)), [(0, 512)])
    assert first.startswith("sha256:")
    data[100] = 2
    assert rest_digest(BytesSource(bytes(data)), [(0, 512)]) == first
    data[4095] = 1
    assert rest_digest(BytesSource(bytes(data)), [(0, 512)]) != first


def test_holes_make_no_difference(tmp_path: Path) -> None:
    data = bytes(100_000) + b"x" * 700 + bytes(99_300)
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    full.write_bytes(data)
    with sparse.open("wb") as file:
        file.seek(100_000)
        file.write(b"x" * 700)
        file.truncate(len(data))
    found = set()
    for path in (full, sparse):
        with FileSource(path) as source:
            found.add(rest_digest(source, [(1000, 50_000)]))
    assert found == {rest_digest(BytesSource(data), [(1000, 50_000)])}


def disk(**changed: bytes) -> BytesSource:
    data = bytearray(DISK_BYTES)
    data[64 * 512 : 128 * 512] = b"p" * 64 * 512
    data[512 + 32 : 512 + 40] = (255).to_bytes(8, "little")
    for at, value in changed.items():
        offset = int(at[1:])
        data[offset : offset + len(value)] = value
    return BytesSource(bytes(data))


@pytest.mark.parametrize("offset", [0, 512 + 56, 1024, 70 * 512, DISK_BYTES - 512])
def test_tables_partitions_and_boot_code_are_told_apart(offset: int) -> None:
    assert disk_rest(disk(**{f"b{offset}": b"x"}), TABLE) == disk_rest(disk(), TABLE)


@pytest.mark.parametrize("offset", [450, 40 * 512, 130 * 512])
def test_gaps_of_a_disk_and_its_mbr_entries_count(offset: int) -> None:
    assert disk_rest(disk(**{f"b{offset}": b"x"}), TABLE) != disk_rest(disk(), TABLE)


def test_a_larger_container_has_the_same_rest() -> None:
    padded = BytesSource(disk().read(0, DISK_BYTES) + bytes(512 * 100))
    assert disk_rest(padded, TABLE) == disk_rest(disk(), TABLE)


@pytest.mark.parametrize(("at", "counts"), [(300 * 1024, True), (600 * 1024, True), (-1, False)])
def test_meta_counts_without_the_order_of_its_values(at: int, counts: bool) -> None:
    values = [(10, b"ten"), (12, b"twelve")]
    first, second = (write_meta(some).ljust(1 << 20, b"\0") for some in (values, values[::-1]))
    assert first != second
    assert meta_rest(BytesSource(first)) == meta_rest(BytesSource(second))
    changed = bytearray(second)
    if at >= 0:
        changed[at] ^= 1
    assert (meta_rest(BytesSource(bytes(changed))) != meta_rest(BytesSource(first))) is counts
    assert meta_rest(BytesSource(bytes(1 << 20))) != meta_rest(BytesSource(first))


def header(**changed: int) -> CpioHeader:
    numbers = (1, 0o100644, 0, 0, 1, 7, 3, 0, 0, 0, 0, 2, 0)
    fields = ["070701", *(f"{value:08X}" for value in numbers)]
    made = CpioHeader.parse("".join(fields).encode())
    return replace(made, **changed)  # type: ignore[arg-type]


def archive(*entries: tuple[CpioHeader, bytes], padding: bytes = b"\0") -> str:
    rest = ArchiveRest()
    for one, name in entries:
        rest.add(one, name, padding)
    return rest.digest


def test_an_archive_without_times_and_sizes() -> None:
    first, second = (header(), b"a"), (header(), b"b")
    plain = archive(first, second)
    assert archive((header(mtime=9, size_bytes=5), b"a"), second) == plain
    assert archive(second, first) != plain
    assert archive(first, second, padding=b"x") != plain
    for changed in ({"mode": 0o100755}, {"special_device": (8, 1)}, {"nlink": 2}, {"uid": 1}):
        assert archive((header(**changed), b"a"), second) != plain


SECTIONS = [(".text", b"t" * 100), (".data", b"d" * 600)]


def program(*, at: int = 0, value: bytes = b"", tail: bytes = b"") -> str:
    data = bytearray(make_pe(SECTIONS))
    data[at : at + len(value)] = value
    source = BytesSource(bytes(data) + tail)
    return program_rest(source, read_pe(source))


HEADER_AT = 0x80


@pytest.mark.parametrize("at", [HEADER_AT + 8, HEADER_AT + 24 + 64, 1024 + 5])
def test_stamp_checksum_and_sections_of_a_program_are_told_apart(at: int) -> None:
    assert program(at=at, value=b"x") == program()


@pytest.mark.parametrize("at", [10, HEADER_AT + 24 + 2, HEADER_AT + 24 + 72])
def test_other_header_fields_of_a_program_count(at: int) -> None:
    assert program(at=at, value=b"x") != program()


def test_bytes_behind_the_sections_of_a_program_count() -> None:
    assert program(tail=b"payload") != program()
    assert program(tail=bytes(512)) == program()
    padding = make_pe(SECTIONS).index(b"t" * 100) + 300
    assert program(at=padding, value=b"x") != program()
