"""META values come in one order, and a partition that is not understood whole stays as it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from local_imager.build.metaorder import order_meta
from local_imager.formats.gpt import read_partitions
from local_imager.formats.meta import read_meta, write_meta
from local_imager.formats.source import BytesSource, FormatError, Slice
from tests.diskfiles import gpt_disk, gpt_entry, meta_copy, patched

VALUES = [(6, b"\x00\xff"), (10, b"addresses: []\n"), (12, b"demo-rack"), (17, b"")]
SECTORS, FIRST, LAST = 4096, 100, 100 + 2047


def disk_with(path: Path, meta: bytes, name: str = "META") -> Path:
    data = gpt_disk(SECTORS, [gpt_entry(34, 99, "ESP"), gpt_entry(FIRST, LAST, name)])
    path.write_bytes(patched(data, FIRST * 512, meta))
    return path


def meta_in(path: Path) -> dict[int, bytes]:
    source = BytesSource(path.read_bytes())
    found = next(one for one in read_partitions(source).partitions if one.name == "META")
    return dict(read_meta(Slice(source, found.offset, found.size_bytes)))


def test_written_as_talos_writes_it() -> None:
    assert write_meta(VALUES) == meta_copy(VALUES) * 2
    with pytest.raises(FormatError, match="do not fit"):
        write_meta([(1, bytes(256 * 1024))])


def test_every_order_becomes_the_same_disk_with_the_same_values(tmp_path: Path) -> None:
    made = set()
    for number, order in enumerate(itertools.permutations(VALUES)):
        disk = disk_with(tmp_path / f"{number}", meta_copy(list(order)) * 2)
        assert order_meta(disk) == (6, 10, 12, 17)
        assert meta_in(disk) == dict(VALUES)
        made.add(disk.read_bytes())
    assert len(made) == 1


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        meta_copy(VALUES[::-1]),  # one copy only
        meta_copy(VALUES[::-1]) + meta_copy(VALUES),  # two that differ
        patched(meta_copy(VALUES[::-1]), 60, b"!") * 2,  # a wrong checksum
        meta_copy([(12, b"first"), (6, b""), (12, b"again")]) * 2,  # the order has a meaning
    ],
)
def test_what_is_not_understood_whole_is_left_alone(tmp_path: Path, meta: bytes) -> None:
    disk = disk_with(tmp_path / "disk", meta)
    before = disk.read_bytes()
    assert order_meta(disk) == ()
    assert disk.read_bytes() == before


def test_other_partitions_and_other_files_are_left_alone(tmp_path: Path) -> None:
    disk = disk_with(tmp_path / "disk", meta_copy(VALUES[::-1]) * 2, name="DATA")
    before = disk.read_bytes()
    assert order_meta(disk) == ()
    assert disk.read_bytes() == before
    (tmp_path / "text").write_bytes(b"no disk at all")
    assert order_meta(tmp_path / "text") == ()
