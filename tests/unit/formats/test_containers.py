"""Disks inside qcow2, VHD and VMDK as qemu-img makes them, and damaged ones."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.formats.mapped import DiskView
from local_imager.formats.qcow2 import open_qcow2
from local_imager.formats.source import BytesSource, FileSource, FormatError, Source, sha256_of
from local_imager.formats.vhd import open_vhd
from local_imager.formats.vmdk import open_vmdk
from tests.diskfiles import Sparse, empty_file, patched, tool

MIB = 1 << 20
RANDOM = random.Random(9)
# Not a multiple of any unit, so that the last one is cut.
DISK_BYTES = 40 * MIB + 5 * 512
Open = Callable[[Source], DiskView]
FORMATS: dict[str, tuple[Open, tuple[str, ...]]] = {
    "qcow2": (open_qcow2, ("-O", "qcow2")),
    "qcow2 of version 2": (open_qcow2, ("-O", "qcow2", "-o", "compat=0.10,cluster_size=512")),
    "qcow2 with large clusters": (open_qcow2, ("-O", "qcow2", "-o", "cluster_size=2M")),
    "qcow2 with zlib": (open_qcow2, ("-c", "-O", "qcow2")),
    "qcow2 with zlib and small clusters": (
        open_qcow2,
        ("-c", "-O", "qcow2", "-o", "cluster_size=4096"),
    ),
    "qcow2 with zstd": (open_qcow2, ("-c", "-O", "qcow2", "-o", "compression_type=zstd")),
    "fixed VHD": (open_vhd, ("-O", "vpc", "-o", "subformat=fixed,force_size=on")),
    "dynamic VHD": (open_vhd, ("-O", "vpc", "-o", "subformat=dynamic,force_size=on")),
    "sparse VMDK": (open_vmdk, ("-O", "vmdk")),
    "stream-optimised VMDK": (open_vmdk, ("-O", "vmdk", "-o", "subformat=streamOptimized")),
}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    need_packages(["filesystems"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, a disk of which little has data, in pieces of each sort."""
    folder = tmp_path_factory.mktemp("disks")
    with empty_file(folder / "raw", DISK_BYTES).open("r+b") as stream:
        for offset, data in (
            (0, RANDOM.randbytes(512)),
            (3 * MIB - 700, RANDOM.randbytes(100_000)),
            (7 * MIB, b"text that packs well " * 20_000),
            (20 * MIB, RANDOM.randbytes(5 * MIB)),
            (DISK_BYTES - 1000, RANDOM.randbytes(1000)),
        ):
            stream.seek(offset)
            stream.write(data)
    return folder


def made(folder: Path, kind: str) -> Path:
    """Return the disk in a container, made when it is asked for first."""
    path = folder / kind
    if not path.exists():
        tool("qemu-img", "convert", "-f", "raw", *FORMATS[kind][1], folder / "raw", path)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_byte_of_the_disk_is_read(kind: str, folder: Path) -> None:
    raw = (folder / "raw").read_bytes()
    with FileSource(made(folder, kind)) as source, FileSource(folder / "raw") as wanted:
        view = FORMATS[kind][0](source)
        assert view.source.size_bytes == DISK_BYTES
        assert sha256_of(view.source) == sha256_of(wanted)
        for _ in range(100):
            offset = RANDOM.randint(0, DISK_BYTES)
            length = RANDOM.randint(0, min(300_000, DISK_BYTES - offset))
            assert view.source.read(offset, length) == raw[offset : offset + length]
        for offset, length in ((DISK_BYTES, 1), (-1, 1), (0, DISK_BYTES + 1)):
            with pytest.raises(FormatError):
                view.source.read(offset, length)


@pytest.mark.parametrize("kind", FORMATS)
def test_holes_are_known_and_nothing_else_is_called_a_hole(kind: str, folder: Path) -> None:
    raw = (folder / "raw").read_bytes()
    with FileSource(made(folder, kind)) as source:
        disk = FORMATS[kind][0](source).source
        runs = list(disk.data_runs(0, disk.size_bytes))
        held, behind = bytearray(DISK_BYTES), 0
        for start, count in runs:
            assert behind <= start < start + count <= DISK_BYTES
            behind = start + count
            held[start:behind] = raw[start:behind]
        assert held == raw
        assert sum(count for _, count in runs) < 14 * MIB
        inside = list(disk.data_runs(20 * MIB + 5, 1000))
        assert inside == [(20 * MIB + 5, 1000)]
        assert list(disk.data_runs(12 * MIB, 1000)) == []
        assert list(disk.data_runs(DISK_BYTES, 1000)) == []


def test_facts_of_containers(folder: Path) -> None:
    def facts(kind: str) -> dict[str, object]:
        with FileSource(made(folder, kind)) as source:
            return dict(FORMATS[kind][0](source).facts)

    assert facts("qcow2 with zstd") == {
        "version": 3,
        "cluster_bytes": 65536,
        "compression": "zstd",
        "snapshots": 0,
        "dirty": False,
    }
    assert facts("qcow2 of version 2")["version"] == 2
    fixed, dynamic = facts("fixed VHD"), facts("dynamic VHD")
    assert (fixed["kind"], dynamic["kind"]) == ("fixed", "dynamic")
    assert (fixed["creator"], dynamic["block_bytes"]) == ("qem2", 2 * MIB)
    assert isinstance(fixed["made"], int) and fixed["made"] > 1_500_000_000
    assert fixed["uuid"] != dynamic["uuid"] and len(str(fixed["uuid"])) == 36
    packed, plain = facts("stream-optimised VMDK"), facts("sparse VMDK")
    assert (packed["kind"], packed["compression"]) == ("streamOptimized", "deflate")
    assert (plain["kind"], plain["compression"]) == ("monolithicSparse", "none")
    assert len(str(packed["content_id"])) > 4


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_was_cut_off_is_refused(kind: str, folder: Path) -> None:
    path = made(folder, kind)
    size = path.stat().st_size
    with FileSource(path) as source:
        data = source.read(0, size)
    for cut in (0, 3, 100, 511, 512, 1024, 70_000, size // 2, size * 3 // 4):
        with pytest.raises(FormatError):
            sha256_of(FORMATS[kind][0](BytesSource(data[:cut])).source)


@pytest.mark.parametrize("opened", [open_qcow2, open_vhd, open_vmdk])
def test_what_is_no_such_disk_is_refused(opened: Open, folder: Path) -> None:
    for data in (b"", b"x" * 5000, bytes(5000)):
        with pytest.raises(FormatError):
            opened(BytesSource(data))


def test_a_disk_preallocated_in_its_container_is_a_hole_there(folder: Path) -> None:
    path = folder / "preallocated"
    tool("qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", path, "1G")
    with FileSource(path) as source:
        disk = open_qcow2(source).source
        assert list(disk.data_runs(0, disk.size_bytes)) == []
        assert disk.read(500 * MIB, 1000) == bytes(1000)


# qcow2


def test_what_a_qcow2_disk_must_not_need(folder: Path) -> None:
    base, top = made(folder, "qcow2"), folder / "top"
    tool("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    with FileSource(top) as source, pytest.raises(FormatError, match="stands on another file"):
        open_qcow2(source)
    data = base.read_bytes()[: 1 * MIB]
    bits = struct.pack
    for offset, value, reason in (
        (4, bits(">I", 4), "version 4"),
        (20, bits(">I", 8), "with 8 bits"),
        (20, bits(">I", 63), "with 63 bits"),
        (24, bits(">Q", 1 << 60), "claims 1152921504606846976 bytes"),
        (24, bits(">Q", 0), "claims 0 bytes"),
        (32, bits(">I", 2), "is encrypted"),
        (36, bits(">I", 0), "claims 41945600 bytes"),
        (40, bits(">Q", 1 << 62), "file ends"),
        (72, bits(">Q", 2), "marked as corrupt"),
        (72, bits(">Q", 4), "in another file"),
        (72, bits(">Q", 16), "features that are not known"),
        (72, bits(">Q", 1 << 40), "features that are not known"),
    ):
        with pytest.raises(FormatError, match=reason):
            open_qcow2(BytesSource(patched(data, offset, value)))
    unknown = patched(patched(data, 72, bits(">Q", 8)), 104, b"\2")
    with pytest.raises(FormatError, match="compression that is not known"):
        open_qcow2(BytesSource(unknown))


def qcow2(entries: dict[int, int], *, version: int = 3, size: int = 1 << 20) -> Sparse:
    """Return a qcow2 file with clusters of 4096 bytes and one table of them at 8192."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, 12, size, 0, 1, 4096, 0, 0, 0, 0
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    table = b"".join(struct.pack(">Q", entries.get(number, 0)) for number in range(512))
    first = struct.pack(">Q", 8192 | 1 << 63)
    return Sparse(65536, [(0, header), (4096, first), (8192, table), (12288, b"d" * 4096)])


def test_clusters_of_zeros() -> None:
    disk = open_qcow2(qcow2({0: 12288, 1: 1, 2: 12288 | 1, 3: 12288})).source
    assert disk.read(0, 4 * 4096) == b"d" * 4096 + bytes(8192) + b"d" * 4096
    assert list(disk.data_runs(0, disk.size_bytes)) == [(0, 4096), (12288, 4096)]
    older = open_qcow2(qcow2({2: 12288 | 1}, version=2)).source
    assert older.read(8192, 4096) == b"d" * 4096


def test_clusters_outside_of_the_file_and_damaged_ones_are_refused() -> None:
    outside = open_qcow2(qcow2({0: 1 << 40})).source
    with pytest.raises(FormatError, match="file ends"):
        outside.read(0, 10)
    packed = open_qcow2(qcow2({0: 1 << 62 | 12288})).source
    with pytest.raises(FormatError, match="is damaged"):
        packed.read(0, 10)
    beyond = open_qcow2(qcow2({0: 1 << 62 | 1 << 40})).source
    with pytest.raises(FormatError, match="file ends"):
        beyond.read(0, 10)


def test_a_table_that_is_used_twice_is_refused() -> None:
    source = qcow2({}, size=4 << 20)
    header = patched(source.read(0, 104), 36, struct.pack(">I", 2))
    pieces = [(0, header), (4096, struct.pack(">QQ", 8192, 8192))]
    with pytest.raises(FormatError, match="a table twice"):
        open_qcow2(Sparse(65536, pieces))


# VHD


def test_damage_of_a_vhd(folder: Path) -> None:
    fixed, dynamic = (made(folder, kind).read_bytes() for kind in ("fixed VHD", "dynamic VHD"))
    for data in (fixed, dynamic):
        with pytest.raises(FormatError, match="checksum"):
            open_vhd(BytesSource(patched(data, len(data) - 512 + 70, b"???")))
    with pytest.raises(FormatError, match="checksum"):
        open_vhd(BytesSource(patched(dynamic, 512 + 30, b"?")))
    for field, value, reason in (
        (60, 4, "difference to another"),
        (60, 99, "is of no kind"),
        (52, 1 << 31, "claims .* bytes, which are not there"),
        (48, 1 << 20, "claims .* bytes"),
    ):
        with pytest.raises(FormatError, match=reason):
            open_vhd(BytesSource(footed(fixed, field, value)))
    for field, value, reason in (
        (28, 1, "has 1 blocks"),
        (32, 100, "blocks of 100 bytes"),
        (32, 1 << 31, "blocks of 2147483648 bytes"),
        (16, 1 << 30, "file ends"),
    ):
        with pytest.raises(FormatError, match=reason):
            open_vhd(BytesSource(headed(dynamic, field, value)))
    table = struct.unpack_from(">Q", dynamic, 512 + 16)[0]
    away = open_vhd(BytesSource(patched(dynamic, table, b"\x7f\xff\xff\xff"))).source
    with pytest.raises(FormatError, match="file ends"):
        away.read(0, 10)


def footed(data: bytes, field: int, value: int) -> bytes:
    footer = patched(data[-512:], field, struct.pack(">I", value))
    return data[:-512] + summed(footer, 64)


def headed(data: bytes, field: int, value: int) -> bytes:
    header = patched(data[512:1536], field, struct.pack(">I", value))
    return patched(data, 512, summed(header, 36))


def summed(data: bytes, at: int) -> bytes:
    total = ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF
    return patched(data, at, struct.pack(">I", total))


# VMDK


def test_damage_of_a_vmdk(folder: Path) -> None:
    sparse, packed = (made(folder, f"{kind} VMDK") for kind in ("sparse", "stream-optimised"))
    plain = sparse.read_bytes()
    for offset, value, reason in (
        (4, struct.pack("<I", 9), "version 9"),
        (12, struct.pack("<Q", 1 << 50), "claims 1125899906842624 sectors"),
        (12, struct.pack("<Q", 0), "claims 0 bytes"),
        (20, struct.pack("<Q", 0), "grains of 0 sectors"),
        (20, struct.pack("<Q", 1 << 40), "grains of"),
        (36, struct.pack("<Q", 1 << 40), "descriptor of"),
        (44, struct.pack("<I", 0), "tables of 0 entries"),
        (44, struct.pack("<I", 1 << 31), "tables of"),
        (56, struct.pack("<Q", 1 << 40), "file ends"),
        (8, struct.pack("<I", 1 << 16), "compression that is not known"),
    ):
        with pytest.raises(FormatError, match=reason):
            open_vmdk(BytesSource(patched(plain, offset, value)))
    data = packed.read_bytes()
    disk_begin = (folder / "raw").read_bytes()[:512]
    # As VMware writes it: the place of the tables is told only by a copy of the header at the end.
    streamed = patched(data, 56, b"\xff" * 8) + bytes(512) + data[:512] + bytes(512)
    assert open_vmdk(BytesSource(streamed)).source.read(0, 512) == disk_begin
    with pytest.raises(FormatError, match="footer is missing"):
        open_vmdk(BytesSource(streamed[:-512]))
    disk = open_vmdk(BytesSource(data)).source
    grain = data.index(struct.pack("<Q", 20 * MIB // 512))
    assert disk.read(20 * MIB, 10)
    for offset, value, reason in (
        (grain, struct.pack("<Q", 7), "names the grain of sector 7"),
        (grain + 8, struct.pack("<I", 1 << 31), "a grain of 2147483648 bytes"),
        (grain + 8, struct.pack("<I", 0), "a grain of 0 bytes"),
        (grain + 12, b"\xff\xff", "is damaged"),
        (grain + 8, struct.pack("<I", 40), "too short"),
    ):
        disk = open_vmdk(BytesSource(patched(data, offset, value))).source
        with pytest.raises(FormatError, match=reason):
            disk.read(20 * MIB, 65536)


def test_a_vmdk_that_names_other_files_is_refused() -> None:
    text = b'# Disk DescriptorFile\nversion=1\nRW 63 FLAT "/etc/passwd" 0\n'
    with pytest.raises(FormatError, match="data in other files"):
        open_vmdk(BytesSource(text))
