"""What changes from which Talos version on: every version rule of the program, in one place.

Facts: the quirks table of Talos (``pkg/machinery/imager/quirks``), the profile types of the
imagers v1.9.0 to v1.13.0 (what an older one does not know it ignores without a word), and the
factory's list of versions. Pre-release parts do not count: v1.10.0-alpha.0 follows v1.10's rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from local_imager.profile.version import TalosVersion

Release = tuple[int, int, int]

MIN_TALOS: Final = TalosVersion(1, 2, 0)
"""The oldest Talos that the factory (and so this program) makes images of."""

NEWEST_KNOWN: Final = TalosVersion(1, 14, 0)
"""The newest version whose rules stand here; later ones are taken to follow them too."""

_MIB: Final = 1024 * 1024


class Feature(Enum):
    """What a Talos version can do or does."""

    RESET_GRUB_OPTION = auto()
    UKI = auto()  # unified kernel images exist, and with them secure boot
    MULTIDOC = auto()
    COMPRESSED_META = auto()  # META values travel compressed on the kernel command line
    OVERLAY = auto()  # overlays exist, and the virtual extension carries the schematic's text
    ZSTD = auto()
    ISO_LABEL = auto()
    HALT_IF_INSTALLED = auto()
    SKIP_DATA_PARTITIONS = auto()
    METAL_CONSOLE_TTYS0 = auto()
    SELINUX = auto()
    SDBOOT_FOR_UEFI = auto()  # every UEFI machine boots a UKI, which carries the command line
    UKI_PROFILES = auto()
    UNIFIED_INSTALLER = auto()  # the base installer is the image "installer-base"
    USR_MERGE = auto()
    IMA = auto()
    BOOT_2G = auto()
    TALOSCTL_DOWNLOAD = auto()
    EMBEDDED_CONFIG = auto()
    DISABLE_MODULE_SIGNATURES = auto()
    ISO_BOOTLOADER = auto()  # the boot loader of an ISO can be chosen
    PROC_MEM_OVERRIDE_NEVER = auto()
    DROP_INIT_ON_ALLOC = auto()
    NVME_TIMEOUT_AWS_ONLY = auto()
    LARGE_XFS_GROUPS = auto()


class BuilderFeature(Enum):
    """What the imager that runs must know, whatever version the images are of."""

    OVERLAY = auto()
    PLAIN_UKI = auto()  # UKI, and kernel arguments in an installer, without secure boot
    EMBEDDED_CONFIG = auto()
    DISK_BOOTLOADER = auto()  # imageOptions.bootloader
    DUAL_BOOT = auto()  # imageOptions.bootloader "dual-boot", told apart from nothing asked for
    ISO_BOOTLOADER = auto()  # isoOptions.bootloader
    UNPRIVILEGED_DISK = auto()  # disk images without loop devices and mounts
    SECTOR_SIZE = auto()  # imageOptions.diskSectorSize
    DISK_ENROLL_KEYS = auto()  # imageOptions.sdBootEnrollKeys


@dataclass(frozen=True, slots=True)
class Span:
    """From which version on (``since``) and up to which (``before``, exclusive) a thing holds.

    ``unparsed`` is the answer for a text that is no version, where Talos assumes the newest.
    """

    since: Release = (0, 0, 0)
    before: Release | None = None
    unparsed: bool = True

    def holds(self, release: Release | None) -> bool:
        """Return whether the release lies in the span."""
        if release is None:
            return self.unparsed
        return self.since <= release and (self.before is None or release < self.before)


SPANS: Final[Mapping[Feature, Span]] = MappingProxyType(
    {
        Feature.RESET_GRUB_OPTION: Span((1, 4, 0)),
        Feature.UKI: Span((1, 5, 0)),
        Feature.MULTIDOC: Span((1, 5, 0)),
        Feature.COMPRESSED_META: Span((1, 6, 3)),
        Feature.OVERLAY: Span((1, 7, 0)),
        Feature.ZSTD: Span((1, 8, 0)),
        Feature.ISO_LABEL: Span((1, 8, 0)),
        Feature.HALT_IF_INSTALLED: Span((1, 8, 0)),
        Feature.SKIP_DATA_PARTITIONS: Span((1, 8, 0)),
        Feature.METAL_CONSOLE_TTYS0: Span(before=(1, 8, 0), unparsed=False),
        Feature.SELINUX: Span((1, 10, 0)),
        Feature.SDBOOT_FOR_UEFI: Span((1, 10, 0), unparsed=False),
        Feature.UKI_PROFILES: Span((1, 10, 0)),
        Feature.UNIFIED_INSTALLER: Span((1, 10, 0)),
        Feature.USR_MERGE: Span((1, 10, 0)),
        Feature.IMA: Span(before=(1, 10, 100), unparsed=False),
        Feature.BOOT_2G: Span((1, 11, 0)),
        Feature.TALOSCTL_DOWNLOAD: Span((1, 11, 0)),
        Feature.EMBEDDED_CONFIG: Span((1, 12, 0)),
        Feature.DISABLE_MODULE_SIGNATURES: Span((1, 12, 0)),
        Feature.ISO_BOOTLOADER: Span((1, 12, 0)),
        Feature.PROC_MEM_OVERRIDE_NEVER: Span((1, 13, 0)),
        Feature.DROP_INIT_ON_ALLOC: Span((1, 14, 0)),
        Feature.NVME_TIMEOUT_AWS_ONLY: Span((1, 14, 0)),
        Feature.LARGE_XFS_GROUPS: Span((1, 14, 0)),
    }
)

BUILDER_SINCE: Final[Mapping[BuilderFeature, Release]] = MappingProxyType(
    {
        BuilderFeature.OVERLAY: (1, 7, 0),
        BuilderFeature.PLAIN_UKI: (1, 10, 0),
        BuilderFeature.EMBEDDED_CONFIG: (1, 12, 0),
        BuilderFeature.DISK_BOOTLOADER: (1, 10, 0),
        BuilderFeature.DUAL_BOOT: (1, 12, 0),
        BuilderFeature.ISO_BOOTLOADER: (1, 12, 0),
        BuilderFeature.UNPRIVILEGED_DISK: (1, 13, 0),
        BuilderFeature.SECTOR_SIZE: (1, 14, 0),
        BuilderFeature.DISK_ENROLL_KEYS: (1, 14, 0),
    }
)

# The mkfs.xfs configuration follows the kernel that a version ships; newest rule first.
_XFS_CONFIG: Final[tuple[tuple[Release, str], ...]] = (
    ((1, 13, 0), "lts_6.18"),
    ((1, 10, 0), "lts_6.12"),
    ((1, 8, 0), "lts_6.6"),
    ((0, 0, 0), "lts_6.1"),
)


@dataclass(frozen=True, slots=True)
class PartitionSizes:
    """The sizes, in bytes, of the partitions of a version's disk image."""

    grub_boot_bytes: int
    grub_efi_bytes: int = 100 * _MIB
    grub_bios_bytes: int = 1 * _MIB
    meta_bytes: int = 1 * _MIB
    state_bytes: int = 100 * _MIB
    ephemeral_min_bytes: int = 2048 * _MIB

    @property
    def uki_efi_bytes(self) -> int:
        """The EFI partition of a disk that boots UKIs takes the room of GRUB's three."""
        return self.grub_efi_bytes + self.grub_bios_bytes + self.grub_boot_bytes


@dataclass(frozen=True, slots=True)
class Quirks:
    """The rules of one version; ``release`` None stands for a text that is no version."""

    release: Release | None

    @classmethod
    def of(cls, version: TalosVersion) -> Quirks:
        """Return the rules of a version; its pre-release part does not count."""
        return cls(version.release)

    @classmethod
    def parse(cls, text: str) -> Quirks:
        """Read a version as tolerantly as Talos does; never fails (see :func:`read_release`)."""
        return cls(read_release(text))

    def has(self, feature: Feature) -> bool:
        """Return whether the version has the feature."""
        return SPANS[feature].holds(self.release)

    @property
    def kernel_modules_path(self) -> str:
        """Where the version keeps kernel modules."""
        return "/usr/lib/modules" if self.has(Feature.USR_MERGE) else "/lib/modules"

    @property
    def firmware_path(self) -> str:
        """Where the version keeps firmware."""
        return "/usr/lib/firmware" if self.has(Feature.USR_MERGE) else "/lib/firmware"

    @property
    def partition_sizes(self) -> PartitionSizes:
        """The partition sizes of the version's disk images."""
        return PartitionSizes((2000 if self.has(Feature.BOOT_2G) else 1000) * _MIB)

    @property
    def xfs_mkfs_config(self) -> str:
        """The configuration file that mkfs.xfs is given."""
        release = self.release or _XFS_CONFIG[0][0]
        name = next(name for since, name in _XFS_CONFIG if release >= since)
        return f"/usr/share/xfsprogs/mkfs/{name}.conf"

    @property
    def xfs_min_allocation_group_bytes(self) -> int:
        """The least size of an XFS allocation group; 0 where mkfs.xfs decides."""
        return 64 * 1024 * _MIB if self.has(Feature.LARGE_XFS_GROUPS) else 0

    @property
    def base_installer_name(self) -> str:
        """The repository path of the image that installers of this version start from."""
        unified = self.has(Feature.UNIFIED_INSTALLER)
        return "siderolabs/installer-base" if unified else "siderolabs/installer"


_DIGITS: Final = frozenset("0123456789")
_TOLERANT = re.compile(
    r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})"
    r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


def read_release(text: str) -> Release | None:
    """Return major, minor and patch of a loosely written version, or None where it is none.

    Spaces around it, one leading ``v``, leading zeros and missing parts (``1.9``) are taken, as
    by ``ParseTolerant`` of the semver library that Talos uses.
    """
    version = _tolerant_version(text)
    return None if version is None else version.release


def _tolerant_version(text: str) -> TalosVersion | None:
    parts = text.strip().removeprefix("v").split(".", 2)
    parts = [_without_leading_zeros(part) for part in parts]
    if len(parts) < 3 and any(mark in parts[-1] for mark in "+-"):
        return None  # a shortened version may carry no pre-release or build part
    parts += ["0"] * (3 - len(parts))
    match = _TOLERANT.fullmatch(".".join(parts))
    if match is None:
        return None
    major, minor, patch, prerelease = match.groups()
    identifiers = (prerelease or "").split(".")
    if any(len(p) > 1 and p.isdecimal() and p.startswith("0") for p in identifiers):
        return None
    return TalosVersion(int(major), int(minor), int(patch), prerelease or "")


def _without_leading_zeros(part: str) -> str:
    if len(part) <= 1:
        return part
    stripped = part.lstrip("0")
    return stripped if stripped[:1] in _DIGITS else "0" + stripped


_PUBLISHED_PRERELEASE = re.compile(r"(alpha|beta|rc)\.(0|[1-9][0-9]*)")


def available_versions(
    imager_tags: list[str] | tuple[str, ...], *, broken: frozenset[TalosVersion] = frozenset()
) -> tuple[TalosVersion, ...]:
    """Return the versions that can be built, oldest first, out of the imager image's tags.

    Left out are tags that are no version, versions below :data:`MIN_TALOS`, broken ones, and
    pre-releases, except alpha.N, beta.N and rc.N of the newest minor version (the newest of all
    tags, kept or not). Rule of the factory's ``GET /versions``.
    """
    known = {version for tag in imager_tags if (version := _tolerant_version(tag)) is not None}
    if not known:
        return ()
    newest = max(known)

    def kept(version: TalosVersion) -> bool:
        if version < MIN_TALOS or version in broken:
            return False
        if not version.prerelease:
            return True
        same_minor = version.release[:2] == newest.release[:2]
        return same_minor and _PUBLISHED_PRERELEASE.fullmatch(version.prerelease) is not None

    return tuple(sorted(version for version in known if kept(version)))
