"""The tables of platforms and boards, against the original's."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.profile.assetname import AssetName
from local_imager.profile.platforms import BOARDS, PLATFORMS
from tests.unit.profile.vectors import golden, version

DATA = golden("platforms")
LISTED = [DATA["metal"], *DATA["cloud"]]
BASES = golden("defaults")["base_profiles"]


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row["name"])
def test_a_platform_is_the_originals(row: dict[str, Any]) -> None:
    platform = PLATFORMS[row["name"]]
    assert platform.label == row["label"]
    assert list(platform.arches) == row["architectures"]
    assert list(platform.boot_methods) == row["boot_methods"]
    assert platform.offered_suffix == row["disk_image_suffix"]
    assert platform.min_version == version("v" + row["min_version"])
    assert platform.secure_boot == row["secure_boot_supported"]


def test_no_other_platform_is_listed() -> None:
    listed = {name for name, platform in PLATFORMS.items() if platform.listed}
    assert listed == {row["name"] for row in LISTED}


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row["name"])
def test_every_path_of_a_platform_is_an_asset_name(row: dict[str, Any]) -> None:
    for paths in row["paths"].values():
        for what, path in paths.items():
            if path.endswith("."):  # a platform without a disk image has an empty suffix
                continue
            name = f"cmdline-{path}" if "pxe" in what else path
            assert str(AssetName.parse(name)) == name


@pytest.mark.parametrize("name", sorted(set(BASES) & set(PLATFORMS)))
def test_disk_size_and_options_are_those_of_the_default_profile(name: str) -> None:
    options = BASES[name]["profile"]["output"]["imageOptions"]
    platform = PLATFORMS[name]
    assert platform.disk_bytes == options["diskSize"]
    assert platform.disk_format_options == options.get("diskFormatOptions", "")


def test_boards_are_the_originals() -> None:
    ours = [
        (board.name, board.label, board.overlay, board.overlay_image, board.min_version)
        for board in BOARDS
    ]
    theirs = [
        (
            row["name"],
            row["label"],
            row["overlay_name"],
            row["overlay_image"],
            version("v" + row["min_version"]),
        )
        for row in DATA["sbcs"]
    ]
    assert ours == theirs
    assert {row["disk_image_path"] for row in DATA["sbcs"]} == {"metal-arm64.raw.xz"}
