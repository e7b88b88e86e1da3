"""Builds assets: groups what can share a run, runs it, converts, and says what was done."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.bench import (
    AssetJob,
    Bench,
    BootFiles,
    BuildOptions,
    BuiltAsset,
    imager_request,
    run_entry,
    staged_inputs,
    utc_now,
)
from local_imager.build.disks import build_disks, raw_document
from local_imager.build.failure import require_success
from local_imager.build.initramfs import NotNormalisable
from local_imager.build.installer import fix_installer_time
from local_imager.build.outputs import take_ownership
from local_imager.build.privilege import privileges_for
from local_imager.build.record import base_image, build_record, builder_image, converts
from local_imager.build.request import Runner
from local_imager.build.resources import output_bytes, require_disk_space, scratch_bytes
from local_imager.build.scheduling import runs_at_once, side_by_side
from local_imager.build.shared import InitramfsKeeper, Prepared, SharedInitramfs
from local_imager.build.staging import locate_input
from local_imager.errors import BuildError
from local_imager.events import EventSink, Message, step, timed
from local_imager.oci.export import select_image
from local_imager.oci.model import canonical_json
from local_imager.profile.model import Kind

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout

__all__ = ["AssetJob", "BootFiles", "BuildOptions", "BuiltAsset", "build_assets", "group_jobs"]


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
    keeper: InitramfsKeeper | None = None,
) -> Iterator[BuiltAsset]:
    """Build all assets, yielding each as soon as it is finished.

    ``workspace`` is a private directory in the file system where the results will be kept; what
    is left in it is removed when the iterator ends or is closed. ``keeper`` keeps what assets
    share for later builds. Raises
    :class:`~local_imager.errors.BuildError` for a failing imager, ``HostError`` when engine or
    host cannot do it (checked before the first run), ``Interrupted`` when ``cancel`` is set.
    """
    engine = runner.info()
    bench = Bench(runner, engine, layout, boot_files, key_dir, workspace, options, sink, cancel)
    for job in jobs:  # refused before anything runs, not after an hour of other assets
        privileges_for(job.plan, options.allow_privileged)
    groups = group_jobs(jobs, exact=options.exact)
    at_once = runs_at_once(options.jobs, options.memory_bytes, engine)
    if at_once > 1 and not options.exact:  # else what the caller named first comes first
        groups = in_order_of_work(groups)
    needed = sorted((_needed_bytes(bench, group) for group in groups), reverse=True)
    require_disk_space(workspace, sum(needed[:at_once]))
    shared = SharedInitramfs(bench, workspace / "initramfs", keeper)

    def work(number: int, group: list[AssetJob], stop: threading.Event) -> Iterator[BuiltAsset]:
        folder = workspace / f"group-{number}"
        try:
            own = replace(bench, cancel=stop)
            yield from _build_group(own, [shared.prepared(job) for job in group], folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        tasks = [partial(work, number, group) for number, group in enumerate(groups)]
        yield from side_by_side(tasks, at_once, cancel)
    finally:
        shutil.rmtree(shared.folder, ignore_errors=True)


# What takes long begins first. What needs no initramfs comes before that which waits for it.
_WEIGHTS: Final[Mapping[Kind, int]] = {
    "image": 0,
    "kernel": 1,
    "cmdline": 1,
    "iso": 2,
    "installer": 3,
    "uki": 4,
    "initramfs": 5,
}


def in_order_of_work(groups: list[list[AssetJob]]) -> list[list[AssetJob]]:
    """Return the groups in the order in which they keep all cores busy longest."""
    return sorted(groups, key=lambda group: _WEIGHTS[group[0].plan.profile.kind])


def _build_group(bench: Bench, group: list[Prepared], folder: Path) -> Iterator[BuiltAsset]:
    """Make the assets of a group, each with the record of how it came by its initramfs."""
    first = group[0]
    if converts(first.job.plan, exact=bench.options.exact):
        built = build_disks(bench, [ready.job for ready in group], folder)
    elif first.path is not None and first.job.plan.profile.kind == "initramfs":
        built = iter([_take_initramfs(bench, first, folder)])
    else:
        built = iter([_build_single(bench, first.job, folder)])
    for asset in built:
        facts = dict(first.facts) if first.facts is not None else None
        record = {**asset.record, "initramfs": facts}
        yield replace(asset, log=first.log + asset.log, record=record)


def _needed_bytes(bench: Bench, group: list[AssetJob]) -> int:
    """Disk that a group takes at most; it is given back before the next one begins."""
    plan, memory_bytes = group[0].plan, bench.options.memory_bytes
    inputs = _input_bytes(bench, group[0])
    needed = output_bytes(plan, inputs) + (len(group) - 1) * 3 * inputs
    if not scratch_bytes(plan, inputs, memory_bytes, bench.engine):
        needed += output_bytes(plan, inputs)
    return needed


def _input_bytes(bench: Bench, job: AssetJob) -> int:
    files = bench.boot_files(base_image(job.images), job.plan.profile.arch)
    total = sum(path.stat().st_size for path in files.values())
    for requirement, image in job.images.items():
        if requirement.role in ("extension", "overlay", "base-installer"):
            _, manifest = select_image(bench.layout, image.digest, requirement.arch)
            total += sum(layer.size_bytes for layer in manifest.layers)
    return total


def group_jobs(jobs: Sequence[AssetJob], *, exact: bool) -> list[list[AssetJob]]:
    """Put disk images that differ only in format or compression together; keep the order."""
    groups: dict[bytes, list[AssetJob]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault(_group_key(job, number, exact=exact), []).append(job)
    return list(groups.values())


def _group_key(job: AssetJob, number: int, *, exact: bool) -> bytes:
    if not converts(job.plan, exact=exact):
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


def _take_initramfs(bench: Bench, ready: Prepared, folder: Path) -> BuiltAsset:
    """Return the finished initramfs as the asset that it is."""
    began, started_at = time.monotonic(), utc_now()
    plan = ready.job.plan
    path = folder / plan.output_name
    folder.mkdir(parents=True, exist_ok=True)
    if ready.path is None:
        raise BuildError(f"{plan.asset} was not made")
    os.link(ready.path, path)
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
    )
    return BuiltAsset(plan.asset, path, "", record, time.monotonic() - began, ready.job)


def _build_single(bench: Bench, job: AssetJob, folder: Path) -> BuiltAsset:
    """Let the imager make the asset in one run, every step its own."""
    began, started_at = time.monotonic(), utc_now()
    plan = job.plan
    out_format = str(plan.profile.document["output"].get("outFormat") or "raw")
    name = plan.output_name + ("" if out_format == "raw" else out_format)
    document = plan.profile.rendered(lambda item: locate_input(item, job.images))
    with step(bench.sink, "build", plan.asset), staged_inputs(bench, job, folder) as staged:
        request = imager_request(bench, job, staged, document, name, folder / "out")
        result = bench.runner.run(request, bench.sink, bench.cancel)
        require_success(request, result, bench.engine)
    path = request.output_dir / name
    take_ownership(path, private=plan.holds_secrets)
    installer = (
        _fixed_installer(bench, path) if job.made and plan.profile.kind == "installer" else {}
    )
    duration_s = time.monotonic() - began
    record = build_record(
        plan,
        job.images,
        engine=bench.engine,
        profile=document,
        runs=[run_entry(request, result.exit_code, result.duration_s)],
        started_at=started_at,
        duration_s=duration_s,
        exact=not job.made,
        epoch=bench.options.epoch,
    )
    return BuiltAsset(plan.asset, path, result.log, {**record, **installer}, duration_s, job)


def _fixed_installer(bench: Bench, path: Path) -> dict[str, Any]:
    """Set the time in an installer; what the record says of it."""
    try:
        with timed(bench.sink, "normalise", path.name):
            was = fix_installer_time(path, bench.options.epoch)
    except NotNormalisable as reason:
        bench.sink.emit(Message(f"the installer keeps the time of its making: {reason}", "warning"))
        return {"installer": {"way": "plain", "reason": str(reason)}}
    return {"installer": {"way": "normalised", "created_before": was}}
