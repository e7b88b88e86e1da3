"""The readers of disks on what real imagers make, with the usual programs as witnesses."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.formats.entries import Volume
from local_imager.formats.fat import read_fat
from local_imager.formats.gpt import PartitionTable, read_partitions
from local_imager.formats.mapped import DiskView
from local_imager.formats.meta import read_meta
from local_imager.formats.qcow2 import open_qcow2
from local_imager.formats.source import FileSource, FormatError, Slice, Source, sha256_of, stream
from local_imager.formats.vhd import open_vhd
from local_imager.formats.vmdk import open_vmdk
from local_imager.formats.xfs import XfsVolume, read_xfs
from tests.diskfiles import empty_file, tool
from tests.integration.looking import efi_file, efi_names, partitions
from tests.labfolder import NEWEST, OLDEST, Lab
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs:
    - e2e.marker=readers
  meta:
    - key: 12
      value: |
        several
        lines
"""
FORMS = ("raw", "qcow2", "vhd", "ova")


@dataclass(frozen=True)
class Disk:
    """A raw disk, and what the program says of the other assets of its build."""

    path: Path
    digests: dict[str, str]
    paths: dict[str, Path]


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def disk(
    request: pytest.FixtureRequest, warm: Program, session_folder: Path, programs: None
) -> Disk:
    need_packages(["filesystems"])
    version = request.param
    schematic = session_folder / "readers.yaml"
    schematic.write_text(SCHEMATIC)
    forms = FORMS if version == OLDEST else ("raw",)
    assets = [f"metal-amd64.{form}" for form in forms]
    results = warm.build(schematic, *assets, "kernel-amd64", version=version)
    return Disk(
        path=Path(results[0]["path"]),
        digests={result["asset"]: result["digest"] for result in results},
        paths={result["asset"]: Path(result["path"]) for result in results},
    )


@pytest.fixture
def source(disk: Disk) -> Iterator[FileSource]:
    with FileSource(disk.path) as opened:
        yield opened


def part(source: Source, table: PartitionTable, name: str) -> Source:
    (found,) = [partition for partition in table.partitions if partition.name == name]
    return Slice(source, found.offset, found.size_bytes)


def content(volume: Volume, path: str) -> bytes:
    (entry,) = [entry for entry in volume.entries if entry.path == path]
    return b"".join(stream(volume.open(entry)))


def test_partitions_as_sgdisk_says(disk: Disk, source: Source) -> None:
    table = read_partitions(source)
    wanted = partitions(disk.path)
    assert (table.kind, table.faults) == ("gpt", ())
    assert {p.name: (p.offset, p.size_bytes) for p in table.partitions} == {
        name: (one.start_bytes, one.size_bytes) for name, one in wanted.items()
    }
    for partition in table.partitions:
        said = tool("sgdisk", f"-i{partition.number}", disk.path)
        assert f"unique GUID: {partition.guid.upper()}" in said
        assert f"GUID code: {partition.type_guid.upper()}" in said
    with disk.path.open("rb") as stream_:
        assert table.boot_code == stream_.read(440)


def test_the_efi_partition_as_mtools_reads_it(disk: Disk, source: Source, folder: Path) -> None:
    volume = read_fat(part(source, read_partitions(source), "EFI"))
    files = [entry for entry in volume.entries if entry.kind == "file"]
    assert {f"/{entry.path}" for entry in files} == efi_names(disk.path)
    for entry in files:
        assert content(volume, entry.path) == efi_file(disk.path, f"/{entry.path}", folder)
    assert (volume.kind, volume.label) == ("fat32", "EFI")


def test_meta_holds_what_the_schematic_says(source: Source) -> None:
    values = read_meta(part(source, read_partitions(source), "META"))
    assert (values[12], values.faults) == (b"several\nlines\n", ())


def boot_of(source: Source) -> XfsVolume:
    return read_xfs(part(source, read_partitions(source), "BOOT"))


def test_the_boot_partition_holds_the_kernel_that_was_built_beside_it(
    disk: Disk, source: Source
) -> None:
    volume = boot_of(source)
    (kernel,) = [entry for entry in volume.entries if entry.name == "vmlinuz"]
    assert sha256_of(volume.open(kernel)) == disk.digests["kernel-amd64"]
    configuration = content(volume, "grub/grub.cfg").decode()
    assert "e2e.marker=readers" in configuration and "menuentry" in configuration
    assert volume.label == "BOOT"


def newest_xfs_db(lab: Lab, *argv: str | Path) -> str:
    """Run the xfs_db beside the mkfs.xfs of the imager: Debian 12's knows no parent pointers."""
    root = lab.root / "steps" / "sid" / "root" / "usr"
    libraries = root / "lib" / "x86_64-linux-gnu"
    loader = libraries / "ld-linux-x86-64.so.2"
    return tool(loader, "--library-path", libraries, root / "sbin" / "xfs_db", "-r", *argv)


def test_the_boot_partition_as_xfs_db_reads_it(lab: Lab, source: Source, folder: Path) -> None:
    held, volume = part(source, read_partitions(source), "BOOT"), boot_of(source)
    boot = empty_file(folder / "boot", held.size_bytes)
    with boot.open("r+b") as copy:
        for start, count in held.data_runs(0, held.size_bytes):
            copy.seek(start)
            copy.writelines(stream(held, start, count))
    assert volume.uuid in newest_xfs_db(lab, "-c", "uuid", boot)
    said = newest_xfs_db(lab, "-c", "version", boot)
    named = {"RMAPBT", "REFLINK", "INOBTCNT", "BIGTIME", "NREXT64", "PARENT", "EXCHANGE"}
    told = {name for name in named if re.search(rf"\b{name}", said)}
    assert told == named & {feature.upper().replace("COUNT", "CNT") for feature in volume.features}
    assert len(told) > 3
    folders = ["", *(entry.path for entry in volume.entries if entry.kind == "directory")]
    seen = set()
    for path in folders:
        said = newest_xfs_db(lab, "-c", f"ls /{path}", boot)
        rows = re.findall(r"^\S+ +(\d+) +\S+ +\S+ +\d+ (\S+) \(good\)$", said, re.MULTILINE)
        seen |= {(path, name, int(number)) for number, name in rows if name not in (".", "..")}
    assert seen == {(e.path.rpartition("/")[0], e.name, e.number) for e in volume.entries}


def containers(disk: Disk, opened: FileSource, form: str) -> DiskView:
    readers: dict[str, Callable[[Source], DiskView]] = {"qcow2": open_qcow2, "vhd": open_vhd}
    if form in readers:
        return readers[form](opened)
    with tarfile.open(disk.paths["metal-amd64.ova"]) as archive:
        (member,) = [one for one in archive if one.name.endswith(".vmdk")]
    return open_vmdk(Slice(opened, member.offset_data, member.size))


@pytest.mark.parametrize("disk", [OLDEST], indirect=True)
@pytest.mark.parametrize("form", FORMS[1:])
def test_each_container_holds_the_raw_disk(form: str, disk: Disk, source: Source) -> None:
    with FileSource(disk.paths[f"metal-amd64.{form}"]) as opened:
        held = containers(disk, opened, form).source
        assert 0 <= held.size_bytes - source.size_bytes < 1 << 20
        compared = 0
        for one in (held, source):
            for start, count in one.data_runs(0, source.size_bytes):
                count = min(count, source.size_bytes - start)
                left = b"".join(stream(held, start, count))
                assert left == b"".join(stream(source, start, count))
                compared += count
        assert compared > 2 * 20_000_000


def test_a_disk_that_was_cut_off_is_refused(source: Source) -> None:
    with pytest.raises(FormatError, match="lies outside"):
        read_partitions(Slice(source, 0, source.size_bytes // 2))
