"""Asset names: the factory's grammar, with what does not exist refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_imager.errors import ExitCode, InputError
from local_imager.profile.assetname import AssetName, all_names, installer_name
from local_imager.profile.platforms import PLATFORMS
from tests.unit.profile.vectors import golden

ROWS = golden("profiles")["rows"]
PROFILES = golden("profiles")["profiles"]


def row_id(row: dict[str, Any]) -> str:
    return ascii(row["path"])


def exists(row: dict[str, Any]) -> bool:
    return "error" not in row and PROFILES[row["profile"]]["platform"] in PLATFORMS


@pytest.mark.parametrize("row", [row for row in ROWS if exists(row)], ids=row_id)
def test_profile_output_name_and_content_type_are_the_factorys(row: dict[str, Any]) -> None:
    asset = AssetName.parse(row["path"])
    assert asset.start_profile() == PROFILES[row["profile"]]
    assert asset.output_name == row["output_path"]
    assert asset.content_type == row["content_type"]
    assert asset.given == row["path"]


@pytest.mark.parametrize("row", [row for row in ROWS if not exists(row)], ids=row_id)
def test_what_the_factory_refuses_or_should_is_refused_with_a_hint(row: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        AssetName.parse(row["path"])
    assert caught.value.exit_code == ExitCode.INPUT_INVALID
    assert caught.value.code == "asset-name"
    assert caught.value.hint


def test_only_platforms_that_do_not_exist_are_refused_beyond_the_factory() -> None:
    beyond = [row for row in ROWS if "error" not in row and not exists(row)]
    platforms = {PROFILES[row["profile"]]["platform"] for row in beyond}
    assert platforms.isdisjoint(PLATFORMS)


@pytest.mark.parametrize("row", golden("installer_profiles"), ids=str)
def test_installers_of_the_registry(row: dict[str, Any]) -> None:
    asset = installer_name(row["platform"], row["arch"], secureboot=row["secureboot"])
    assert asset.start_profile() == row["profile"]


def test_an_installer_of_an_unknown_platform_is_refused() -> None:
    with pytest.raises(InputError, match="no platform"):
        installer_name("metl", "amd64", secureboot=False)


@given(st.sampled_from(all_names()))
def test_the_spelling_of_a_name_reads_back_as_the_name(asset: AssetName) -> None:
    assert AssetName.parse(str(asset)) == asset


def test_names_are_spelled_once() -> None:
    names = all_names()
    assert len({str(name) for name in names}) == len(names) == 2020


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        asset = AssetName.parse(text)
    except InputError:
        return
    assert AssetName.parse(str(asset)) == asset


@given(
    st.sampled_from(["kernel-", "cmdline-", "initramfs-", "installer-", "metal-", "aws-", ""]),
    st.sampled_from(["amd64", "x86_64", "arm64", "amd64-secureboot", "-", ""]),
    st.sampled_from([".iso", ".raw", ".tar", ".raw.xz", "-uki.efi", ".xz", ".ova.tar.gz", ""]),
)
def test_accepted_names_have_a_canonical_spelling(start: str, middle: str, end: str) -> None:
    try:
        asset = AssetName.parse(start + middle + end)
    except InputError:
        return
    assert str(asset) == (start + middle + end).replace("x86_64", "amd64").replace(
        "metal-installer-", "installer-"
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("metl-amd64.iso", "metal-amd64.iso"),
        ("nocloud-amd64.raw.xzz", "nocloud-amd64.raw.xz"),
        ("metal-aarch64.iso", "arm64"),
        ("metal-rpi_generic-arm64.raw.xz", "metal-arm64.raw.xz"),
        ("installer-metal-amd64.tar", "installer-amd64.tar"),
        ("", "metal-amd64.iso"),
        ("x" * 5000, "metal-amd64.iso"),
    ],
)
def test_the_hint_names_what_was_probably_meant(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        AssetName.parse(text)
    assert hint in caught.value.hint
    assert len(caught.value.message) < 400


def test_aliases_and_prefixes_are_one_name() -> None:
    assert AssetName.parse("metal-i386.iso") == AssetName.parse("metal-amd64.iso")
    assert AssetName.parse("metal-installer-amd64.tar") == AssetName.parse("installer-amd64.tar")
    assert AssetName.parse("aws-installer-amd64.tar") != AssetName.parse("installer-amd64.tar")


def test_a_name_with_more_before_the_installer_is_refused() -> None:
    for text in ("metalinstaller-amd64.tar", "a-b-installer-amd64.tar"):
        with pytest.raises(InputError):
            AssetName.parse(text)
