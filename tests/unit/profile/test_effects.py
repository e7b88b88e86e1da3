"""What does not reach an asset: held against the profiles themselves, and in words."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.effects import (
    ARGS,
    BOOTLOADER,
    EMBEDDED,
    ENROLL_KEYS,
    EXTENSIONS,
    META,
    OVERLAY,
    SECTOR_SIZE,
    WELL_KNOWN,
    effects,
)
from local_imager.profile.imager import filled_output
from local_imager.profile.model import TarInput
from local_imager.profile.plan import plan
from local_imager.schematic.model import Schematic
from tests.unit.profile.vectors import catalogue, schematic, version

# One schematic for each field; no amd64 image has sd-boot alone unless it is asked for.
FIELDS = {
    ARGS: "customization: {extraKernelArgs: [a=b]}",
    META: "customization: {meta: [{key: 12, value: x}]}",
    EMBEDDED: "customization: {embeddedMachineConfiguration: 'a: b'}",
    EXTENSIONS: "customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}",
    BOOTLOADER: "customization: {bootloader: sd-boot}",
    SECTOR_SIZE: "customization: {diskImage: {sectorSize: 4096}}",
    ENROLL_KEYS: "customization: {secureboot: {enrollKeys: force}}",
    WELL_KNOWN: "customization: {secureboot: {includeWellKnownCertificates: true}}",
    OVERLAY: "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}",
}
ASSETS = (
    "kernel-amd64",
    "initramfs-amd64.xz",
    "cmdline-metal-amd64",
    "cmdline-metal-amd64-secureboot",
    "metal-amd64-uki.efi",
    "metal-amd64-secureboot-uki.efi",
    "installer-amd64.tar",
    "installer-amd64-secureboot.tar",
    "metal-amd64.iso",
    "metal-amd64-secureboot.iso",
    "metal-amd64.raw.zst",
    "metal-amd64-secureboot.raw.zst",
)
VERSIONS = ("v1.2.0", "v1.5.5", "v1.7.6", "v1.9.0", "v1.10.7", "v1.11.5", "v1.12.0", "v1.14.0-rc.1")


def effect(wanted: Schematic, tag: str, asset: AssetName) -> Any:
    """Return the profile as the imager fills it in, without the virtual extension."""
    document = dict(plan(wanted, version(tag), asset, catalogue(tag)).profile.document)
    document["output"] = filled_output(document)
    inputs = dict(document["input"])
    listed = inputs.pop("systemExtensions", [])
    inputs["extensions"] = [
        item for item in listed if not isinstance(item.get("tarballPath"), TarInput)
    ]
    return {**document, "input": inputs}


@pytest.mark.parametrize("field", list(FIELDS))
@pytest.mark.parametrize("name", ASSETS)
def test_a_field_without_effect_is_always_reported(field: str, name: str) -> None:
    asset = AssetName.parse(name)
    text = FIELDS[field]
    if asset.secureboot:  # which always has sd-boot, so ask for something else
        text = text.replace("sd-boot", "grub")
    wanted = schematic(text)
    for tag in VERSIONS:
        try:
            changed = effect(wanted, tag, asset) != effect(Schematic(), tag, asset)
        except PlanError:
            continue  # refused, which is louder than any finding
        reported = {finding.field for finding in effects(wanted, version(tag), asset)}
        assert changed or field in reported, tag


@pytest.mark.parametrize("name", ASSETS)
def test_an_empty_schematic_has_nothing_to_lose(name: str) -> None:
    found = effects(Schematic(), version("v1.14.0"), AssetName.parse(name))
    assert found == ()


@pytest.mark.parametrize(
    ("field", "asset", "tag", "severity", "words"),
    [
        (ARGS, "installer-amd64.tar", "v1.9.0", "warning", "before v1.10"),
        (ARGS, "installer-amd64.tar", "v1.10.0", "", ""),
        (ARGS, "metal-amd64-uki.efi", "v1.9.5", "warning", "before v1.10"),
        (ARGS, "initramfs-arm64.xz", "v1.13.0", "warning", "cmdline-metal-arm64"),
        (META, "installer-amd64-secureboot.tar", "v1.13.0", "warning", "upgrade"),
        (META, "metal-amd64-uki.efi", "v1.13.0", "warning", "talosctl"),
        (EXTENSIONS, "cmdline-metal-amd64", "v1.13.0", "info", "initramfs"),
        (ARGS, "kernel-amd64", "v1.13.0", "info", "depends on nothing"),
        (BOOTLOADER, "metal-amd64.iso", "v1.11.5", "warning", "v1.12.0"),
        (BOOTLOADER, "metal-amd64.iso", "v1.12.0", "", ""),
        (BOOTLOADER, "metal-amd64.raw", "v1.9.5", "warning", "GRUB"),
        (BOOTLOADER, "metal-amd64.raw", "v1.10.0", "", ""),
        (BOOTLOADER, "installer-amd64.tar", "v1.13.0", "info", "installer"),
        (SECTOR_SIZE, "metal-amd64.iso", "v1.13.0", "info", "an ISO has none"),
        (SECTOR_SIZE, "metal-amd64.raw", "v1.13.0", "info", "v1.14.0"),
        (ENROLL_KEYS, "metal-amd64.iso", "v1.13.0", "warning", "-secureboot"),
        (ENROLL_KEYS, "metal-amd64-secureboot.iso", "v1.13.0", "", ""),
        (ENROLL_KEYS, "metal-amd64-secureboot.raw", "v1.13.0", "info", "v1.14.0"),
        (WELL_KNOWN, "installer-amd64-secureboot.tar", "v1.13.0", "info", "enrolled"),
    ],
)
def test_the_words(field: str, asset: str, tag: str, severity: str, words: str) -> None:
    wanted = schematic(FIELDS[field])
    name = AssetName.parse(asset)
    found = [item for item in effects(wanted, version(tag), name) if item.field == field]
    assert [item.severity for item in found] == ([severity] if severity else [])
    assert all(words in item.message and item.asset == asset for item in found)


def test_secure_boot_leaves_no_choice_of_boot_loader() -> None:
    asset = AssetName.parse("metal-amd64-secureboot.raw")
    grub = schematic("customization: {bootloader: grub}")
    (found,) = effects(grub, version("v1.13.0"), asset)
    assert (found.severity, found.field) == ("warning", BOOTLOADER)
    assert effects(schematic(FIELDS[BOOTLOADER]), version("v1.13.0"), asset) == ()


def test_arm64_starts_from_sd_boot() -> None:
    asset = AssetName.parse("metal-arm64.raw")
    grub = schematic("customization: {bootloader: grub}")
    (found,) = effects(grub, version("v1.10.0"), asset)
    assert "sd-boot" in found.message
    assert effects(grub, version("v1.9.0"), asset) == ()


@pytest.mark.parametrize(
    ("asset", "tag", "severity", "words"),
    [
        ("akamai-amd64.raw.gz", "v1.6.8", "warning", "came with v1.7.0"),
        ("akamai-arm64.raw.gz", "v1.7.0", "info", "not offered for arm64"),
        ("aws-amd64-secureboot.raw", "v1.9.0", "warning", "secure boot"),
        ("metal-amd64-uki.efi", "v1.4.8", "error", "v1.5.0"),
        ("azure-amd64.qcow2", "v1.9.0", "error", "qcow2"),
        ("exoscale-amd64.vhd", "v1.9.0", "error", "cluster_size"),
        ("alibabacloud-amd64.qcow2", "v1.14.0-beta.1", "warning", "v1.14.0-beta.2"),
    ],
)
def test_platforms_that_do_not_fit(asset: str, tag: str, severity: str, words: str) -> None:
    (found,) = effects(Schematic(), version(tag), AssetName.parse(asset))
    assert found.severity == severity
    assert words in found.message
