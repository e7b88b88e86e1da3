"""What an overlay's profile document adds to an imager profile.

An overlay image holds ``profiles/<name>.yaml``, a profile of the imager. Of it count the kernel
arguments, the ISO's options, and the boot loader and sector size of the disk; name, version,
architecture, platform, output kind and format, disk size and disk format stay the asset's own.
Rule of the factory, as its profiles show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from local_imager.errors import PlanError
from local_imager.schematic.model import BOOTLOADERS, ENROLL_KEYS

# Real ones have some 300 bytes.
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class OverlayProfile:
    """The parts of an overlay's profile document that count; None where it does not set them.

    ``disk`` says whether the document has ``output.imageOptions`` at all, ``iso`` the same of
    ``output.isoOptions``.
    """

    kernel_args: tuple[str, ...] = ()
    disk: bool = False
    bootloader: str = ""
    sector_size: int = 0
    disk_enroll_keys: str = ""
    iso: bool = False
    iso_bootloader: str = ""
    iso_enroll_keys: str = "if-safe"


def parse_overlay_profile(untrusted_document: str, name: str) -> OverlayProfile:
    """Read the text of ``profiles/<name>.yaml``.

    Raises :class:`PlanError` when there is none (an empty text) or it is not a profile.
    """
    if not untrusted_document.strip():
        raise PlanError(
            f"the overlay image has no profiles/{name}.yaml",
            hint=f"the overlay {name!r} is broken; choose another one, or another version",
            code="overlay-profile",
        )
    document = _load(untrusted_document, name)
    customization = _section(document, "customization", name)
    output = _section(document, "output", name)
    disk = _section(output, "imageOptions", name)
    iso = _section(output, "isoOptions", name)
    return OverlayProfile(
        kernel_args=_strings(customization, "extraKernelArgs", name),
        disk="imageOptions" in output,
        bootloader=_choice(disk, "bootloader", BOOTLOADERS, name),
        sector_size=_number(disk, "diskSectorSize", name),
        disk_enroll_keys=_choice(disk, "sdBootEnrollKeys", ENROLL_KEYS, name),
        iso="isoOptions" in output,
        iso_bootloader=_choice(iso, "bootloader", BOOTLOADERS, name),
        iso_enroll_keys=_choice(iso, "sdBootEnrollKeys", ENROLL_KEYS, name) or "if-safe",
    )


def _load(untrusted_document: str, name: str) -> dict[str, Any]:
    import yaml

    if len(untrusted_document) > _MAX_BYTES:
        raise _broken(name, f"it is larger than {_MAX_BYTES} bytes")
    try:
        # Every scalar stays text: "off" is one of the words here and YAML 1.1 calls it a boolean.
        document = yaml.load(untrusted_document, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # The library turns an escape such as "\\UFFFFFFFF" into a character without a look.
        raise _broken(name, "it is not YAML") from error
    if not isinstance(document, dict):
        raise _broken(name, "it is not a map")
    return document


def _broken(name: str, reason: str) -> PlanError:
    return PlanError(
        f"profiles/{name}.yaml of the overlay image cannot be used: {reason}",
        hint=f"the overlay {name!r} is broken; choose another one, or another version",
        code="overlay-profile",
    )


def _section(document: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise _broken(name, f"{key} is not a map")
    return value


def _strings(document: dict[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _broken(name, f"{key} is not a list of strings")
    return tuple(value)


def _choice(document: dict[str, Any], key: str, choices: tuple[str, ...], name: str) -> str:
    value = str(document.get(key) or "").lower()
    if value and value not in choices:
        raise _broken(name, f"{key} is none of {', '.join(choices)}")
    return "" if value == "none" else value


def _number(document: dict[str, Any], key: str, name: str) -> int:
    value = document.get(key) or "0"
    if not isinstance(value, str) or not (value.isascii() and value.isdecimal()):
        raise _broken(name, f"{key} is not a number")
    return int(value[:20])
