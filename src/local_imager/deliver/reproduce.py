"""Builds what was built once more, in other surroundings, and says whether the bytes are the same.

The second build sees another time, another store and staging directory, runs as another user where
that is ours to choose, on one processor, and with another number of workers of our own. It reads
the images from the first store, and verifies them again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager import __version__
from local_imager.build.bench import utc_now
from local_imager.build.container import container_user
from local_imager.build.request import UNPRIVILEGED_ID, EngineInfo, Runner
from local_imager.build.runner import DockerRunner
from local_imager.errors import LocalImagerError
from local_imager.events import NULL_SINK, EventSink, Message, step
from local_imager.oci.model import Digest, canonical_json
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.values import BuildOrder, BuildResult

if TYPE_CHECKING:
    from local_imager.deliver.compare.verdict import Comparison

ARTIFACT_REPRODUCTION: Final = "application/vnd.local-imager.reproduction.v1+json"
FORMAT: Final = 1
# FAT keeps times in steps of two seconds: builds closer together could share one by chance.
_APART_S: Final = 2.0
_OTHER_ID: Final = UNPRIVILEGED_ID - 1
_MAX_DIFFERENCES: Final = 20
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether an asset came out the same when it was built again.

    ``first_offset`` is the first differing byte (None when equal), ``comparison`` says in which
    parts they differ, ``varied`` and ``kept`` name what was other and what was not.
    """

    asset: str
    digest: Digest
    again: Digest
    varied: Mapping[str, str]
    kept: tuple[str, ...]
    seconds_apart: float
    first_offset: int | None = None
    comparison: Comparison | None = None

    @property
    def equal(self) -> bool:
        """Whether both builds gave the same bytes."""
        return self.digest == self.again

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``build --json`` shows and that is kept beside the asset."""
        found = self.comparison.as_dict() if self.comparison is not None else {}
        return {
            "format": FORMAT,
            "tool": {"name": "local-imager", "version": __version__},
            "asset": self.asset,
            "equal": self.equal,
            "digest": str(self.digest),
            "again": str(self.again),
            "varied": dict(self.varied),
            "kept": list(self.kept),
            "seconds_apart": round(self.seconds_apart, 1),
            "first_offset": self.first_offset,
            "verdict": "identical" if self.equal else found.get("verdict"),
            "differences": found.get("differences", []),
            "checked_at": utc_now(),
        }


class OtherSurroundings(DockerRunner):
    """A runner whose containers run as another user and, where it can be had, on one processor."""

    def info(self) -> EngineInfo:
        """Return the engine with the choices of this runner."""
        found = super().info()
        # Rootless engines may use the processors of their user only as a whole.
        cpuset = "" if found.rootless else "0"
        return replace(found, unprivileged_id=_OTHER_ID, cpuset=cpuset)


def verify_reproducible(
    factory: Factory,
    order: BuildOrder,
    results: Sequence[BuildResult],
    *,
    sink: EventSink = NULL_SINK,
    cancel: threading.Event | None = None,
    runner: Runner | None = None,
) -> list[Reproduction]:
    """Build again what ``factory`` built for ``order``, compare, and keep the answers beside it.

    ``results`` are those of the first build, in its store; they may be cached ones. ``runner``
    replaces the one with other surroundings. Raises what a build raises.
    """
    built_at = max(_stored_s(factory, result) for result in results)
    if time.time() - built_at < _APART_S:
        time.sleep(_APART_S)
    own = runner or OtherSurroundings()
    settings = factory.settings
    with closing(own), factory.store.workspace() as place:
        engine = own.info()
        jobs = 1 if settings.jobs > 1 else 3
        other = replace(
            settings, store=place / "store", source=str(settings.store), mirrors={}, jobs=jobs
        )
        varied, kept = _surroundings(engine, settings.jobs, jobs)
        began_s = time.time()
        second = Factory(other, sink=sink, cancel=cancel, runner=own)
        with step(sink, "again", f"{len(results)} assets, built again in other surroundings"):
            again = second.build(replace(order, rebuild=True, offline=False, export_to=None))
        found = []
        for first, other_result in zip(results, again, strict=True):
            apart_s = began_s - _stored_s(factory, first)
            answer = Reproduction(
                first.asset, first.digest, other_result.digest, varied, kept, apart_s
            )
            if not answer.equal:
                answer = _told_apart(answer, factory, second, sink)
            found.append(answer)
            _attach(factory, first, answer)
    return found


def _surroundings(
    engine: EngineInfo, first_jobs: int, jobs: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what the second build has otherwise, and what could not be had otherwise."""
    varied = {
        "store": "another, empty",
        "staging": "another directory",
        "workers": f"{jobs} in place of {first_jobs}",
    }
    kept = []
    if os.geteuid() == 0 and not engine.rootless:
        varied["user"] = f"{container_user(engine).inside} in place of {UNPRIVILEGED_ID}"
    else:
        kept.append("user: only root can choose another")
    if engine.cpuset:
        varied["processors"] = f"number {engine.cpuset} alone in place of all {engine.cpus}"
    else:
        kept.append("processors: a rootless engine has no choice")
    return varied, tuple(kept)


def _stored_s(factory: Factory, result: BuildResult) -> float:
    """Return when an asset's manifest was written, which is right after it was built."""
    return factory.store.layout.blob_path(result.manifest_digest).stat().st_ctime


def _told_apart(
    answer: Reproduction, factory: Factory, second: Factory, sink: EventSink
) -> Reproduction:
    """Say where the two builds differ: the first byte, and the parts in a person's words."""
    left = factory.store.layout.blob_path(answer.digest)
    right = second.store.layout.blob_path(answer.again)
    answer = replace(answer, first_offset=_first_difference(left, right))
    try:
        return replace(answer, comparison=_compared(left, right, answer.asset))
    except LocalImagerError as error:
        sink.emit(Message(f"{answer.asset} could not be looked into: {error.message}", "warning"))
        return answer


def _compared(left: Path, right: Path, name: str) -> Comparison:
    from local_imager.deliver.compare.walk import Subject, compare_trees
    from local_imager.deliver.inspect.inspection import inspect_source
    from local_imager.formats.source import FileSource

    with FileSource(left) as first, FileSource(right) as second:
        sides = [
            Subject.of(inspect_source(source, name), word)
            for source, word in ((first, f"{name}, first build"), (second, f"{name}, second build"))
        ]
        return compare_trees(*sides, limit=_MAX_DIFFERENCES)


def _first_difference(left: Path, right: Path) -> int:
    """Return the offset of the first differing byte; the shorter length where one begins alike."""
    from local_imager.formats.source import FileSource

    with FileSource(left) as one, FileSource(right) as other:
        both = min(one.size_bytes, other.size_bytes)
        for offset in range(0, both, _READ_BYTES):
            length = min(_READ_BYTES, both - offset)
            first, second = one.read(offset, length), other.read(offset, length)
            if first != second:
                at = (
                    n for n, pair in enumerate(zip(first, second, strict=True)) if len({*pair}) > 1
                )
                return offset + next(at)
        return both


def _attach(factory: Factory, result: BuildResult, answer: Reproduction) -> None:
    stored = factory.store.find_build(result.build_key)
    if stored is not None:
        data = canonical_json(answer.as_dict())
        factory.store.add_referrer(stored, ARTIFACT_REPRODUCTION, data, "application/json")
