"""The imager that runs (the builder), apart from the version that images are made of (the base).

A recent builder makes images of every version; an old one ignores, without a word, what came
after it. So a plan for an old builder is refused where something would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local_imager.errors import PlanError
from local_imager.profile.effects import DEFAULT_SECTOR_BYTES
from local_imager.profile.imager import default_bootloader
from local_imager.profile.model import Profile
from local_imager.profile.platforms import PLATFORMS
from local_imager.profile.quirks import BUILDER_SINCE, BuilderFeature, Quirks
from local_imager.profile.version import TalosVersion


def knows(builder: TalosVersion, feature: BuilderFeature) -> bool:
    """Return whether an imager of this version has the feature."""
    return builder.release >= BUILDER_SINCE[feature]


def newest_fit(versions: Sequence[TalosVersion], base: TalosVersion) -> TalosVersion | None:
    """Return the newest unprivileged imager that is not older than the base; releases first."""
    fit = [v for v in versions if v >= base and knows(v, BuilderFeature.UNPRIVILEGED_DISK)]
    releases = [v for v in fit if not v.prerelease]
    return max(releases or fit, default=None)


def check_builder(profile: Profile, version: TalosVersion, builder: TalosVersion | None) -> None:
    """Raise :class:`PlanError` when this imager would lose part of the profile."""
    if builder is None:
        return
    if builder < version:
        raise PlanError(
            f"the imager {builder} is older than Talos {version}",
            hint="an imager does not know the rules of versions after its own; "
            "take --builder newest or same",
            code="builder-too-old",
        )
    platform = PLATFORMS[profile.document["platform"]]
    if profile.kind != "kernel" and builder < platform.min_version:
        raise _too_old(builder, f"does not know the platform {platform.name}", platform.min_version)
    for feature, what in _asked_for(profile.document, Quirks.of(version)):
        if not knows(builder, feature):
            major, minor, patch = BUILDER_SINCE[feature]
            raise _too_old(builder, what, TalosVersion(major, minor, patch))
    _check_boot_loader(profile.document)


def _check_boot_loader(document: Any) -> None:
    """Refuse what no imager can make (measured with v1.13): GRUB and sd-boot on one arm64 disk."""
    options = document["output"].get("imageOptions", {})
    plain_arm64_disk = document["arch"] == "arm64" and not document["secureboot"]
    if plain_arm64_disk and options.get("bootloader") == "dual-boot":
        raise PlanError(
            "an arm64 disk image cannot have both boot loaders (dual-boot)",
            hint="leave bootloader out, or choose sd-boot or grub",
            code="bootloader-unsupported",
        )


def _too_old(builder: TalosVersion, what: str, since: TalosVersion) -> PlanError:
    return PlanError(
        f"the imager {builder} {what}",
        hint=f"that needs an imager from {since} on: take --builder newest, "
        "and have a later imager at hand",
        code="builder-too-old",
    )


def _asked_for(document: Any, quirks: Quirks) -> list[tuple[BuilderFeature, str]]:
    """Return what the profile asks for beyond the oldest imager, with what an older one does."""
    kind = document["output"]["kind"]
    secureboot = bool(document["secureboot"])
    customization = document.get("customization", {})
    found = []
    if "overlay" in document:
        found.append((BuilderFeature.OVERLAY, "ignores overlays"))
    if customization.get("embeddedMachineConfiguration"):
        found.append((BuilderFeature.EMBEDDED_CONFIG, "ignores the embedded machine configuration"))
    if kind == "uki" and not secureboot:
        found.append((BuilderFeature.PLAIN_UKI, "makes UKIs only for secure boot"))
    if kind == "installer" and not secureboot and customization.get("extraKernelArgs"):
        found.append((BuilderFeature.PLAIN_UKI, "refuses kernel arguments in an installer"))
    if kind == "image":
        found += _asked_of_disk(document, quirks, secureboot)
    if kind == "iso":
        asked = document["output"].get("isoOptions", {}).get("bootloader", "")
        usual = default_bootloader(document["arch"], quirks, secureboot=secureboot)
        if asked and not secureboot and asked != usual:
            found.append((BuilderFeature.ISO_BOOTLOADER, "ignores the boot loader of an ISO"))
    return found


def _asked_of_disk(
    document: Any, quirks: Quirks, secureboot: bool
) -> list[tuple[BuilderFeature, str]]:
    disk = document["output"]["imageOptions"]
    found = []
    asked = disk.get("bootloader", "")
    usual = default_bootloader(document["arch"], quirks, secureboot=secureboot)
    if asked and not secureboot and asked != usual:
        # Imagers before v1.12 took "dual-boot" for "nothing asked for".
        dual = asked == "dual-boot"
        feature = BuilderFeature.DUAL_BOOT if dual else BuilderFeature.DISK_BOOTLOADER
        found.append((feature, f"ignores the boot loader {asked}"))
    if disk.get("diskSectorSize", DEFAULT_SECTOR_BYTES) != DEFAULT_SECTOR_BYTES:
        found.append((BuilderFeature.SECTOR_SIZE, "ignores the sector size"))
    if secureboot and disk.get("sdBootEnrollKeys"):
        found.append((BuilderFeature.DISK_ENROLL_KEYS, "ignores enrollKeys of a disk image"))
    return found
