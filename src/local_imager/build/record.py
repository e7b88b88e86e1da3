"""The build key (what makes two builds the same) and the build record (what happened in one)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from local_imager import __version__
from local_imager.build.container import container_user, processors
from local_imager.build.libraries import zlib_version, zstd_version
from local_imager.build.privilege import needs_loop_devices
from local_imager.build.request import DETERMINISTIC_SEED, EngineInfo
from local_imager.errors import BuildError
from local_imager.oci.model import canonical_json
from local_imager.profile.handed import packs_extensions
from local_imager.profile.model import (
    BaseFile,
    BuildPlan,
    ImageInput,
    Input,
    KeyFile,
    MadeFile,
    Requirement,
    TarInput,
)

if TYPE_CHECKING:
    from local_imager.sources.verify import VerifiedImage

# Raised when the meaning of a key changes, so that an older result is never taken for a new one.
KEY_FORMAT: Final = 2
# Raised when our own steps (normalised initramfs, conversion, compression) give other bytes for
# the same output of an imager. 2: the initramfs is normalised; 3: META is ordered, xz stores;
# 4: an OVA's description is the imager's.
CONVERSION_RECIPE: Final = 4
# Raised when the same initramfs of an imager would become other bytes (build/initramfs.py).
INITRAMFS_RECIPE: Final = 1
RECORD_FORMAT: Final = 1

KeyDigests = Mapping[str, str]
"""SHA-256 of each secure boot key file by name; the secret itself goes nowhere."""


def build_key(
    plan: BuildPlan,
    images: Mapping[Requirement, VerifiedImage],
    *,
    epoch: int,
    exact: bool,
    key_digests: KeyDigests | None = None,
) -> str:
    """Return the SHA-256 (hex) that names the result of a build before it is made.

    It covers the schematic, since a result is kept under its name (a kernel has the same profile
    for all), the profile with each input replaced by its content's digest, the builder image, the
    epoch, the seed and the version of our own conversion steps and of the libraries that they
    pack with. Raises :class:`BuildError` when an image or key of the plan was not given.
    """

    def identify(item: Input) -> str:
        return input_identity(item, images, key_digests or {})

    document = {
        "format": KEY_FORMAT,
        "schematic": plan.schematic_id,
        "profile": plan.profile.rendered(identify),
        "builder": str(builder_image(images).digest),
        "epoch": epoch,
        "seed": DETERMINISTIC_SEED,
        "conversion": CONVERSION_RECIPE if _has_own_steps(plan, exact=exact) else "imager",
    }
    libraries = _libraries(plan, exact=exact)
    document |= {"packed_with": libraries} if libraries else {}
    return hashlib.sha256(canonical_json(document)).hexdigest()


def initramfs_key(
    packing: BuildPlan, images: Mapping[Requirement, VerifiedImage], *, epoch: int
) -> str:
    """Return the SHA-256 (hex) that names a normalised initramfs before it is made.

    ``packing`` is the plan of the run that packs the extensions. The key says so, so that it is
    never the build key of an asset.
    """
    document = {
        "format": KEY_FORMAT,
        "intermediate": "initramfs",
        "profile": packing.profile.rendered(lambda item: input_identity(item, images, {})),
        "builder": str(builder_image(images).digest),
        "epoch": epoch,
        "seed": DETERMINISTIC_SEED,
        "recipe": INITRAMFS_RECIPE,
        "packed_with": [zstd_version()],
    }
    return hashlib.sha256(canonical_json(document)).hexdigest()


def normalises(plan: BuildPlan, *, exact: bool) -> bool:
    """Whether the asset is made from a normalised initramfs (where that can be proved equal)."""
    return not exact and packs_extensions(plan.profile)


def _has_own_steps(plan: BuildPlan, *, exact: bool) -> bool:
    return converts(plan, exact=exact) or normalises(plan, exact=exact)


def _libraries(plan: BuildPlan, *, exact: bool) -> list[str]:
    """Return the libraries, with versions, that our steps pack the asset or its initramfs with."""
    found = {zstd_version()} if normalises(plan, exact=exact) else set()
    if converts(plan, exact=exact):
        out_format = str(plan.profile.document["output"].get("outFormat") or "")
        if out_format == ".zst":
            found.add(zstd_version())
        elif out_format.endswith(".gz"):
            found.add(zlib_version())
    return sorted(found)


def converts(plan: BuildPlan, *, exact: bool) -> bool:
    """Whether steps of ours follow the imager's: formats and compression of disks only."""
    return plan.profile.kind == "image" and not exact and not needs_loop_devices(plan)


def input_identity(
    item: Input, images: Mapping[Requirement, VerifiedImage], key_digests: KeyDigests
) -> str:
    """Return what an input is, by content: the digest of the image or file behind it."""
    match item:
        case ImageInput(requirement):
            if requirement not in images:
                raise BuildError(f"no verified image was given for {requirement.name}")
            return f"image:{images[requirement].digest}:{requirement.arch or ''}"
        case TarInput(_, content):
            return f"tar:sha256:{hashlib.sha256(content).hexdigest()}"
        case BaseFile(arch, name):
            return f"base:{base_image(images).digest}:{arch}:{name}"
        case KeyFile(name):
            if name not in key_digests:
                raise BuildError(f"the digest of the key file {name} is not known")
            return f"key:{name}:{key_digests[name]}"
        case MadeFile(name, digest):
            return f"made:{name}:{digest}"


def builder_image(images: Mapping[Requirement, VerifiedImage]) -> VerifiedImage:
    """Return the image whose imager runs."""
    return _with_role(images, "builder")


def base_image(images: Mapping[Requirement, VerifiedImage]) -> VerifiedImage:
    """Return the image that the boot assets come from."""
    return _with_role(images, "base")


def _with_role(images: Mapping[Requirement, VerifiedImage], role: str) -> VerifiedImage:
    for requirement, image in images.items():
        if requirement.role == role:
            return image
    raise BuildError(f"no verified {role} image was given")


_SECRET_FIELDS: Final = ("extraKernelArgs", "metaContents", "meta")


def masked_profile(document: Mapping[str, Any], *, holds_secrets: bool) -> dict[str, Any]:
    """Return a rendered profile in which secrets are replaced by their digest.

    The embedded machine configuration always is; kernel arguments, META and overlay options are
    when the plan says that the schematic holds secrets.
    """
    masked = dict(document)
    customization = dict(masked.get("customization") or {})
    names = ["embeddedMachineConfiguration", *(_SECRET_FIELDS if holds_secrets else ())]
    for name in names:
        if customization.get(name):
            customization[name] = _digest_of(customization[name])
    if customization:
        masked["customization"] = customization
    overlay = masked.get("overlay")
    if holds_secrets and isinstance(overlay, Mapping) and overlay.get("options"):
        masked["overlay"] = {**overlay, "options": _digest_of(overlay["options"])}
    return masked


def _digest_of(value: object) -> str:
    data = value.encode() if isinstance(value, str) else canonical_json(value)
    return f"(not shown: sha256:{hashlib.sha256(data).hexdigest()})"


def secret_texts(document: Mapping[str, Any], *, holds_secrets: bool) -> tuple[str, ...]:
    """Return the texts of a profile that must not appear in a log."""
    customization = document.get("customization") or {}
    places = [customization.get("embeddedMachineConfiguration")]
    if holds_secrets:
        places += [customization.get(name) for name in _SECRET_FIELDS]
        places.append((document.get("overlay") or {}).get("options"))
    return tuple(text for place in places for text in _texts(place) if text)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


def build_record(
    plan: BuildPlan,
    images: Mapping[Requirement, VerifiedImage],
    *,
    engine: EngineInfo,
    profile: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    started_at: str,
    duration_s: float,
    exact: bool,
    epoch: int,
    workers: int,
) -> dict[str, Any]:
    """Return the JSON document that is kept beside an asset: what was done, from what, how.

    ``profile`` is the rendered profile (it is masked in here); ``runs`` describe the container
    runs and conversions in order; ``started_at`` is RFC 3339 in UTC; ``workers`` are those of our
    own steps.
    """
    return {
        "format": RECORD_FORMAT,
        "tool": {"name": "local-imager", "version": __version__},
        "asset": plan.asset,
        "schematic_id": plan.schematic_id,
        "version": str(plan.version),
        "builder_version": str(plan.builder) if plan.builder else None,
        "builder": _image_entry(builder_image(images)),
        "base": _image_entry(base_image(images)),
        "inputs": [
            {"role": requirement.role, "arch": requirement.arch, **_image_entry(image)}
            for requirement, image in images.items()
        ],
        "profile": masked_profile(profile, holds_secrets=plan.holds_secrets),
        "epoch": epoch,
        "exact": exact,
        "conversion_recipe": None if exact else CONVERSION_RECIPE,
        "engine": {
            "name": engine.name,
            "version": engine.version,
            "storage": engine.storage,
            "rootless": engine.rootless,
        },
        "surroundings": {
            "workers": workers,
            "user": "0:0" if needs_loop_devices(plan) else container_user(engine).inside,
            "processors": processors(engine),
        },
        "runs": [dict(run) for run in runs],
        "warnings": list(plan.warnings),
        "started_at": started_at,
        "duration_s": round(duration_s, 3),
    }


def _image_entry(image: VerifiedImage) -> dict[str, Any]:
    return {
        "reference": str(image.reference),
        "digest": str(image.digest),
        "policy": image.policy,
        "signer": image.signer,
        "unverified": image.unverified,
        "evidence": dict(image.evidence),
    }
