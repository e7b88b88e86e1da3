"""Builds assets: groups what can share a run, runs it, converts, and says what was done."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_imager.build.bench import (
    AssetJob,
    Bench,
    BootFiles,
    BuildOptions,
    BuiltAsset,
)
from local_imager.build.disks import build_disks, raw_document
from local_imager.build.privilege import privileges_for
from local_imager.build.record import base_image, builder_image, converts
from local_imager.build.request import Runner
from local_imager.build.resources import (
    output_bytes,
    require_disk_space,
    scratch_bytes,
    scratch_on_disk_bytes,
)
from local_imager.build.scheduling import runs_at_once, side_by_side
from local_imager.build.shared import InitramfsKeeper, SharedInitramfs
from local_imager.build.single import build_single, input_bytes, with_initramfs_facts
from local_imager.build.staging import locate_input
from local_imager.events import EventSink
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
            yield from _build_group(own, shared, group, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    try:
        tasks = [partial(work, number, group) for number, group in enumerate(groups)]
        yield from side_by_side(tasks, at_once, cancel)
    finally:
        shared.close()


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


def _build_group(
    bench: Bench, shared: SharedInitramfs, group: list[AssetJob], folder: Path
) -> Iterator[BuiltAsset]:
    """Make the assets of a group, each with the record of how it came by its initramfs."""
    first = group[0]
    if not converts(first.plan, exact=bench.options.exact):
        yield build_single(bench, shared, first, folder)
        return
    ready = [shared.prepared(job, bench.cancel) for job in group]
    for asset in build_disks(bench, [one.job for one in ready], folder):
        yield with_initramfs_facts(asset, ready[0])


def _needed_bytes(bench: Bench, group: list[AssetJob]) -> int:
    """Disk that a group takes at most; it is given back before the next one begins."""
    plan, memory_bytes, exact = group[0].plan, bench.options.memory_bytes, bench.options.exact
    inputs = input_bytes(bench, group[0])
    needed = output_bytes(plan, inputs) + (len(group) - 1) * 3 * inputs
    if not scratch_bytes(plan, inputs, memory_bytes, bench.engine, exact=exact):
        needed += scratch_on_disk_bytes(plan, inputs, exact=exact)
    return needed


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
