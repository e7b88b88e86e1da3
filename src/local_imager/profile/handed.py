"""The profile that an imager container is really given.

The factory's profile leaves the boot assets to the imager, which takes its own. Here the imager
that runs may be a later one, so they are named: kernel, initramfs and the systemd files come from
the image of the version asked for. Only what the output kind reads is named.

An asset that holds an initramfs with extensions can be made in two runs: one that packs them into
the initramfs, one that makes the asset from that. The imager itself does both one after the other
and keeps nothing else of the extensions (Talos pkg/imager/imager.go, ``buildInitramfs``; the
embedded machine configuration is one more extension to it, ``embed.go``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.customize import ENROLMENT_FILES, REQUIRED_KEYS
from local_imager.profile.effects import misfit
from local_imager.profile.model import (
    BaseFile,
    BuildPlan,
    Kind,
    MadeFile,
    PlanOptions,
    Profile,
)
from local_imager.profile.platforms import PLATFORMS
from local_imager.profile.quirks import Feature, Quirks

KERNEL: Final = "vmlinuz"
INITRAMFS: Final = "initramfs.xz"
SD_STUB: Final = "systemd-stub.efi"
SD_BOOT: Final = "systemd-boot.efi"
_EMBEDDED: Final = "embeddedMachineConfiguration"

_NEEDS_KERNEL: Final[frozenset[Kind]] = frozenset({"kernel", "uki", "iso", "image", "installer"})
_NEEDS_INITRAMFS: Final[frozenset[Kind]] = frozenset(
    {"initramfs", "uki", "iso", "image", "installer"}
)
# From v1.5 on the imager builds a UKI on the way to each of these, signed or not.
_NEEDS_UKI: Final[frozenset[Kind]] = frozenset({"uki", "iso", "image", "installer"})


def build_profile(plan: BuildPlan, options: PlanOptions) -> Profile:
    """Return the profile to hand to the builder: the plan's, with every input named.

    Raises :class:`PlanError` when the plan is not resolved, when signing keys are missing, or
    when no imager can make the asset.
    """
    if not plan.resolved:
        raise PlanError(
            f"the plan of {plan.asset} lacks the catalogue of Talos {plan.version}",
            hint="fetch it first: local-imager sources fetch --version VERSION",
            code="plan-unresolved",
        )
    kind = plan.profile.kind
    quirks = Quirks.of(plan.version)
    if kind == "uki" and not quirks.has(Feature.UKI):
        raise PlanError(
            f"Talos {plan.version} has no UKI",
            hint="that came with v1.5.0; an ISO or kernel and initramfs boot this version",
            code="uki-unsupported",
        )
    asset = AssetName.parse(plan.asset)
    if not asset.disk_format_fits:
        raise PlanError(
            f"{plan.asset} cannot be made: {misfit(asset)}",
            hint=f"{asset.platform} is used with {PLATFORMS[asset.platform].offered_suffix}",
            code="disk-format",
        )
    document = dict(plan.profile.document)
    document["input"] = _inputs(plan, quirks)
    signing = document["input"].pop("secureboot", None)
    if signing is not None and kind != "cmdline":  # a command line is not signed
        _check_keys(plan.asset, options.key_files)
        document["input"]["secureboot"] = signing
    return Profile(document)


def _inputs(plan: BuildPlan, quirks: Quirks) -> dict[str, Any]:
    kind, arch = plan.profile.kind, plan.profile.arch
    named: dict[str, Any] = {}
    if kind in _NEEDS_KERNEL:
        named["kernel"] = {"path": BaseFile(arch, KERNEL)}
    if kind in _NEEDS_INITRAMFS:
        named["initramfs"] = {"path": BaseFile(arch, INITRAMFS)}
    if kind in _NEEDS_UKI and quirks.has(Feature.UKI):
        named["sdStub"] = {"path": BaseFile(arch, SD_STUB)}
        named["sdBoot"] = {"path": BaseFile(arch, SD_BOOT)}
    return {**plan.profile.document["input"], **named}


def packs_extensions(profile: Profile) -> bool:
    """Return whether the imager builds an initramfs with extensions on its way to the output."""
    extensions = profile.document["input"].get("systemExtensions")
    return profile.kind in _NEEDS_INITRAMFS and bool(extensions or _embedded(profile))


def initramfs_plan(plan: BuildPlan) -> BuildPlan:
    """Return the plan of the run that only packs the extensions of a plan into its initramfs.

    It has what decides the result and nothing else, so assets of all platforms share it.
    """
    document = plan.profile.document
    arch = plan.profile.arch
    profile: dict[str, Any] = {
        "arch": arch,
        "platform": "metal",
        "secureboot": False,
        **{key: document[key] for key in ("name", "version") if key in document},
        "input": {
            key: document["input"][key]
            for key in ("initramfs", "systemExtensions")
            if key in document["input"]
        },
        "output": {"kind": "initramfs", "outFormat": "raw"},
    }
    if _embedded(plan.profile):
        profile["customization"] = {_EMBEDDED: _embedded(plan.profile)}
    name = AssetName.parse(f"initramfs-{arch}.xz")
    return replace(plan, profile=Profile(profile), asset=str(name), output_name=name.output_name)


def with_initramfs(plan: BuildPlan, made: MadeFile) -> BuildPlan:
    """Return the plan of the run that makes the asset from an initramfs with the extensions in."""
    document = dict(plan.profile.document)
    given = {key: value for key, value in document["input"].items() if key != "systemExtensions"}
    document["input"] = {**given, "initramfs": {"path": made}}
    customization = dict(document.get("customization", {}))
    if customization.pop(_EMBEDDED, None) is not None:
        document["customization"] = customization
    return replace(plan, profile=Profile(document))


def _embedded(profile: Profile) -> str:
    return str(profile.document.get("customization", {}).get(_EMBEDDED) or "")


def _check_keys(asset: str, key_files: frozenset[str]) -> None:
    missing = [name for name in REQUIRED_KEYS if name not in key_files]
    if missing:
        raise PlanError(
            f"{asset} has to be signed, and these keys are missing: {', '.join(missing)}",
            hint="make them with local-imager secureboot keygen DIR, "
            "and name the folder with --secureboot-keys DIR",
            code="signing-keys-missing",
        )
    enrolment = sorted(ENROLMENT_FILES.values())
    present = [name for name in enrolment if name in key_files]
    if present and present != enrolment:
        raise PlanError(
            f"of the enrolment files {', '.join(enrolment)} there is only {', '.join(present)}",
            hint="give all three, or none: the imager then makes them from the signing key",
            code="enrolment-files-incomplete",
        )
