"""One raw disk, all formats: conversions and compressions of it run beside each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from local_imager.build.archives import write_disk_tar_gz, write_ova
from local_imager.build.bench import (
    AssetJob,
    Bench,
    BuiltAsset,
    imager_request,
    run_entry,
    staged_inputs,
    utc_now,
)
from local_imager.build.chunks import dig_holes
from local_imager.build.compress import GZIP_LEVEL, XZ_PRESET, ZSTD_LEVEL, compress_file
from local_imager.build.diskids import fix_vhd_identity, fix_vmdk_identity
from local_imager.build.failure import require_success
from local_imager.build.metaorder import meta_keys, order_meta
from local_imager.build.outputs import take_ownership
from local_imager.build.record import build_record
from local_imager.build.request import DISK_ROOT, MIB, OUTPUT_ROOT, ImagerRequest, Limits
from local_imager.build.scheduling import LinkedEvent
from local_imager.build.staging import locate_input
from local_imager.events import step
from local_imager.formats.source import FileSource, FormatError
from local_imager.oci.sparse import clone, copy_sparse

_LEVELS: Final = {".xz": XZ_PRESET, ".gz": GZIP_LEVEL, ".tar.gz": GZIP_LEVEL, ".zst": ZSTD_LEVEL}
# The imager's name of a format is qemu-img's, but for the one that predates it.
_QEMU_FORMATS: Final = {"qcow2": "qcow2", "vhd": "vpc"}


def raw_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile of the plain raw disk that another format is made from."""
    output = dict(document["output"])
    image_options = {**output.get("imageOptions", {}), "diskFormat": "raw"}
    image_options.pop("diskFormatOptions", None)
    output |= {"outFormat": "raw", "imageOptions": image_options}
    return {**document, "output": output}


# A disk in another format, the run that made it and what is to be said of its META.
_Converted = tuple[Path, dict[str, Any], dict[str, Any]]


@dataclass(slots=True)
class _RawDisk:
    """The raw disk of a group, and what was derived from it so far."""

    bench: Bench
    request: ImagerRequest
    folder: Path
    stop: LinkedEvent
    shared: bool
    converters: threading.Semaphore
    lock: threading.Lock = field(default_factory=threading.Lock)
    converted: dict[tuple[str, str], Future[_Converted]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        (name,) = self.request.outputs
        return name

    @property
    def path(self) -> Path:
        return self.request.output_dir / self.name


def build_disks(bench: Bench, group: list[AssetJob], folder: Path) -> Iterator[BuiltAsset]:
    """Run the imager once for the raw disk, then make every asset of the group from it.

    Assets are yielded as they are finished. The first failure stops the others.
    """
    began, started_at = time.monotonic(), utc_now()
    first = group[0]
    stem = first.plan.output_name.partition(".")[0]
    rendered = first.plan.profile.rendered(lambda item: locate_input(item, first.images))
    document = raw_document(rendered)
    subject = first.plan.asset if len(group) == 1 else f"{stem}.raw for {len(group)} assets"
    raw_name = f"{stem}.raw"
    stays = all(_disk_format(job) != "raw" for job in group)
    with step(bench.sink, "build", subject), staged_inputs(bench, first, folder) as staged:
        request = replace(
            imager_request(bench, first, staged, document, raw_name, folder / "raw"),
            keep=any(_disk_format(job) != "raw" for job in group),
            keep_in_engine=frozenset({raw_name} if stays else ()),
        )
        result = bench.runner.run(request, bench.sink, bench.cancel)
        require_success(request, result, bench.engine)
        meta = _ordered_meta(folder / "raw" / raw_name)
        if not stays and (len(group) > 1 or _out_format(first) == "raw"):
            # The imager writes all its zeros. With one compressed asset they are read once anyway.
            dig_holes(folder / "raw" / raw_name)
    raw_entry = run_entry(request, result.exit_code, result.duration_s)
    converters = threading.Semaphore(1 if bench.options.within_jobs else len(group))
    stop = LinkedEvent(bench.cancel)
    disk = _RawDisk(bench, request, folder, stop, len(group) > 1, converters)
    # Each works on all cores already; a few at once hide what waits, more would only take memory.
    side_by_side = min(len(group), max(2, min(bench.options.jobs, 4)))
    pool = ThreadPoolExecutor(side_by_side, thread_name_prefix="formats")
    try:
        futures = {pool.submit(_make_asset, disk, job): job for job in group}
        for future in as_completed(futures):
            path, steps, converted, ended = future.result()
            job = futures[future]
            duration_s = ended - began
            record = build_record(
                job.plan,
                job.images,
                engine=bench.engine,
                profile=job.plan.profile.rendered(lambda i, job=job: locate_input(i, job.images)),  # type: ignore[misc]
                runs=[raw_entry, *steps],
                started_at=started_at,
                duration_s=duration_s,
                exact=False,
                epoch=bench.options.epoch,
                workers=bench.options.jobs,
            )
            record = {**record, "meta": converted or meta}
            yield BuiltAsset(job.plan.asset, path, result.log, record, duration_s, job)
    finally:
        disk.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        bench.runner.release(request.output_dir)


def _ordered_meta(disk: Path) -> dict[str, Any]:
    """Put META values in order; what the record says of it."""
    try:
        keys = order_meta(disk)
    except FileNotFoundError:
        return {"way": "plain", "reason": "the disk stays in the engine"}
    except PermissionError:
        return {"way": "plain", "reason": "the disk belongs to the container's user"}
    return {"way": "ordered", "keys": [f"0x{key:02x}" for key in keys]}


def _meta_in(path: Path, disk_format: str) -> dict[str, Any]:
    """Say of a converted disk what its record says of META.

    An engine that shares no files converts the disk that it has, which the ordering did not reach;
    only the result tells.
    """
    from local_imager.formats import qcow2, vhd, vmdk

    opening = {"qcow2": qcow2.open_qcow2, "vhd": vhd.open_vhd, "ova": vmdk.open_vmdk}
    try:
        with FileSource(path) as file:
            keys = meta_keys(opening[disk_format](file).source)
    except FormatError as error:
        return {"way": "plain", "reason": f"the converted disk cannot be read: {error.message}"}
    if list(keys) != sorted(keys):
        return {"way": "plain", "reason": "the disk was converted in the engine"}
    return {"way": "ordered", "keys": [f"0x{key:02x}" for key in keys]}


def _disk_format(job: AssetJob) -> str:
    options: Mapping[str, Any] = job.plan.profile.document["output"].get("imageOptions", {})
    return str(options.get("diskFormat") or "raw")


def _out_format(job: AssetJob) -> str:
    return str(job.plan.profile.document["output"].get("outFormat") or "raw")


def _make_asset(
    disk: _RawDisk, job: AssetJob
) -> tuple[Path, list[dict[str, Any]], dict[str, Any] | None, float]:
    """Convert and compress as the asset asks.

    Returns the file, the steps for the record, what it says of META when the disk was converted,
    and when it was done (monotonic, seconds).
    """
    plan = job.plan
    output = plan.profile.document["output"]
    disk_format, out_format = _disk_format(job), _out_format(job)
    steps: list[dict[str, Any]] = []
    source, meta = disk.path, None
    if disk_format != "raw":
        options = str(output["imageOptions"].get("diskFormatOptions") or "")
        source, entry, meta = _converted(disk, job, disk_format, options)
        steps.append(entry)
    folder = disk.folder / "assets" / f"{id(job):x}"
    folder.mkdir(parents=True)
    target = folder / plan.asset.rpartition("/")[2]
    with step(disk.bench.sink, "convert", plan.asset):
        began = time.monotonic()
        _finish(disk, source, target, out_format)
    if out_format != "raw":
        steps.append(
            {
                "compression": out_format,
                "level": _LEVELS[out_format],
                "duration_s": round(time.monotonic() - began, 3),
            }
        )
    take_ownership(target, private=plan.holds_secrets)
    return target, steps, meta, time.monotonic()


def _finish(disk: _RawDisk, source: Path, target: Path, out_format: str) -> None:
    options = disk.bench.options
    if out_format == "raw":
        # A copy, which costs only the content: others still read the raw disk, as the container's
        # user, while this file is already the caller's.
        with source.open("rb") as reader, target.open("xb") as writer:
            if not clone(reader.fileno(), writer.fileno()):
                copy_sparse(reader.fileno(), writer.fileno())
    elif out_format == ".tar.gz":
        write_disk_tar_gz(source, target, options.epoch, options.jobs, disk.stop)
    else:
        use_up = source == disk.path and not disk.shared
        compress_file(source, target, out_format, options.jobs, disk.stop, use_up=use_up)


def _converted(disk: _RawDisk, job: AssetJob, disk_format: str, options: str) -> _Converted:
    """Return the disk in another format; assets that differ in compression only share it."""
    key = (disk_format, options)
    with disk.lock:
        future = disk.converted.get(key)
        mine = future is None
        if future is None:
            future = disk.converted[key] = Future()
    if mine:
        try:
            future.set_result(_convert(disk, job, disk_format, options))
        except BaseException as error:
            future.set_exception(error)
            raise
    return future.result()


def _convert(disk: _RawDisk, job: AssetJob, disk_format: str, options: str) -> _Converted:
    """Run the builder image's own converter, confined like the imager itself."""
    stem = disk.name.partition(".")[0]
    made = f"{stem}.{'vmdk' if disk_format == 'ova' else disk_format}"
    source, target = f"{DISK_ROOT}/{disk.name}", f"{OUTPUT_ROOT}/{made}"
    if disk_format == "ova":
        command: tuple[str, ...] = ("vmdk-convert", source, target)
    else:
        extra = ("-o", options) if options else ()
        to = _QEMU_FORMATS[disk_format]
        command = ("qemu-img", "convert", "-f", "raw", "-O", to, *extra, source, target)
    request = ImagerRequest(
        subject=job.plan.asset,
        image_id=disk.request.image_id,
        command=command,
        outputs=frozenset({made}),
        output_dir=disk.folder / f"convert-{len(disk.converted)}-{disk_format}",
        disk_dir=disk.request.output_dir,
        env=disk.request.env,
        limits=Limits(
            memory_bytes=disk.request.limits.memory_bytes,
            timeout_s=disk.request.limits.timeout_s,
            scratch_bytes=64 * MIB,
        ),
    )
    with disk.converters:
        result = disk.bench.runner.run(request, disk.bench.sink, disk.stop)
    require_success(request, result, disk.bench.engine)
    path = request.output_dir / made
    take_ownership(path, private=job.plan.holds_secrets)
    meta, epoch = _meta_in(path, disk_format), disk.bench.options.epoch
    identity = f"{job.plan.schematic_id} {job.plan.version} {made}"
    if disk_format == "vhd":
        fix_vhd_identity(path, epoch, identity)
    if disk_format == "ova":
        fix_vmdk_identity(path, identity)
        vmdk, path = path, path.with_suffix(".ova")
        write_ova(vmdk, path, epoch)
        vmdk.unlink()
    return path, run_entry(request, result.exit_code, result.duration_s), meta
