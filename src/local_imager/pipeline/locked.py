"""Holding a build to a lock: exactly its images, or a refusal that lists what does not agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from local_imager.errors import NotFound, PlanError, VerificationRefused
from local_imager.oci.host import host_arch
from local_imager.pipeline.lockfile import LockedImage, LockedVersion, LockFile, stable_signer
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Requirement
from local_imager.profile.version import TalosVersion, nearest_versions
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.model import Schematic
from local_imager.settings import Settings

if TYPE_CHECKING:
    from local_imager.oci.source import ImageSource
    from local_imager.sources.verify import VerifiedImage
    from local_imager.store.store import Store

_MAX_LISTED: Final = 5
_RENEW: Final = "local-imager lock --update brings the lock up to date and says what changed"


class LockDrift(PlanError):
    """What is asked for is not what the lock holds; ``drift`` lists every disagreement."""

    code = "lock-drift"

    def __init__(self, file: LockFile, drift: Sequence[str]) -> None:
        listed = "".join(f"\n  - {line}" for line in drift)
        super().__init__(f"the lock {file.path} does not hold this build:{listed}", hint=_RENEW)
        self.drift = tuple(drift)

    def as_dict(self) -> dict[str, object]:
        """Return the error with its list."""
        return {**super().as_dict(), "drift": list(self.drift)}


class LockGuard:
    """Compares one build with a lock and pins its images; made for one schematic and version."""

    def __init__(self, file: LockFile, version: TalosVersion, entry: LockedVersion) -> None:
        self._file, self._version, self._entry = file, version, entry

    @classmethod
    def check(
        cls,
        file: LockFile,
        settings: Settings,
        schematic: Schematic,
        version: TalosVersion,
        assets: Sequence[AssetName],
    ) -> LockGuard:
        """Return the guard of a build that the lock holds; raises :class:`LockDrift`."""
        lock = file.lock
        entries = [entry for entry in lock.versions if entry.version == version]
        drift = [
            *_settings_drift(file, settings),
            *_schematic_drift(file, str(schematic_id(schematic))),
            *_version_drift(file, version, entries),
        ]
        arches = dict.fromkeys(asset.arch for asset in assets)
        drift += [
            f"the architecture {arch} is not in the lock, which has {', '.join(lock.arches)}"
            for arch in arches
            if arch not in lock.arches
        ]
        if entries:
            drift += _builder_drift(settings, entries[0])
        if drift:
            raise LockDrift(file, drift)
        return cls(file, version, entries[0])

    @property
    def builder(self) -> TalosVersion:
        """The imager that the lock wants to run."""
        return self._entry.builder

    def pin(self, requirement: Requirement) -> Requirement:
        """Return the requirement with the digest that is locked; raises :class:`LockDrift`."""
        if not requirement.tag:  # a plan made without catalogues: nothing can be fetched by it
            return requirement
        locked = self._entry.find(requirement)
        what = f"the {requirement.role} {requirement.name}:{requirement.tag}"
        if locked is None:
            same = [
                i for i in self._entry.images if i.key[:2] == (requirement.role, requirement.name)
            ]
            has = f", which has {same[0].tag}" if same else ""
            raise LockDrift(self._file, [f"{what} is not in the lock{has}"])
        if requirement.digest not in (None, locked.digest):
            line = f"{what} is {requirement.digest} by the catalogue, {locked.digest} in the lock"
            raise LockDrift(self._file, [line])
        return replace(requirement, digest=locked.digest)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say of an image that cannot be had that the lock wants it by digest."""
        try:
            yield
        except NotFound as error:
            raise NotFound(
                f"an image of the lock {self._file.path} cannot be had: {error.message}",
                hint="use a store, bundle or mirror that has it (--from); where upstream took it "
                f"away for good, accept what is there now: {_RENEW}",
                code="locked-image-gone",
            ) from error

    def check_images(self, images: Mapping[Requirement, VerifiedImage], store: Store) -> None:
        """Compare what was verified with what is locked.

        Raises :class:`VerificationRefused` (``lock-signer``, ``lock-size``) with every difference.
        """
        from local_imager.oci.layout_source import LayoutSource

        place = LayoutSource.open(store.path)
        signers: list[str] = []
        sizes: list[str] = []
        for requirement, image in images.items():
            locked = self._entry.find(requirement)
            if locked is None:
                raise LockDrift(self._file, [f"{image.reference} is not in the lock"])
            if stable_signer(image.signer) != stable_signer(locked.signer):
                signers.append(
                    f"{image.reference} is signed by {image.signer}, in the lock by {locked.signer}"
                )
            sizes += _size_drift(requirement, image, locked, place)
        found = list(dict.fromkeys((*signers, *sizes)))
        if found:
            listed = "".join(f"\n  - {line}" for line in found)
            raise VerificationRefused(
                f"what was verified is not what the lock {self._file.path} says:{listed}",
                hint=f"find out why before you go on; {_RENEW}",
                code="lock-signer" if signers else "lock-size",
                tried=tuple(found),
            )


def _settings_drift(file: LockFile, settings: Settings) -> Iterator[str]:
    from local_imager.build.record import CONVERSION_RECIPE

    recipe = file.lock.recipe
    rows = (
        ("registry", file.lock.registry, settings.registry),
        ("epoch of builds", recipe.epoch, settings.epoch),
        ("factory URL", recipe.factory_url, settings.factory_url),
        ("conversion recipe", recipe.conversion, CONVERSION_RECIPE),
    )
    for word, locked, ours in rows:
        if locked != ours:
            yield f"the {word} is {ours}, in the lock {locked}"


def _schematic_drift(file: LockFile, wanted: str) -> Iterator[str]:
    known = file.lock.schematics
    if all(entry.schematic_id != wanted for entry in known):
        listed = [f"{entry.file} as {entry.schematic_id[:12]}…" for entry in known[:_MAX_LISTED]]
        more = ", …" if len(known) > _MAX_LISTED else ""
        has = f", which has {', '.join(listed)}{more}" if known else ""
        yield f"the schematic {wanted} is not in the lock{has} (was its file changed?)"


def _version_drift(
    file: LockFile, version: TalosVersion, entries: Sequence[LockedVersion]
) -> Iterator[str]:
    if not entries:
        near = nearest_versions(version, [entry.version for entry in file.lock.versions])
        has = f", which has {', '.join(map(str, near))}" if near else ""
        yield f"Talos {version} is not in the lock{has}"
    if len(entries) > 1:
        yield f"Talos {version} stands in the lock more than once"
    for entry in entries[:1]:
        tags = {image.tag for image in entry.images if image.role == "base"}
        if tags != {str(version)}:
            was = f"those of {', '.join(sorted(tags))}" if tags else "not there"
            yield f"the lock's images for Talos {version} are {was}: only its version was changed"


def _builder_drift(settings: Settings, entry: LockedVersion) -> Iterator[str]:
    if settings.builder == "newest":
        return
    same = settings.builder == "same"
    wanted = entry.version if same else TalosVersion.parse(settings.builder)
    if wanted != entry.builder:
        yield f"the builder asked for is {wanted}, in the lock {entry.builder}"


def _size_drift(
    requirement: Requirement, image: VerifiedImage, locked: LockedImage, place: ImageSource
) -> Iterator[str]:
    """Compare the size of what is used; the digest pins it, so another is a fault of the lock."""
    from local_imager.sources.survey import measure

    found = measure([place], image.reference, image.digest)
    arch = requirement.arch or host_arch()
    for key in {arch, "any"} & found.keys() & locked.size_bytes.keys():
        if found[key] != locked.size_bytes[key]:
            yield (
                f"{image.reference} has {found[key]} bytes for {key}, "
                f"in the lock {locked.size_bytes[key]}"
            )
