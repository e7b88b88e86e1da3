"""What the imager itself does to a profile before it builds: fill in defaults, and check.

Facts: ``Output.FillDefaults`` and ``Profile.Validate`` of Talos ``pkg/imager/profile``
(v1.12 to v1.14). Both follow the Talos version that stands in the profile, not the imager's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from local_imager.profile.model import Arch
from local_imager.profile.quirks import Feature, Quirks

_LEGACY_BOOT_BYTES: Final = 1000 * 1024 * 1024


def default_bootloader(arch: Arch, quirks: Quirks, *, secureboot: bool) -> str:
    """Return the boot loader that an image gets when none is asked for."""
    sd_boot = quirks.has(Feature.SDBOOT_FOR_UEFI)
    if secureboot or (arch == "arm64" and sd_boot):
        return "sd-boot"
    return "dual-boot" if sd_boot else "grub"


def effective_bootloader(asked: str, arch: Arch, quirks: Quirks, *, secureboot: bool) -> str:
    """Return the boot loader that an image gets; secure boot leaves no choice."""
    if asked and not secureboot:
        return asked
    return default_bootloader(arch, quirks, secureboot=secureboot)


def filled_output(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile's ``output`` after the imager filled in its defaults.

    The disk of a filled profile has the size in bytes that the raw file will have.
    """
    output = dict(document["output"])
    quirks = Quirks.parse(document["version"])
    arch: Arch = document["arch"]
    secureboot = bool(document["secureboot"])
    if output["kind"] == "image":
        options = {"diskSize": 0, **output.get("imageOptions", {})}
        options["bootloader"] = effective_bootloader(
            options.get("bootloader", ""), arch, quirks, secureboot=secureboot
        )
        sizes = quirks.partition_sizes
        options["diskSize"] += sizes.grub_boot_bytes - _LEGACY_BOOT_BYTES
        if options["bootloader"] == "dual-boot":
            options["diskSize"] += sizes.grub_bios_bytes + sizes.grub_boot_bytes
        output["imageOptions"] = options
    elif output["kind"] == "iso" and quirks.has(Feature.ISO_BOOTLOADER):
        options = {"sdBootEnrollKeys": "if-safe", **output.get("isoOptions", {})}
        options["bootloader"] = effective_bootloader(
            options.get("bootloader", ""), arch, quirks, secureboot=secureboot
        )
        output["isoOptions"] = options
    return output


def refusal(document: Mapping[str, Any]) -> str:
    """Return why the imager's own check would refuse the profile, or an empty string."""
    kind = document["output"]["kind"]
    customization = document.get("customization", {})
    secureboot = bool(document["secureboot"])
    if not document["platform"]:
        return "platform is required"
    if secureboot and not Quirks.parse(document["version"]).has(Feature.UKI):
        return f'secureboot is not supported for Talos version "{document["version"]}"'
    if kind in ("kernel", "initramfs"):
        if secureboot:
            return f"secureboot is not supported for {kind} output"
        if customization.get("extraKernelArgs"):
            return f"customization of kernel args is not supported for {kind} output"
    if kind in ("kernel", "initramfs", "installer") and customization.get("metaContents"):
        return f"customization of meta partition is not supported for {kind} output"
    return ""
