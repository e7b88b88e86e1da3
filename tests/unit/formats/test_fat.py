"""FAT volumes as mkfs.fat and mtools make them, and damaged ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.formats.entries import Entry
from local_imager.formats.fat import FatVolume, read_fat
from local_imager.formats.source import BytesSource, FileSource, FormatError, stream
from tests.diskfiles import Sparse, empty_file, patched, small_fat32, tool

MIB = 1 << 20
RANDOM = random.Random(3)
KINDS = {
    "fat12": (4, ("-F", "12", "-s", "8")),
    "fat16": (24, ("-F", "16", "-s", "4")),
    "fat32": (64, ("-F", "32", "-s", "1")),
    "fat32 with sectors of 4096 bytes": (300, ("-F", "32", "-S", "4096", "-s", "1")),
}
FILES = {
    "EFI/BOOT/BOOTX64.efi": 70_001,
    "EFI/Linux/Talos-v1.13.0+abc.efi": 300_000,
    "loader/loader.conf": 41,
    "README.TXT": 5,
    "lower.txt": 7,
    "ein sehr langer Name mit Umläuten äöü und \N{GREEK SMALL LETTER OMEGA}.dat": 513,
    "empty": 0,
}
CONTENT = {path: RANDOM.randbytes(size) for path, size in FILES.items()}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    need_packages(["filesystems"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for path, data in CONTENT.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def content(volume: FatVolume, entry: Entry) -> bytes:
    return b"".join(stream(volume.open(entry)))


def files_of(volume: FatVolume) -> dict[str, bytes]:
    return {e.path: content(volume, e) for e in volume.entries if e.kind == "file"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_mtools_wrote_is_read(kind: str, tree: Path, tmp_path: Path) -> None:
    size_mib, options = KINDS[kind]
    path = empty_file(tmp_path / "volume", size_mib * MIB)
    tool("mkfs.fat", *options, "-i", "12AB34CD", "-n", "EFI", path)
    tool("mcopy", "-s", "-Q", "-i", path, *sorted(tree.iterdir()), "::/")
    with FileSource(path) as source:
        volume = read_fat(source)
        assert files_of(volume) == CONTENT
    assert (volume.kind, volume.label, volume.serial) == (kind[:5], "EFI", "12AB-34CD")
    assert volume.oem_name == "mkfs.fat"
    directories = [e.path for e in volume.entries if e.kind == "directory"]
    assert set(directories) == {"EFI", "EFI/BOOT", "EFI/Linux", "loader"}
    order = [e.path for e in volume.entries]
    assert all(
        order.index(path.rpartition("/")[0]) < order.index(path) for path in order if "/" in path
    )


def test_times_and_attributes(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "volume", MIB)
    (tmp_path / "file").write_bytes(b"x")
    tool("touch", "-d", "2019-06-01T21:34:52Z", tmp_path / "file")
    tool("mkfs.fat", path)
    tool("mcopy", "-m", "-i", path, tmp_path / "file", "::/FILE")
    tool("mattrib", "+r", "+h", "-i", path, "::/FILE")
    with FileSource(path) as source:
        (entry,) = read_fat(source).entries
    assert entry.mtime == 1559424892
    assert entry.attributes == ("read-only", "hidden", "archive")
    assert (entry.mode, entry.uid, entry.name) == (None, None, "FILE")


def test_a_file_in_pieces_and_names_that_were_removed(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "volume", 4 * MIB)
    tool("mkfs.fat", "-F", "16", "-s", "1", path)
    held = {f"file number {number}": RANDOM.randbytes(3000) for number in range(60)}
    for name, data in held.items():
        (tmp_path / name).write_bytes(data)
    tool("mcopy", "-i", path, *(tmp_path / name for name in held), "::/")
    tool("mdel", "-i", path, *(f"::/file number {number}" for number in range(0, 60, 2)))
    fill = RANDOM.randbytes(4 * MIB - 200_000)
    (tmp_path / "fill").write_bytes(fill)
    tool("mcopy", "-i", path, tmp_path / "fill", "::/fill")
    volume = volume_of(path.read_bytes())
    found = files_of(volume)
    pieces = volume.open(next(e for e in volume.entries if e.path == "fill"))
    assert len(list(pieces.data_runs(0, pieces.size_bytes))) > 20
    wanted = {name: held[name] for name in list(held)[1::2]} | {"fill": fill}
    assert found == wanted


def test_many_names_in_one_directory(tmp_path: Path) -> None:
    path = empty_file(tmp_path / "volume", 8 * MIB)
    tool("mkfs.fat", "-F", "16", "-s", "1", path)
    (tmp_path / "d").mkdir()
    names = [f"a name that needs more than one record {number}" for number in range(300)]
    for name in names:
        (tmp_path / "d" / name).touch()
    tool("mcopy", "-s", "-i", path, tmp_path / "d", "::/")
    with FileSource(path) as source:
        found = read_fat(source).entries
    assert {entry.name for entry in found[1:]} == set(names)


# Damage, on a small volume that is kept in memory.


@pytest.fixture(scope="module")
def small() -> bytes:
    """FAT32 of few clusters, as the imager's: A (3 clusters), D/B (1 cluster)."""
    return small_fat32({"A": b"a" * 1500, "D/B": b"b" * 10})


def volume_of(data: bytes) -> FatVolume:
    return read_fat(BytesSource(data))


def places(data: bytes) -> tuple[int, int, int]:
    """Return where the table, the data and the cluster's size are."""
    reserved, sectors = struct.unpack_from("<H", data, 14)[0], struct.unpack_from("<I", data, 36)[0]
    return reserved * 512, (reserved + sectors) * 512, 512


def linked(data: bytes, cluster: int, value: int) -> bytes:
    return patched(data, places(data)[0] + 4 * cluster, struct.pack("<I", value))


def number_of(data: bytes, path: str) -> int:
    return next(e.number for e in volume_of(data).entries if e.path == path)


def test_the_small_volume_is_read(small: bytes) -> None:
    volume = volume_of(small)
    assert files_of(volume) == {"A": b"a" * 1500, "D/B": b"b" * 10}
    assert (volume.kind, volume.cluster_count, volume.label) == ("fat32", 2000, "EFI")


def test_chains_that_loop_end_early_or_leave_the_volume_are_refused(small: bytes) -> None:
    first = number_of(small, "A")
    for value, reason in (
        (first, "loops or is longer"),
        (0x0FFFFFFF, "ends before its file"),
        (0, "goes on at 0"),
        (0x0FFFFFF7, "goes on at 268435447"),
        (100_000, "goes on at 100000"),
    ):
        volume = volume_of(linked(small, first, value))
        with pytest.raises(FormatError, match=reason):
            content(volume, next(e for e in volume.entries if e.path == "A"))
    with pytest.raises(FormatError, match="only files"):
        volume.open(next(e for e in volume.entries if e.path == "D"))


def test_directories_that_loop_are_refused(small: bytes) -> None:
    directory = number_of(small, "D")
    with pytest.raises(FormatError, match="share their clusters"):
        volume_of(linked(small, directory, directory))
    _, data, size = places(small)
    record = data + (directory - 2) * size
    assert small[record : record + 2] == b"B "
    inside = patched(small, record + 11, b"\x10")
    to_itself = patched(inside, record + 26, struct.pack("<H", directory))
    with pytest.raises(FormatError, match="share their clusters"):
        volume_of(to_itself)
    nowhere = patched(inside, record + 26, struct.pack("<H", 60000))
    with pytest.raises(FormatError, match="begins at 60000"):
        volume_of(nowhere)


def test_a_file_that_claims_more_than_its_chain_is_refused(small: bytes) -> None:
    at = small.index(b"A          ")
    volume = volume_of(patched(small, at + 28, struct.pack("<I", 0xFFFFFFFF)))
    with pytest.raises(FormatError, match="ends before its file"):
        volume.open(volume.entries[0])


def test_names_that_are_no_names_are_refused(small: bytes) -> None:
    at = small.index(b"A          ")
    for name in (b"A/B        ", b"..         ", b"           ", b"D          "):
        with pytest.raises(FormatError, match="not a name"):
            volume_of(patched(small, at, name))


def test_a_volume_that_was_cut_off_is_refused(small: bytes) -> None:
    for size in (0, 511, 512, 4096, len(small) - 512):
        with pytest.raises(FormatError):
            volume_of(small[:size])


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\0"),
        (11, b"\0\0"),
        (11, b"\xff\xff"),
        (13, b"\0"),
        (13, b"\3"),
        (14, b"\0\0"),
        (14, b"\xff\xff"),
        (16, b"\0"),
        (16, b"\xff"),
        (21, b"\0"),
        (32, b"\xff\xff\xff\xff"),
        (36, b"\xff\xff\xff\xff"),
        (36, b"\0\0\0\0"),
        (44, b"\0\0\0\0"),
        (44, b"\xff\xff\xff\x0f"),
    ],
)
def test_a_boot_sector_that_lies_is_refused(small: bytes, offset: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        volume_of(patched(small, offset, value))


def test_a_table_of_gigabytes_is_not_read(small: bytes) -> None:
    head = bytearray(small[:512])
    sectors = 1 << 31
    struct.pack_into("<I", head, 32, sectors)
    struct.pack_into("<I", head, 36, 1 << 24)
    with pytest.raises(FormatError, match="larger than that of any"):
        read_fat(Sparse(sectors * 512, [(0, bytes(head))]))


def test_directories_nested_too_deeply_are_refused(small: bytes) -> None:
    table, data, size = places(small)
    volume = bytearray(small)
    first = number_of(small, "D")
    clusters = range(1000, 1100)
    for cluster, below in zip((first, *clusters), clusters, strict=False):
        struct.pack_into("<I", volume, table + 4 * cluster, 0x0FFFFFFF)
        record = b"D          \x10".ljust(26, b"\0") + struct.pack("<H", below) + bytes(4)
        volume[data + (cluster - 2) * size : data + (cluster - 2) * size + 32] = record
    with pytest.raises(FormatError, match="nested too deeply"):
        volume_of(bytes(volume))
