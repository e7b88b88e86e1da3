"""One disk in every container that qemu-img writes, in an appliance, and packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.deliver.inspect.inspection import inspect_file, inspect_source
from local_imager.deliver.inspect.meaning import Meaning
from local_imager.formats.source import BytesSource
from tests.diskfiles import tool
from tests.talosfiles import cpio, disk, talos_disk, tar

FORMATS = {
    "qcow2": ("qcow2", ""),
    "vhd": ("vpc", "subformat=dynamic,force_size"),
    "vhd fixed": ("vpc", "subformat=fixed,force_size"),
    "vmdk": ("vmdk", "subformat=streamOptimized"),
    "vmdk sparse": ("vmdk", "subformat=monolithicSparse"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_packages(["filesystems"])
    path: Path = tmp_path_factory.mktemp("disks") / "plain"
    path.write_bytes(talos_disk())
    return path


def told(found: Meaning) -> tuple[object, ...]:
    return (found.schematic_id, found.kernel_arguments, dict(found.meta), found.talos_version)


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, plain: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    form, options = FORMATS[name]
    tool("qemu-img", "convert", "-O", form, *(["-o", options] if options else []), plain, made)
    whole, found = inspect_file(plain), inspect_file(made)
    assert found.meaning.packing == (name.split()[0],) and found.meaning.kind == "disk"
    assert told(found.meaning) == told(whole.meaning)
    content = found.tree.children[0]
    assert (content.name, content.kind) == ("content", "disk")
    assert content.digest == whole.tree.digest
    assert inspect_file(made, digests="meaning").meaning == found.meaning


def test_an_appliance(plain: Path, tmp_path: Path) -> None:
    made = tmp_path / "disk.vmdk"
    tool("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", plain, made)
    members = {"disk.ovf": b"<Envelope/>", "disk.mf": b"", "disk.vmdk": made.read_bytes()}
    done = inspect_source(BytesSource(tar(members)), "appliance")
    assert (done.tree.kind, done.meaning.packing) == ("ova", ("ova", "vmdk"))
    assert told(done.meaning) == told(inspect_file(plain).meaning)
    assert done.remake is not None and done.remake.asset == "metal-amd64.ova"


def test_entries_of_the_boot_loader_specification() -> None:
    entry = (
        b"title Debian 13\n# options none\nlinux /vmlinuz\noptions root=/dev/sda1\noptions quiet\n"
    )
    files = {"loader/entries/a.conf": entry, "other/b.conf": entry}
    found = inspect_source(BytesSource(disk([("ESP", cpio(files))])), "disk").meaning
    assert [(one.title, one.loader, one.kernel_arguments) for one in found.boot_entries] == [
        ("Debian 13", "systemd-boot", ("root=/dev/sda1", "quiet"))
    ]


def test_a_damaged_menu_is_told() -> None:
    files = {"grub/grub.cfg": b"menuentry 'never ends {\n"}
    found = inspect_source(BytesSource(disk([("BOOT", cpio(files))])), "disk").meaning
    assert [one.what for one in found.unknown if "grub.cfg" in one.why] == ["boot"]
