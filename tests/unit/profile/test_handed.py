"""The profile that is really handed to the imager."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.handed import build_profile
from local_imager.profile.model import BaseFile, KeyFile, PlanOptions
from local_imager.profile.plan import plan
from local_imager.profile.platforms import PLATFORMS
from tests.unit.profile.vectors import (
    ALL_KEYS,
    catalogue,
    factory_path,
    golden,
    schematics,
    version,
)

PROFILES = golden("profiles")
KEYS = PlanOptions(key_files=ALL_KEYS)


def handed(name: str, asset: str, tag: str, options: PlanOptions = KEYS) -> Any:
    found = plan(schematics()[name], version(tag), AssetName.parse(asset), catalogue(tag), options)
    return build_profile(found, options).document


@pytest.mark.parametrize(
    ("asset", "tag", "wanted"),
    [
        ("kernel-arm64", "v1.13.0", {"kernel"}),
        ("initramfs-amd64.xz", "v1.13.0", {"initramfs"}),
        ("cmdline-metal-amd64", "v1.13.0", set()),
        ("cmdline-metal-amd64-secureboot", "v1.13.0", set()),
        ("metal-amd64-uki.efi", "v1.5.5", {"kernel", "initramfs", "sdStub", "sdBoot"}),
        ("metal-amd64.iso", "v1.4.8", {"kernel", "initramfs"}),
        ("metal-amd64.iso", "v1.5.5", {"kernel", "initramfs", "sdStub", "sdBoot"}),
        ("metal-arm64.raw.zst", "v1.2.0", {"kernel", "initramfs"}),
        ("metal-arm64.raw.zst", "v1.9.0", {"kernel", "initramfs", "sdStub", "sdBoot"}),
        ("installer-amd64.tar", "v1.3.7", {"kernel", "initramfs"}),
        ("installer-amd64.tar", "v1.14.0-rc.1", {"kernel", "initramfs", "sdStub", "sdBoot"}),
    ],
)
def test_only_what_is_read_is_named(asset: str, tag: str, wanted: set[str]) -> None:
    document = handed("vanilla", asset, tag)
    named = {
        key
        for key, value in document["input"].items()
        if isinstance(value, dict) and isinstance(value.get("path"), BaseFile)
    }
    assert named == wanted
    assert "secureboot" not in document["input"]


def known_rows() -> list[dict[str, Any]]:
    return [
        row
        for row in PROFILES["rows"]
        if "profile" in row and PROFILES["profiles"][row["profile"]]["platform"] in PLATFORMS
    ]


@pytest.mark.parametrize("row", known_rows(), ids=lambda row: row["path"])
def test_boot_assets_are_those_that_the_imager_would_take_itself(row: dict[str, Any]) -> None:
    asset = AssetName.parse(row["path"])
    for tag, ready in row["ready"].items():
        too_old = row["path"].endswith("uki.efi") and version(tag) < version("v1.5.0")
        if isinstance(ready, str) or too_old or not asset.disk_format_fits:
            continue
        wanted = PROFILES["ready_profiles"][ready]["input"]
        found = plan(schematics()["vanilla"], version(tag), asset, None)
        rendered = build_profile(found, KEYS).rendered(factory_path)["input"]
        named = {key: rendered[key] for key in wanted if rendered.get(key, {}).get("path")}
        assert named == {key: wanted[key] for key in named}
        if "baseInstaller" in rendered:
            reference = wanted["baseInstaller"]["imageRef"].replace("{version}", tag)
            assert f"ghcr.io/{rendered['baseInstaller']['imageRef']}" == reference


def test_the_rest_of_the_profile_stays_as_planned() -> None:
    tag = "v1.13.0"
    asset = AssetName.parse("metal-arm64.raw.xz")
    found = plan(schematics()["everything"], version(tag), asset, catalogue(tag))
    document = build_profile(found, KEYS).document
    assert {**document, "input": None} == {**found.profile.document, "input": None}
    assert found.profile.document["input"]["kernel"] == {"path": ""}


def test_a_plan_without_its_catalogue_cannot_be_built() -> None:
    asset = AssetName.parse("metal-amd64.iso")
    found = plan(schematics()["extensions-two"], version("v1.13.0"), asset, None)
    with pytest.raises(PlanError) as caught:
        build_profile(found, KEYS)
    assert caught.value.code == "plan-unresolved"


def test_there_is_no_uki_before_v1_5() -> None:
    with pytest.raises(PlanError) as caught:
        handed("vanilla", "metal-amd64-uki.efi", "v1.4.8")
    assert caught.value.code == "uki-unsupported"


@pytest.mark.parametrize("name", ["azure-amd64.qcow2", "oracle-amd64.vhd.gz"])
def test_a_disk_format_that_qemu_img_would_refuse_is_refused_first(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        handed("vanilla", name, "v1.13.0")
    assert caught.value.code == "disk-format"
    assert PLATFORMS[name.partition("-")[0]].offered_suffix in caught.value.hint


def test_signing_keys_have_to_be_there() -> None:
    options = PlanOptions(key_files=frozenset({"uki-signing-key.pem"}))
    with pytest.raises(PlanError) as caught:
        handed("vanilla", "metal-amd64-secureboot.iso", "v1.13.0", options)
    assert "uki-signing-cert.pem, pcr-signing-key.pem" in caught.value.message
    assert "keygen" in caught.value.hint


def test_enrolment_files_are_taken_when_they_are_there() -> None:
    files = ALL_KEYS | {"PK.auth", "KEK.auth", "db.auth"}
    signing = handed(
        "vanilla", "metal-amd64-secureboot.iso", "v1.13.0", PlanOptions(key_files=files)
    )["input"]["secureboot"]
    assert signing["platformKeyPath"] == KeyFile("PK.auth")
    assert signing["keyExchangeKeyPath"] == KeyFile("KEK.auth")
    assert signing["signatureKeyPath"] == KeyFile("db.auth")


def test_half_a_set_of_enrolment_files_is_refused() -> None:
    options = PlanOptions(key_files=ALL_KEYS | {"PK.auth"})
    with pytest.raises(PlanError) as caught:
        handed("vanilla", "metal-amd64-secureboot.iso", "v1.13.0", options)
    assert caught.value.code == "enrolment-files-incomplete"
