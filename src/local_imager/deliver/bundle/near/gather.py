"""Bringing everything that a bundle is to hold into the near store, verified, or only a look at it.

Order: further images pass the gate, so that a refusal costs nothing; the lock (or a survey of
tags) says of every other image which one it is; then each comes with all that is attached to it;
then assets; last all is verified once more from the store's bytes, which the far side will have.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from local_imager.deliver.bundle.form.words import ROLE_LOCK, ROLE_SCHEMATIC
from local_imager.deliver.bundle.near.contents import AssetRoot, DocumentRoot, ImageRoot
from local_imager.deliver.bundle.near.finished import build_assets, stored_assets
from local_imager.deliver.bundle.near.order import LOCK_NAME, Order
from local_imager.deliver.bundle.near.policytext import MEDIA_TOML, policy_documents
from local_imager.deliver.bundle.near.refusals import all_or_refusal
from local_imager.deliver.bundle.near.wanted import ROLES, WantedImage, WantedImages
from local_imager.events import EventSink, Message
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Reference
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.lockfile import Lock, render_lock, stable_signer
from local_imager.pipeline.locking import LockOrder
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.model import Schematic
from local_imager.sources.parallel import run_all
from local_imager.sources.trust_entries import policy_from_settings

if TYPE_CHECKING:
    from local_imager.sources.outline import Outline
    from local_imager.sources.survey import SurveyedImage
    from local_imager.sources.upstream import Sources
    from local_imager.sources.verify import VerifiedImage

_MEDIA_SCHEMATIC: Final = "application/yaml"


@dataclass(frozen=True, slots=True)
class Gathered:
    """The roots of a bundle, and the ``layout`` that holds what they need (or its manifests).

    ``secrets`` names the schematics that may hold secrets, and with them what is built from them;
    ``unbuilt`` are the assets that a look did not find, whose sizes are not known.
    """

    layout: Layout
    images: tuple[ImageRoot, ...]
    assets: tuple[AssetRoot, ...]
    documents: tuple[DocumentRoot, ...]
    facts: Mapping[str, tuple[str, ...]]
    secrets: tuple[str, ...] = ()
    unbuilt: tuple[str, ...] = ()


def gather(
    factory: Factory, order: Order, sink: EventSink, *, scratch: Layout | None = None
) -> Gathered:
    """Bring all that the order asks for into the store and return its roots.

    With ``scratch`` nothing big is fetched and nothing built: manifests alone are written to that
    layout. Raises :class:`VerificationRefused` that names every further image that is refused, and
    whatever locking, obtaining and building raise.
    """
    return _Gatherer(factory, order, sink, scratch).run()


@dataclass(frozen=True, slots=True)
class _Brought:
    """An image as it was verified, its manifests, and how much is attached to them."""

    wanted: WantedImage
    image: VerifiedImage
    outline: Outline
    attached: int

    def root(self) -> ImageRoot:
        """Return what the bundle takes of it."""
        top = self.outline.manifests[0]
        return ImageRoot(
            str(self.wanted.named),
            Descriptor(top.media_type, self.image.digest, len(top.raw)),
            self.outline.arches,
            tuple(role for role in ROLES if role in self.wanted.roles),
            stable_signer(self.image.signer),
        )


class _Gatherer:
    """Goes through the steps for one order."""

    def __init__(
        self, factory: Factory, order: Order, sink: EventSink, scratch: Layout | None
    ) -> None:
        self._factory, self._order, self._sink = factory, order, sink
        self._scratch, self._settings = scratch, factory.settings
        self._sources: Sources = factory.offline_sources if order.offline else factory.sources

    def run(self) -> Gathered:
        """Take all steps."""
        order = self._order
        self._sink.emit(Message(f"gathering {_asked_for(order)}, from {self._sources.location}"))
        further = self._further()
        lock = self._lock()
        images = WantedImages(order, self._settings, self._sources)
        for version in order.versions:
            images.version(version, lock)
        for reference, image in further.items():
            images.image(reference, image.digest, order.arches)
        brought = self._bring(images.ordered())
        assets, unbuilt = self._assets(lock)
        if self._scratch is None:
            self._sources.confirm(one.image for one in brought)
        return Gathered(
            self._scratch or self._factory.store.layout,
            tuple(one.root() for one in brought),
            assets,
            self._documents(lock),
            self._facts(),
            tuple(e.name for e in order.schematics if _may_hold_secrets(e.schematic)),
            unbuilt,
        )

    def _further(self) -> Mapping[Reference, VerifiedImage]:
        """Verify the further images before anything is fetched; all refusals are told at once."""
        policy = policy_from_settings(self._settings.trust)

        def surveyed(reference: Reference) -> SurveyedImage:
            policy.groups_for(reference.name)  # nobody is asked for what cannot pass anyhow
            return self._sources.survey_reference(reference, refresh=True)

        tasks = [partial(surveyed, reference) for reference in self._order.images]
        found = all_or_refusal(self._order.images, tasks, self._settings.jobs)
        return {reference: one.image for reference, one in found.items()}

    def _lock(self) -> Lock | None:
        order = self._order
        if not order.schematics:
            return None
        schematics = tuple((entry.name, entry.schematic) for entry in order.schematics)
        return self._factory.lock(
            LockOrder(schematics, order.versions, order.arches, offline=order.offline)
        )

    def _bring(self, wanted: Sequence[WantedImage]) -> list[_Brought]:
        stop = threading.Event()
        tasks = [partial(self._bring_one, one, stop) for one in wanted]
        brought = run_all(tasks, self._settings.jobs, stop)
        signers = ", ".join(sorted({stable_signer(one.image.signer) for one in brought}))
        count = len({one.image.digest for one in brought})
        attached = sum(one.attached for one in brought)
        more = f"; {attached} signatures and other referrers come with them" if attached else ""
        self._sink.emit(Message(f"{count} images verified, signed by {signers}{more}"))
        return brought

    def _bring_one(self, wanted: WantedImage, stop: threading.Event) -> _Brought:
        sources, arches = self._sources, tuple(sorted(wanted.arches))
        if self._scratch is not None:
            image = sources.survey_reference(wanted.pinned).image
            outline = sources.outline(image, arches)
        else:
            # By its tag, so that a build without a lock and the next bundle find it again.
            name = str(wanted.named)
            image = sources.obtain_reference(wanted.pinned, arches, name=name, stop=stop)
            outline = sources.outline(image, arches)
            if not arches:
                # Any would do; so that it is the same one from every store, it is the first.
                image = sources.obtain_reference(wanted.pinned, outline.arches, stop=stop)
        attached = sources.keep_attached(image, outline, self._scratch)
        return _Brought(wanted, image, outline, attached)

    def _assets(self, lock: Lock | None) -> tuple[tuple[AssetRoot, ...], tuple[str, ...]]:
        if lock is None or not self._order.assets:
            return (), ()
        if self._scratch is not None:
            return stored_assets(self._factory.store, self._order, self._scratch)
        return build_assets(self._factory, self._order, lock), ()

    def _documents(self, lock: Lock | None) -> tuple[DocumentRoot, ...]:
        found = [*policy_documents(policy_from_settings(self._settings.trust))]
        if lock is not None:
            found.append(DocumentRoot(LOCK_NAME, render_lock(lock), MEDIA_TOML, ROLE_LOCK))
        found += [
            DocumentRoot(
                entry.name,
                entry.data,
                _MEDIA_SCHEMATIC,
                ROLE_SCHEMATIC,
                private=_may_hold_secrets(entry.schematic),
            )
            for entry in self._order.schematics
        ]
        return tuple(sorted(found, key=lambda one: one.name))

    def _facts(self) -> Mapping[str, tuple[str, ...]]:
        """Return what people want to know of a bundle at first sight."""
        order = self._order
        facts = {"registry": (self._settings.registry,), "arches": tuple(order.arches)}
        if order.versions:
            facts["versions"] = tuple(str(version) for version in order.versions)
            facts["host-arches"] = tuple(order.host_arches)
        if order.schematics:
            facts["schematics"] = tuple(
                f"{entry.name} {schematic_id(entry.schematic)}" for entry in order.schematics
            )
        return facts


def _may_hold_secrets(schematic: Schematic) -> bool:
    """Kernel arguments, META and an embedded configuration may, as for assets made of them."""
    custom = schematic.customization
    return bool(custom.extra_kernel_args or custom.meta or custom.embedded_machine_configuration)


def _asked_for(order: Order) -> str:
    parts = []
    if order.versions:
        versions = ", ".join(str(version) for version in order.versions)
        of = (
            f" of {', '.join(entry.name for entry in order.schematics)}" if order.schematics else ""
        )
        parts.append(f"Talos {versions} for {'+'.join(order.arches)}{of}")
    if order.images:
        count = len(order.images)
        parts.append(f"{count} further image{'s' if count > 1 else ''}")
    return " and ".join(parts)
