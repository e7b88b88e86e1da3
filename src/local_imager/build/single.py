"""One asset by one run of the imager, and the initramfs that is an asset itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local_imager.build.bench import (
    AssetJob,
    Bench,
    BuiltAsset,
    imager_request,
    run_entry,
    staged_inputs,
    utc_now,
)
from local_imager.build.container import container_user
from local_imager.build.failure import require_success
from local_imager.build.initramfs import NotNormalisable
from local_imager.build.installer import fix_installer_time
from local_imager.build.isoowner import fix_iso_owner
from local_imager.build.outputs import take_ownership
from local_imager.build.record import base_image, build_record
from local_imager.build.request import ImagerRequest, RunResult
from local_imager.build.shared import Prepared, SharedInitramfs
from local_imager.build.staging import locate_input, provide_made
from local_imager.events import Message, step, timed
from local_imager.oci.export import select_image
from local_imager.profile.model import BuildPlan


def build_single(bench: Bench, shared: SharedInitramfs, job: AssetJob, folder: Path) -> BuiltAsset:
    """Let the imager make the asset in one run, every step its own.

    Where its initramfs is still being made, the container is started meanwhile, unless the build
    keeps to its number of containers. Raises what
    :func:`~local_imager.build.assemble.build_assets` names.
    """
    expected = None if bench.options.within_jobs else shared.expected(job)
    if expected is not None:
        ready, ran = _run_ahead(bench, shared, job, expected, folder / "ahead")
    else:
        ready, ran = shared.prepared(job, bench.cancel), None
    if ready.path is not None and job.plan.profile.kind == "initramfs":
        built = _take_initramfs(bench, ready, ready.path, folder)
    else:
        built = _built(bench, ready.job, ran or _run(bench, ready.job, folder))
    return with_initramfs_facts(built, ready)


def with_initramfs_facts(built: BuiltAsset, ready: Prepared) -> BuiltAsset:
    """Return the asset with the record and the log of how it came by its initramfs."""
    facts = dict(ready.facts) if ready.facts is not None else None
    record = {**built.record, "initramfs": facts}
    return replace(built, log=ready.log + built.log, record=record)


def input_bytes(bench: Bench, job: AssetJob) -> int:
    """Return about what the inputs of a run weigh, packed as they are."""
    files = bench.boot_files(base_image(job.images), job.plan.profile.arch)
    total = sum(path.stat().st_size for path in files.values())
    for requirement, image in job.images.items():
        if requirement.role in ("extension", "overlay", "base-installer"):
            _, manifest = select_image(bench.layout, image.digest, requirement.arch)
            total += sum(layer.size_bytes for layer in manifest.layers)
    return total


@dataclass(frozen=True, slots=True)
class _Ran:
    """A run that ended well: what was asked, how it went, when it began."""

    request: ImagerRequest
    result: RunResult
    document: Mapping[str, Any]
    began_s: float
    started_at: str


def _output_name(job: AssetJob) -> str:
    out_format = str(job.plan.profile.document["output"].get("outFormat") or "raw")
    return job.plan.output_name + ("" if out_format == "raw" else out_format)


def _run(bench: Bench, job: AssetJob, folder: Path) -> _Ran:
    began, started_at = time.monotonic(), utc_now()
    document = job.plan.profile.rendered(lambda item: locate_input(item, job.images))
    with step(bench.sink, "build", job.plan.asset), staged_inputs(bench, job, folder) as staged:
        request = imager_request(bench, job, staged, document, _output_name(job), folder / "out")
        result = bench.runner.run(request, bench.sink, bench.cancel)
        require_success(request, result, bench.engine)
    return _Ran(request, result, document, began, started_at)


def _run_ahead(
    bench: Bench, shared: SharedInitramfs, job: AssetJob, expected: AssetJob, folder: Path
) -> tuple[Prepared, _Ran | None]:
    """Start the container, then wait for the initramfs and let the imager go on with it.

    The run is None when the initramfs is not to be used after all.
    """
    began, started_at = time.monotonic(), utc_now()
    document = expected.plan.profile.rendered(lambda item: locate_input(item, expected.images))
    name = _output_name(expected)
    with (
        step(bench.sink, "build", job.plan.asset),
        staged_inputs(bench, expected, folder) as staged,
    ):
        request = imager_request(
            bench, expected, staged, document, name, folder / "out",
            input_bytes=input_bytes(bench, job),
        )  # fmt: skip
        with bench.runner.begin(request, bench.sink, bench.cancel) as begun:
            ready = shared.prepared(job, bench.cancel)
            if ready.path is None:
                return ready, None
            for file, path in ready.job.made.items():
                provide_made(
                    staged.input_dir, file, path or ready.path, container_user(bench.engine)
                )
            result = begun.finish()
        require_success(request, result, bench.engine)
    return ready, _Ran(request, result, document, began, started_at)


def _built(bench: Bench, job: AssetJob, ran: _Ran) -> BuiltAsset:
    """Take what a run made, with its record."""
    plan = job.plan
    path = ran.request.output_dir / _output_name(job)
    take_ownership(path, private=plan.holds_secrets)
    fixed = _without_run(bench, plan, path) if job.made else {}
    duration_s = time.monotonic() - ran.began_s
    record = build_record(
        plan,
        job.images,
        engine=bench.engine,
        profile=ran.document,
        runs=[run_entry(ran.request, ran.result.exit_code, ran.result.duration_s)],
        started_at=ran.started_at,
        duration_s=duration_s,
        exact=not job.made,
        epoch=bench.options.epoch,
        workers=bench.options.jobs,
    )
    return BuiltAsset(plan.asset, path, ran.result.log, {**record, **fixed}, duration_s, job)


def _take_initramfs(bench: Bench, ready: Prepared, made: Path, folder: Path) -> BuiltAsset:
    """Return the finished initramfs as the asset that it is."""
    began, started_at = time.monotonic(), utc_now()
    plan = ready.job.plan
    path = folder / plan.output_name
    folder.mkdir(parents=True, exist_ok=True)
    os.link(made, path)
    run = dict(ready.facts or {}).get("run")
    record = build_record(
        plan,
        ready.job.images,
        engine=bench.engine,
        profile=plan.profile.rendered(lambda item: locate_input(item, ready.job.images)),
        runs=[run] if run else [],
        started_at=started_at,
        duration_s=time.monotonic() - began,
        exact=False,
        epoch=bench.options.epoch,
        workers=bench.options.jobs,
    )
    return BuiltAsset(plan.asset, path, "", record, time.monotonic() - began, ready.job)


def _without_run(bench: Bench, plan: BuildPlan, path: Path) -> dict[str, Any]:
    """Take out of an installer or ISO what tells of the run; returns what the record says of it."""
    kind = plan.profile.kind
    if kind not in ("installer", "iso"):
        return {}
    try:
        with timed(bench.sink, "normalise", path.name):
            if kind == "iso":
                return {"iso": {"way": "normalised", "owners_changed": fix_iso_owner(path)}}
            was = fix_installer_time(path, bench.options.epoch)
            return {"installer": {"way": "normalised", "created_before": was}}
    except NotNormalisable as reason:
        text = f"{plan.asset} keeps what tells of its making: {reason}"
        bench.sink.emit(Message(text, "warning"))
        return {kind: {"way": "plain", "reason": str(reason)}}
