"""Where bytes differ that no part has, in real bytes of each kind of container."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from local_imager.deliver.compare.bytesdiff import locator
from local_imager.deliver.compare.report import offset_text
from local_imager.deliver.compare.verdict import Comparison
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.formats.source import BytesSource
from tests import talosfiles
from tests.comparetrees import told
from tests.diskfiles import patched, small_fat32

DISK: Final = talosfiles.disk([("EFI", b"e" * 1024), ("META", talosfiles.meta({10: "ten"}))])
UKI: Final = talosfiles.uki()
FAT: Final = small_fat32({"A.TXT": b"hello", "EFI/B.TXT": b"b"})
HEADERS_AT: Final = struct.unpack_from("<I", UKI, 60)[0]


def compared(left: bytes, right: bytes) -> Comparison:
    sources = BytesSource(left), BytesSource(right)
    sides = [Subject.of(inspect_source(one, "x"), "x") for one in sources]
    return compare_trees(*sides, locate=locator(*sources))


def partition_end(name: str) -> int:
    source = BytesSource(DISK)
    tree = inspect_source(source, "x").tree
    part = next(one for one in tree.children if one.name == name)
    assert part.offset is not None
    return part.offset + part.size_bytes


def reserve(at: int) -> int:
    """Return an offset in the padding behind a partition of the disk."""
    assert not any(DISK[at : at + 4]), "no zeros to alter"
    return at


@pytest.mark.parametrize(
    ("whole", "at", "where"),
    [
        (DISK, reserve(partition_end("META") + 8), "behind META"),
        (FAT, 200, "in the boot sectors"),
        (FAT, FAT.index(b"hello") + 5, "in free clusters or behind the end of a file"),
        (FAT, len(FAT) - 600, "in free clusters or behind the end of a file"),
        (UKI, HEADERS_AT + 22, "in the header"),
        (UKI, 80, "in the header"),
    ],
)
def test_a_byte_outside_of_parts_has_a_place(whole: bytes, at: int, where: str) -> None:
    value = bytes([whole[at] ^ 1, whole[at + 1] ^ 2])
    result = compared(whole, patched(whole, at, value))
    (only,) = result.differences
    assert only.what.startswith("bytes outside of its parts"), told(result)
    assert (only.offset, only.size_bytes, only.where) == (at, 2, where)
    said = f"bytes differ from offset {at:,} ({where}), within 2 bytes from there"
    assert offset_text(only) == said
    assert (only.as_dict()["offset"], only.as_dict()["where"]) == (at, where)


def test_bytes_behind_the_end_and_at_two_places() -> None:
    (only,) = compared(UKI, UKI + b"EVIL").differences
    assert (only.offset, only.size_bytes) == (len(UKI), 4)
    assert only.where.startswith("behind .")
    both = compared(UKI, patched(UKI, 80, b"EVIL") + b"EVIL")
    (only,) = both.differences
    assert only.offset == len(UKI) and only.where.endswith(", and at 1 more place")


def test_what_moves_by_noise_is_not_taken_for_the_place() -> None:
    noisy = patched(UKI, HEADERS_AT + 8, b"\1\2\3\4")
    real = [one for one in compared(UKI, noisy + b"EVIL").differences if not one.noise]
    assert [one.offset for one in real] == [len(UKI)]
    serial = patched(FAT, 67, b"\1\2\3\4")
    real = [one for one in compared(FAT, patched(serial, 200, b"x")).differences if not one.noise]
    assert [one.offset for one in real] == [200]


def test_a_table_of_clusters_has_words_and_no_offset() -> None:
    (only,) = compared(FAT, patched(FAT, 512 + 4 * 900, b"x")).differences
    assert only.offset is None
    assert offset_text(only) == "bytes differ in what the table says of clusters that no file has"


def test_bytes_in_a_gap_go_with_no_other_difference() -> None:
    renamed = patched(FAT, 71, b"EVIL       ")
    result = compared(FAT, patched(renamed, len(FAT) - 600, b"x"))
    assert "bytes outside of its parts of the FAT file system" in told(result)


def test_what_a_replaced_file_left_behind_is_told_where_it_lies() -> None:
    at = FAT.index(b"hello")
    record = FAT.index(b"A       TXT")
    emptied = patched(FAT, record + 26, bytes(2))
    emptied = patched(patched(emptied, record + 20, bytes(2)), record + 28, bytes(4))
    real = compared(FAT, emptied)
    places = {one.where: one.offset for one in real.differences}
    assert places.get("in free clusters or behind the end of a file, of the right side") == at
