"""A schematic applied to an asset: the imager profile, value for value as the factory makes it.

What takes effect where (``kernel`` takes nothing at all):

====================  =========  =======  ===  ====================  ====  =====
part of the schematic initramfs  cmdline  uki  installer             iso   image
====================  =========  =======  ===  ====================  ====  =====
extensions, overlay   yes        --       yes  yes                   yes   yes
kernel arguments      --         yes      secure boot, or from v1.10  yes   yes
META                  --         yes      --   --                    yes   yes
embedded config       yes        --       yes  yes                   yes   yes
boot loader           --         --       --   --                    yes   yes
sector size           --         --       --   --                    --    yes
enrolment of keys     --         --       --   --                    with secure boot
====================  =========  =======  ===  ====================  ====  =====
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Arch, ImageInput, KeyFile, Kind, Requirement, TarInput
from local_imager.profile.overlay import OverlayProfile
from local_imager.profile.quirks import Feature, Quirks
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import ENROLL_KEYS, Schematic
from local_imager.schematic.plain import plain_options

SIGNING_KEY: Final = "uki-signing-key.pem"
SIGNING_CERT: Final = "uki-signing-cert.pem"
PCR_KEY: Final = "pcr-signing-key.pem"
REQUIRED_KEYS: Final = (SIGNING_KEY, SIGNING_CERT, PCR_KEY)
ENROLMENT_FILES: Final = {
    "platformKeyPath": "PK.auth",
    "keyExchangeKeyPath": "KEK.auth",
    "signatureKeyPath": "db.auth",
}

WITH_EXTENSIONS: Final[frozenset[Kind]] = frozenset(
    {"initramfs", "uki", "installer", "iso", "image"}
)
WITH_META: Final[frozenset[Kind]] = frozenset({"cmdline", "iso", "image"})
_WITH_ARGS: Final[frozenset[Kind]] = frozenset({"cmdline", "iso", "image"})


def takes_kernel_args(asset: AssetName, quirks: Quirks) -> bool:
    """Return whether the schematic's kernel arguments reach the asset."""
    if asset.kind in ("uki", "installer"):
        # The UKI carries the command line; installers hold one with secure boot or from v1.10 on.
        return asset.secureboot or quirks.has(Feature.SDBOOT_FOR_UEFI)
    return asset.kind in _WITH_ARGS


@dataclass(frozen=True, slots=True)
class Ingredients:
    """The images and files that a profile refers to, once they are known.

    ``overlay_profile`` is None when the schematic has no overlay, or its document is not at hand.
    """

    base_installer: Requirement | None = None
    extensions: tuple[Requirement, ...] = ()
    virtual_extension: TarInput | None = None
    overlay_host: Requirement | None = None
    overlay_target: Requirement | None = None
    overlay_profile: OverlayProfile | None = None
    key_files: frozenset[str] = frozenset()


def check_combination(schematic: Schematic, version: TalosVersion, asset: AssetName) -> None:
    """Raise :class:`PlanError` where the factory refuses schematic, version and asset together."""
    quirks = Quirks.of(version)
    custom = schematic.customization
    embedded = custom.embedded_machine_configuration
    if embedded and asset.kind in WITH_EXTENSIONS and not quirks.has(Feature.EMBEDDED_CONFIG):
        raise PlanError(
            f"Talos {version} cannot have an embedded machine configuration",
            hint="that came with v1.12.0; leave embeddedMachineConfiguration out, "
            "or build a later version",
            code="embedded-config-unsupported",
        )
    if schematic.overlay.name and not quirks.has(Feature.OVERLAY):
        raise PlanError(
            f"Talos {version} has no overlays",
            hint="they came with v1.7.0; leave the overlay out, or build a later version",
            code="overlay-unsupported",
        )
    enroll_keys = custom.secureboot.enroll_keys
    if asset.secureboot and enroll_keys and enroll_keys.lower() not in ENROLL_KEYS:
        raise PlanError(
            f"secureboot.enrollKeys cannot be {enroll_keys!r}",
            hint=f"it is one of {', '.join(ENROLL_KEYS)}",
            code="enroll-keys",
        )


def customized(
    schematic: Schematic, version: TalosVersion, asset: AssetName, given: Ingredients
) -> dict[str, Any]:
    """Return the imager's profile document for an asset, with inputs as leaves."""
    start = asset.start_profile()
    customization = _customization(schematic, version, asset, given.overlay_profile)
    document = {
        "arch": start["arch"],
        "platform": start["platform"],
        "secureboot": start["secureboot"],
        "name": "Talos",
        "version": str(version),
        "customization": customization,
        "input": {**start["input"], **_input(schematic, asset, given)},
        "overlay": _overlay(schematic, given),
        "output": _output(start["output"], schematic, asset, given.overlay_profile),
    }
    return {key: value for key, value in document.items() if value not in ({}, None) or _kept(key)}


def _kept(key: str) -> bool:
    return key == "secureboot"


def _customization(
    schematic: Schematic, version: TalosVersion, asset: AssetName, overlay: OverlayProfile | None
) -> dict[str, Any]:
    custom = schematic.customization
    result: dict[str, Any] = {}
    args = list(overlay.kernel_args) if overlay else []
    if takes_kernel_args(asset, Quirks.of(version)):
        args += custom.extra_kernel_args
    if args:
        result["extraKernelArgs"] = args
    if custom.meta and asset.kind in WITH_META:
        result["metaContents"] = [{"key": m.key, "value": m.value} for m in custom.meta]
    if custom.embedded_machine_configuration and asset.kind in WITH_EXTENSIONS:
        result["embeddedMachineConfiguration"] = custom.embedded_machine_configuration
    return result


def _input(schematic: Schematic, asset: AssetName, given: Ingredients) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if given.base_installer is not None:
        installer = given.base_installer
        result["baseInstaller"] = {
            "imageRef": f"{installer.name}:{installer.tag}",
            "ociPath": ImageInput(installer),
        }
    if given.overlay_target is not None:
        result["overlayInstaller"] = _image(given.overlay_target)
    if asset.secureboot:
        result["secureboot"] = _signing(schematic, given.key_files)
    extensions = [_image(requirement) for requirement in given.extensions]
    if given.virtual_extension is not None:
        extensions.append({"imageRef": "", "tarballPath": given.virtual_extension})
    if extensions:
        result["systemExtensions"] = extensions
    return result


def _image(requirement: Requirement) -> dict[str, Any]:
    return {"imageRef": "", "ociPath": ImageInput(requirement)}


def _signing(schematic: Schematic, key_files: frozenset[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "secureBootSigner": {"keyPath": KeyFile(SIGNING_KEY), "certPath": KeyFile(SIGNING_CERT)},
        "pcrSigner": {"keyPath": KeyFile(PCR_KEY)},
    }
    for key, name in ENROLMENT_FILES.items():
        if name in key_files:
            result[key] = KeyFile(name)
    if schematic.customization.secureboot.include_well_known_certificates:
        result["includeWellKnownCerts"] = True
    return result


def _overlay(schematic: Schematic, given: Ingredients) -> dict[str, Any] | None:
    if given.overlay_host is None:
        return None
    result: dict[str, Any] = {
        "name": schematic.overlay.name,
        "image": _image(given.overlay_host),
    }
    if schematic.overlay.options:
        result["options"] = plain_options(schematic.overlay)
    return result


def _output(
    start: dict[str, Any], schematic: Schematic, asset: AssetName, overlay: OverlayProfile | None
) -> dict[str, Any]:
    custom = schematic.customization
    disk = _disk_options(start.get("imageOptions"), overlay)
    iso = _iso_options(overlay)
    enroll_keys = custom.secureboot.enroll_keys.lower() if asset.secureboot else ""
    if asset.kind == "image" and disk is not None:
        if custom.bootloader:
            disk["bootloader"] = custom.bootloader
        if custom.sector_size:
            disk["diskSectorSize"] = custom.sector_size
        if enroll_keys:
            disk["sdBootEnrollKeys"] = enroll_keys
    if asset.kind == "iso" and (custom.bootloader or enroll_keys):
        iso = iso or {"sdBootEnrollKeys": "if-safe"}
        if custom.bootloader:
            iso["bootloader"] = custom.bootloader
        if enroll_keys:
            iso["sdBootEnrollKeys"] = enroll_keys
    # "if-safe" is the zero value of the imager's type, which it never writes for a disk.
    if disk is not None and disk.get("sdBootEnrollKeys") == "if-safe":
        del disk["sdBootEnrollKeys"]
    result: dict[str, Any] = {"kind": start["kind"]}
    if disk is not None:
        result["imageOptions"] = disk
    if iso is not None:
        result["isoOptions"] = iso
    result["outFormat"] = start["outFormat"]
    return result


def _disk_options(
    start: dict[str, Any] | None, overlay: OverlayProfile | None
) -> dict[str, Any] | None:
    if start is None and not (overlay and overlay.disk):
        return None
    result: dict[str, Any] = {"diskSize": 0} if start is None else dict(start)
    if overlay:
        extra = {
            "bootloader": overlay.bootloader,
            "diskSectorSize": overlay.sector_size,
            "sdBootEnrollKeys": overlay.disk_enroll_keys,
        }
        result.update({key: value for key, value in extra.items() if value})
    return result


def _iso_options(overlay: OverlayProfile | None) -> dict[str, Any] | None:
    if not (overlay and overlay.iso):
        return None
    result = {"sdBootEnrollKeys": overlay.iso_enroll_keys}
    if overlay.iso_bootloader:
        result["bootloader"] = overlay.iso_bootloader
    return result


def base_installer(version: TalosVersion, arch: Arch) -> Requirement:
    """Return the image that an installer of this version starts from."""
    name = Quirks.of(version).base_installer_name
    return Requirement("base-installer", name, str(version), None, arch)
