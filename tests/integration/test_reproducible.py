"""Builds repeat to the bit, hold what the imager's plain way gives, and what does not is named."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.inspect.inspection import inspect_file
from local_imager.deliver.inspect.parts import Fact
from local_imager.pipeline.factory import ARTIFACT_BUILD_RECORD
from local_imager.store.intermediates import INITRAMFS_PREFIX
from local_imager.store.store import Store
from tests.integration.looking import initramfs_files
from tests.integration.upstreams import seeded_store
from tests.labfolder import MIDDLE, NEWEST, OLDEST, Lab, big_folder
from tests.program import ROOT, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs: [e2e.marker=seen]
  systemExtensions:
    officialExtensions: [siderolabs/hello-world-service{more}]
"""
EMBEDDED = "  embeddedMachineConfiguration: |\n    version: v1alpha1\n    machine: {}\n"
# Early microcode goes before the initramfs of the version, firmware beside the layers.
MORE = ", siderolabs/amd-ucode"
COMMON = ("initramfs-amd64.xz", "metal-amd64-uki.efi")
PLAIN_TOO = {
    NEWEST: (*COMMON, "metal-amd64.iso", "installer-amd64.tar"),
    MIDDLE: COMMON,
    OLDEST: (*COMMON, "metal-amd64.iso", "metal-amd64.qcow2", "installer-amd64.tar"),
}
AGAIN = {
    NEWEST: (
        *PLAIN_TOO[NEWEST],
        "kernel-amd64",
        "cmdline-metal-amd64",
        "metal-amd64.raw.zst",
        "metal-amd64-secureboot-uki.efi",
        "metal-arm64.iso",  # xorrisofs writes the owner of the imager's files into it
    ),
    MIDDLE: PLAIN_TOO[MIDDLE],
    OLDEST: (
        *PLAIN_TOO[OLDEST],
        "metal-amd64.raw.xz",
        "metal-amd64.vhd",
        "metal-amd64.ova",
    ),
}
# Times of what was added, and of the run where the imager writes it.
RUN_FACTS = {"mtime", "created", "modified", "size_bytes", "unpacked_bytes", "rest"}
# A GRUB ISO has a marker named after the time of the run, which GRUB's EFI programs search for,
# and the same content a second time as HFS+, which is not looked into.
GRUB_MARKER = re.compile(r"\.disk/[0-9-]{22}\.uuid")
NOT_COMPARED = re.compile(r"(^|/)(mods|HFSPLUS|ISO9660|Gap\d|EFI boot partition)$")
OF_THE_MARKER = re.compile(r"^(\.disk(/|$)|HFSPLUS$|Gap\d$|efi\.img|efi/boot/|System/|EFI boot)")
DOCUMENT = ROOT / "docs" / "reproducible.md"


class Place:
    """A program over a store of this module alone, and a schematic for each version."""

    def __init__(self, program: Program, folder: Path, keys: Path) -> None:
        self.program, self.folder, self.keys = program, folder, keys

    def schematic(self, version: str) -> Path:
        path = self.folder / f"{version}.yaml"
        embedded = EMBEDDED if version != OLDEST else ""
        path.write_text(SCHEMATIC.format(more=MORE) + embedded)
        return path

    def verified(self, version: str) -> list[dict[str, Any]]:
        """Build all of a version twice; what is there already is built once more."""
        differs = any(" " in cell for cell in documented(version).values())
        options = ("--version", version, "--out", self.program.out, "--json")
        keys = ("--secureboot-keys", self.keys, "--verify-reproducible")
        done = self.program("build", self.schematic(version), *AGAIN[version], *options, *keys)
        results: list[dict[str, Any]] = done.expect(4 if differs else 0).json
        return results


@pytest.fixture(scope="module")
def place(seed: Program, lab: Lab, signing_keys: Path) -> Iterator[Place]:
    with big_folder(lab, "reproducible") as folder:
        store = seeded_store(seed.store, folder / "store")
        yield Place(Program(seed.config, store, folder / "out"), folder, signing_keys)


def documented(version: str) -> dict[str, str]:
    """Return what the page says of each asset that is built here; "same", or what differs."""
    rows = [line.strip("| ").split("|") for line in DOCUMENT.read_text().splitlines()]
    table = [[cell.strip().strip("`") for cell in row] for row in rows if len(row) == 4]
    column = next(row for row in table if NEWEST in row).index(version)
    said = {row[0]: row[column] for row in table}
    return {asset: said[asset] for asset in AGAIN[version]}


def content_of(path: Path) -> dict[str, tuple[str, dict[str, Fact]]]:
    """Return digest and lasting properties of everything that has nothing more inside."""
    found = {}
    for name, part in inspect_file(path).tree.walk():
        place = GRUB_MARKER.sub(".disk/TIME.uuid", name)
        if part.children or NOT_COMPARED.search(place):
            continue
        facts = {key: value for key, value in part.facts.items() if key not in RUN_FACTS}
        found[place] = (part.digest, facts)
        assert not part.unread, f"{name}: {part.unread}"
    return found


def lasting(path: Path) -> dict[str, Any]:
    """Leave out what names the time of the run: GRUB's FAT serial, the installer's documents."""
    return {
        place: (digest, {key: value for key, value in facts.items() if key != "serial"})
        for place, (digest, facts) in content_of(path).items()
        if place not in ("configuration", "manifest.json")
    }


@pytest.mark.parametrize("version", [NEWEST, MIDDLE, OLDEST])
def test_builds_repeat_as_the_page_says(place: Place, version: str) -> None:
    found = place.verified(version)
    assert {result["asset"]: result["reproducible"]["equal"] for result in found} == {
        asset: cell == "same" for asset, cell in documented(version).items()
    }
    for result in found:
        answer = result["reproducible"]
        assert {"store", "staging", "workers"} <= set(answer["varied"])
        if not answer["equal"]:
            places = {one["path"] for one in answer["differences"] if one["change"] != "noise"}
            told = json.dumps(answer, indent=1)
            assert all(OF_THE_MARKER.search(place) for place in places), told
            assert not places or documented(version)[result["asset"]] == "GRUB's marker", told
    place.program.fsck()


@pytest.mark.parametrize("version", [NEWEST, MIDDLE, OLDEST])
def test_what_is_built_holds_what_the_plain_way_gives(place: Place, version: str) -> None:
    program, schematic = place.program, place.schematic(version)
    plain = Program(program.config, program.store, place.folder / "plain")
    ours = program.build(schematic, *PLAIN_TOO[version], version=version)
    theirs = plain.build(schematic, *PLAIN_TOO[version], "--exact", version=version)
    for one, other in zip(ours, theirs, strict=True):
        assert one["digest"] != other["digest"]
        first, second = (lasting(Path(item["path"])) for item in (one, other))
        assert first == second, one["asset"]
        assert any("sqsh" in name for name in first), "nothing was looked into"
    files, raw = (initramfs_files(Path(item["path"]).read_bytes()) for item in (ours[0], theirs[0]))
    assert files == raw and "extensions.yaml" in files
    assert "kernel/x86/microcode/AuthenticAMD.bin" in files


# arm64 in place of amd64 for time: its disk, which the imager copies, is a third as large.
@pytest.mark.parametrize(
    ("version", "asset"), [(NEWEST, "metal-arm64.ova"), (OLDEST, "metal-amd64.ova")]
)
def test_an_appliance_holds_what_the_imagers_holds(place: Place, version: str, asset: str) -> None:
    """Described to the byte as the imager does, but for the size of the packed disk."""
    program, schematic = place.program, place.schematic(version)
    plain = Program(program.config, program.store, place.folder / "plain")
    (ours,) = program.build(schematic, asset, version=version)
    (theirs,) = plain.build(schematic, asset, "--exact", version=version)
    told = []
    for item in (ours, theirs):
        with tarfile.open(item["path"]) as archive:
            assert archive.getnames() == ["disk.ovf", "disk.mf", "disk.vmdk"]
            text = archive.extractfile("disk.ovf").read().decode()  # type: ignore[union-attr]
            size = str(archive.getmember("disk.vmdk").size)
        assert text.count(size) == 1
        told.append(text.replace(size, "SIZE"))
    assert told[0] == told[1]
    found = program("compare", ours["path"], theirs["path"], "--json").expect(0).json
    assert found["verdict"] == "named-noise", found


def test_extensions_are_packed_once_and_kept_for_the_next_build(place: Place) -> None:
    """What a UKI was made from serves an ISO of another day; secrets make it private."""
    schematic = place.folder / "kept.yaml"
    schematic.write_text(SCHEMATIC.format(more="") + "  meta: [{key: 12, value: kept}]\n")
    kinds = []
    for asset in ("metal-amd64-uki.efi", "nocloud-amd64-uki.efi"):
        (result,) = place.program.build(schematic, asset, version=NEWEST)
        store = Store.open(place.program.store)
        (record,) = store.read_referrers(store.show(result["digest"]), ARTIFACT_BUILD_RECORD)
        kinds.append(json.loads(record)["initramfs"]["kept"])
    assert kinds == [False, True]
    (entry,) = [one for one in store.layout.entries() if one.ref_name.endswith(key_of(record))]
    assert entry.ref_name.startswith(INITRAMFS_PREFIX)
    (layer,) = store.layout.read_manifest(entry).layers  # type: ignore[union-attr]
    assert store.layout.is_private(layer.digest)
    place.program.fsck()


def key_of(record: bytes) -> str:
    key: str = json.loads(record)["initramfs"]["key"]
    return key
