"""ISO images that xorriso makes: what each firmware boots, and what a disk would show."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.deliver.inspect.inspection import Inspection, inspect_file
from local_imager.formats.iso import read_iso
from local_imager.formats.source import BytesSource
from tests.diskfiles import mbr_entries, patched, small_fat32, tool
from tests.talosfiles import CMDLINE, SCHEMATIC_ID, kernel, uki

GRUB = f"menuentry 'Talos ISO' {{\n linux /boot/vmlinuz {CMDLINE}\n}}\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_packages(["inspect"])
    root: Path = tmp_path_factory.mktemp("iso") / "tree"
    (root / "boot/grub").mkdir(parents=True)
    (root / "boot/grub/grub.cfg").write_text(GRUB)
    (root / "boot/bios.img").write_bytes(b"\xeb\xfe" + bytes(4094))
    (root / "boot/vmlinuz").write_bytes(kernel())
    (root / "boot/esp.img").write_bytes(esp())
    return root


def esp() -> bytes:
    return small_fat32({"EFI/A.TXT": b"x", "EFI/LINUX/TALOS.EFI": uki()})


def made(tree: Path, out: Path, *options: str | Path) -> Inspection:
    bios = ("-b", "boot/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-eltorito-alt-boot")
    tool("xorriso", "-as", "mkisofs", "-R", "-V", "TALOS", *bios, *options, "-o", out, tree)
    return inspect_file(out)


def test_boot_images_that_are_files(tree: Path, tmp_path: Path) -> None:
    done = made(tree, tmp_path / "a.iso", "-e", "boot/esp.img", "-no-emul-boot")
    parts = {part.name: part for part in done.tree.children}
    assert {part.kind for part in done.tree.children} == {"directory", "file", "boot-entry"}
    assert parts["BIOS boot"].facts["image"] == "boot/bios.img"
    assert parts["UEFI boot"].facts["image"] == "boot/esp.img"
    assert done.tree.facts["label"] == "TALOS"
    found = done.meaning
    assert (found.kind, found.bios, found.uefi) == ("iso", True, True)
    assert (found.talos_version, found.schematic_id) == ("v1.13.0", SCHEMATIC_ID)
    assert [(one.loader, one.title) for one in found.boot_entries] == [
        ("systemd-boot", "Talos (v1.13.0)"),
        ("systemd-boot", "Talos (v1.13.0) (Reset system disk)"),
        ("grub", "Talos ISO"),
    ]


def test_an_efi_partition_behind_the_image(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "esp.img"
    place.write_bytes(esp())
    appended = ("-append_partition", "2", "0xef", place, "-appended_part_as_gpt")
    boots = ("-e", "--interval:appended_partition_2:all::", "-no-emul-boot")
    done = made(tree, tmp_path / "b.iso", *appended, *boots, "-partition_offset", "16")
    parts = {part.name: part for part in done.tree.children}
    assert parts["UEFI boot"].facts["image"] == "Appended2"
    assert parts["Appended2"].facts["content"] == "fat"
    assert parts["Appended2"].child("EFI") is not None
    itself = next(part for part in done.tree.children if part.facts.get("number") == 1)
    assert itself.kind == "partition" and not itself.children and itself.digest
    assert done.meaning.uefi and done.tree.facts["table"] in ("gpt", "hybrid")
    damaged = tmp_path / "c.iso"
    data = (tmp_path / "b.iso").read_bytes()
    damaged.write_bytes(patched(data, data.index(b"FAT32   ") - 82 + 13, b"\3"))
    assert inspect_file(damaged).meaning.kind == "iso"


def test_a_copy_in_the_tree_that_uefi_does_not_read(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    (root / "EFI/LINUX").mkdir(parents=True)
    boots = ("-e", "boot/esp.img", "-no-emul-boot")
    other = CMDLINE.replace("tty0", "tty9")
    for image, said in ((uki(), False), (uki(cmdline=other), True)):
        (root / "EFI/LINUX/TALOS.EFI").write_bytes(image)
        found = made(root, tmp_path / "a.iso", *boots).meaning
        assert {one.path for one in found.boot_entries if one.loader == "systemd-boot"} == {
            "boot/esp.img/EFI/LINUX/TALOS.EFI"
        }
        assert found.kernel_arguments == tuple(CMDLINE.split())
        copies = [one.why for one in found.unknown if "a copy that nothing boots" in one.why]
        assert bool(copies) == said


def test_an_image_that_is_cut_off(tree: Path, tmp_path: Path) -> None:
    made(tree, tmp_path / "a.iso", "-e", "boot/esp.img", "-no-emul-boot")
    cut = tmp_path / "cut.iso"
    whole = (tmp_path / "a.iso").read_bytes()
    cut.write_bytes(whole[: len(whole) - 600_000])
    done = inspect_file(cut)
    assert done.meaning.kind == "iso" and done.meaning.unknown


def test_partitions_that_begin_together_have_names_of_their_own(tree: Path, tmp_path: Path) -> None:
    made(tree, tmp_path / "a.iso", "-e", "boot/esp.img", "-no-emul-boot")
    data = (tmp_path / "a.iso").read_bytes()
    both = mbr_entries([(0x80, 0x17, 0, 1000), (0, 0x83, 0, 1500)])
    (tmp_path / "b.iso").write_bytes(patched(data, 446, both))
    done = inspect_file(tmp_path / "b.iso")
    found = [part for part in done.tree.children if part.kind == "partition"]
    assert [part.name for part in found] == ["partition 1", "partition 2"]
    assert [part.size_bytes for part in found] == [1000 * 512, 1500 * 512]
    assert not any(part.children for part in found)


def test_a_damaged_boot_catalogue_is_one_part_that_is_not_read(tree: Path, tmp_path: Path) -> None:
    sound = made(tree, tmp_path / "a.iso", "-e", "boot/esp.img", "-no-emul-boot")
    data = (tmp_path / "a.iso").read_bytes()
    at = read_iso(BytesSource(data)).boot.offset
    rests = {sound.tree.facts["rest"]}
    for begin, damage, entries, says in (
        (at + 4, b"evil", 2, "its checksum is wrong"),
        (at + 4, b"good", 2, "its checksum is wrong"),
        (at, b"\2", 0, "does not begin as one"),
    ):
        place = tmp_path / "damaged.iso"
        place.write_bytes(patched(data, begin, damage))
        done = inspect_file(place)
        part = done.tree.child("boot catalogue")
        assert part is not None and part.kind == "boot-entry" and says in part.unread
        boots = [one for one in done.tree.children if "platform" in one.facts]
        assert len(boots) == entries
        assert (done.meaning.bios, done.meaning.uefi) == (None, None)
        assert done.meaning.schematic_id == SCHEMATIC_ID
        assert any(says in one.why for one in done.meaning.unknown)
        rests.add(done.tree.facts["rest"])
    assert len(rests) == 4, "no two of them have the same bytes"
