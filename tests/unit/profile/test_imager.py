"""What the imager fills in and checks, against what the imager printed."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.profile.assetname import AssetName
from local_imager.profile.imager import filled_output, refusal
from local_imager.profile.platforms import PLATFORMS
from tests.unit.profile.vectors import golden

PROFILES = golden("profiles")
DEFAULTS = golden("defaults")


def known_rows() -> list[dict[str, Any]]:
    return [
        row
        for row in PROFILES["rows"]
        if "profile" in row and PROFILES["profiles"][row["profile"]]["platform"] in PLATFORMS
    ]


@pytest.mark.parametrize("row", known_rows(), ids=lambda row: row["path"])
def test_the_filled_output_of_an_asset(row: dict[str, Any]) -> None:
    start = AssetName.parse(row["path"]).start_profile()
    for tag, ready in row["ready"].items():
        document = {**start, "version": tag}
        if isinstance(ready, str):
            assert refusal(document) == ready
        else:
            assert refusal(document) == ""
            assert filled_output(document) == PROFILES["ready_profiles"][ready]["output"]


@pytest.mark.parametrize("name", sorted(DEFAULTS["ready_for"]))
def test_the_filled_output_of_a_default_profile(name: str) -> None:
    base = DEFAULTS["base_profiles"][name]["profile"]
    for key, ready in DEFAULTS["ready_for"][name].items():
        arch, tag = key.split()
        document = {**base, "arch": arch, "version": tag}
        if "error" in ready:
            assert refusal(document) == ready["error"]
        else:
            assert filled_output(document) == ready["output"]


@pytest.mark.parametrize("kind", ["kernel", "initramfs", "installer"])
def test_meta_is_refused_where_it_cannot_be_written(kind: str) -> None:
    document = AssetName.parse("installer-amd64.tar").start_profile()
    document["output"]["kind"] = kind
    document["customization"] = {"metaContents": [{"key": 10, "value": "x"}]}
    assert "meta partition" in refusal(document)


@pytest.mark.parametrize("kind", ["kernel", "initramfs"])
def test_secure_boot_is_refused_where_nothing_is_signed(kind: str) -> None:
    document = {**AssetName.parse("kernel-amd64").start_profile(), "secureboot": True}
    document["output"]["kind"] = kind
    document["version"] = "v1.13.0"
    assert refusal(document) == f"secureboot is not supported for {kind} output"


def test_a_profile_without_a_platform_is_refused() -> None:
    document = {**AssetName.parse("kernel-amd64").start_profile(), "platform": ""}
    assert refusal(document) == "platform is required"
