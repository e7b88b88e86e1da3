"""Builds assets: groups what can share a run, runs it, converts, and says what was done."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.container import container_user
from local_imager.build.failure import require_success
from local_imager.build.outputs import take_ownership
from local_imager.build.privilege import privileges_for
from local_imager.build.record import (
    base_image,
    build_record,
    builder_image,
    masked_profile,
    secret_texts,
)
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
from local_imager.build.resources import require_disk_space, scratch_bytes, tree_bytes
from local_imager.build.staging import (
    StagedInputs,
    locate_input,
    render_document,
    stage_inputs,
)
from local_imager.errors import Interrupted
from local_imager.events import EventSink, step
from local_imager.oci.model import canonical_json
from local_imager.profile.model import Arch, BuildPlan, Requirement

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout
    from local_imager.sources.verify import VerifiedImage

BootFiles = Callable[["VerifiedImage", Arch], Mapping[str, Path]]
"""Gives the boot assets of a base image for an architecture, by file name."""


@dataclass(frozen=True, slots=True)
class AssetJob:
    """One asset to build, with the verified image for each requirement of its plan."""

    plan: BuildPlan
    images: Mapping[Requirement, VerifiedImage]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build; ``exact`` lets the imager do every step itself, as the factory does."""

    exact: bool = False
    timeout_s: int = 1800
    memory_bytes: int = 4 * GIB
    epoch: int = DEFAULT_EPOCH
    allow_privileged: bool = False
    jobs: int = 1


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


def build_assets(
    jobs: Sequence[AssetJob],
    *,
    runner: Runner,
    layout: Layout,
    boot_files: BootFiles,
    key_dir: Path | None,
    workspace: Path,
    options: BuildOptions,
    sink: EventSink,
    cancel: threading.Event,
) -> Iterator[BuiltAsset]:
    """Build all assets, yielding each as soon as it is finished.

    ``workspace`` is a private directory in the file system where the results will be kept; what
    is left in it is removed when the iterator ends or is closed. Raises
    :class:`~local_imager.errors.BuildError` for a failing imager, ``HostError`` when engine or
    host cannot do it (checked before the first run), ``Interrupted`` when ``cancel`` is set.
    """
    engine = runner.info()
    bench = Bench(runner, engine, layout, boot_files, key_dir, workspace, options, sink, cancel)
    for job in jobs:  # refused before anything runs, not after an hour of other assets
        privileges_for(job.plan, options.allow_privileged)
    sizes = [_input_bytes(job, layout) for job in jobs]
    on_disk = any(not scratch_bytes(size, options.memory_bytes, engine) for size in sizes)
    require_disk_space(workspace, sizes, on_disk_scratch=on_disk)
    for number, group in enumerate(group_jobs(jobs, exact=options.exact)):
        folder = workspace / f"group-{number}"
        try:
            yield from _build_group(bench, group, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _input_bytes(job: AssetJob, layout: Layout) -> int:
    from local_imager.oci.export import select_image

    total = 0
    for requirement, image in job.images.items():
        if requirement.role in ("extension", "overlay", "base-installer"):
            _, manifest = select_image(layout, image.digest, requirement.arch)
            total += sum(layer.size_bytes for layer in manifest.layers)
    return total


def group_jobs(jobs: Sequence[AssetJob], *, exact: bool) -> list[list[AssetJob]]:
    """Put disk images that differ only in format or compression together; keep the order."""
    groups: dict[bytes, list[AssetJob]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(_group_key(job, number, exact=exact), []).append(job)
    return list(groups.values())


def _group_key(job: AssetJob, number: int, *, exact: bool) -> bytes:
    if exact or job.plan.profile.kind != "image":
        return str(number).encode()
    document = raw_document(job.plan.profile.rendered(lambda item: locate_input(item, job.images)))
    return canonical_json(
        [
            document,
            str(builder_image(job.images).digest),
            str(base_image(job.images).digest),
            job.plan.schematic_id,
        ]
    )


def raw_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile of the plain raw disk that another format is made from."""
    output = dict(document["output"])
    image_options = {**output.get("imageOptions", {}), "diskFormat": "raw"}
    image_options.pop("diskFormatOptions", None)
    output |= {"outFormat": "raw", "imageOptions": image_options}
    return {**document, "output": output}


def _build_group(bench: Bench, group: list[AssetJob], folder: Path) -> Iterator[BuiltAsset]:
    for job in group:
        yield _build_single(bench, job, folder)


def _build_single(bench: Bench, job: AssetJob, folder: Path) -> BuiltAsset:
    """Let the imager make the asset in one run, every step its own."""
    began, started_at = time.monotonic(), _now()
    plan = job.plan
    output = plan.profile.document["output"]
    out_format = str(output.get("outFormat") or "raw")
    name = plan.output_name + ("" if out_format == "raw" else out_format)
    with step(bench.sink, "build", plan.asset), _staged(bench, job, folder) as staged:
        document = plan.profile.rendered(lambda item: locate_input(item, job.images))
        request = imager_request(bench, job, staged, document, name, folder / "out")
        result = bench.runner.run(request, bench.sink, bench.cancel)
        require_success(request, result, bench.engine)
    path = request.output_dir / name
    take_ownership(path, private=plan.holds_secrets)
    duration_s = time.monotonic() - began
    record = build_record(
        plan,
        job.images,
        engine=bench.engine,
        profile=document,
        runs=[run_entry(request, result.exit_code, result.duration_s)],
        started_at=started_at,
        duration_s=duration_s,
        exact=True,
        epoch=bench.options.epoch,
    )
    return BuiltAsset(plan.asset, path, result.log, record, duration_s, job)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _staged(bench: Bench, job: AssetJob, folder: Path) -> Iterator[StagedInputs]:
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
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)


def imager_request(
    bench: Bench,
    job: AssetJob,
    staged: StagedInputs,
    document: Mapping[str, Any],
    name: str,
    output_dir: Path,
) -> ImagerRequest:
    """Return the complete request of one imager run that writes ``name``."""
    plan, options = job.plan, bench.options
    shown = masked_profile(document, holds_secrets=plan.holds_secrets)
    scratch = scratch_bytes(tree_bytes(staged.input_dir), options.memory_bytes, bench.engine)
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


_RECORDED_FLAGS: Final = "network none, read-only root, no capabilities, no new privileges"


def run_entry(request: ImagerRequest, exit_code: int, duration_s: float) -> dict[str, Any]:
    """Return what the build record says of one container run."""
    return {
        "command": list(request.command),
        "image_id": request.image_id,
        "environment": dict(request.env),
        "confinement": _RECORDED_FLAGS,
        "capabilities": list(request.privileges.capabilities),
        "device_rules": list(request.privileges.device_rules),
        "memory_bytes": request.limits.memory_bytes,
        "scratch": "memory" if request.limits.scratch_bytes else "disk",
        "exit_code": exit_code,
        "duration_s": round(duration_s, 3),
    }
