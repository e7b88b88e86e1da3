"""The tar files around disks, read back by tarfile and by GNU tar."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import tarfile
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from local_imager.build.archives import write_disk_tar_gz, write_ova
from local_imager.build.diskids import fix_vhd_identity, fix_vmdk_identity
from local_imager.build.ovf import ovf_document
from local_imager.errors import BuildError

MIB = 1 << 20
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"


def sparse_file(path: Path, size: int, parts: dict[int, bytes]) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)
        for offset, data in parts.items():
            stream.seek(offset)
            stream.write(data)


# Up to four parts fit into the header, 21 more into each block after it.
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 25, 26, 60])
def test_a_sparse_tar_is_what_was_packed(tmp_path: Path, count: int) -> None:
    disk, packed = tmp_path / "disk", tmp_path / "packed.tar.gz"
    parts = {number * 200_000: f"part {number}".encode() for number in range(count)}
    sparse_file(disk, 13 * MIB + 5, parts)
    write_disk_tar_gz(disk, packed, 42, 2, threading.Event())
    with tarfile.open(packed) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.mtime) == ("disk.raw", 13 * MIB + 5, 42)
        assert (member.uid, member.gid, member.mode) == (0, 0, 0o644)
        stream = archive.extractfile(member)
        assert stream is not None and stream.read() == disk.read_bytes()
    subprocess.run(["tar", "-xzf", packed, "-C", tmp_path], check=True)
    assert (tmp_path / "disk.raw").read_bytes() == disk.read_bytes()


def test_a_disk_over_eight_gibibytes(tmp_path: Path) -> None:
    disk, packed = tmp_path / "disk", tmp_path / "packed.tar.gz"
    sparse_file(disk, (8 << 30) + MIB, {0: b"begin", (8 << 30) + 7: b"end"})
    write_disk_tar_gz(disk, packed, 42, 2, threading.Event())
    listed = subprocess.run(["tar", "-tvzf", packed], check=True, capture_output=True, text=True)
    assert str((8 << 30) + MIB) in listed.stdout
    with tarfile.open(packed) as archive:
        member = archive.getmember("disk.raw")
        stream = archive.extractfile(member)
        assert stream is not None
        stream.seek((8 << 30) + 7)
        assert stream.read(3) == b"end"


def test_the_tar_depends_on_content_only(tmp_path: Path) -> None:
    results = []
    for name in ("holes", "zeros"):
        disk = tmp_path / name
        sparse_file(disk, 2 * MIB, {300_000: b"x" * 100_000})
        if name == "zeros":
            disk.write_bytes(disk.read_bytes())
        write_disk_tar_gz(disk, disk.with_suffix(".gz"), 1, 3, threading.Event())
        results.append(gzip.decompress(disk.with_suffix(".gz").read_bytes()))
    assert results[0] == results[1]


def vmdk(path: Path, identifier: str = "0" * 32) -> None:
    """The begin of a stream-optimised VMDK of 8 MiB, as vmdk-convert writes it."""
    header = struct.pack("<4sIIQ", b"KDMV", 3, 0x30001, 8 * MIB // 512).ljust(512, b"\0")
    text = f"# Disk DescriptorFile\nversion=1\nCID={identifier[-8:]}\nparentCID=ffffffff\n"
    text += f'ddb.longContentID = "{identifier}"\n'
    path.write_bytes(header + text.encode().ljust(20 * 512, b"\0") + b"grains" * 100)


def test_an_ova_holds_description_checksums_and_disk(tmp_path: Path) -> None:
    disk, ova = tmp_path / "disk.vmdk", tmp_path / "disk.ova"
    vmdk(disk)
    write_ova(disk, ova, 42)
    with tarfile.open(ova) as archive:
        assert archive.getnames() == ["disk.ovf", "disk.mf", "disk.vmdk"]
        assert {(m.mtime, m.uid, m.gid) for m in archive.getmembers()} == {(42, 0, 0)}
        content = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert content["disk.vmdk"] == disk.read_bytes()
    for line in content["disk.mf"].decode().splitlines():
        name, digest = line.removeprefix("SHA256(").split(")= ")
        assert hashlib.sha256(content[name]).hexdigest() == digest
    root = ElementTree.fromstring(content["disk.ovf"])
    file, described = root.find(f".//{OVF}File"), root.find(f".//{OVF}Disk")
    assert file is not None and described is not None
    assert file.get(f"{OVF}size") == str(disk.stat().st_size)
    assert described.get(f"{OVF}capacity") == "8"
    assert described.get(f"{OVF}fileRef") == file.get(f"{OVF}id")


def test_the_description_is_a_machine_that_can_be_configured() -> None:
    root = ElementTree.fromstring(ovf_document("disk.vmdk", 1, MIB))
    setting = root.find(f".//{OVF}Property")
    assert setting is not None and setting.get(f"{OVF}key") == "talos.config"
    items = root.findall(f".//{OVF}Item")
    kinds = [element.text for item in items for element in item if "ResourceType" in element.tag]
    assert kinds == ["3", "4", "6", "17", "10", "24", "1"]


def test_the_description_is_the_imagers_to_the_byte() -> None:
    """Seen in what the imager of v1.13.0 writes by itself for a disk of this size."""
    data = ovf_document("disk.vmdk", 24_479_232, 1_246 * MIB)
    digest = "bfd3d92a580fbfca69fa19dbb244744aa09cea9b189d77f004d76f9d97e275ee"
    assert (len(data), hashlib.sha256(data).hexdigest()) == (5862, digest)


def test_a_file_that_is_no_vmdk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(20_000))
    with pytest.raises(BuildError, match="VMDK"):
        write_ova(tmp_path / "disk", tmp_path / "ova", 1)
    with pytest.raises(BuildError, match="VMDK"):
        fix_vmdk_identity(tmp_path / "disk", "x")


def test_random_identifiers_of_a_vmdk_become_fixed_ones(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    vmdk(one, "1" * 32)
    vmdk(two, "2" * 32)
    size = one.stat().st_size
    for path in (one, two):
        fix_vmdk_identity(path, "the disk")
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size == size
    fix_vmdk_identity(two, "another disk")
    assert one.read_bytes() != two.read_bytes()


def vhd(path: Path, kind: int, stamp: int, identifier: bytes) -> None:
    footer = bytearray(512)
    footer[:8] = b"conectix"
    struct.pack_into(">I", footer, 24, stamp)
    struct.pack_into(">I", footer, 60, kind)
    footer[68:84] = identifier
    struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
    path.write_bytes((bytes(footer) if kind == 3 else b"") + b"data" * 999 + bytes(footer))


@pytest.mark.parametrize("kind", [2, 3], ids=["fixed", "dynamic"])
def test_time_and_identifier_of_a_vhd_become_fixed_ones(tmp_path: Path, kind: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    vhd(one, kind, 1, b"a" * 16)
    vhd(two, kind, 99, b"b" * 16)
    for path in (one, two):
        fix_vhd_identity(path, 1559424892, "the disk")
    assert one.read_bytes() == two.read_bytes()
    footer = bytearray(one.read_bytes()[-512:])
    (checksum,) = struct.unpack_from(">I", footer, 64)
    struct.pack_into(">I", footer, 64, 0)
    assert checksum == ~sum(footer) & 0xFFFFFFFF
    assert struct.unpack_from(">I", footer, 24) == (1559424892 - 946684800,)
    assert (one.read_bytes()[:8] == b"conectix") is (kind == 3)


def test_a_file_that_is_no_vhd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(2000))
    with pytest.raises(BuildError, match="VHD"):
        fix_vhd_identity(tmp_path / "disk", 1, "x")
