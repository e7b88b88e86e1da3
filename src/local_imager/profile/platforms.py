"""The platforms and single board computers that Talos has images for, as data.

A platform decides the name in an asset's path, the size of its disk and the options of its disk
format. Facts: Talos' default profiles and platform metadata (as of v1.14.0-rc.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from local_imager.profile.model import ARCHES, Arch
from local_imager.profile.version import TalosVersion

DiskFormat = Literal["raw", "qcow2", "vhd", "ova"]
OutFormat = Literal["raw", ".tar.gz", ".xz", ".gz", ".zst"]
BootMethod = Literal["disk-image", "iso", "pxe"]

DISK_FORMATS: Final[tuple[DiskFormat, ...]] = ("raw", "qcow2", "vhd", "ova")
COMPRESSIONS: Final[tuple[OutFormat, ...]] = (".tar.gz", ".gz", ".xz", ".zst")

MIN_DISK_BYTES: Final = 1246 * 1024 * 1024
"""The least disk that holds Talos; the root grows on the first boot."""
DEFAULT_DISK_BYTES: Final = 8 * 1024**3

QCOW2_OPTIONS: Final = "cluster_size=8k"

_FIRST: Final = TalosVersion(0, 0, 0)
_AMD64: Final[tuple[Arch, ...]] = ("amd64",)


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform: what its disk is like, how it boots and from which version on it exists.

    ``disk_format_options`` go to qemu-img whatever the disk format is. ``offered_suffix`` is the
    kind of disk image that the factory offers first, empty where it offers none.
    ``listed`` is False for names that the imager knows and the factory does not offer.
    """

    name: str
    label: str
    disk_bytes: int = DEFAULT_DISK_BYTES
    disk_format_options: str = ""
    offered_suffix: str = ""
    arches: tuple[Arch, ...] = ARCHES
    boot_methods: tuple[BootMethod, ...] = ("disk-image",)
    min_version: TalosVersion = _FIRST
    secure_boot: bool = False
    listed: bool = True


_DISK_ISO: Final[tuple[BootMethod, ...]] = ("disk-image", "iso")
_DISK_ISO_PXE: Final[tuple[BootMethod, ...]] = ("disk-image", "iso", "pxe")

_ALL: Final = (
    Platform(
        "metal",
        "Bare Metal",
        MIN_DISK_BYTES,
        offered_suffix="raw.zst",
        boot_methods=("iso", "disk-image", "pxe"),
        secure_boot=True,
    ),
    Platform("aws", "Amazon Web Services (AWS)", offered_suffix="raw.xz"),
    Platform("gcp", "Google Cloud (GCP)", offered_suffix="raw.tar.gz"),
    Platform("equinixMetal", "Equinix Metal", boot_methods=("pxe",)),
    Platform(
        "azure",
        "Microsoft Azure",
        disk_format_options="subformat=fixed,force_size",
        offered_suffix="vhd.xz",
        secure_boot=True,
    ),
    Platform("digital-ocean", "Digital Ocean", offered_suffix="raw.gz", arches=_AMD64),
    Platform(
        "nocloud",
        "Nocloud",
        MIN_DISK_BYTES,
        offered_suffix="raw.xz",
        boot_methods=_DISK_ISO_PXE,
        secure_boot=True,
    ),
    Platform(
        "openstack",
        "OpenStack",
        MIN_DISK_BYTES,
        offered_suffix="raw.xz",
        boot_methods=_DISK_ISO_PXE,
    ),
    Platform("vmware", "VMWare", offered_suffix="ova", boot_methods=_DISK_ISO),
    Platform(
        "akamai",
        "Akamai",
        MIN_DISK_BYTES,
        offered_suffix="raw.gz",
        arches=_AMD64,
        min_version=TalosVersion(1, 7, 0),
    ),
    Platform(
        "cloudstack",
        "Apache CloudStack",
        offered_suffix="raw.gz",
        min_version=TalosVersion(1, 8, 0, "alpha.2"),
        secure_boot=True,
    ),
    Platform("hcloud", "Hetzner", MIN_DISK_BYTES, offered_suffix="raw.xz", arches=_AMD64),
    Platform("oracle", "Oracle Cloud", disk_format_options=QCOW2_OPTIONS, offered_suffix="qcow2"),
    Platform("upcloud", "UpCloud", offered_suffix="raw.xz", arches=_AMD64),
    Platform("vultr", "Vultr", arches=_AMD64, boot_methods=("iso", "pxe")),
    Platform(
        "exoscale",
        "Exoscale",
        10 * 1024**3,
        QCOW2_OPTIONS,
        "qcow2",
        min_version=TalosVersion(1, 3, 0),
    ),
    Platform(
        "opennebula",
        "OpenNebula",
        MIN_DISK_BYTES,
        offered_suffix="raw.zst",
        boot_methods=_DISK_ISO,
        min_version=TalosVersion(1, 7, 0),
    ),
    Platform(
        "scaleway", "Scaleway", MIN_DISK_BYTES, offered_suffix="raw.zst", boot_methods=_DISK_ISO
    ),
    Platform(
        "alibabacloud",
        "AlibabaCloud",
        MIN_DISK_BYTES,
        QCOW2_OPTIONS,
        "qcow2",
        min_version=TalosVersion(1, 14, 0, "beta.2"),
    ),
    Platform("container", "Talos in a container", listed=False),
    Platform("packet", "Equinix Metal by its old name", listed=False),
)

PLATFORMS: Final[dict[str, Platform]] = {platform.name: platform for platform in _ALL}


@dataclass(frozen=True, slots=True)
class Board:
    """A single board computer: its overlay (name and image) and its first version."""

    name: str
    label: str
    overlay_image: str
    min_version: TalosVersion = _FIRST
    overlay_name: str = ""

    @property
    def overlay(self) -> str:
        """The overlay's name, which is the board's own name for most boards."""
        return self.overlay_name or self.name


_ALLWINNER: Final = "siderolabs/sbc-allwinner"
_JETSON: Final = "siderolabs/sbc-jetson"
_RASPBERRY: Final = "siderolabs/sbc-raspberrypi"
_ROCKCHIP: Final = "siderolabs/sbc-rockchip"
_V1_7: Final = TalosVersion(1, 7, 0)
_V1_10B: Final = TalosVersion(1, 10, 0, "beta.0")
_V1_12B: Final = TalosVersion(1, 12, 0, "beta.0")

BOARDS: Final = (
    Board("rpi_5", "Raspberry Pi 5", _RASPBERRY, TalosVersion(1, 12, 3)),
    Board("rpi_generic", "Raspberry Pi Series", _RASPBERRY),
    Board("revpi_generic", "Revolution Pi Series", _RASPBERRY, _V1_10B),
    Board("bananapi_m64", "Banana Pi M64", _ALLWINNER),
    Board(
        "nanopi_r4s",
        "Friendlyelec Nano PI R4S",
        _ROCKCHIP,
        TalosVersion(1, 3, 0),
        "nanopi-r4s",
    ),
    Board(
        "nanopi_r5s",
        "Friendlyelec Nano PI R5S",
        _ROCKCHIP,
        TalosVersion(1, 8, 0, "alpha.2"),
        "nanopi-r5s",
    ),
    Board("jetson_nano", "Jetson Nano", _JETSON),
    Board("libretech_all_h3_cc_h5", "Libre Computer Board ALL-H3-CC", _ALLWINNER),
    Board(
        "orangepi_r1_plus_lts", "Orange Pi R1 Plus LTS", _ROCKCHIP, _V1_7, "orangepi-r1-plus-lts"
    ),
    Board("pine64", "Pine64", _ALLWINNER),
    Board("rock64", "Pine64 Rock64", _ROCKCHIP),
    Board("rock4cplus", "Radxa ROCK 4C Plus", _ROCKCHIP, _V1_7),
    Board("rock4se", "Radxa ROCK 4SE", _ROCKCHIP, TalosVersion(1, 8, 0, "alpha.1")),
    Board("rock5a", "Radxa ROCK 5A", _ROCKCHIP, _V1_10B),
    Board("rock5b", "Radxa ROCK 5B", _ROCKCHIP, TalosVersion(1, 9, 2)),
    Board("rockpi_4", "Radxa ROCK PI 4", _ROCKCHIP, overlay_name="rockpi4"),
    Board("rockpi_4c", "Radxa ROCK PI 4C", _ROCKCHIP, overlay_name="rockpi4c"),
    Board("helios64", "Kobol Helios64", _ROCKCHIP, TalosVersion(1, 8, 0, "alpha.2")),
    Board("turingrk1", "Turing RK1", _ROCKCHIP, TalosVersion(1, 9, 0, "beta.0")),
    Board("orangepi-5", "Orange Pi 5", _ROCKCHIP, TalosVersion(1, 9, 2)),
    Board("orangepi-5-plus", "Orange Pi 5 Plus", _ROCKCHIP, _V1_10B),
    Board("rockpro64", "Pine64 RockPro64", _ROCKCHIP, _V1_10B),
    Board("odroid-m1", "Odroid M1", _ROCKCHIP, _V1_12B),
    Board("radxa-zero-3e", "Radxa Zero 3E", _ROCKCHIP, _V1_12B),
    Board("rock3b", "Rock 3B", _ROCKCHIP, _V1_12B),
    Board("orangepi-5-max", "Orange Pi 5 Max", _ROCKCHIP, _V1_12B),
    Board("rock5t", "Rock 5T", _ROCKCHIP, _V1_12B),
    Board(
        "friendlyelec-cm3588-nas",
        "FriendlyELEC CM3588 NAS",
        _ROCKCHIP,
        TalosVersion(1, 13, 0, "alpha.1"),
    ),
    Board("rock5b-plus", "Rock 5B Plus", _ROCKCHIP, TalosVersion(1, 13, 0, "alpha.1")),
)
