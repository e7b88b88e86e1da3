"""Version rules: the golden table, every boundary, and the list of versions."""

from __future__ import annotations

import pytest

from local_imager.profile.quirks import (
    BUILDER_SINCE,
    MIN_TALOS,
    SPANS,
    BuilderFeature,
    Feature,
    Quirks,
    available_versions,
    read_release,
)
from local_imager.profile.version import TalosVersion
from tests.unit.profile.vectors import golden, version

NAMES = {
    "DropInitOnAllocInArgs": Feature.DROP_INIT_ON_ALLOC,
    "ISOSupportsSettingBootloader": Feature.ISO_BOOTLOADER,
    "NvmeCoreIoTimeoutAWSOnly": Feature.NVME_TIMEOUT_AWS_ONLY,
    "ProcMemOverrideNever": Feature.PROC_MEM_OVERRIDE_NEVER,
    "SkipDataPartitions": Feature.SKIP_DATA_PARTITIONS,
    "SupportsCompressedEncodedMETA": Feature.COMPRESSED_META,
    "SupportsDisablingModuleSignatureVerification": Feature.DISABLE_MODULE_SIGNATURES,
    "SupportsEmbeddedConfig": Feature.EMBEDDED_CONFIG,
    "SupportsFactoryTalosctlDownload": Feature.TALOSCTL_DOWNLOAD,
    "SupportsHaltIfInstalled": Feature.HALT_IF_INSTALLED,
    "SupportsIMA": Feature.IMA,
    "SupportsISOLabel": Feature.ISO_LABEL,
    "SupportsMetalPlatformConsoleTTYS0": Feature.METAL_CONSOLE_TTYS0,
    "SupportsMultidoc": Feature.MULTIDOC,
    "SupportsOverlay": Feature.OVERLAY,
    "SupportsResetGRUBOption": Feature.RESET_GRUB_OPTION,
    "SupportsSELinux": Feature.SELINUX,
    "SupportsUKI": Feature.UKI,
    "SupportsUKIProfiles": Feature.UKI_PROFILES,
    "SupportsUnifiedInstaller": Feature.UNIFIED_INSTALLER,
    "UseSDBootForUEFI": Feature.SDBOOT_FOR_UEFI,
    "UseZSTDCompression": Feature.ZSTD,
}


@pytest.mark.parametrize("row", golden("quirks"), ids=lambda row: repr(row["version"]))
def test_every_quirk_equals_the_golden_table(row: dict[str, object]) -> None:
    quirks = Quirks.parse(str(row["version"]))
    sizes = quirks.partition_sizes
    answers: dict[str, object] = {name: quirks.has(feature) for name, feature in NAMES.items()}
    answers |= {
        "FirmwarePath": quirks.firmware_path,
        "KernelModulesPath": quirks.kernel_modules_path,
        "PartitionSizes": {
            "EphemeralMinSize": sizes.ephemeral_min_bytes,
            "GrubBIOSSize": sizes.grub_bios_bytes,
            "GrubBootSize": sizes.grub_boot_bytes,
            "GrubEFISize": sizes.grub_efi_bytes,
            "METASize": sizes.meta_bytes,
            "StateSize": sizes.state_bytes,
            "UKIEFISize": sizes.uki_efi_bytes,
        },
        "Version": quirks.release and "{}.{}.{}".format(*quirks.release),
        "XFSMinAllocationGroupSize": quirks.xfs_min_allocation_group_bytes,
        "XFSMkfsConfig": quirks.xfs_mkfs_config,
    }
    assert answers == row["quirks"]


def just_before(release: tuple[int, int, int]) -> TalosVersion:
    """Return the newest imaginable version before a release, with its pre-release part."""
    major, minor, patch = release
    if patch:
        return TalosVersion(major, minor, patch - 1)
    return TalosVersion(major, minor - 1, 999_999)


@pytest.mark.parametrize("feature", list(Feature))
def test_a_feature_changes_exactly_at_its_version(feature: Feature) -> None:
    span = SPANS[feature]
    edge = span.before or span.since
    after = span.before is None
    at = TalosVersion(*edge)
    assert Quirks.of(at).has(feature) is after
    assert Quirks.of(TalosVersion(*edge, "alpha.0")).has(feature) is after
    assert Quirks.of(just_before(edge)).has(feature) is not after


def test_every_feature_has_a_rule() -> None:
    assert set(SPANS) == set(Feature)
    assert set(BUILDER_SINCE) == set(BuilderFeature)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("v1.9.99", "siderolabs/installer"),
        ("v1.10.0-alpha.0", "siderolabs/installer-base"),
        ("v1.13.0", "siderolabs/installer-base"),
    ],
)
def test_the_base_installer_changes_its_name_at_v1_10(tag: str, name: str) -> None:
    assert Quirks.of(version(tag)).base_installer_name == name


def test_versions_are_those_of_the_factory() -> None:
    catalog = golden("catalog")
    broken = frozenset(version(f"v{text}") for text in catalog["broken_versions"])
    assert f"v{catalog['min_version']}" == str(MIN_TALOS)
    found = available_versions(catalog["imager_tags"], broken=broken)
    expected = [entry["version"] for entry in catalog["per_version"]]
    # v1.12.1 has a tag without a leading v, and the fake catalogue has no extensions for it.
    assert [str(item) for item in found] == [*expected[:12], "v1.12.1", *expected[12:]]


def test_a_broken_version_is_listed_unless_it_is_named() -> None:
    assert version("v1.11.2") in available_versions(["v1.11.2", "v1.11.5"])


def test_prereleases_of_the_newest_minor_version_stay_after_its_release() -> None:
    tags = ["v1.13.0", "v1.14.0", "v1.14.0-rc.1", "v1.13.0-rc.0", "v1.14.0-beta.00", "x"]
    assert [str(v) for v in available_versions(tags)] == ["v1.13.0", "v1.14.0-rc.1", "v1.14.0"]


def test_the_newest_tag_rules_even_when_it_is_left_out() -> None:
    tags = ["v1.13.0-rc.1", "v1.14.0-dev.1"]
    assert available_versions(tags) == ()


def test_no_tags_are_no_versions() -> None:
    assert available_versions([]) == ()
    assert available_versions(["latest", "sha256-aaaa.sig"]) == ()


@pytest.mark.parametrize("text", ["1.9.0-01", "1.9-rc.1", "1.9.0-", "1.9.0-a..b", "٢.0.0", "v v1"])
def test_these_are_no_versions(text: str) -> None:
    assert read_release(text) is None
