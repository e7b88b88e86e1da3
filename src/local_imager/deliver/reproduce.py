"""Builds what was built once more, in other surroundings, and says whether the bytes are the same.

The second build sees another time, another store and staging directory, runs as another user where
that is ours to choose, on one processor, and with another number of workers of our own. It reads
the images from the first store, and verifies them again. What was other is told from the records
of both builds, since the first may be of another day and machine.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager import __version__
from local_imager.build.bench import utc_now
from local_imager.build.repeats import Scratch, follows_disk, scratch_of, surroundings_of
from local_imager.build.request import UNPRIVILEGED_ID, EngineInfo, Runner
from local_imager.build.runner import DockerRunner
from local_imager.deliver.reproduced import ARTIFACT_REPRODUCTION
from local_imager.errors import LocalImagerError
from local_imager.events import NULL_SINK, EventSink, Message, step
from local_imager.oci.model import Digest, canonical_json
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.values import BuildOrder, BuildResult

if TYPE_CHECKING:
    from local_imager.deliver.compare.verdict import Comparison

FORMAT: Final = 1
# FAT keeps times in steps of two seconds: builds closer together could share one by chance.
_APART_S: Final = 2.0
_OTHER_ID: Final = UNPRIVILEGED_ID - 1
_MAX_DIFFERENCES: Final = 20
_READ_BYTES: Final = 1 << 20
_SCRATCH: Final = "temporary files"
_NOT_KNOWN: Final = "not known: the record of the first build does not say what it had"
_ON_DISK: Final = (
    "on disk in both builds, and the order of files in the EFI file system is that disk's; not "
    "shown to repeat in memory or elsewhere (build.memory)"
)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether an asset came out the same when it was built again.

    ``first_offset`` is the first differing byte (None when equal), ``comparison`` says in which
    parts they differ, ``varied`` and ``kept`` name what was other and what was not. ``on_disk``
    says that equal bytes show nothing for builds elsewhere: the place of the temporary files
    decides about the bytes, and a disk was it.
    """

    asset: str
    digest: Digest
    again: Digest
    varied: Mapping[str, str]
    kept: tuple[str, ...]
    seconds_apart: float
    first_offset: int | None = None
    comparison: Comparison | None = None
    on_disk: bool = False

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
            "temporary_files_on_disk": self.on_disk,
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
        records = [_record_of(factory, result) for result in results]
        other = replace(
            settings,
            store=place / "store",
            source=str(settings.store),
            mirrors={},
            jobs=_other_workers(records),
        )
        began_s = time.time()
        second = Factory(other, sink=sink, cancel=cancel, runner=own)
        with step(sink, "again", f"{len(results)} assets, built again in other surroundings"):
            again = second.build(replace(order, rebuild=True, offline=False, export_to=None))
        found = []
        for first, record, other_result in zip(results, records, again, strict=True):
            told = _compared_records(record, _record_of(second, other_result), engine)
            apart_s = began_s - _stored_s(factory, first)
            answer = Reproduction(
                first.asset,
                first.digest,
                other_result.digest,
                told.varied,
                tuple(told.kept),
                apart_s,
                on_disk=told.on_disk,
            )
            if not answer.equal:
                answer = _told_apart(answer, factory, second, sink)
            found.append(answer)
            _attach(factory, first, answer)
    return found


def _record_of(factory: Factory, result: BuildResult) -> dict[str, Any]:
    stored = factory.store.find_build(result.build_key)
    return factory.record_of(stored) if stored is not None else {}


def _other_workers(records: Sequence[Mapping[str, Any]]) -> int:
    """Return a number of workers that no build had, as far as their records say."""
    had = {found.workers for found in map(surroundings_of, records) if found is not None}
    number = 1
    while number in had:
        number += 2
    return number


@dataclass(slots=True)
class _Told:
    """What two records say of the surroundings of two builds of an asset."""

    varied: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    on_disk: bool = False


def _compared_records(
    first: Mapping[str, Any], second: Mapping[str, Any], engine: EngineInfo
) -> _Told:
    """Return what the second build had otherwise, and what could not be had otherwise."""
    told = _Told({"store": "another, empty", "staging": "another directory"})
    was, now = surroundings_of(first), surroundings_of(second)
    for name in ("workers", "user", "processors"):
        if was is None or now is None:
            told.kept.append(f"{name}: {_NOT_KNOWN}")
            continue
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            told.varied[name] = f"{after} in place of {before}"
        else:
            told.kept.append(f"{name}: {_why_kept(name, engine)} ({after})")
    if follows_disk(first) or follows_disk(second):
        _tell_scratch(told, scratch_of(first), scratch_of(second))
    return told


def _why_kept(name: str, engine: EngineInfo) -> str:
    """Return why the other surroundings are no other here."""
    if name == "user" and (engine.rootless or os.geteuid() != 0):
        return "only root can choose another"
    if name == "processors" and engine.rootless:
        return "a rootless engine has no choice"
    if name == "processors" and engine.cpus == 1:
        return "the engine has no more than one"
    return "the same as in the first build"


def _tell_scratch(told: _Told, first: Scratch, second: Scratch) -> None:
    """Say where temporary files lay, for what is filled in their order."""
    places = {first, second}
    if "" in places:
        told.kept.append(f"{_SCRATCH}: {_NOT_KNOWN}")
    elif first != second:
        words = {"disk": "on disk", "memory": "in memory"}
        told.varied[_SCRATCH] = f"{words[second]} in place of {words[first]}"
    elif first == "disk":
        told.kept.append(f"{_SCRATCH}: {_ON_DISK}")
    told.on_disk = "disk" in places and "memory" not in places


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
