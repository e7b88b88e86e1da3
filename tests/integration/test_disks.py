"""Disk images in every format and compression, from one raw disk, and equal to it in content."""

from __future__ import annotations

import itertools
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.looking import (
    differing_bytes,
    disk_info,
    efi_file,
    efi_names,
    kind_of,
    meta_values,
    partitions,
    read_pe,
    stem_and_packing,
    unpack,
    unpacked_digest,
)
from tests.labfolder import MIDDLE, NEWEST, OLDEST, run
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs:
    - e2e.marker=disk
  meta:
    - key: 12
      value: e2e-meta-value
"""
FORMATS = ("raw", "qcow2", "vhd", "ova")
PACKINGS = ("", ".xz", ".zst", ".gz", ".tar.gz")
EVERY_FORM = tuple(f"{form}{packing}" for form, packing in itertools.product(FORMATS, PACKINGS))
# What is compared below; the other formats and compressions are tried on a smaller disk.
COVERING = ("raw", "raw.zst", "qcow2")


@dataclass(frozen=True)
class Disks:
    """Disks of one version, platform and architecture."""

    version: str
    stem: str
    results: dict[str, dict[str, Any]]

    def path(self, form: str) -> Path:
        """Return the file of a form such as ``qcow2.xz``."""
        return Path(self.results[f"{self.stem}.{form}"]["path"])

    def digest(self, form: str) -> str:
        """Return the digest that the program told."""
        return str(self.results[f"{self.stem}.{form}"]["digest"])


@pytest.fixture(scope="module")
def schematic(session_folder: Path) -> Path:
    path = session_folder / "disks.yaml"
    path.write_text(SCHEMATIC)
    return path


def build_disks(
    warm: Program, schematic: Path, version: str, stem: str, forms: tuple[str, ...]
) -> Disks:
    results = warm.build(schematic, *(f"{stem}.{form}" for form in forms), version=version)
    return Disks(version, stem, {result["asset"]: result for result in results})


@pytest.fixture(scope="module")
def every_form(warm: Program, schematic: Path, programs: None) -> Disks:
    return build_disks(warm, schematic, OLDEST, "nocloud-amd64", EVERY_FORM)


@pytest.mark.parametrize("form", [form for form in EVERY_FORM if stem_and_packing(form)[1]])
def test_unpacking_gives_the_plain_disk(every_form: Disks, form: str) -> None:
    assert unpacked_digest(every_form.path(form)) == every_form.digest(stem_and_packing(form)[0])


def check_formats(disks: Disks, folder: Path) -> None:
    """All formats hold the content of the raw disk, bit by bit."""
    raw = disks.path("raw")
    size_bytes = raw.stat().st_size
    for form, driver in (("qcow2", "qcow2"), ("vhd", "vpc")):
        told = disk_info(disks.path(form))
        assert told["format"] == driver
        # A VHD's size is one of whole cylinders.
        assert 0 <= told["virtual-size"] - size_bytes < (1 << 20 if form == "vhd" else 1)
        run("qemu-img", "compare", "-f", "raw", "-F", driver, raw, disks.path(form))
    with tarfile.open(disks.path("ova")) as archive:
        names = archive.getnames()
        archive.extractall(folder, filter="data")
    descriptor, manifest, disk = (
        next(name for name in names if name.endswith(ending)) for ending in (".ovf", ".mf", ".vmdk")
    )
    assert names[0] == descriptor  # the standard wants it first
    assert f"SHA256({disk})" in (folder / manifest).read_text()
    run("qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw, folder / disk)


def test_every_format_has_the_raw_disks_content(every_form: Disks, folder: Path) -> None:
    check_formats(every_form, folder)


def check_raw(disks: Disks, raw: Path, folder: Path, boot_file: str) -> None:
    """Partition table, boot files, arguments and META of a raw disk."""
    assert "boot sector" in kind_of(raw)
    assert {"EFI", "META"} <= set(partitions(raw))
    assert any(boot_file.lower() == name.lower() for name in efi_names(raw))
    assert "e2e-meta-value" in meta_values(raw)
    uki_name = f"/EFI/Linux/Talos-{disks.version}.efi"
    if uki_name in efi_names(raw):
        assert "e2e.marker=disk" in read_pe(efi_file(raw, uki_name, folder)).kernel_args
    else:  # GRUB's menu lies in the BOOT partition
        assert "BOOT" in partitions(raw)
        run("grep", "--quiet", "--text", "e2e.marker=disk", raw)


def test_an_old_versions_disk(every_form: Disks, folder: Path) -> None:
    check_raw(every_form, every_form.path("raw"), folder, "/EFI/boot/BOOTX64.efi")


def test_the_newest_metal_disk(
    warm: Program, schematic: Path, programs: None, folder: Path
) -> None:
    disks = build_disks(warm, schematic, NEWEST, "metal-amd64", COVERING)
    check_raw(disks, disks.path("raw"), folder, "/EFI/boot/BOOTX64.efi")
    assert unpacked_digest(disks.path("raw.zst")) == disks.digest("raw")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disks.path("raw"), disks.path("qcow2"))


@pytest.mark.parametrize(
    ("version", "asset"),
    [
        (NEWEST, "nocloud-arm64.raw.zst"),
        (MIDDLE, "metal-arm64.raw"),
        (OLDEST, "metal-arm64.raw.xz"),
    ],
)
def test_an_arm64_disk(
    warm: Program, schematic: Path, programs: None, folder: Path, version: str, asset: str
) -> None:
    (result,) = warm.build(schematic, asset, version=version)
    disks = Disks(version, asset.partition(".")[0], {asset: result})
    path = Path(result["path"])
    raw = unpack(path, folder) if stem_and_packing(asset)[1] else path
    check_raw(disks, raw, folder, "/EFI/boot/BOOTAA64.efi")


def test_the_exact_way_makes_the_same_disk(
    warm: Program, schematic: Path, every_form: Disks, folder: Path
) -> None:
    """With --exact the imager compresses and converts by itself.

    The imager's file system of the BOOT partition has its own random numbers and times in every
    run; everything else is equal to the byte.
    """
    exact = Program(warm.config, warm.store, folder / "exact")
    assets = ("nocloud-amd64.raw.zst", "nocloud-amd64.qcow2")
    results = exact.build(schematic, *assets, "--exact", version=OLDEST)
    assert [result["cached"] for result in results] == [False, False]
    keys = {str(result["build_key"]) for result in every_form.results.values()}
    assert keys.isdisjoint(result["build_key"] for result in results)
    ours = every_form.path("raw")
    boot = partitions(ours)["BOOT"]
    for theirs in (unpack(Path(results[0]["path"]), folder), folder / "from-qcow2"):
        if not theirs.exists():
            run("qemu-img", "convert", "-O", "raw", results[1]["path"], theirs)
        different = differing_bytes(ours, theirs)
        assert len(different) < 4096
        assert {
            boot.start_bytes <= at < boot.start_bytes + boot.size_bytes for at in different
        } <= {True}
