"""Which images a bundle takes along, each by digest: by the lock, or by what tags mean now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, get_args

from local_imager.deliver.bundle.near.order import Order
from local_imager.oci.model import Digest, Reference
from local_imager.pipeline.lockfile import Lock
from local_imager.pipeline.planning import wanted_builder
from local_imager.profile.model import Requirement, Role
from local_imager.profile.resolve import find_extension, find_overlay
from local_imager.profile.version import TalosVersion
from local_imager.settings import Settings
from local_imager.sources.parallel import run_all

if TYPE_CHECKING:
    from local_imager.sources.upstream import Sources

ROLES: Final[tuple[str, ...]] = get_args(Role)
# What takes the boot assets out of an image, or runs it, is the far side's host.
_OF_HOST: Final = ("builder", "base")
_CATALOGUES: Final = ("extensions-catalogue", "overlays-catalogue")


@dataclass(slots=True)
class WantedImage:
    """An image by digest; ``named`` is the reference that it travels under.

    Without ``arches`` one architecture is enough, and it is the first of the image's index.
    """

    named: Reference
    digest: Digest
    arches: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)

    @property
    def pinned(self) -> Reference:
        """The reference with its digest."""
        return self.named.with_digest(self.digest)

    @property
    def rank(self) -> tuple[int, str]:
        """Sort key: what runs first comes first, images that no build needs come last."""
        ranks = [ROLES.index(role) for role in self.roles]
        return (min(ranks, default=len(ROLES)), str(self.named))


class WantedImages:
    """Collects the images of an order; one that is wanted for several reasons is one image."""

    def __init__(self, order: Order, settings: Settings, sources: Sources) -> None:
        self._order, self._settings, self._sources = order, settings, sources
        self._wanted: dict[str, WantedImage] = {}

    def ordered(self) -> list[WantedImage]:
        """Return all images in the order in which they travel."""
        return sorted(self._wanted.values(), key=lambda one: one.rank)

    def version(self, version: TalosVersion, lock: Lock | None) -> None:
        """Want what a version needs, by the lock or else by what its tags mean now.

        Raises what surveying and reading catalogues raise, and :class:`PlanError` for a name
        that the version does not have.
        """
        entry = lock.find(version) if lock is not None else None
        images: Mapping[Requirement, Digest]
        if entry is not None:
            images = {
                Requirement(image.role, image.name, image.tag): image.digest
                for image in entry.images
            }
        else:
            images = self._surveyed(version)
        for requirement, digest in images.items():
            # What a catalogue names is pinned there, so it is known under its digest.
            pinned = requirement.role in ("extension", "overlay")
            self._require(replace(requirement, digest=digest if pinned else None), digest)
        for requirement, digest in self._by_name(version, images):
            self._require(requirement, digest)

    def _surveyed(self, version: TalosVersion) -> Mapping[Requirement, Digest]:
        from local_imager.sources.closure import version_images
        from local_imager.sources.upstream import IMAGER

        wanted = wanted_builder(self._settings, version)
        builder = self._sources.builder_version(wanted, version, refresh=True)
        needed = [Requirement("builder", IMAGER, str(builder))]
        needed += [replace(o, arch=None) for o in version_images(version, self._order.arches[:1])]
        tasks = [partial(self._sources.survey, one, refresh=True) for one in needed]
        found = run_all(tasks, self._settings.jobs)
        return {one: image.image.digest for one, image in zip(needed, found, strict=True)}

    def _by_name(
        self, version: TalosVersion, images: Mapping[Requirement, Digest]
    ) -> Iterator[tuple[Requirement, Digest]]:
        """Yield extensions and overlays that were asked for by name, as the catalogue says."""
        order = self._order
        if not (order.extensions or order.all_extensions or order.overlays or order.all_overlays):
            return
        digests = {(one.name, one.tag): digest for one, digest in images.items()}

        def pin(requirement: Requirement) -> Requirement:
            known = digests.get((requirement.name, requirement.tag))
            return replace(requirement, digest=known) if known else requirement

        catalogue = self._sources.pinned(pin).catalogue(version)
        extensions = [find_extension(catalogue, name) for name in order.extensions]
        for extension in catalogue.extensions if order.all_extensions else extensions:
            name, tag = extension.name, extension.reference.tag
            yield Requirement("extension", name, tag, extension.digest), extension.digest
        overlays = [find_overlay(catalogue, name) for name in order.overlays]
        for overlay in catalogue.overlays if order.all_overlays else overlays:
            name, tag = overlay.image, overlay.reference.tag
            yield Requirement("overlay", name, tag, overlay.digest), overlay.digest

    def _require(self, requirement: Requirement, digest: Digest) -> None:
        order = self._order
        arches: Sequence[str] = order.arches
        if requirement.role in _OF_HOST:
            arches = order.host_arches
        elif requirement.role == "overlay":  # its installer runs on the host, too
            arches = (*order.arches, *order.host_arches)
        elif requirement.role in _CATALOGUES:
            arches = ()
        named = requirement.reference(self._settings.registry)
        self.image(named, digest, arches).roles.add(requirement.role)

    def image(self, named: Reference, digest: Digest, arches: Iterable[str]) -> WantedImage:
        """Want any image for these architectures."""
        wanted = self._wanted.setdefault(str(named), WantedImage(named, digest))
        wanted.arches.update(arches)
        return wanted
