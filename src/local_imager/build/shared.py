"""The normalised initramfs that assets share: made once in a build, kept for the next one.

:class:`SharedInitramfs` turns a job into one whose profile names the finished initramfs in place of
the extensions. It may be asked from several threads; who comes second waits for the first.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from local_imager.build.bench import AssetJob, Bench, imager_request, run_entry, staged_inputs
from local_imager.build.failure import require_success
from local_imager.build.initramfs import (
    NotNormalisable,
    normalise_initramfs,
)
from local_imager.build.outputs import take_ownership
from local_imager.build.record import (
    INITRAMFS_RECIPE,
    base_image,
    initramfs_key,
    masked_profile,
    normalises,
)
from local_imager.build.scheduling import MAX_AT_ONCE, LinkedEvent
from local_imager.build.staging import locate_input
from local_imager.errors import Interrupted, LocalImagerError
from local_imager.events import Message, step, timed
from local_imager.oci.model import Digest
from local_imager.profile.handed import INITRAMFS, initramfs_plan, with_initramfs
from local_imager.profile.model import MadeFile


class InitramfsKeeper(Protocol):
    """Where normalised initramfs outlive a build, under their key."""

    def find(self, key: str, dest: Path) -> Mapping[str, Any] | None:
        """Place the initramfs of a key at ``dest`` and return the facts kept with it, or None."""

    def keep(self, key: str, path: Path, facts: Mapping[str, Any], *, private: bool) -> None:
        """Keep a copy; ``private`` ones can be read by their owner only."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that is ready to run, and how it comes by its initramfs.

    ``path`` is the normalised initramfs, None where the imager packs the extensions in the asset's
    own run. ``facts`` go into the build record as ``initramfs``; ``log`` is that of the run that
    packed the extensions in this build.
    """

    job: AssetJob
    path: Path | None = None
    facts: Mapping[str, Any] | None = None
    log: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    path: Path | None
    facts: Mapping[str, Any]
    log: str = ""


@dataclass(slots=True)
class SharedInitramfs:
    """The initramfs of one build, by key; files lie below ``folder`` until it is removed."""

    bench: Bench
    folder: Path
    keeper: InitramfsKeeper | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: dict[str, Future[_Made]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="initramfs")
    )
    _stop: LinkedEvent = field(init=False)

    def __post_init__(self) -> None:
        self._stop = LinkedEvent(self.bench.cancel)
        self.bench = replace(self.bench, cancel=self._stop)

    def key(self, job: AssetJob) -> str:
        """Return what jobs share that can share an initramfs; empty where there is nothing to."""
        if not normalises(job.plan, exact=self.bench.options.exact):
            return ""
        return initramfs_key(initramfs_plan(job.plan), job.images, epoch=self.bench.options.epoch)

    def expected(self, job: AssetJob) -> AssetJob | None:
        """Return the job over an initramfs that is still being made, and see that it is.

        None where there is nothing to wait for. Only :meth:`prepared` tells whether the initramfs
        is used in the end.
        """
        key = self.key(job)
        if not key or job.plan.profile.kind == "initramfs" or self._begun(key, job).done():
            return None
        file = MadeFile(INITRAMFS, _NOT_KNOWN_YET)
        return replace(job, plan=with_initramfs(job.plan, file), made={file: None})

    def prepared(self, job: AssetJob, cancel: threading.Event | None = None) -> Prepared:
        """Return the job over a finished initramfs, which is made when there is none yet.

        Raises what a run raises, and ``Interrupted`` when ``cancel`` is set meanwhile. Where the
        imager's initramfs is not built as it is known to be, the job stays as it is and the record
        says why.
        """
        key = self.key(job)
        if not key:
            return Prepared(job)
        made = _awaited(self._begun(key, job), cancel or self._stop)
        if made.path is None:
            return Prepared(job, facts=made.facts, log=made.log)
        file = MadeFile(INITRAMFS, Digest.parse(str(made.facts["digest"])))
        ready = replace(job, plan=with_initramfs(job.plan, file), made={file: made.path})
        return Prepared(ready, made.path, made.facts, made.log)

    def close(self) -> None:
        """Stop what is still being made, keep what was made, and remove the files."""
        self._stop.set()
        self._pool.shutdown(wait=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begun(self, key: str, job: AssetJob) -> Future[_Made]:
        with self._lock:
            if key not in self._made:
                self._made[key] = self._pool.submit(self._find_or_make, key, job)
            return self._made[key]

    def _find_or_make(self, key: str, job: AssetJob) -> _Made:
        folder = self.folder / key[:16]
        folder.mkdir(mode=0o700, parents=True)
        target = folder / INITRAMFS
        if self.keeper is not None:
            facts = self.keeper.find(key, target)
            if facts is not None:
                return _Made(target, {**facts, "kept": True})
        return self._make(key, replace(job, plan=initramfs_plan(job.plan)), folder, target)

    def _make(self, key: str, packing: AssetJob, folder: Path, target: Path) -> _Made:
        bench, plan = self.bench, packing.plan
        document = plan.profile.rendered(lambda item: locate_input(item, packing.images))
        name = plan.output_name
        with (
            step(bench.sink, "pack", f"extensions of {plan.version} {plan.profile.arch}"),
            staged_inputs(bench, packing, folder) as staged,
        ):
            request = imager_request(bench, packing, staged, document, name, folder / "out")
            result = bench.runner.run(request, bench.sink, bench.cancel)
            require_success(request, result, bench.engine)
        plain = request.output_dir / name
        facts: dict[str, Any] = {
            "key": key,
            "recipe": INITRAMFS_RECIPE,
            "profile": masked_profile(document, holds_secrets=plan.holds_secrets),
            "run": run_entry(request, result.exit_code, result.duration_s),
        }
        base = bench.boot_files(base_image(packing.images), plan.profile.arch)[INITRAMFS]
        try:
            with timed(bench.sink, "normalise", name):
                epoch = bench.options.epoch
                made = normalise_initramfs(plain, base, target, epoch=epoch, cancel=bench.cancel)
        except NotNormalisable as reason:
            target.unlink(missing_ok=True)
            bench.sink.emit(Message(_NOT_EQUAL.format(reason=reason), "warning"))
            return _Made(None, {**facts, "way": "plain", "reason": str(reason)}, result.log)
        finally:
            shutil.rmtree(request.output_dir, ignore_errors=True)
        take_ownership(target, private=plan.holds_secrets)
        facts |= {"way": "normalised", **made.as_dict()}
        if self.keeper is not None:  # beside the runs that go on with the file
            self._pool.submit(self._keep, self.keeper, key, target, dict(facts), plan.holds_secrets)
        return _Made(target, {**facts, "kept": False}, result.log)

    def _keep(
        self,
        keeper: InitramfsKeeper,
        key: str,
        path: Path,
        facts: Mapping[str, Any],
        private: bool,
    ) -> None:
        """Keep a finished initramfs; a store that cannot take it costs this build nothing."""
        try:
            keeper.keep(key, path, facts, private=private)
        except (LocalImagerError, OSError) as error:
            self.bench.sink.emit(Message(f"the initramfs is not kept: {error}", "warning"))


def _awaited(future: Future[_Made], cancel: threading.Event) -> _Made:
    while not cancel.is_set():
        if wait([future], _POLL_S).done:
            return future.result()
    raise Interrupted("the build was stopped before its initramfs was made")


# How long a stop goes unnoticed at most.
_POLL_S: Final = 0.05
# Stands in a plan for the digest of what is not made yet; a profile holds no digest of it.
_NOT_KNOWN_YET: Final = Digest("0" * 64)
_NOT_EQUAL: Final = (
    "the bytes will differ from build to build: the initramfs of this imager is not normalised, "
    "since {reason}"
)
