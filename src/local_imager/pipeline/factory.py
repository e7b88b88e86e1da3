"""The factory: one object that does the whole main job with one set of settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.repeats import parse_record, varying
from local_imager.errors import LocalImagerError
from local_imager.events import NULL_SINK, EventSink, Message, StepFinished, timed
from local_imager.oci.model import Digest, canonical_json
from local_imager.pipeline.opening import open_sources
from local_imager.pipeline.planning import Job, Planner
from local_imager.pipeline.values import BuildOrder, BuildResult, PlannedAsset
from local_imager.profile.assetname import AssetName
from local_imager.profile.version import TalosVersion
from local_imager.schematic.canonical import canonical_bytes
from local_imager.settings import Settings
from local_imager.store.intermediates import KeptInitramfs
from local_imager.store.records import AssetRecord, AttachedDocument, StoredAsset
from local_imager.store.store import Store

if TYPE_CHECKING:
    from local_imager.build.assemble import BuiltAsset
    from local_imager.build.request import Runner
    from local_imager.pipeline.locked import LockGuard
    from local_imager.pipeline.lockfile import Lock
    from local_imager.pipeline.locking import LockOrder
    from local_imager.profile.model import Requirement
    from local_imager.sources.upstream import Sources
    from local_imager.sources.verify import VerifiedImage

ARTIFACT_BUILD_RECORD: Final = "application/vnd.local-imager.build-record.v1+json"
ARTIFACT_BUILD_LOG: Final = "application/vnd.local-imager.build-log.v1"
ARTIFACT_SCHEMATIC: Final = "application/vnd.local-imager.schematic.v1+yaml"


class Factory:
    """Plans and builds with one set of settings; opens store, sources and engine when needed."""

    def __init__(
        self,
        settings: Settings,
        *,
        sink: EventSink = NULL_SINK,
        cancel: threading.Event | None = None,
        runner: Runner | None = None,
    ) -> None:
        self.settings = settings
        self._sink = sink
        self._cancel = cancel or threading.Event()
        self._runner = runner

    @cached_property
    def store(self) -> Store:
        """The store of the settings, made when it is not there."""
        return Store.open(self.settings.store)

    @cached_property
    def sources(self) -> Sources:
        """The verified sources of the settings: the store first, then where images come from."""
        return open_sources(self.settings, self.store, self._sink)

    @cached_property
    def offline_sources(self) -> Sources:
        """The same policy over nothing but the store."""
        return open_sources(self.settings, self.store, self._sink, offline=True)

    def sharing(
        self,
        settings: Settings,
        sink: EventSink,
        cancel: threading.Event,
        runner: Runner,
        *,
        offline: bool,
    ) -> Factory:
        """Return a factory over the same store and sources with other limits, sink and runner."""
        other = Factory(settings, sink=sink, cancel=cancel, runner=runner)
        other.store = self.store
        if offline:
            other.offline_sources = self.offline_sources
        else:
            other.sources = self.sources
        return other

    def plan(self, order: BuildOrder) -> list[PlannedAsset]:
        """Return what :meth:`build` would do; no engine is asked and no big image is fetched.

        Where no source can be reached the plan is unresolved: names in place of digests.
        """
        return self._planner(order).describe(order)

    def lock(self, order: LockOrder) -> Lock:
        """Return the lock of some schematics and versions; fetches catalogues at most.

        Raises what :func:`make_lock` raises. Nothing is written; :func:`write_lock` does that.
        """
        from local_imager.pipeline.locking import make_lock

        return make_lock(
            order, self.settings, self.offline_sources if order.offline else self.sources
        )

    def _planner(self, order: BuildOrder) -> Planner:
        sources = self.offline_sources if order.offline else self.sources
        return Planner(self.settings, sources, self.store, self._sink, self._guard(order))

    def _guard(self, order: BuildOrder) -> LockGuard | None:
        if order.lock is None:
            return None
        from local_imager.pipeline.locked import LockGuard

        version = TalosVersion.parse(order.version)
        names = [AssetName.parse(asset) for asset in order.assets]
        return LockGuard.check(order.lock, self.settings, order.schematic, version, names)

    def build(self, order: BuildOrder) -> list[BuildResult]:
        """Build (or find in the store) every asset of the order, in its order.

        Raises a :class:`LocalImagerError` of the kind that fits; what was finished before stays
        in the store. Nothing that was started outlives the call.
        """
        jobs = self.jobs(order)
        results = {result.asset: result for result in self.results(order, jobs)}
        return [results[job.plan.asset] for job in jobs]

    def results(self, order: BuildOrder, jobs: Sequence[Job]) -> Iterator[BuildResult]:
        """Build (or find in the store) what :meth:`jobs` gave, yielding each as it is finished."""
        with self._locked(jobs) as release:
            missing = []
            for job in jobs:
                stored = None if order.rebuild else self.store.find_build(job.build_key)
                if stored is None:
                    missing.append(job)
                    continue
                release(job.build_key)
                self._sink.emit(StepFinished("build", job.plan.asset, 0.0, "cached"))
                yield self._result(order, job, stored, None)
            if not missing:
                return
            with timed(self._sink, "builds", order.version):
                for job, built in self._build_missing(order, missing):
                    with timed(self._sink, "store", built.asset):
                        stored = self._ingest(order, job, built)
                    release(job.build_key)
                    yield self._result(order, job, stored, built.duration_s)

    def jobs(
        self, order: BuildOrder, known: dict[Requirement, VerifiedImage] | None = None
    ) -> list[Job]:
        """Return the plans of an order with their images, verified and in the store.

        Images in ``known`` were obtained for other orders of the same sources and lock a moment
        ago; what is obtained is added to it. Raises what :meth:`build` raises.
        """
        known = {} if known is None else known
        subject = order.version
        with timed(self._sink, "open", subject):
            planner = self._planner(order)
        version = TalosVersion.parse(order.version)
        names = [AssetName.parse(asset) for asset in dict.fromkeys(order.assets)]
        with planner.explained():
            with timed(self._sink, "catalogue", subject):
                catalogue = planner.catalogue(order.schematic, version)
                builder = planner.builder(version, known)
            with timed(self._sink, "plan", subject):
                plans = planner.plans(order.schematic, version, names, catalogue, builder)
            wanted = dict.fromkeys(r for entry in plans for r in entry.requirements)
            with timed(self._sink, "images", subject):
                images = planner.obtain(tuple(wanted), known)
        self._sink.emit(Message(_verified_sentence(images.values())))
        with timed(self._sink, "keys", subject):
            return [planner.job(entry, images, order) for entry in plans]

    @contextmanager
    def _locked(self, jobs: Sequence[Job]) -> Iterator[Callable[[str], None]]:
        """Hold the lock of every build key, taken in one order so that nobody waits in a circle.

        Yields a function that gives one back early, when its asset is there.
        """
        held: dict[str, ExitStack] = {}
        with ExitStack() as everything:
            for key, asset in sorted({job.build_key: job.plan.asset for job in jobs}.items()):
                held[key] = everything.enter_context(ExitStack())
                held[key].enter_context(self.store.build_lock(key, sink=self._sink, what=asset))
            yield lambda key: held[key].close()

    def _build_missing(
        self, order: BuildOrder, missing: Sequence[Job]
    ) -> Iterator[tuple[Job, BuiltAsset]]:
        from local_imager.build.assemble import AssetJob, BuildOptions, build_assets

        settings = self.settings
        options = BuildOptions(
            exact=order.exact,
            timeout_s=settings.timeout_s,
            memory_bytes=settings.memory_bytes,
            epoch=settings.epoch,
            allow_privileged=settings.allow_privileged,
            jobs=settings.jobs,
            within_jobs=order.within_jobs,
        )
        by_asset = {job.plan.asset: job for job in missing}
        sources = self._planner(order).sources
        with (
            self.store.build_slot(settings.max_builds, sink=self._sink),
            self.store.workspace() as workspace,
            self._open_runner() as runner,
        ):
            with timed(self._sink, "confirm", order.version):
                sources.confirm(image for job in missing for image in job.images.values())
            for built in build_assets(
                [AssetJob(job.plan, job.images) for job in missing],
                runner=runner,
                layout=self.store.layout,
                boot_files=sources.boot_files,
                key_dir=settings.secureboot_keys,
                workspace=workspace,
                options=options,
                sink=self._sink,
                cancel=self._cancel,
                keeper=KeptInitramfs(self.store, fresh=order.rebuild),
            ):
                yield by_asset[built.asset], built

    @contextmanager
    def _open_runner(self) -> Iterator[Runner]:
        if self._runner is not None:
            yield self._runner
            return
        from local_imager.build.runner import DockerRunner

        runner = DockerRunner()
        try:
            yield runner
        finally:
            runner.close()

    def _ingest(self, order: BuildOrder, job: Job, built: BuiltAsset) -> StoredAsset:
        """Store the file, and beside it the schematic, the build record and the log."""
        entry = job.plan

        def documents(digest: Digest) -> list[AttachedDocument]:
            record = {**built.record, "build_key": job.build_key, "digest": str(digest)}
            if order.lock is not None:
                from local_imager.pipeline.lockfile import FORMAT

                record["lock"] = {"digest": str(order.lock.digest), "format": FORMAT}
            schematic, log = canonical_bytes(order.schematic), built.log.encode()
            return [
                AttachedDocument(ARTIFACT_SCHEMATIC, schematic, "application/yaml"),
                AttachedDocument(ARTIFACT_BUILD_RECORD, canonical_json(record), "application/json"),
                AttachedDocument(ARTIFACT_BUILD_LOG, log, "text/plain"),
            ]

        return self.store.put_asset(
            AssetRecord(
                entry.schematic_id,
                str(entry.version),
                entry.asset,
                job.build_key,
                built.path,
                media_type=AssetName.parse(entry.asset).content_type,
                private=entry.holds_secrets,
            ),
            documents=documents,
        )

    def _result(
        self, order: BuildOrder, job: Job, stored: StoredAsset, duration_s: float | None
    ) -> BuildResult:
        path = None
        if order.export_to is not None:
            folder = order.export_to / stored.schematic_id[:12] / stored.version
            with timed(self._sink, "export", stored.asset):
                path = self.store.export(stored, folder / stored.asset, overwrite=True).path
        return BuildResult(
            asset=stored.asset,
            path=path,
            digest=stored.digest,
            size_bytes=stored.size_bytes,
            schematic_id=stored.schematic_id,
            version=stored.version,
            build_key=job.build_key,
            manifest_digest=stored.manifest_digest,
            cached=duration_s is None,
            duration_s=duration_s or 0.0,
            lock=order.lock.digest if order.lock else None,
            varies=varying(self.record_of(stored)),
        )

    def record_of(self, stored: StoredAsset) -> dict[str, Any]:
        """Return the last build record of an asset; empty where none can be read."""
        try:
            return parse_record(self.store.read_referrers(stored, ARTIFACT_BUILD_RECORD))
        except (LocalImagerError, OSError):
            return {}


def _verified_sentence(images: Iterable[VerifiedImage]) -> str:
    """Say how many images passed the gate, and by whom they were signed."""
    distinct = {image.digest: image for image in images}
    signers = sorted({image.signer for image in distinct.values()})
    return f"{len(distinct)} source images verified, signed by {', '.join(signers)}"
