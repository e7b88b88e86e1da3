"""Base and builder: what an old imager would lose is refused."""

from __future__ import annotations

import pytest

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.builder import knows
from local_imager.profile.model import BuildPlan, PlanOptions
from local_imager.profile.plan import plan
from local_imager.profile.quirks import BUILDER_SINCE, BuilderFeature
from local_imager.profile.version import TalosVersion
from tests.unit.profile.test_quirks import just_before
from tests.unit.profile.vectors import ALL_KEYS, catalogue, schematic, schematics, version


def built_by(builder: str, name: str, asset: str, tag: str) -> BuildPlan:
    options = PlanOptions(builder=version(builder), key_files=ALL_KEYS)
    return plan(schematics()[name], version(tag), AssetName.parse(asset), catalogue(tag), options)


@pytest.mark.parametrize("feature", list(BuilderFeature))
def test_a_builder_knows_a_feature_from_its_version_on(feature: BuilderFeature) -> None:
    since = BUILDER_SINCE[feature]
    assert knows(TalosVersion(*since), feature)
    assert knows(TalosVersion(*since, "alpha.0"), feature)
    assert not knows(just_before(since), feature)


# builder, schematic, asset, version: what the imager of that version would ignore or refuse
LOST = [
    ("v1.13.0", "sector-4096", "metal-amd64.raw.xz", "v1.13.0", "sector size"),
    ("v1.13.0", "overlay-jetson", "metal-arm64.raw.xz", "v1.13.0", "sector size"),
    ("v1.13.0", "secureboot-enroll-force", "metal-amd64-secureboot.raw", "v1.9.0", "enrollKeys"),
    ("v1.9.0", "overlay-rockpi", "metal-arm64.raw.xz", "v1.9.0", "boot loader sd-boot"),
    ("v1.11.5", "bootloader-dual-boot", "metal-arm64.raw", "v1.11.5", "boot loader dual-boot"),
    ("v1.9.0", "bootloader-dual-boot", "metal-amd64.iso", "v1.9.0", "of an ISO"),
    ("v1.11.5", "bootloader-grub", "metal-amd64.iso", "v1.11.5", "of an ISO"),
    ("v1.9.5", "vanilla", "metal-amd64-uki.efi", "v1.9.5", "UKI"),
    ("v1.9.0", "overlay-rockpi", "installer-amd64.tar", "v1.9.0", "kernel arguments"),
    ("v1.13.0", "vanilla", "alibabacloud-amd64.qcow2", "v1.13.0", "platform alibabacloud"),
]


@pytest.mark.parametrize(("builder", "name", "asset", "tag", "lost"), LOST)
def test_a_builder_that_would_lose_something_is_refused(
    builder: str, name: str, asset: str, tag: str, lost: str
) -> None:
    with pytest.raises(PlanError) as caught:
        built_by(builder, name, asset, tag)
    assert caught.value.code == "builder-too-old"
    assert builder in caught.value.message
    assert lost in caught.value.message
    assert "newest" in caught.value.hint


@pytest.mark.parametrize(
    ("builder", "name", "asset", "tag"),
    [
        ("v1.14.0-rc.1", "sector-4096", "metal-amd64.raw.xz", "v1.13.0"),
        ("v1.13.0", "sector-4096", "metal-amd64.iso", "v1.13.0"),
        ("v1.13.0", "overlay-jetson", "metal-arm64-uki.efi", "v1.13.0"),
        ("v1.14.0", "secureboot-enroll-force", "metal-amd64-secureboot.raw", "v1.9.0"),
        ("v1.13.0", "secureboot-enroll-force", "metal-amd64-secureboot.iso", "v1.9.0"),
        # GRUB is what v1.9 uses anyway, and what secure boot never uses
        ("v1.9.0", "bootloader-grub", "metal-amd64.raw.xz", "v1.9.0"),
        ("v1.9.0", "bootloader-dual-boot", "metal-amd64-secureboot.raw.xz", "v1.9.0"),
        ("v1.9.0", "bootloader-grub", "metal-amd64.iso", "v1.9.0"),
        ("v1.11.5", "bootloader-dual-boot", "metal-amd64.iso", "v1.11.5"),
        ("v1.12.0", "embedded", "metal-amd64.iso", "v1.12.0"),
        ("v1.11.5", "overlay-rockpi", "installer-amd64.tar", "v1.9.0"),
    ],
)
def test_a_builder_that_loses_nothing_is_taken(
    builder: str, name: str, asset: str, tag: str
) -> None:
    assert built_by(builder, name, asset, tag).builder == version(builder)


def test_a_builder_older_than_the_version_is_refused() -> None:
    with pytest.raises(PlanError) as caught:
        built_by("v1.13.0-rc.1", "vanilla", "metal-amd64.iso", "v1.13.0")
    assert caught.value.code == "builder-too-old"


def test_the_default_sector_size_asks_for_nothing() -> None:
    plain = schematic("customization: {diskImage: {sectorSize: 512}}\n")
    options = PlanOptions(builder=version("v1.13.0"))
    found = plan(plain, version("v1.13.0"), AssetName.parse("metal-amd64.raw"), None, options)
    assert found.profile.document["output"]["imageOptions"]["diskSectorSize"] == 512


def test_without_a_builder_nothing_is_refused() -> None:
    tag = "v1.13.0"
    asset = AssetName.parse("metal-amd64.raw")
    found = plan(schematics()["sector-4096"], version(tag), asset, None)
    assert found.requirements[0].tag == ""


@pytest.mark.parametrize("tag", ["v1.13.0", "v1.9.0"])
def test_an_arm64_disk_with_both_boot_loaders_is_refused(tag: str) -> None:
    with pytest.raises(PlanError) as caught:
        built_by("v1.13.0", "bootloader-dual-boot", "metal-arm64.raw.xz", tag)
    assert caught.value.code == "bootloader-unsupported"
    for asset in ("metal-amd64.raw.xz", "metal-arm64.iso", "metal-arm64-secureboot.raw.xz"):
        built_by("v1.13.0", "bootloader-dual-boot", asset, tag)
