"""Partition tables as sgdisk makes them, and damaged ones."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.formats.gpt import PartitionTable, read_partitions
from local_imager.formats.source import BytesSource, FileSource, FormatError
from tests.diskfiles import (
    LINUX,
    Sparse,
    empty_file,
    gpt_disk,
    gpt_entry,
    gpt_header,
    mbr_entries,
    patched,
    tool,
)

MIB = 1 << 20
SECTORS = 2048
TWO = [gpt_entry(34, 99, "ESP"), gpt_entry(100, 1999, "META", attributes=1 << 60)]
DISK = gpt_disk(SECTORS, TWO)


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    need_packages(["filesystems"])


def table_of(data: bytes) -> PartitionTable:
    return read_partitions(BytesSource(data))


def test_what_sgdisk_makes_is_read_as_sgdisk_reads_it(tmp_path: Path) -> None:
    disk = empty_file(tmp_path / "disk", 64 * MIB)
    first = ("-n1:2048:+4M", "-c1:EFI", "-t1:ef00", "-A1:set:2")
    tool("sgdisk", *first, "-n2:0:+1M", "-c2:Größe", "-n7:0:0", "-c7:BOOT", disk)
    with FileSource(disk) as source:
        table = read_partitions(source)
    assert (table.kind, table.sector_bytes, table.entry_count) == ("gpt", 512, 128)
    assert table.faults == ()
    said = tool("sgdisk", "-p", disk)
    assert f"(GUID): {table.disk_guid.upper()}" in said
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+) ", said, re.MULTILINE)
    assert rows == [
        (str(p.number), str(p.offset // 512), str((p.offset + p.size_bytes) // 512 - 1))
        for p in table.partitions
    ]
    for partition in table.partitions:
        said = tool("sgdisk", f"-i{partition.number}", disk)
        assert f"Partition GUID code: {partition.type_guid.upper()}" in said
        assert f"Partition unique GUID: {partition.guid.upper()}" in said
        assert f"Attribute flags: {partition.attributes:016X}" in said
        assert f"Partition name: '{partition.name}'" in said
    assert [p.name for p in table.partitions] == ["EFI", "Größe", "BOOT"]


def test_a_name_outside_of_the_first_plane() -> None:
    named = gpt_disk(SECTORS, [gpt_entry(34, 40, "a \N{GRINNING FACE}")])
    assert table_of(named).partitions[0].name == "a \N{GRINNING FACE}"


def test_a_hybrid_table_is_told_from_a_protective_one(tmp_path: Path) -> None:
    disk = empty_file(tmp_path / "disk", 16 * MIB)
    tool("sgdisk", "-n1:2048:+4M", "-n2:0:0", "-h", "1", disk)
    with FileSource(disk) as source:
        table = read_partitions(source)
    assert table.kind == "hybrid"
    assert {entry.mbr_type for entry in table.mbr} == {0xEE, 0x83}
    assert [p.number for p in table.partitions] == [1, 2]


def test_the_hand_made_disk_of_these_tests_is_a_real_one(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(DISK)
    assert "No problems found" in tool("sgdisk", "-v", disk)
    assert [p.name for p in table_of(DISK).partitions] == ["ESP", "META"]


def test_sectors_of_4096_bytes() -> None:
    table = table_of(gpt_disk(512, TWO[:1], sector_bytes=4096))
    assert table.sector_bytes == 4096
    (esp,) = table.partitions
    assert (esp.offset, esp.size_bytes) == (34 * 4096, 66 * 4096)
    assert (esp.type_guid, table.faults) == (LINUX, ())


@pytest.mark.parametrize(
    ("offset", "fault"),
    [
        (512 + 60, "the primary GPT is damaged: the checksum of its header is wrong"),
        (1024 + 70, "the primary GPT is damaged: the checksum of its entries is wrong"),
        (512, "the primary GPT is missing"),
        (2047 * 512 + 60, "the backup GPT is damaged: the checksum of its header is wrong"),
        (2015 * 512 + 3, "the backup GPT is damaged: the checksum of its entries is wrong"),
        (2047 * 512, "the backup GPT is missing"),
        (510, "the protective MBR is missing"),
    ],
)
def test_one_damaged_copy_is_told_and_the_other_taken(offset: int, fault: str) -> None:
    table = table_of(patched(DISK, offset, b"\x5b"))
    assert table.faults == (fault,)
    assert [p.name for p in table.partitions] == ["ESP", "META"]


def test_two_damaged_copies_are_refused() -> None:
    damaged = patched(patched(DISK, 512 + 60, b"x"), 2047 * 512 + 60, b"x")
    with pytest.raises(FormatError, match="the primary GPT is damaged"):
        table_of(damaged)
    gone = patched(patched(DISK, 512, b"x"), 2047 * 512, b"x")
    with pytest.raises(FormatError, match="neither copy"):
        table_of(gone)


def test_copies_that_disagree_and_a_disk_that_grew() -> None:
    other = gpt_disk(SECTORS, [TWO[0], gpt_entry(100, 1998, "META")])
    mixed = DISK[: 1500 * 512] + other[1500 * 512 :]
    assert table_of(mixed).faults == ("the primary and the backup GPT disagree",)
    grown = DISK + bytes(4096)
    assert table_of(grown).faults == ("the backup GPT is not at the end of the disk",)


def test_a_header_that_was_made_for_another_place_is_not_taken() -> None:
    elsewhere = gpt_header(
        5, 2047, 2, b"".join(TWO).ljust(128 * 128, b"\0"), SECTORS, guid=LINUX, count=128
    )
    table = table_of(patched(DISK, 512, elsewhere))
    assert table.faults == ("the primary GPT is damaged: its header was made for another place",)
    assert table.disk_guid == "11111111-2222-3333-4444-555555555555"


def test_a_disk_that_was_cut_off_is_refused() -> None:
    with pytest.raises(FormatError, match="partition 2 lies outside"):
        table_of(DISK[: 1000 * 512])


def test_partitions_that_overlap_are_told() -> None:
    table = table_of(gpt_disk(SECTORS, [TWO[0], gpt_entry(99, 1999, "META")]))
    assert table.faults == ("the partitions 1 and 2 overlap",)


def test_lying_sizes_are_refused() -> None:
    backwards = gpt_disk(SECTORS, [gpt_entry(99, 40, "ESP")])
    with pytest.raises(FormatError, match="partition 1 lies outside"):
        table_of(backwards)
    huge = gpt_disk(SECTORS, [gpt_entry(34, 1 << 62, "ESP")])
    with pytest.raises(FormatError, match="partition 1 lies outside"):
        table_of(huge)
    for offset, lie in ((80, 1 << 30), (84, 0), (84, 1 << 30), (12, 1 << 30), (12, 4)):
        both = patched(DISK, 512 + offset, struct.pack("<I", lie))
        both = patched(both, 2047 * 512 + offset, struct.pack("<I", lie))
        with pytest.raises(FormatError, match="damaged"):
            table_of(both)


def mbr_disk(entries: list[tuple[int, int, int, int]], sectors: int = 100) -> bytes:
    disk = bytes(436) + b"code" + b"\x78\x56\x34\x12\0\0" + mbr_entries(entries)
    return disk.ljust(sectors * 512, b"\0")


def test_an_mbr_alone() -> None:
    table = table_of(mbr_disk([(0x80, 0x0C, 1, 50), (0, 0x83, 60, 10)]))
    assert (table.kind, table.disk_guid, table.boot_code[-4:]) == ("mbr", "12345678", b"code")
    found = [(p.number, p.offset, p.size_bytes, p.mbr_type, p.bootable) for p in table.partitions]
    assert found == [(1, 512, 25600, 12, True), (2, 30720, 5120, 131, False)]
    clipped = table_of(mbr_disk([(0, 0x83, 60, 41)]))
    assert clipped.partitions[0].size_bytes == 40 * 512
    assert clipped.faults == ("MBR entry 1 goes beyond the end of the disk",)


def test_partitions_inside_an_extended_one() -> None:
    disk = mbr_disk([(0, 0x83, 1, 9), (0, 0x05, 10, 80)])
    disk = patched(disk, 10 * 512 + 446, mbr_entries([(0, 0x83, 1, 5), (0, 0x05, 20, 20)]))
    disk = patched(disk, 30 * 512 + 446, mbr_entries([(0, 0x82, 2, 6)]))
    found = [(p.number, p.offset // 512, p.size_bytes // 512) for p in table_of(disk).partitions]
    assert found == [(1, 1, 9), (2, 10, 80), (5, 11, 5), (6, 32, 6)]
    looping = patched(disk, 30 * 512 + 446, mbr_entries([(0, 0x05, 20, 20)]))
    with pytest.raises(FormatError, match="loops"):
        table_of(looping)


@pytest.mark.parametrize("data", [b"", b"x" * 511, bytes(4096), b"\xff" * 4096])
def test_what_is_no_disk_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        table_of(data)


def test_boot_sectors_of_volumes_are_no_tables(tmp_path: Path) -> None:
    for kind in ("12", "16", "32"):
        volume = empty_file(tmp_path / kind, 64 * MIB)
        tool("mkfs.fat", "-F", kind, *(("-s", "64") if kind == "12" else ()), volume)
        with FileSource(volume) as source, pytest.raises(FormatError, match="no partition table"):
            read_partitions(source)


def test_a_disk_of_terabytes_costs_what_its_tables_cost() -> None:
    sectors = (2 << 40) // 512
    small = gpt_disk(SECTORS, TWO)
    far = Sparse(sectors * 512, [(0, small[: 34 * 512])])
    with pytest.raises(FormatError):
        read_partitions(Sparse(1000 * 512, far.pieces))
    table = read_partitions(far)
    assert table.faults == ("the backup GPT is missing",)
