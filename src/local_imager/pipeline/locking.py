"""Making a lock: every image of some schematics and versions, resolved, verified and measured.

No layer is fetched but for the catalogues, which say what an extension's name means.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager import __version__
from local_imager.errors import InputError, NotFound, PlanError
from local_imager.events import printable
from local_imager.oci.model import Digest
from local_imager.pipeline.lockfile import (
    Lock,
    LockedImage,
    LockedSchematic,
    LockedVersion,
    Recipe,
    stable_signer,
)
from local_imager.pipeline.planning import wanted_builder
from local_imager.profile.model import Arch, Catalogue, Requirement
from local_imager.profile.version import TalosVersion
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.model import Schematic
from local_imager.settings import Settings

if TYPE_CHECKING:
    from local_imager.sources.survey import SurveyedImage
    from local_imager.sources.upstream import Sources

STANDARD_INPUT: Final = "-"
_MAX_SENTENCE: Final = 900


@dataclass(frozen=True, slots=True)
class LockOrder:
    """What a lock is to cover; ``schematics`` are pairs of file (seen from the lock) and value.

    ``keep`` is an older lock whose digests stay as they are wherever they still are asked for;
    None asks the source for everything anew. ``offline`` locks what the store holds.
    """

    schematics: tuple[tuple[str, Schematic], ...]
    versions: tuple[TalosVersion, ...]
    arches: tuple[Arch, ...]
    keep: Lock | None = None
    offline: bool = False


def file_in_lock(schematic: str, lock_path: Path) -> str:
    """Return how a lock names a schematic's file: its path seen from the lock's directory."""
    from local_imager.pipeline.lockread import is_line

    if schematic == STANDARD_INPUT:
        return STANDARD_INPUT
    seen = os.path.relpath(schematic, lock_path.absolute().parent).replace(os.sep, "/")
    if not is_line(seen):
        raise InputError(
            f"the path {seen[:80]!r} cannot stand in a lock", hint="rename the schematic's file"
        )
    return seen


def make_lock(order: LockOrder, settings: Settings, sources: Sources) -> Lock:
    """Return the lock of an order.

    Raises :class:`PlanError` for what a version does not have, :class:`VerificationRefused` for an
    image that the policy refuses, and what else :meth:`Sources.survey` raises.
    """
    from local_imager.build.record import CONVERSION_RECIPE

    if not (order.schematics and order.versions and order.arches):
        raise InputError(
            "a lock is of some schematics, versions and architectures",
            hint="local-imager lock SCHEMATIC… --version V --arch amd64",
        )
    locker = _Locker(order, settings, sources)
    versions = tuple(locker.version(version) for version in sorted(set(order.versions)))
    roots, policy = locker.trust()
    return Lock(
        tool=__version__,
        registry=settings.registry,
        arches=tuple(sorted(set(order.arches))),
        recipe=Recipe(settings.epoch, settings.factory_url, CONVERSION_RECIPE),
        trusted_roots=roots,
        policy=policy,
        schematics=tuple(
            sorted({LockedSchematic(file, str(schematic_id(s))) for file, s in order.schematics})
        ),
        versions=versions,
    )


class _Locker:
    """Collects the images of each version and what their verification leaned on."""

    def __init__(self, order: LockOrder, settings: Settings, sources: Sources) -> None:
        self._order, self._settings, self._sources = order, settings, sources
        self._arches = tuple(sorted(set(order.arches)))
        self._evidence: list[Mapping[str, object]] = []

    def version(self, version: TalosVersion) -> LockedVersion:
        """Return everything that is locked of one version."""
        from local_imager.sources.closure import version_images
        from local_imager.sources.upstream import IMAGER

        kept = self._order.keep.find(version) if self._order.keep else None
        builder = self._builder(version, kept)
        wanted = [Requirement("builder", IMAGER, str(builder))]
        images = self._surveyed((*wanted, *version_images(version, self._arches)), kept)
        images += self._surveyed(self._of_schematics(version, images), kept)
        return LockedVersion(version, builder, tuple(sorted(images, key=lambda i: i.key)))

    def _builder(self, version: TalosVersion, kept: LockedVersion | None) -> TalosVersion:
        wanted = wanted_builder(self._settings, version)
        if kept is not None and wanted == "newest":
            return kept.builder
        return self._sources.builder_version(wanted, version, refresh=True)

    def _of_schematics(
        self, version: TalosVersion, images: Sequence[LockedImage]
    ) -> list[Requirement]:
        """Return the extensions and overlays, by the catalogues that are being locked."""
        from local_imager.sources.closure import schematic_images

        schematics = [schematic for _, schematic in self._order.schematics]
        catalogue = Catalogue(version)
        if any(s.overlay.name or s.customization.official_extensions for s in schematics):
            digests = {(image.name, image.tag): image.digest for image in images}
            catalogue = self._sources.pinned(partial(_pinned, digests)).catalogue(version)
        found: list[Requirement] = []
        for file, schematic in self._order.schematics:
            try:
                found += schematic_images(schematic, catalogue, self._arches)
            except PlanError as error:
                message = f"{file}: {error.message}"
                raise PlanError(message, hint=error.hint, code=error.code) from error
        return found

    def _surveyed(
        self, wanted: Iterable[Requirement], kept: LockedVersion | None
    ) -> list[LockedImage]:
        """Verify and measure images side by side; the same for two architectures is one image."""
        from local_imager.sources.parallel import run_all

        arches: dict[Requirement, set[Arch]] = {}
        for requirement in wanted:
            one = replace(requirement, arch=None)
            arches.setdefault(one, set()).update(filter(None, (requirement.arch,)))
        tasks = [partial(self._survey, requirement, kept) for requirement in arches]
        found = run_all(tasks, self._settings.jobs)
        locked = []
        for (requirement, needed), surveyed in zip(arches.items(), found, strict=True):
            _check_arches(requirement, needed, surveyed)
            self._evidence.append(surveyed.image.evidence)
            locked.append(
                LockedImage(
                    requirement.role,
                    requirement.name,
                    requirement.tag,
                    surveyed.image.digest,
                    stable_signer(surveyed.image.signer),
                    surveyed.size_bytes,
                )
            )
        return locked

    def _survey(self, requirement: Requirement, kept: LockedVersion | None) -> SurveyedImage:
        old = kept.find(requirement) if kept else None
        if old is not None and requirement.digest in (None, old.digest):
            return self._sources.survey(replace(requirement, digest=old.digest))
        return self._sources.survey(requirement, refresh=True)

    def trust(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the digests of the trusted roots leaned on, and the rules that accepted."""
        roots, rules = set(), set()
        for evidence in self._evidence:
            accepted: Any = evidence.get("accepted_by", ())
            for entry in accepted:
                sentence = f"{entry.get('rule', '')}: {entry.get('wants', '')}"
                rules.add(printable(sentence, limit=_MAX_SENTENCE))
                if entry.get("trusted_root"):
                    roots.add(str(entry["trusted_root"]))
        return tuple(sorted(roots)) or _root_at_hand(), tuple(sorted(rules))


def _pinned(digests: Mapping[tuple[str, str], Digest], requirement: Requirement) -> Requirement:
    found = digests.get((requirement.name, requirement.tag))
    return replace(requirement, digest=found) if found else requirement


def _check_arches(requirement: Requirement, needed: set[Arch], found: SurveyedImage) -> None:
    missing = sorted(needed - found.size_bytes.keys())
    if missing and "any" not in found.size_bytes:
        raise NotFound(
            f"{requirement.name}:{requirement.tag} has no image for linux/{missing[0]}",
            hint=f"it has: {', '.join(found.size_bytes) or 'no linux image at all'}",
        )


def _root_at_hand() -> tuple[str, ...]:
    """Return the root that a keyless signature would be checked with; empty when there is none."""
    from local_imager.errors import SettingsError
    from local_imager.sources.trusted_root import load_trusted_root

    try:
        return (load_trusted_root(None).digest,)
    except SettingsError:
        return ()
