"""`inspect` on what the real imager made, of every kind, and on files of other tools."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.labfolder import NEWEST, OLDEST, run
from tests.pebytes import make_pe
from tests.program import Outcome, Program
from tests.talosfiles import cpio

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
    extraKernelArgs:
        - inspect.marker=seen
    meta:
        - key: 12
          value: inspect-meta
    systemExtensions:
        officialExtensions:
            - siderolabs/hello-world-service
"""
NEW = (
    "kernel-amd64",
    "metal-amd64-uki.efi",
    "metal-amd64.iso",
    "metal-amd64.raw.zst",
    "metal-arm64-uki.efi",
)
OLD = ("metal-amd64.iso", "nocloud-amd64.qcow2", "installer-amd64.tar")
KINDS = {"raw.zst": "disk", "qcow2": "disk", "iso": "iso", "uki.efi": "uki", "tar": "installer"}


@pytest.fixture(scope="module")
def schematic(session_folder: Path) -> Path:
    path = session_folder / "inspect.yaml"
    path.write_text(SCHEMATIC)
    return path


@pytest.fixture(scope="module")
def files(warm: Program, schematic: Path, programs: None) -> dict[tuple[str, str], Path]:
    """Every asset by version and name; two runs of the program make all of them."""
    found = {}
    for version, assets in ((NEWEST, NEW), (OLDEST, OLD)):
        for result in warm.build(schematic, *assets, version=version):
            found[version, result["asset"]] = Path(result["path"])
    return found


@pytest.fixture(scope="module")
def schematic_id(warm: Program, schematic: Path) -> str:
    return warm("schematic", "id", schematic).expect(0).stdout.strip()


@pytest.fixture(scope="module")
def stranger(warm: Program, session_folder: Path) -> Program:
    """The program of somebody who did not build these files."""
    return Program(warm.config, session_folder / "other-store", warm.out)


_SEEN: dict[tuple[Path, Path], dict[str, Any]] = {}


def inspected(program: Program, path: Path) -> dict[str, Any]:
    """Return what `inspect --json` says; a file that several tests look at is inspected once."""
    key = (program.store, path)
    if key not in _SEEN:
        _SEEN[key] = program("inspect", path, "--json").expect(0).json
    return _SEEN[key]


CASES = [(NEWEST, name) for name in NEW[1:]] + [(OLDEST, name) for name in OLD]


@pytest.mark.parametrize(("version", "name"), CASES, ids=lambda text: text)
def test_everything_is_told(
    version: str,
    name: str,
    files: dict[tuple[str, str], Path],
    stranger: Program,
    schematic_id: str,
) -> None:
    document = inspected(stranger, files[version, name])
    ending = next(ending for ending in KINDS if name.endswith(ending))
    arch = "arm64" if "arm64" in name else "amd64"
    assert (document["kind"], document["arch"]) == (KINDS[ending], arch)
    assert (document["schematic_id"], document["schematic"]) == (schematic_id, SCHEMATIC)
    names = [extension["name"] for extension in document["extensions"]]
    assert names == ["hello-world-service"]
    assert document["talos_version"] == version
    if not (version == OLDEST and ending == "tar"):  # that one gets its arguments from the machine
        assert "inspect.marker=seen" in document["kernel_arguments"]
        assert document["platform"] == name.partition("-")[0]
    if ending in ("raw.zst", "qcow2", "iso"):
        assert document["meta"]["0xc"] == "inspect-meta"
        assert document["boot"] == {"bios": True, "uefi": True}
    assert document["secure_boot"]["state"] in ("unsigned", "not-applicable")
    assert document["known"] is None
    remake = document["remake"]
    assert remake["command"] == f"local-imager build schematic.yaml {name} --version {version}"
    assert (remake["schematic"], remake["guessed"]) == (SCHEMATIC, None)
    assert not document["unknown"]


def test_profiles_and_loaders(files: dict[tuple[str, str], Path], stranger: Program) -> None:
    disk = inspected(stranger, files[NEWEST, "metal-amd64.raw.zst"])
    entries = [(entry["loader"], entry["profile"]) for entry in disk["boot_entries"]]
    assert entries[:2] == [("systemd-boot", "main"), ("systemd-boot", "reset-maintenance")]
    assert {loader for loader, _ in entries[2:]} == {"grub"}
    assert disk["sizes"]["content_bytes"] > 1 << 32 and disk["packing"] == ["zstd"]
    partitions = [part["name"] for part in disk["parts"]["children"][0]["children"]]
    assert partitions == ["boot code", "EFI", "BIOS", "BOOT", "META"]


def test_which_build_made_it(
    files: dict[tuple[str, str], Path], warm: Program, schematic_id: str, tmp_path: Path
) -> None:
    copy = tmp_path / "renamed"
    shutil.copyfile(files[NEWEST, "metal-amd64-uki.efi"], copy)
    known = inspected(warm, copy)["known"]
    assert (known["asset"], known["version"]) == ("metal-amd64-uki.efi", NEWEST)
    assert known["schematic_id"] == schematic_id and known["builder"].startswith("v1.")
    name = f"{schematic_id[:12]}/{NEWEST}/kernel-amd64"
    said = warm("inspect", name).expect(0, "Kernel", "made by", "made by local-imager")
    assert "make it again" not in said.text


def test_what_inspect_shows_builds_the_same_again(
    files: dict[tuple[str, str], Path], warm: Program, stranger: Program, tmp_path: Path
) -> None:
    original = files[NEWEST, "metal-amd64-uki.efi"]
    again = tmp_path / "schematic.yaml"
    again.write_text(stranger("inspect", original, "--schematic").expect(0).stdout)
    words = inspected(stranger, original)["remake"]["command"].split()
    assert words[:3] == ["local-imager", "build", "schematic.yaml"]
    (result,) = warm.build(again, words[3], version=words[5])
    assert Path(result["path"]).read_bytes() == original.read_bytes()


def test_secure_boot(warm: Program, signing_keys: Path, schematic: Path, stranger: Program) -> None:
    env = {"LOCAL_IMAGER_BUILD_SECUREBOOT_KEYS": str(signing_keys)}
    keyed = Program(warm.config, warm.store, warm.out, env=env)
    asset = "metal-amd64-secureboot.iso"
    (result,) = keyed.build(schematic, asset, version=NEWEST)
    document = inspected(stranger, Path(result["path"]))
    state = document["secure_boot"]
    assert (state["state"], state["pcr_signed"]) == ("signed", True)
    assert len(state["signers"]) == 1 and state["enrols"]
    assert document["remake"]["asset"] == asset


def test_a_kernel_of_debian(files: dict[tuple[str, str], Path], stranger: Program) -> None:
    document = inspected(stranger, files[NEWEST, "kernel-amd64"])
    assert document["kind"] == "kernel" and "deb" in document["kernel_version"]
    assert (document["arch"], document["remake"]) == ("amd64", None)
    why = {one["what"]: one["why"] for one in document["unknown"]}
    assert why == {"talos_version": "a kernel says the version of Linux only"}


@pytest.fixture(scope="module")
def debian_initrd(session_folder: Path) -> Path:
    path = session_folder / "initrd.gz"
    path.write_bytes(gzip.compress(cpio({"init": b"#!/bin/sh\n", "conf/x": b"y"})))
    return path


def test_a_uki_made_by_hand(
    files: dict[tuple[str, str], Path], stranger: Program, debian_initrd: Path, tmp_path: Path
) -> None:
    image = tmp_path / "hand.efi"
    sections = {
        ".text": b"\xf4",
        ".osrel": b'NAME="Debian GNU/Linux"\nID=debian\n',
        ".cmdline": b"root=/dev/sda1 quiet",
        ".linux": files[NEWEST, "kernel-amd64"].read_bytes(),
        ".initrd": debian_initrd.read_bytes(),
    }
    image.write_bytes(make_pe(list(sections.items())))
    assert ".linux" in run("objdump", "-h", image)
    document = inspected(stranger, image)
    assert (document["kind"], document["system"]) == ("uki", "Debian GNU/Linux")
    assert document["kernel_arguments"] == ["root=/dev/sda1", "quiet"]
    assert (document["talos_version"], document["schematic_id"]) == (None, None)
    assert document["remake"] is None and "deb" in document["kernel_version"]
    why = {one["what"]: one["why"] for one in document["unknown"]}
    assert why["talos_version"] == "it calls itself Debian GNU/Linux, which is not Talos"
    assert "lists no extensions" in why["schematic"]


GRUB = """\
if loadfont unicode ; then set gfxmode=800x600 ; fi
menuentry --hotkey=g 'Graphical install' {
    linux    /install.amd/vmlinuz vga=788 --- quiet
    initrd   /install.amd/initrd.gz
}
submenu 'Advanced options ...' {
    menuentry '... Rescue mode' {
        linux    /install.amd/vmlinuz rescue/enable=true ---
        initrd   /install.amd/initrd.gz
    }
}
"""


def test_an_iso_in_the_style_of_debian(
    files: dict[tuple[str, str], Path], stranger: Program, debian_initrd: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "install.amd").mkdir(parents=True)
    (tree / "boot/grub").mkdir(parents=True)
    shutil.copyfile(files[NEWEST, "kernel-amd64"], tree / "install.amd/vmlinuz")
    shutil.copyfile(debian_initrd, tree / "install.amd/initrd.gz")
    (tree / "boot/grub/grub.cfg").write_text(GRUB)
    (tree / "boot/bios.img").write_bytes(b"\xeb\xfe" + bytes(4094))
    (tree / "README.txt").write_text("a long name in lower case\n")
    efi = tree / "boot/grub/efi.img"
    efi.write_bytes(bytes(2 << 20))
    run("mformat", "-i", efi, "::")
    run("mmd", "-i", efi, "::/efi", "::/efi/boot")
    iso = tmp_path / "debian.iso"
    boots = ["-b", "boot/bios.img", "-no-emul-boot", "-boot-load-size", "4"]
    boots += ["-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot"]
    volume = ["-J", "-R", "-V", "Debian 13.2.0 amd64 n"]
    run("xorriso", "-as", "mkisofs", *volume, *boots, "-o", iso, tree)
    document = inspected(stranger, iso)
    assert (document["kind"], document["boot"]) == ("iso", {"bios": True, "uefi": True})
    assert [(entry["title"], entry["kernel_arguments"]) for entry in document["boot_entries"]] == [
        ("Graphical install", ["vga=788", "---", "quiet"]),
        ("Advanced options ... > ... Rescue mode", ["rescue/enable=true", "---"]),
    ]
    assert (document["talos_version"], document["remake"]) == (None, None)
    assert document["parts"]["facts"]["label"] == "Debian 13.2.0 amd64 n"
    places = {
        part["name"]: part.get("facts", {}).get("image") for part in document["parts"]["children"]
    }
    assert (places["BIOS boot"], places["UEFI boot"]) == ("boot/bios.img", "boot/grub/efi.img")


def test_containers_of_disks(
    files: dict[tuple[str, str], Path], stranger: Program, tmp_path: Path
) -> None:
    source = files[OLDEST, "nocloud-amd64.qcow2"]
    plain = tmp_path / "plain"
    run("qemu-img", "convert", "-O", "raw", source, plain)
    raw = inspected(stranger, plain)
    for name, options in (("vpc", []), ("vpc", ["-o", "subformat=fixed"]), ("vmdk", [])):
        other = tmp_path / name
        run("qemu-img", "convert", "-O", name, *options, plain, other)
        document = inspected(stranger, other)
        assert document["packing"] == ["vhd" if name == "vpc" else "vmdk"]
        same = ("schematic", "kernel_arguments", "meta", "platform", "talos_version", "boot")
        assert {key: document[key] for key in same} == {key: raw[key] for key in same}


def older_image(path: Path) -> Path:
    """Write a UKI as an older Talos has it."""
    release = b'NAME="Talos"\nID=talos\nVERSION_ID=v1.9.0\nPRETTY_NAME="Talos (v1.9.0)"\n'
    sections = [(".osrel", release), (".cmdline", b"old=1"), (".linux", b"k"), (".initrd", b"i")]
    path.write_bytes(make_pe(sections))
    return path


def test_a_disk_after_an_upgrade_and_with_an_addon(
    files: dict[tuple[str, str], Path], stranger: Program, tmp_path: Path
) -> None:
    raw = tmp_path / "disk.raw"
    run("zstd", "-dq", "--sparse", files[NEWEST, "metal-amd64.raw.zst"], "-o", raw)
    before = inspected(stranger, raw)
    partition = next(part for part in before["parts"]["children"] if part["name"] == "EFI")
    esp = f"{raw}@@{partition['offset']}"
    # By its name it is newer than the one that is there, and not by its version.
    old = older_image(tmp_path / "old.efi")
    run("mcopy", "-i", esp, old, "::/EFI/Linux/Talos-v1.99.0.efi")
    addon = tmp_path / "x.addon.efi"
    addon.write_bytes(make_pe([(".sdmagic", b"#### LoaderInfo: x ####"), (".cmdline", b"more=1")]))
    run("mmd", "-i", esp, f"::/EFI/Linux/Talos-{NEWEST}.efi.extra.d")
    run("mcopy", "-i", esp, addon, f"::/EFI/Linux/Talos-{NEWEST}.efi.extra.d/")
    document = stranger("inspect", raw, "--json").expect(0).json
    assert document["talos_version"] == NEWEST
    assert document["kernel_arguments"] == [*before["kernel_arguments"], "more=1"]
    why = {one["what"]: one["why"] for one in document["unknown"]}
    assert "it holds v1.9.0 too" in why["talos_version"] and "LoaderEntryDefault" in why["boot"]
    conf = tmp_path / "loader.conf"
    conf.write_text("timeout 3\ndefault talos-v1.99*\n")
    run("mcopy", "-o", "-i", esp, conf, "::/loader/loader.conf")
    document = stranger("inspect", raw, "--json").expect(0).json
    assert (document["talos_version"], document["kernel_arguments"]) == ("v1.9.0", ["old=1"])


def told(outcome: Outcome) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(outcome.stdout)
    return document


@pytest.mark.parametrize("name", ["metal-amd64.iso", "metal-amd64.raw.zst", "metal-amd64-uki.efi"])
def test_files_that_were_cut_off(
    name: str, files: dict[tuple[str, str], Path], stranger: Program, tmp_path: Path
) -> None:
    source = files[NEWEST, name]
    cut = tmp_path / name
    with source.open("rb") as stream:
        cut.write_bytes(stream.read(source.stat().st_size * 2 // 3))
    outcome = stranger("inspect", cut, "--json")
    if outcome.code == 2:
        assert told(outcome)["error"]["code"] == "damaged-file"
    else:
        assert outcome.code == 0 and told(outcome)["unknown"]
