"""`compare` on what the real imager made: three changes are three differences, in every kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zstandard

from tests.integration.upstreams import seeded_store
from tests.labfolder import NEWEST
from tests.program import ROOT, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs: [compare.marker=one]
  meta:
    - key: 12
      value: first
  systemExtensions:
    officialExtensions: [siderolabs/hello-world-service]
"""
CHANGED = (
    SCHEMATIC.replace("marker=one", "marker=two")
    .replace("first", "second")
    .replace("hello-world-service", "hello-world-service, siderolabs/amd-ucode")
)
UKI, ISO, DISK = "metal-amd64-uki.efi", "metal-amd64.iso", "metal-amd64.raw.zst"
INSTALLER, INITRAMFS = "installer-amd64.tar", "initramfs-amd64.xz"
ASSETS = (UKI, ISO, DISK, INSTALLER, INITRAMFS, "kernel-amd64")


@pytest.fixture(scope="module")
def schematics(session_folder: Path) -> tuple[Path, Path]:
    paths = session_folder / "compare-1.yaml", session_folder / "compare-2.yaml"
    for path, text in zip(paths, (SCHEMATIC, CHANGED), strict=True):
        path.write_text(text)
    return paths


@pytest.fixture(scope="module")
def first(warm: Program, schematics: tuple[Path, Path]) -> dict[str, Path]:
    results = warm.build(schematics[0], *ASSETS, version=NEWEST)
    return {result["asset"]: Path(result["path"]) for result in results}


@pytest.fixture(scope="module")
def second(warm: Program, schematics: tuple[Path, Path]) -> dict[str, Path]:
    results = warm.build(schematics[1], *ASSETS, version=NEWEST)
    return {result["asset"]: Path(result["path"]) for result in results}


def compared(program: Program, left: Path, right: Path, *more: str, code: int) -> dict[str, Any]:
    document: dict[str, Any] = program("compare", left, right, "--json", *more).expect(code).json
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/compare.md").read_text(), re.S)
    jsonschema.validate(document, json.loads(block))
    return document


def real(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the real differences: what -> both values."""
    return {
        one["what"]: (one.get("left", ""), one.get("right", ""))
        for one in document["differences"]
        if one["change"] not in ("packing", "noise")
    }


ARGUMENT = ("compare.marker=one", "compare.marker=two")
SHOWN = {
    UKI: ("kernel argument compare.marker", "schematic field customization.meta[12]"),
    ISO: ("kernel argument compare.marker", "META key 0xc"),
    DISK: ("kernel argument compare.marker", "META key 0xc"),
    INSTALLER: ("kernel argument compare.marker", "schematic field customization.meta[12]"),
    INITRAMFS: (
        "schematic field customization.extraKernelArgs compare.marker",
        "schematic field customization.meta[12]",
    ),
}


@pytest.mark.parametrize("asset", SHOWN)
def test_an_argument_an_extension_and_a_meta_value_are_three_differences(
    asset: str, warm: Program, first: dict[str, Path], second: dict[str, Path]
) -> None:
    document = compared(warm, first[asset], second[asset], code=4)
    argument, meta = SHOWN[asset]
    found = real(document)
    assert set(found) == {"extension amd-ucode", argument, meta}, json.dumps(found, indent=1)
    assert (found[argument], found[meta]) == (ARGUMENT, ("first", "second"))
    counts = document["counts"]
    assert counts["altered"] + counts["only-left"] + counts["only-right"] == 3
    followers = [one.get("consequences", ()) for one in document["differences"]]
    assert "schematic ID" in {one["what"] for some in followers for one in some}
    assert document["expected"]["verdict"] == "different"


def test_kernels_of_two_schematics_are_the_same(
    warm: Program, first: dict[str, Path], second: dict[str, Path]
) -> None:
    document = compared(warm, first["kernel-amd64"], second["kernel-amd64"], "--strict", code=0)
    assert document["verdict"] == document["expected"]["verdict"] == "identical"


def test_a_packed_image_has_the_same_content(
    warm: Program, first: dict[str, Path], tmp_path: Path
) -> None:
    packed = tmp_path / "image.zst"
    packed.write_bytes(zstandard.compress(first[ISO].read_bytes()))
    assert compared(warm, first[ISO], packed, code=0)["verdict"] == "same-content"
    warm("compare", first[ISO], packed, "--strict").expect(4, "packed differently")


def test_two_runs_of_an_imager_differ_by_named_noise(
    warm: Program, schematics: tuple[Path, Path], first: dict[str, Path], session_folder: Path
) -> None:
    store = seeded_store(warm.store, session_folder / "compare-store")
    other = Program(warm.config, store, session_folder / "compare-out")
    results = other.build(schematics[0], UKI, "--exact", "--rebuild", version=NEWEST)
    for result in results:
        document = compared(other, first[result["asset"]], Path(result["path"]), code=0)
        assert document["verdict"] == "named-noise", json.dumps(real(document), indent=1)
        codes = {one["noise"] for one in document["differences"] if one["change"] == "noise"}
        assert "cpio-times" in codes


def test_bytes_behind_a_program_are_not_noise(
    warm: Program, first: dict[str, Path], tmp_path: Path
) -> None:
    changed = tmp_path / "changed.efi"
    changed.write_bytes(first[UKI].read_bytes() + b"payload!")
    document = compared(warm, first[UKI], changed, code=4)
    assert list(real(document)) == ["bytes outside of its parts of the UKI"]


def test_the_page_is_written_whole_and_not_over_another(
    warm: Program, first: dict[str, Path], second: dict[str, Path], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    done = warm("compare", first[UKI], second[UKI], "--html", page).expect(4, "1. extension amd-")
    assert "kernel argument compare.marker" in done.stdout
    text = page.read_text()
    assert "compare.marker=two" in text and "<script" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    warm("compare", first[UKI], second[UKI], "--html", page).expect(2, "exists already")
    assert page.read_text() == text


def test_what_cannot_be_compared_is_refused(warm: Program, tmp_path: Path) -> None:
    warm("compare", tmp_path / "none").expect(2, "name two sides")
    warm("compare", tmp_path / "none", tmp_path / "none").expect(2, "is no file")
