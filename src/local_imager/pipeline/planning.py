"""From an order to plans and jobs: verified catalogues where needed, then pure planning."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_imager.errors import InputError, LocalImagerError, SourceError, VerificationRefused
from local_imager.events import EventSink, Message
from local_imager.oci.host import host_arch
from local_imager.pipeline.values import (
    BuildOrder,
    PlannedAsset,
    PlannedImage,
    container_path,
)
from local_imager.profile.assetname import AssetName
from local_imager.profile.handed import build_profile
from local_imager.profile.model import BuildPlan, Catalogue, PlanOptions, Requirement
from local_imager.profile.plan import plan
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic
from local_imager.settings import Settings
from local_imager.store.store import Store

if TYPE_CHECKING:
    from local_imager.pipeline.locked import LockGuard
    from local_imager.sources.upstream import Sources
    from local_imager.sources.verify import VerifiedImage


@dataclass(frozen=True, slots=True)
class Job:
    """A plan with its verified images and the key that its result is known by."""

    plan: BuildPlan
    images: Mapping[Requirement, VerifiedImage]
    build_key: str


class Planner:
    """Plans assets over one set of sources, held to a lock where there is a guard."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        store: Store,
        sink: EventSink,
        guard: LockGuard | None = None,
    ) -> None:
        self.sources = sources if guard is None else sources.pinned(guard.pin)
        self._guard = guard
        self._settings = settings
        self._store = store
        self._sink = sink

    def builder(
        self, base: TalosVersion, known: dict[Requirement, VerifiedImage] | None = None
    ) -> TalosVersion:
        """Return the version of the imager that is to run, verified and in the store.

        Not verified again when it is in ``known``, which gets it.
        """
        from local_imager.sources.upstream import IMAGER

        known = {} if known is None else known
        version = self.sources.builder_version(self._wanted_builder(base), base)
        imager = Requirement("builder", IMAGER, str(version))
        if imager not in known:
            known[imager] = self.sources.obtain(imager)
        return version

    def _wanted_builder(self, base: TalosVersion) -> TalosVersion | str:
        return self._guard.builder if self._guard else wanted_builder(self._settings, base)

    def explained(self) -> AbstractContextManager[None]:
        """Say of what cannot be had, where there is a lock, that the lock wants it."""
        return self._guard.explained() if self._guard else nullcontext()

    def obtain(
        self,
        requirements: Sequence[Requirement],
        known: dict[Requirement, VerifiedImage] | None = None,
    ) -> Mapping[Requirement, VerifiedImage]:
        """Return the verified images; under a lock they are what it says, or are refused.

        Those in ``known`` are not obtained again; it gets the others.
        """
        known = {} if known is None else known
        known.update(self.sources.obtain_all(r for r in requirements if r not in known))
        images = {requirement: known[requirement] for requirement in requirements}
        if self._guard is not None:
            self._guard.check_images(images, self._store)
        return images

    def options(self, builder: TalosVersion | None) -> PlanOptions:
        """Return what planning has to know of the settings."""
        keys = self._settings.secureboot_keys
        names = frozenset(os.listdir(keys)) if keys is not None and keys.is_dir() else frozenset()
        return PlanOptions(builder, self._settings.factory_url, names, host_arch())

    def catalogue(self, schematic: Schematic, version: TalosVersion) -> Catalogue:
        """Return what the schematic needs of the version's catalogues, from verified images."""
        overlay = schematic.overlay
        has_overlay = bool(overlay.name or overlay.image)
        if not schematic.customization.official_extensions and not has_overlay:
            return Catalogue(version)
        found = self.sources.catalogue(version, whole=has_overlay)
        return self.sources.with_overlay_profile(found, overlay.name) if overlay.name else found

    def plans(
        self,
        schematic: Schematic,
        version: TalosVersion,
        names: Sequence[AssetName],
        catalogue: Catalogue | None,
        builder: TalosVersion | None,
    ) -> list[BuildPlan]:
        """Return the plan of each asset; what will not take effect becomes a warning event."""
        options = self.options(builder)
        plans = [plan(schematic, version, name, catalogue, options) for name in names]
        for text in dict.fromkeys(warning for entry in plans for warning in entry.warnings):
            self._sink.emit(Message(text, "warning"))
        return plans

    def describe(self, order: BuildOrder) -> list[PlannedAsset]:
        """Return the plans with what is known of their images, fetching catalogues at most."""
        version = TalosVersion.parse(order.version)
        names = [AssetName.parse(asset) for asset in dict.fromkeys(order.assets)]
        catalogue = self._catalogue_if_reachable(order.schematic, version)
        builder = self._builder_if_known(version)
        plans = self.plans(order.schematic, version, names, catalogue, builder)
        return [self._described(entry, order) for entry in plans]

    def _catalogue_if_reachable(
        self, schematic: Schematic, version: TalosVersion
    ) -> Catalogue | None:
        try:
            return self.catalogue(schematic, version)
        except VerificationRefused:
            raise
        except SourceError as error:
            self._sink.emit(Message(f"planned without a catalogue: {error.message}", "warning"))
            return None

    def _builder_if_known(self, version: TalosVersion) -> TalosVersion | None:
        """Return the builder's version without fetching the builder."""
        try:
            return self.sources.builder_version(self._wanted_builder(version), version)
        except SourceError:
            return None

    def _described(self, entry: BuildPlan, order: BuildOrder) -> PlannedAsset:
        from local_imager.build.record import normalises

        images = tuple(self._described_image(item) for item in entry.requirements)
        handed, cached = entry, False
        try:
            handed = self.handed(entry)
            if all(image.in_store for image in images):
                job = self.job(entry, self.obtain(entry.requirements), order)
                cached = self._store.find_build(job.build_key) is not None
        except VerificationRefused:
            raise
        except LocalImagerError as error:
            self._sink.emit(Message(f"{entry.asset}: {error.message}", "warning"))
        builder = next((str(i.reference) for i in images if i.role == "builder"), "IMAGER")
        command = command_by_hand(handed, builder, self._settings)
        normalised = normalises(entry, exact=order.exact)
        return PlannedAsset(entry, images, cached, command, normalised)

    def _described_image(self, requirement: Requirement) -> PlannedImage:
        from local_imager.sources.held import held_descriptor

        pinned = self._guard.pin(requirement) if self._guard else requirement
        reference = pinned.reference(self._settings.registry)
        held = held_descriptor(self._store.layout, reference)
        digest = held.digest if held else pinned.digest
        return PlannedImage(
            requirement.role, reference, digest, requirement.arch, in_store=held is not None
        )

    def handed(self, entry: BuildPlan) -> BuildPlan:
        """Return the plan with the profile that the builder is really given."""
        return replace(entry, profile=build_profile(entry, self.options(entry.builder)))

    def job(
        self, entry: BuildPlan, images: Mapping[Requirement, VerifiedImage], order: BuildOrder
    ) -> Job:
        """Return the plan ready to be built, with the key that its result is known by."""
        from local_imager.build.record import build_key

        own = {requirement: images[requirement] for requirement in entry.requirements}
        handed = self.handed(entry)
        key = build_key(
            handed,
            own,
            epoch=self._settings.epoch,
            exact=order.exact,
            key_digests=self._key_digests(),
        )
        return Job(handed, own, key)

    def _key_digests(self) -> dict[str, str]:
        import hashlib

        keys = self._settings.secureboot_keys
        if keys is None:
            return {}
        if not keys.is_dir():
            raise InputError(
                f"{keys} is not a directory of secure boot keys",
                hint="make one with `local-imager secureboot keygen DIR`",
            )
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(keys.iterdir())
            if path.is_file()
        }


def wanted_builder(settings: Settings, base: TalosVersion) -> TalosVersion | str:
    """Return the builder that the settings ask for: a version, or ``newest``."""
    if settings.builder == "newest":
        return "newest"
    return base if settings.builder == "same" else TalosVersion.parse(settings.builder)


def command_by_hand(handed: BuildPlan, builder: str, settings: Settings) -> str:
    """Return the ``docker run`` line that makes the asset from inputs laid out under ./in."""
    from local_imager.build.command import equivalent_command
    from local_imager.build.record import masked_profile
    from local_imager.build.request import (
        DETERMINISTIC_SEED,
        OUTPUT_ROOT,
        EngineInfo,
        ImagerRequest,
        Limits,
    )
    from local_imager.build.resources import scratch_bytes
    from local_imager.build.staging import render_document

    engine = EngineInfo("Docker", "", "", "linux", host_arch(), "classic")
    document = handed.profile.rendered(container_path)
    shown = render_document(masked_profile(document, holds_secrets=False)).decode()
    request = ImagerRequest(
        subject=handed.asset,
        image_id=builder,
        command=("/bin/imager", "-", "--output", OUTPUT_ROOT),
        outputs=frozenset({handed.output_name}),
        output_dir=Path("out"),
        arch=handed.profile.arch,
        stdin=shown.encode(),
        shown_stdin=shown,
        input_dir=Path("in"),
        key_dir=settings.secureboot_keys,
        env={"SOURCE_DATE_EPOCH": str(settings.epoch), "DETERMINISTIC_SEED": DETERMINISTIC_SEED},
        limits=Limits(
            memory_bytes=settings.memory_bytes,
            timeout_s=settings.timeout_s,
            # What the inputs weigh is not known before they are fetched.
            scratch_bytes=scratch_bytes(handed, 0, settings.memory_bytes, engine, exact=True),
        ),
    )
    return equivalent_command(request, engine)
