"""What goes into the pipeline and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.oci.host import host_arch
from local_imager.oci.model import Digest, Reference
from local_imager.profile.model import (
    Arch,
    BaseFile,
    BuildPlan,
    ImageInput,
    Input,
    KeyFile,
    MadeFile,
    Role,
    TarInput,
)
from local_imager.schematic.model import Schematic

if TYPE_CHECKING:
    from local_imager.pipeline.lockfile import LockFile

MASK: Final = "(not shown: --show-secrets)"


def default_asset() -> str:
    """Return the asset that is built when none is named: this machine's ISO."""
    return f"metal-{host_arch()}.iso"


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What somebody wants: a schematic at a version, as these assets.

    ``export_to`` None keeps the results in the store only. ``exact`` lets the imager do every
    step itself, as the factory does. ``offline`` uses nothing but the store. ``lock`` holds the
    build to the images of a lock. ``within_jobs`` never runs more containers at once than the
    setting ``build.jobs``.
    """

    schematic: Schematic
    version: str
    assets: tuple[str, ...]
    exact: bool = False
    offline: bool = False
    rebuild: bool = False
    export_to: Path | None = None
    lock: LockFile | None = None
    within_jobs: bool = False


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished asset: where it was exported to, what it is, and how it came to be.

    ``lock`` is the digest of the lock file that the build was held to. ``varies`` are the steps of
    the build that may give other bytes the next time, each with why (docs/reproducible.md).
    """

    asset: str
    path: Path | None
    digest: Digest
    size_bytes: int
    schematic_id: str
    version: str
    build_key: str
    manifest_digest: Digest
    cached: bool
    duration_s: float
    lock: Digest | None = None
    varies: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``build --json`` prints."""
        return {
            "asset": self.asset,
            "path": str(self.path) if self.path else None,
            "digest": str(self.digest),
            "size_bytes": self.size_bytes,
            "schematic_id": self.schematic_id,
            "version": self.version,
            "build_key": self.build_key,
            "manifest_digest": str(self.manifest_digest),
            "cached": self.cached,
            "duration_s": round(self.duration_s, 3),
            "lock": str(self.lock) if self.lock else None,
            "varies": list(self.varies),
        }


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image that a build would use; ``digest`` is None while nothing knows it."""

    role: Role
    reference: Reference
    digest: Digest | None
    arch: Arch | None
    in_store: bool

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``plan --json`` prints."""
        return {
            "role": self.role,
            "image": str(self.reference),
            "digest": str(self.digest) if self.digest else None,
            "arch": self.arch,
            "in_store": self.in_store,
        }


@dataclass(frozen=True, slots=True)
class PlannedAsset:
    """A plan with what is known of its images; ``command`` is the ``docker run`` line by hand.

    ``normalised`` says that a build makes it in two runs, with a normalised initramfs between them
    (docs/reproducible.md); the command then makes the same content, but not the same bytes.
    """

    plan: BuildPlan
    requirements: tuple[PlannedImage, ...]
    cached: bool
    command: str
    normalised: bool = False

    def as_dict(self, *, show_secrets: bool = False) -> dict[str, Any]:
        """Return the JSON object of the asset; an embedded configuration is shown when asked."""
        profile = self.plan.profile.rendered(container_path)
        customization = profile.get("customization", {})
        if customization.get("embeddedMachineConfiguration") and not show_secrets:
            hidden = {**customization, "embeddedMachineConfiguration": MASK}
            profile = {**profile, "customization": hidden}
        return {
            "asset": self.plan.asset,
            "profile": profile,
            "requirements": [requirement.as_dict() for requirement in self.requirements],
            "base": str(self.plan.version),
            "builder": str(self.plan.builder) if self.plan.builder else None,
            "resolved": self.plan.resolved,
            "cached": self.cached,
            "initramfs": "normalised" if self.normalised else None,
            "warnings": list(self.plan.warnings),
            "command": self.command,
        }


def container_path(item: Input) -> str:
    """Return where an input lies inside the build container, as far as a plan can know it."""
    match item:
        case ImageInput(requirement):
            digest = requirement.digest.hex if requirement.digest else requirement.name
            return f"/in/images/{requirement.arch or 'builder'}-{digest}"
        case TarInput(name, _):
            return f"/in/schematic/{name}"
        case BaseFile(arch, name):
            return f"/in/base/{arch}/{name}"
        case KeyFile(name):
            return f"/secureboot/{name}"
        case MadeFile(name, _):
            return f"/in/made/{name}"
