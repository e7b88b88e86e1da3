"""What the builders of single assets and of groups of disks share: the bench and its requests."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.container import container_user
from local_imager.build.privilege import privileges_for
from local_imager.build.record import (
    base_image,
    builder_image,
    masked_profile,
    secret_texts,
)
from local_imager.build.repeats import WITH_FAT
from local_imager.build.request import (
    DEFAULT_EPOCH,
    DETERMINISTIC_SEED,
    GIB,
    OUTPUT_ROOT,
    EngineInfo,
    ImagerRequest,
    Limits,
    Runner,
)
from local_imager.build.resources import scratch_bytes, tree_bytes
from local_imager.build.staging import (
    StagedInputs,
    render_document,
    stage_inputs,
)
from local_imager.errors import Interrupted
from local_imager.events import EventSink, Message
from local_imager.profile.model import Arch, BuildPlan, MadeFile, Requirement

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout
    from local_imager.sources.verify import VerifiedImage

BootFiles = Callable[["VerifiedImage", Arch], Mapping[str, Path]]
"""Gives the boot assets of a base image for an architecture, by file name."""


@dataclass(frozen=True, slots=True)
class AssetJob:
    """One asset to build, with the verified image for each requirement of its plan.

    ``made`` says where the files lie that earlier runs of the build made for it, None for one that
    is still being made.
    """

    plan: BuildPlan
    images: Mapping[Requirement, VerifiedImage]
    made: Mapping[MadeFile, Path | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build; ``exact`` lets the imager do every step itself, as the factory does.

    ``within_jobs`` never runs more containers at once than ``jobs``, whose memory somebody has
    counted; otherwise one may be started ahead of its turn, and conversions run side by side.
    """

    exact: bool = False
    timeout_s: int = 1800
    memory_bytes: int = 4 * GIB
    epoch: int = DEFAULT_EPOCH
    allow_privileged: bool = False
    jobs: int = 1
    within_jobs: bool = False


@dataclass(frozen=True, slots=True)
class BuiltAsset:
    """A finished file in the workspace, its masked log and its build record (JSON-able).

    The file may be moved away; it is removed when the next asset is asked for, or at the end.
    """

    asset: str
    path: Path
    log: str
    record: Mapping[str, Any]
    duration_s: float
    job: AssetJob


@dataclass(slots=True)
class Bench:
    """What all groups of one call share."""

    runner: Runner
    engine: EngineInfo
    layout: Layout
    boot_files: BootFiles
    key_dir: Path | None
    workspace: Path
    options: BuildOptions
    sink: EventSink
    cancel: threading.Event
    builders: dict[str, str] = field(default_factory=dict)

    def builder_id(self, image: VerifiedImage) -> str:
        """Return the engine's ID of a builder image, loading it at its first use."""
        key = str(image.digest)
        if key not in self.builders:
            self.builders[key] = self.runner.load(image, self.layout, None, self.sink)
        return self.builders[key]


def utc_now() -> str:
    """Return the time as RFC 3339 in UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def staged_inputs(bench: Bench, job: AssetJob, folder: Path) -> Iterator[StagedInputs]:
    """Lay out the inputs for the time of a run; keys and secrets do not outlive it."""
    if bench.cancel.is_set():
        raise Interrupted("the build was stopped before its run began")
    files = bench.boot_files(base_image(job.images), job.plan.profile.arch)
    place = folder / "stage"
    try:
        yield stage_inputs(
            job.plan,
            job.images,
            bench.layout,
            files,
            bench.key_dir,
            place,
            container_user(bench.engine),
            job.made,
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)


_SCRATCH_ON_DISK: Final = (
    "{asset}: temporary files do not fit into memory, and the order of files inside the EFI file "
    "system then follows the disk that they lie on: the bytes differ from those of a build in "
    "memory (build.memory gives it more)"
)


def imager_request(
    bench: Bench,
    job: AssetJob,
    staged: StagedInputs,
    document: Mapping[str, Any],
    name: str,
    output_dir: Path,
    *,
    input_bytes: int | None = None,
) -> ImagerRequest:
    """Return the complete request of one imager run that writes ``name``.

    ``input_bytes`` is what the inputs will weigh, where they are not all there yet.
    """
    plan, options = job.plan, bench.options
    shown = masked_profile(document, holds_secrets=plan.holds_secrets)
    weight = tree_bytes(staged.input_dir) if input_bytes is None else input_bytes
    scratch = scratch_bytes(plan, weight, options.memory_bytes, bench.engine, exact=options.exact)
    if not scratch and plan.profile.kind in WITH_FAT and not options.exact:
        bench.sink.emit(Message(_SCRATCH_ON_DISK.format(asset=plan.asset), "warning"))
    return ImagerRequest(
        subject=plan.asset,
        image_id=bench.builder_id(builder_image(job.images)),
        command=("/bin/imager", "-", "--output", OUTPUT_ROOT),
        outputs=frozenset({name}),
        output_dir=output_dir,
        arch=plan.profile.arch,
        stdin=render_document(document),
        shown_stdin=render_document(shown).decode(),
        input_dir=staged.input_dir,
        key_dir=staged.key_dir,
        env={
            "SOURCE_DATE_EPOCH": str(options.epoch),
            "DETERMINISTIC_SEED": DETERMINISTIC_SEED,
        },
        limits=Limits(
            memory_bytes=options.memory_bytes,
            timeout_s=options.timeout_s,
            scratch_bytes=scratch,
        ),
        privileges=privileges_for(plan, options.allow_privileged),
        secrets=secret_texts(document, holds_secrets=plan.holds_secrets),
        hide_command_line=plan.holds_secrets,
    )


_CONFINEMENT: Final = "network none, read-only root, no capabilities, no new privileges"


def run_entry(request: ImagerRequest, exit_code: int, duration_s: float) -> dict[str, Any]:
    """Return what the build record says of one container run."""
    return {
        "command": list(request.command),
        "image_id": request.image_id,
        "environment": dict(request.env),
        "confinement": _CONFINEMENT,
        "capabilities": list(request.privileges.capabilities),
        "device_rules": list(request.privileges.device_rules),
        "memory_bytes": request.limits.memory_bytes,
        "scratch": "memory" if request.limits.scratch_bytes else "disk",
        "exit_code": exit_code,
        "duration_s": round(duration_s, 3),
    }
