"""Which build made a file, and how it would be made again."""

from __future__ import annotations

import gzip
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from local_imager.deliver.inspect import known as known_module
from local_imager.deliver.inspect.inspection import Inspection, inspect_file, inspect_source
from local_imager.deliver.inspect.known import find_known
from local_imager.deliver.inspect.meaning import BootEntry, Meaning, SecureBoot
from local_imager.deliver.inspect.remake import asked_for, asset_of, remake_of
from local_imager.formats.source import BytesSource
from local_imager.oci.model import canonical_json
from local_imager.pipeline.factory import ARTIFACT_BUILD_RECORD, ARTIFACT_SCHEMATIC
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic
from local_imager.store.records import AssetRecord, StoredAsset
from local_imager.store.store import Store
from tests.talosfiles import (
    CMDLINE,
    SCHEMATIC,
    SCHEMATIC_ID,
    cpio,
    docker_archive,
    elf,
    extensions_yaml,
    initramfs,
    kernel,
    talos_disk,
    tar,
    uki,
)


def inspected(data: bytes) -> Inspection:
    return inspect_source(BytesSource(data), "file")


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (talos_disk(), "metal-amd64.raw"),
        (zstandard.compress(talos_disk()), "metal-amd64.raw.zst"),
        (lzma.compress(talos_disk()), "metal-amd64.raw.xz"),
        (gzip.compress(tar({"disk.raw": talos_disk()}), mtime=0), "metal-amd64.raw.tar.gz"),
        (uki(), "metal-amd64-uki.efi"),
        (initramfs(extensions_yaml([("gvisor", "1")])), "initramfs-amd64.xz"),
    ],
)
def test_the_file_itself_says_how_it_is_made(data: bytes, command: str) -> None:
    remake = inspected(data).remake
    assert remake is not None
    assert remake.command == f"local-imager build schematic.yaml {command} --version v1.13.0"
    assert (remake.schematic, remake.schematic_id, remake.guessed) == (SCHEMATIC, SCHEMATIC_ID, "")


FOUND = Meaning("disk", arch="amd64", platform="nocloud", talos_version="v1.9.0")
LOCKED = (BootEntry("", "uki", "", ("talos.platform=nocloud", "lockdown=confidentiality")),)


@pytest.mark.parametrize(
    ("meaning", "name"),
    [
        (FOUND, "nocloud-amd64.raw"),
        (replace(FOUND, packing=("xz", "qcow2")), "nocloud-amd64.qcow2.xz"),
        (replace(FOUND, packing=("vhd",), arch="arm64"), "nocloud-arm64.vhd"),
        (replace(FOUND, packing=("ova", "vmdk")), "nocloud-amd64.ova"),
        (replace(FOUND, packing=("bzip2",)), "nocloud-amd64.raw"),
        (
            replace(FOUND, kind="iso", secure_boot=SecureBoot("signed")),
            "nocloud-amd64-secureboot.iso",
        ),
        *(
            (replace(FOUND, kind="uki", secure_boot=state), "nocloud-amd64-secureboot-uki.efi")
            for state in (
                SecureBoot("broken", not_fitting=("CN=x",)),
                SecureBoot("partly-signed"),
                SecureBoot("unsigned", pcr_signed=True),
            )
        ),
        (replace(FOUND, boot_entries=LOCKED), "nocloud-amd64-secureboot.raw"),
        (
            replace(FOUND, boot_entries=LOCKED, schematic="- lockdown=confidentiality"),
            "nocloud-amd64.raw",
        ),
        (replace(FOUND, kind="installer"), "nocloud-installer-amd64.tar"),
        (replace(FOUND, kind="installer", platform=""), "installer-amd64.tar"),
        (replace(FOUND, kind="cmdline"), "cmdline-nocloud-amd64"),
        (replace(FOUND, kind="kernel"), "kernel-amd64"),
        (replace(FOUND, platform="mars"), None),
        (replace(FOUND, arch="riscv64"), None),
        (replace(FOUND, kind="volume"), None),
    ],
)
def test_names_that_the_factory_has_for_it(meaning: Meaning, name: str | None) -> None:
    found = asset_of(meaning)
    assert (str(found) if found else None) == name


def test_a_file_without_its_schematic_gets_a_guess_that_says_so() -> None:
    bare = uki(
        cmdline=f"{CMDLINE} console=ttyS1 mine=1",
        initrd=initramfs(extensions_yaml([("gvisor", "1")], None)),
    )
    remake = inspected(bare).remake
    assert remake is not None and remake.guessed.startswith("put together from the names of its")
    guess = parse_schematic(remake.schematic.encode())
    assert guess.customization.extra_kernel_args == ("mine=1",)
    assert guess.customization.official_extensions == ("siderolabs/gvisor",)
    assert remake.schematic_id == schematic_id(guess)


def test_a_guess_with_the_id_in_the_file_is_none() -> None:
    text = (
        "customization:\n    extraKernelArgs:\n        - mine=1\n"
        "    systemExtensions:\n        officialExtensions:\n            - siderolabs/gvisor\n"
    )
    number = str(schematic_id(parse_schematic(text.encode())))
    old = initramfs(extensions_yaml([("gvisor", "1")], "", number=number))
    remake = inspected(uki(cmdline=f"{CMDLINE} mine=1", initrd=old)).remake
    assert remake is not None and (remake.guessed, remake.schematic) == ("", text)
    assert (remake.schematic_id, inspected(uki(initrd=old)).meaning.schematic_id) == (
        number,
        number,
    )


def test_packing_that_no_asset_has_is_noted() -> None:
    for meaning in (
        replace(FOUND, packing=("bzip2",)),
        replace(FOUND, kind="iso", packing=("xz",)),
    ):
        remake = remake_of(meaning)
        assert remake is not None and "was packed afterwards" in remake.notes[-1]
    fine = remake_of(replace(FOUND, packing=("xz",)))
    assert fine is not None and fine.notes == ()


@pytest.mark.parametrize(
    ("state", "note"),
    [
        (SecureBoot("signed"), "made with the same keys"),
        (SecureBoot("broken", not_fitting=("CN=x",)), "the file was altered"),
        (SecureBoot("signed", ("CN=y",), not_fitting=("CN=x",)), "the file was altered"),
        (SecureBoot("partly-signed"), "not all of its EFI programs"),
        (SecureBoot("unsigned", pcr_signed=True), "its signatures are gone"),
    ],
)
def test_what_is_not_signed_as_the_asset_is_noted(state: SecureBoot, note: str) -> None:
    remake = remake_of(replace(FOUND, secure_boot=state))
    assert remake is not None and len(remake.notes) == 1 and note in remake.notes[0]


def test_a_file_of_talos_without_a_version_leaves_it_open() -> None:
    data = cpio({"init": elf(), "extensions.yaml": extensions_yaml([("gvisor", "1")])})
    remake = inspected(data).remake
    assert remake is not None
    assert remake.command.endswith("initramfs-amd64.xz --version VERSION")
    assert (remake.version, remake.as_dict()["version"]) == ("", None)
    assert "put it in place of VERSION" in remake.notes[0] and remake.schematic == SCHEMATIC
    assert remake_of(replace(FOUND, talos_version="", system="Debian")) is None


def test_what_is_not_an_asset_or_has_no_version_is_not_made_again() -> None:
    assert inspected(kernel()).remake is None
    assert inspected(b"text").remake is None
    assert inspected(docker_archive({"bin/sh": elf()})).remake is None
    assert inspected(cpio({"init": elf()})).remake is None
    assert remake_of(replace(FOUND, platform="mars")) is None


def test_arguments_of_talos_itself_were_not_asked_for() -> None:
    line = f"{CMDLINE} talos.environment=A=b net.ifnames=0 mine talos.hostname=x lockdown=integrity"
    assert asked_for(line.split()) == ("mine", "talos.hostname=x")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def stored(store: Store, path: Path, key: str = "ab" * 32) -> StoredAsset:
    record = AssetRecord(SCHEMATIC_ID, "v1.13.0", "metal-amd64-uki.efi", key, path)
    return store.put_asset(record, move=False)


def test_the_build_that_made_it_is_found_by_the_digest(store: Store, tmp_path: Path) -> None:
    made, copy, other = (tmp_path / name for name in ("made", "copy", "other"))
    made.write_bytes(uki())
    copy.write_bytes(uki())
    other.write_bytes(uki(cmdline=CMDLINE.replace("tty0", "tty1")))
    asset = stored(store, made)
    record = {
        "tool": {"name": "local-imager", "version": "9"},
        "builder_version": "v1.13.0",
        "builder": {"reference": "registry.example/imager:v1.13.0"},
        "started_at": "2026-01-01T00:00:00Z",
        "exact": False,
    }
    store.add_referrer(asset, ARTIFACT_BUILD_RECORD, canonical_json(record), "application/json")
    store.add_referrer(asset, ARTIFACT_SCHEMATIC, SCHEMATIC.encode(), "application/yaml")
    found = inspect_file(copy, store=store)
    assert found.known is not None and found.remake is None
    assert found.known.name == asset.name and found.known.build_key == "ab" * 32
    assert (found.known.tool, found.known.builder) == ("local-imager 9", "v1.13.0")
    assert (found.known.exact, found.known.schematic) == (False, SCHEMATIC)
    unknown = inspect_file(other, store=store)
    assert unknown.known is None and unknown.remake is not None
    assert inspect_file(asset.path, store=store).known == found.known


ON_DISK: dict[str, Any] = {"runs": [{"scratch": "memory"}, {"scratch": "disk"}]}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"meta": {"way": "ordered"}, "initramfs": {"way": "normalised"}}, ()),
        ({"meta": {"way": "plain", "reason": "converted"}}, ("meta: converted",)),
        ({"iso": {"way": "plain"}, "installer": 3}, ("iso: as the imager made it",)),
        (ON_DISK | {"profile": {"output": {"kind": "uki"}}}, ()),
        (ON_DISK | {"profile": {"output": {"kind": "iso"}}}, ("file systems: ",)),
        (ON_DISK | {"profile": []}, ()),
    ],
)
def test_what_of_a_build_may_vary_stands_in_its_record(
    store: Store, tmp_path: Path, record: dict[str, Any], said: tuple[str, ...]
) -> None:
    made = tmp_path / "made"
    made.write_bytes(kernel())
    asset = stored(store, made)
    data = canonical_json(record)
    store.add_referrer(asset, ARTIFACT_BUILD_RECORD, data, "application/json")
    found = inspect_file(made, store=store).known
    assert found is not None and len(found.varies) == len(said)
    assert all(one.startswith(begin) for one, begin in zip(found.varies, said, strict=True))


def test_a_record_that_says_nothing_is_no_obstacle(store: Store, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(kernel())
    asset = stored(store, made)
    for document in (b"[]", b"no json", b'{"tool": 1, "builder": [], "exact": "x"}'):
        store.add_referrer(asset, ARTIFACT_BUILD_RECORD, document, "application/json")
        found = inspect_file(made, store=store).known
        assert found is not None and (found.tool, found.exact) == ("", None)


def test_a_large_file_is_hashed_only_when_the_store_has_one_of_its_size(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    made.write_bytes(kernel())
    asset = stored(store, made)
    monkeypatch.setattr(known_module, "LARGE_BYTES", 10)
    hashed: list[str] = []

    def digest() -> str:
        hashed.append("yes")
        return str(asset.digest)

    assert find_known(store, asset.size_bytes + 1, "", digest) is None and not hashed
    found = find_known(store, asset.size_bytes, "", digest)
    assert found is not None and found.asset == "metal-amd64-uki.efi" and hashed


def test_a_build_that_lost_its_name_is_found(store: Store, tmp_path: Path) -> None:
    older, newer = tmp_path / "older", tmp_path / "newer"
    older.write_bytes(uki())
    newer.write_bytes(uki(reset=False))
    stored(store, older, "ab" * 32)
    stored(store, newer, "cd" * 32)
    found = inspect_file(older, store=store).known
    assert found is not None and found.build_key == "ab" * 32
    assert find_known(store, 1, "sha256:" + "00" * 32, str) is None
