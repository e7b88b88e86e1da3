"""The application's one door to source images: what there is, and each image verified.

The store comes first and is verified again on each use; what it lacks is fetched from the source,
if there is one. Nothing leaves this class that did not pass the gate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_imager.errors import NotFound, SourceError, VerificationRefused
from local_imager.events import EventSink, Message, step
from local_imager.oci.host import host_arch
from local_imager.oci.layout import Layout
from local_imager.oci.model import Reference
from local_imager.oci.source import ImageSource
from local_imager.profile.builder import newest_fit
from local_imager.profile.model import Arch, Catalogue, Requirement
from local_imager.profile.quirks import BUILDER_SINCE, BuilderFeature, available_versions
from local_imager.profile.resolve import find_overlay
from local_imager.profile.version import TalosVersion
from local_imager.sources.catalogues import (
    overlay_requirement,
    read_catalogue,
    read_overlay_profile,
)
from local_imager.sources.explaining import WHERE_ELSE, Explainer
from local_imager.sources.held import held_descriptor, is_complete, name_held
from local_imager.sources.imagefiles import boot_files
from local_imager.sources.inventory import StoreSource, confirm_held
from local_imager.sources.memory import LogMemory
from local_imager.sources.parallel import run_all
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import VerifiedImage, verify_image
from local_imager.store.store import Store

if TYPE_CHECKING:
    from local_imager.sources.outline import Outline
    from local_imager.sources.survey import SurveyedImage

IMAGER: Final = "siderolabs/imager"
OLDEST_BUILDER: Final = TalosVersion(*BUILDER_SINCE[BuilderFeature.UNPRIVILEGED_DISK])
"""The first imager that makes disk images without privilege."""

Pin = Callable[[Requirement], Requirement]
"""Gives a requirement the digest that it has to have; raises when it may not be used at all."""


class Sources:
    """Verified source images and catalogues, from the store and (optionally) an upstream.

    ``registry`` is the prefix of every image's name (``ghcr.io``, ``host[/path]``); ``source`` is
    where images are read, None for the store alone; ``pin`` names the digest of what is asked
    for (see :meth:`pinned`). Safe for several threads.
    """

    def __init__(
        self,
        store: Store,
        registry: str,
        source: ImageSource | None,
        policy: TrustPolicy,
        sink: EventSink,
        jobs: int = 4,
        pin: Pin | None = None,
    ) -> None:
        self._store, self._registry = store, registry
        self._source, self._policy = source, policy
        self._sink, self._jobs, self._pin = sink, max(1, jobs), pin
        self._host: Arch = host_arch()
        self._upstream_tags: tuple[str, ...] | None = None
        self._own = StoreSource(store.path)
        self._catalogues: dict[tuple[TalosVersion, bool], Catalogue] = {}
        self._explain = Explainer(self.versions)
        self._lock, self._memory = threading.Lock(), LogMemory(store.path, store.layout.locks_dir)

    def pinned(self, pin: Pin) -> Sources:
        """Return the same sources in which every image asked for is the one that ``pin`` names."""
        given = (self._store, self._registry, self._source, self._policy, self._sink)
        return Sources(*given, self._jobs, pin)

    # -- versions ---------------------------------------------------------------------------

    def versions(self) -> tuple[TalosVersion, ...]:
        """Return the versions that can be built, oldest first: upstream's and the store's.

        An upstream that cannot be read is only an error when the store has none either.
        """
        held = self._held_tags()
        try:
            upstream = self._tags()
        except SourceError as error:
            if not held:
                raise self._explain.unreachable(error) from error
            self._sink.emit(Message(f"only the store's versions: {error.message}", "warning"))
            upstream = ()
        return available_versions((*upstream, *held))

    def _tags(self) -> tuple[str, ...]:
        if self._source is None:
            return ()
        with self._lock:
            if self._upstream_tags is None:
                try:
                    self._upstream_tags = self._source.tags(self._reference(IMAGER))
                except NotFound:
                    self._upstream_tags = ()
            return self._upstream_tags

    def _held_tags(self) -> tuple[str, ...]:
        """Return the tags of the imagers in the store."""
        prefix = f"{self._reference(IMAGER).name}:"
        names = (entry.ref_name for entry in self._store.images())
        return tuple(
            n.removeprefix(prefix).partition("@")[0] for n in names if n.startswith(prefix)
        )

    def _reference(self, name: str, tag: str = "") -> Reference:
        return Requirement("base", name, tag).reference(self._registry)

    # -- images -----------------------------------------------------------------------------

    def obtain(
        self,
        requirement: Requirement,
        *,
        refresh: bool = False,
        stop: threading.Event | None = None,
    ) -> VerifiedImage:
        """Return a verified image whose bytes are all in the store.

        The store's copy is used when it is whole and passes the policy now; otherwise the image is
        fetched. ``refresh`` asks the source what the tag means today; ``stop`` ends a download
        early. Raises :class:`NotFound` (with the nearest versions for an unknown Talos version),
        :class:`VerificationRefused`, :class:`IntegrityError`, :class:`SourceError`,
        :class:`HostError` (disk).
        """
        requirement, reference = self._named(requirement)
        arches = requirement.arches(self._host)
        return self._obtain(reference, arches, requirement, refresh=refresh, stop=stop)

    def obtain_reference(
        self,
        reference: Reference,
        arches: Sequence[str] = (),
        *,
        name: str = "",
        stop: threading.Event | None = None,
    ) -> VerifiedImage:
        """Return any image by its own full name, verified as :meth:`obtain` does.

        ``arches`` are wanted of an index; none means any one. ``name`` is what the store is to
        call it, where that is not the reference. No pin holds for it.
        """
        return self._obtain(reference, arches, None, name=name, stop=stop)

    def _obtain(
        self,
        reference: Reference,
        arches: Sequence[str],
        requirement: Requirement | None,
        *,
        name: str = "",
        refresh: bool = False,
        stop: threading.Event | None = None,
    ) -> VerifiedImage:
        if not refresh or self._source is None:
            held = self._held(reference, arches)
            if held is not None:
                name_held(self._store.layout, reference, name)
                return held
        if self._source is None:
            raise self._lacking(reference, requirement, arches)
        from local_imager.sources.fetch import fetch_image

        with self._explain.explained(requirement):
            return fetch_image(
                self._source,
                self._store.layout,
                reference,
                self._policy,
                arches=arches,
                sink=self._sink,
                jobs=self._jobs,
                stop=stop,
                memory=self._memory,
                name=name,
            )

    def _lacking(
        self, reference: Reference, requirement: Requirement | None, arches: Sequence[str] = ()
    ) -> NotFound:
        message = f"the store has no {reference}"
        if arches and held_descriptor(self._store.layout, reference) is not None:
            message += f" for {'+'.join(arches)}"
        return self._explain.not_found(requirement, message, WHERE_ELSE)

    def survey(self, requirement: Requirement, *, refresh: bool = False) -> SurveyedImage:
        """Return a verified image with its sizes; nothing but manifests and signatures is read.

        The store's copy is looked at when it is there and verifies; ``refresh`` asks the source
        first. Raises what :meth:`obtain` raises, but for the disk.
        """
        requirement, reference = self._named(requirement)
        return self._survey(reference, requirement, refresh=refresh)

    def survey_reference(self, reference: Reference, *, refresh: bool = False) -> SurveyedImage:
        """Return any image by its own full name as :meth:`survey` does; no pin holds for it."""
        return self._survey(reference, None, refresh=refresh)

    def _survey(
        self, reference: Reference, requirement: Requirement | None, *, refresh: bool
    ) -> SurveyedImage:
        from local_imager.sources.survey import survey_image

        layout = self._store.layout
        held = held_descriptor(layout, reference)
        if held is not None and not (refresh and self._source) and layout.has(held.digest):
            try:
                return survey_image(self._places, reference, held, self._policy, self._sink)
            except (VerificationRefused, SourceError):  # the source's copy may be better
                if self._source is None:
                    raise
        if self._source is None:
            raise self._lacking(reference, requirement)
        with self._explain.explained(requirement):
            found = self._source.resolve(reference)
            return survey_image([self._source], reference, found, self._policy, self._sink)

    def outline(self, image: VerifiedImage, arches: Sequence[str]) -> Outline:
        """Return the manifests of a verified image, from the store, else from the source.

        Raises :class:`NotFound` and :class:`SourceError`.
        """
        from local_imager.sources.outline import outline_image

        with self._explain.explained(None):
            return outline_image(self._places, image.reference, image.digest, arches)

    def keep_attached(
        self, image: VerifiedImage, outline: Outline, scratch: Layout | None = None
    ) -> int:
        """Bring all that is attached to an image into the store; return how much the source has.

        ``scratch`` is a layout that only the manifests are written to, in place of the store: a
        look at what would come. Raises :class:`SourceError` and :class:`StoreError`.
        """
        from local_imager.sources.keep import keep_attached

        layout = scratch or self._store.layout
        inside = [entry.digest for entry in outline.attestations]
        for manifest in outline.manifests if scratch else ():
            layout.put_bytes(manifest.raw, manifest.media_type)
        kept = 0
        for place in self._places if scratch else filter(None, (self._source,)):
            with self._explain.explained(None):
                kept = keep_attached(
                    place,
                    layout,
                    image.reference,
                    outline.subjects,
                    self._sink,
                    inside=inside,
                    blobs=scratch is None,
                )
        return kept

    def _named(self, requirement: Requirement) -> tuple[Requirement, Reference]:
        """Return the requirement, pinned where pins are, and the reference that it means."""
        wanted = self._pin(requirement) if self._pin else requirement
        reference = wanted.reference(self._registry)
        if not reference.tag and reference.digest is None:
            raise NotFound(
                f"it is not known which {wanted.name} is meant",
                hint="the version's catalogue says which; it could not be read",
            )
        return wanted, reference

    def obtain_all(
        self, requirements: Iterable[Requirement], *, refresh: bool = False
    ) -> Mapping[Requirement, VerifiedImage]:
        """Obtain several images side by side; the first failure is raised."""
        wanted = tuple(dict.fromkeys(requirements))
        stop = threading.Event()
        tasks = [partial(self.obtain, one, refresh=refresh, stop=stop) for one in wanted]
        return dict(zip(wanted, run_all(tasks, self._jobs, stop), strict=True))

    def confirm(self, images: Iterable[VerifiedImage]) -> None:
        """Verify images once more from the store's bytes, right before they are used."""
        confirm_held(self._store, self._policy, images)

    @property
    def location(self) -> str:
        """Where images are read that the store lacks, for messages."""
        return self._source.location if self._source else f"the store {self._store.path}"

    @property
    def _places(self) -> tuple[ImageSource, ...]:
        return (self._own.open(), *filter(None, (self._source,)))

    def _held(self, reference: Reference, arches: Sequence[str]) -> VerifiedImage | None:
        """Return the store's copy when it is whole and verifies; None when it has to be fetched."""
        layout = self._store.layout
        descriptor = held_descriptor(layout, reference)
        if descriptor is None or not is_complete(layout, descriptor, arches):
            return None
        with step(self._sink, "verify", str(reference)):
            try:
                return verify_image(
                    self._own.open(),
                    reference,
                    descriptor,
                    self._policy,
                    sink=self._sink,
                    memory=self._memory,
                )
            except VerificationRefused:
                # The source may have a newer signature than the store does.
                if self._source is None:
                    raise
                return None

    # -- catalogues -------------------------------------------------------------------------

    def catalogue(
        self, version: TalosVersion, *, refresh: bool = False, whole: bool = True
    ) -> Catalogue:
        """Return the extensions and overlays of a version, from verified catalogue images.

        Not ``whole``: no overlays are asked for, and no descriptions.
        """
        with self._lock:
            known = self._catalogues.get((version, whole)) or self._catalogues.get((version, True))
        if known is not None and not refresh:
            return known
        obtain_all = partial(self.obtain_all, refresh=refresh)
        catalogue = read_catalogue(self._store, self._registry, version, obtain_all, whole=whole)
        with self._lock:
            self._catalogues[version, whole] = catalogue
        return catalogue

    def with_overlay_profile(self, catalogue: Catalogue, overlay_name: str) -> Catalogue:
        """Return the catalogue with the profile document of one overlay read from its image.

        Raises :class:`PlanError` for an overlay that the version does not have.
        """
        overlay = find_overlay(catalogue, overlay_name)
        if overlay.profile_document is not None:
            return catalogue
        image = self.obtain(overlay_requirement(overlay))
        document = read_overlay_profile(self._store, overlay, image)
        completed = tuple(
            replace(entry, profile_document=document) if entry is overlay else entry
            for entry in catalogue.overlays
        )
        return replace(catalogue, overlays=completed)

    # -- builder and base -------------------------------------------------------------------

    def builder(
        self, wanted: TalosVersion | str, base: TalosVersion
    ) -> tuple[VerifiedImage, TalosVersion]:
        """Return the imager that is to run, verified, and its version (``builder_version``)."""
        version = self.builder_version(wanted, base)
        return self.obtain(Requirement("builder", IMAGER, str(version))), version

    def builder_version(
        self, wanted: TalosVersion | str, base: TalosVersion, *, refresh: bool = False
    ) -> TalosVersion:
        """Return which imager would run, without fetching it.

        ``newest``: the newest release at hand that needs no privilege and is not older than the
        base; one in the store is taken before the source is asked, so that a build needs no
        network, unless ``refresh`` is set. Otherwise the version given. Raises :class:`NotFound`
        when there is none.
        """
        if isinstance(wanted, TalosVersion):
            return wanted
        known = () if refresh else available_versions(self._held_tags())
        held = [v for v in known if self._is_held(v)]
        version = newest_fit(held, base) or newest_fit(self.versions(), base)
        if version is None:
            raise self._explain.no_builder(base, max(base, OLDEST_BUILDER))
        return version

    def _is_held(self, version: TalosVersion) -> bool:
        descriptor = held_descriptor(self._store.layout, self._reference(IMAGER, str(version)))
        return descriptor is not None and is_complete(self._store.layout, descriptor, (self._host,))

    def boot_files(self, base: VerifiedImage, arch: Arch) -> Mapping[str, Path]:
        """Return kernel, initramfs and systemd boot assets of a verified imager, by file name."""
        return boot_files(self._store, base, arch, self._host, self._sink)
