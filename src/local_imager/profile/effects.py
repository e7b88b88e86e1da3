"""What of a schematic does not reach an asset of a version, and why.

The factory drops such parts without a word; here each is a :class:`Finding`. The table of what
reaches what stands in ``customize``; this module says it in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.profile.assetname import AssetName
from local_imager.profile.customize import WITH_EXTENSIONS, WITH_META, takes_kernel_args
from local_imager.profile.platforms import PLATFORMS
from local_imager.profile.quirks import BUILDER_SINCE, BuilderFeature, Feature, Quirks
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic

Severity = Literal["error", "warning", "info"]

ARGS: Final = "customization.extraKernelArgs"
META: Final = "customization.meta"
EXTENSIONS: Final = "customization.systemExtensions.officialExtensions"
EMBEDDED: Final = "customization.embeddedMachineConfiguration"
BOOTLOADER: Final = "customization.bootloader"
SECTOR_SIZE: Final = "customization.diskImage.sectorSize"
ENROLL_KEYS: Final = "customization.secureboot.enrollKeys"
WELL_KNOWN: Final = "customization.secureboot.includeWellKnownCertificates"
OVERLAY: Final = "overlay"

DEFAULT_SECTOR_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know: ``error`` will fail, ``warning`` is probably not meant, ``info`` is.

    ``field`` is the path of the schematic's field, or ``version`` or ``asset``; ``asset`` is
    empty when the finding holds for all.
    """

    severity: Severity
    field: str
    asset: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return the finding as the JSON object that ``--json`` prints."""
        return {
            "severity": self.severity,
            "field": self.field,
            "asset": self.asset,
            "message": self.message,
        }


def effects(schematic: Schematic, version: TalosVersion, asset: AssetName) -> tuple[Finding, ...]:
    """Return what will not take effect in this asset, in the order of the schematic's fields."""
    found = (_kernel if asset.kind == "kernel" else _findings)(schematic, version, asset)
    name = asset.given or str(asset)
    return tuple(Finding(severity, field, name, text) for severity, field, text in found)


_Raw = tuple[Severity, str, str]


def _given(schematic: Schematic) -> list[str]:
    custom = schematic.customization
    fields = {
        OVERLAY: bool(schematic.overlay.name),
        EMBEDDED: bool(custom.embedded_machine_configuration),
        ARGS: bool(custom.extra_kernel_args),
        META: bool(custom.meta),
        EXTENSIONS: bool(custom.official_extensions),
        BOOTLOADER: bool(custom.bootloader),
        ENROLL_KEYS: bool(custom.secureboot.enroll_keys),
        WELL_KNOWN: custom.secureboot.include_well_known_certificates,
        SECTOR_SIZE: bool(custom.sector_size),
    }
    return [field for field, present in fields.items() if present]


def _kernel(schematic: Schematic, version: TalosVersion, asset: AssetName) -> Iterator[_Raw]:
    for field in _given(schematic):
        yield "info", field, "a kernel depends on nothing in the schematic"


def _findings(schematic: Schematic, version: TalosVersion, asset: AssetName) -> Iterator[_Raw]:
    quirks = Quirks.of(version)
    given = _given(schematic)
    yield from _platform(version, asset)
    yield from _contents(given, asset)
    yield from _command_line(given, quirks, asset)
    if BOOTLOADER in given:
        yield from _bootloader(schematic, quirks, asset)
    if SECTOR_SIZE in given:
        if asset.kind != "image":
            yield "info", SECTOR_SIZE, f"only disk images have sectors, {_a(asset)} has none"
        elif schematic.customization.sector_size != DEFAULT_SECTOR_BYTES:
            yield "info", SECTOR_SIZE, _needs(BuilderFeature.SECTOR_SIZE)
    yield from _secure_boot(schematic, given, asset)


def _platform(version: TalosVersion, asset: AssetName) -> Iterator[_Raw]:
    platform = PLATFORMS[asset.platform]
    quirks = Quirks.of(version)
    if version < platform.min_version:
        yield (
            "warning",
            "version",
            f"Talos {version} does not know the platform {platform.name}, "
            f"which came with {platform.min_version}",
        )
    if asset.arch not in platform.arches:
        yield "info", "asset", f"{platform.label} is not offered for {asset.arch}"
    if asset.secureboot and not platform.secure_boot:
        yield "warning", "asset", f"{platform.label} is not offered with secure boot"
    if asset.kind == "uki" and not quirks.has(Feature.UKI):
        yield "error", "version", f"Talos {version} has no UKI; that came with v1.5.0"
    if not asset.disk_format_fits:
        yield "error", "asset", misfit(asset)


def misfit(asset: AssetName) -> str:
    """Say why qemu-img would fail to convert the disk of this asset."""
    options, label = asset.disk_format_options, PLATFORMS[asset.platform].label
    return f"disks of {label} are made with {options}, which {asset.disk_format} does not have"


def _contents(given: list[str], asset: AssetName) -> Iterator[_Raw]:
    """Extensions, overlay and configuration live in the initramfs, which cmdline has not."""
    if asset.kind in WITH_EXTENSIONS:
        return
    for field, what in (
        (OVERLAY, "the overlay"),
        (EMBEDDED, "the configuration"),
        (EXTENSIONS, "extensions"),
    ):
        if field in given:
            yield "info", field, f"a command line does not hold {what}; boot it with the initramfs"


def _command_line(given: list[str], quirks: Quirks, asset: AssetName) -> Iterator[_Raw]:
    if ARGS in given and not takes_kernel_args(asset, quirks):
        yield "warning", ARGS, _why_no_args(asset)
    if META in given and asset.kind not in WITH_META:
        yield "warning", META, _why_no_meta(asset)


def _why_no_args(asset: AssetName) -> str:
    if asset.kind == "initramfs":
        return (
            "an initramfs carries no kernel arguments: give them where it is booted "
            f"(cmdline-metal-{asset.arch} has them)"
        )
    what = _a(asset)
    before = "before v1.10 only a secure boot one carries kernel arguments"
    if asset.kind == "installer":
        return f"{what} ignores kernel arguments: {before}; use machine.install.extraKernelArgs"
    return f"{what} ignores kernel arguments: {before}"


def _why_no_meta(asset: AssetName) -> str:
    if asset.kind == "initramfs":
        return f"an initramfs carries no META: cmdline-metal-{asset.arch} passes the values on"
    if asset.kind == "installer":
        return "an installer writes no META: an upgrade keeps the values that the disk has"
    return "a UKI carries no META: use an ISO or a disk image, or set the values with talosctl"


def _bootloader(schematic: Schematic, quirks: Quirks, asset: AssetName) -> Iterator[_Raw]:
    asked = schematic.customization.bootloader
    if asset.kind not in ("iso", "image"):
        yield "info", BOOTLOADER, f"only ISOs and disk images have a boot loader, not {_a(asset)}"
    elif asset.secureboot:
        if asked != "sd-boot":
            yield "warning", BOOTLOADER, "secure boot always uses sd-boot"
    elif asset.kind == "iso" and not quirks.has(Feature.ISO_BOOTLOADER):
        yield "warning", BOOTLOADER, "the boot loader of an ISO can be chosen from v1.12.0 on"
    elif asset.arch == "arm64" and asset.kind == "image" and asked == "dual-boot":
        yield "error", BOOTLOADER, "an arm64 disk image cannot have both boot loaders (dual-boot)"
    elif not quirks.has(Feature.SDBOOT_FOR_UEFI):
        if asked != "grub":
            yield "warning", BOOTLOADER, f"before v1.10 Talos starts from GRUB, not {asked}"
    elif asset.arch == "arm64" and asked != "sd-boot":
        yield "warning", BOOTLOADER, f"from v1.10 on arm64 machines start from sd-boot, not {asked}"


def _secure_boot(schematic: Schematic, given: list[str], asset: AssetName) -> Iterator[_Raw]:
    enrols = asset.kind in ("iso", "image")
    for field in (ENROLL_KEYS, WELL_KNOWN):
        if field not in given:
            continue
        if not asset.secureboot:
            what = field.rpartition(".")[2]
            yield "warning", field, f"{what} counts only in assets with -secureboot in their name"
        elif not enrols:
            yield "info", field, f"keys are enrolled by ISOs and disk images, not by {_a(asset)}"
    asked = schematic.customization.secureboot.enroll_keys.lower()
    if asset.secureboot and asset.kind == "image" and asked not in ("", "if-safe"):
        yield "info", ENROLL_KEYS, _needs(BuilderFeature.DISK_ENROLL_KEYS)


def _needs(feature: BuilderFeature) -> str:
    major, minor, patch = BUILDER_SINCE[feature]
    return f"in a disk image this needs an imager from v{major}.{minor}.{patch} on to build it"


def _a(asset: AssetName) -> str:
    """Return the asset's kind with its article."""
    return {
        "cmdline": "a command line",
        "image": "a disk image",
        "initramfs": "an initramfs",
        "installer": "an installer",
        "iso": "an ISO",
        "kernel": "a kernel",
        "uki": "a UKI",
    }[asset.kind]
