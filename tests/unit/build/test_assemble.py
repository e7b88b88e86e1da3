"""Building assets with a stand-in for the imager: sharing, order, faults, and nothing left over."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from local_imager.build import assemble
from local_imager.build.assemble import AssetJob, BuildOptions, BuiltAsset, build_assets, group_jobs
from local_imager.build.request import ImagerFailed, ImagerRequest
from local_imager.errors import BuildError, HostError, Interrupted
from local_imager.events import RecordingSink, StepFinished
from local_imager.oci.layout import Layout
from local_imager.profile.model import Profile
from local_imager.profile.version import TalosVersion
from tests.fakerunner import FakeRunner
from tests.unit.build.samples import boot_files, disk_plan, document, plan, real_images

DISK = b"begin" + bytes(3 << 20) + b"end"
OPTIONS = BuildOptions(jobs=2)


def pretend(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
    """Write a disk as the imager, copy it as the converters."""
    (name,) = request.outputs
    target = request.output_dir / name
    if command[0] == "/bin/imager":
        script = (
            f'cat > /dev/null; printf begin > "{target}"; truncate -s {len(DISK) - 3} "{target}"'
        )
        return ("sh", "-c", f'{script}; printf end >> "{target}"; echo "UKI ready"')
    if command[0] == "qemu-img":
        return ("cp", command[-2], command[-1])
    raise AssertionError(command)


class Shop:
    """A layout with images, a runner and a workspace."""

    def __init__(self, folder: Path, runner: FakeRunner | None = None) -> None:
        self.layout = Layout.create(folder / "layout")
        self.images = real_images(self.layout)
        self.files = boot_files(folder / "boot")
        self.workspace = folder / "workspace"
        self.workspace.mkdir(mode=0o700)
        self.runner = runner or FakeRunner(pretend)
        self.sink = RecordingSink()
        self.cancel = threading.Event()

    def jobs(self, *plans: Any) -> list[AssetJob]:
        return [AssetJob(entry, self.images) for entry in plans]

    def build(self, *plans: Any, options: BuildOptions = OPTIONS) -> Any:
        return build_assets(
            self.jobs(*plans),
            runner=self.runner,
            layout=self.layout,
            boot_files=lambda _base, _arch: self.files,
            key_dir=None,
            workspace=self.workspace,
            options=options,
            sink=self.sink,
            cancel=self.cancel,
        )

    def contents(self, *plans: Any, options: BuildOptions = OPTIONS) -> dict[str, bytes]:
        return {b.asset: b.path.read_bytes() for b in self.build(*plans, options=options)}

    @property
    def programs(self) -> list[str]:
        return [request.command[0] for request in self.runner.requests]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


RAW = disk_plan("metal-amd64.raw")
FORMATS = (
    RAW,
    disk_plan("metal-amd64.raw.zst", out_format=".zst"),
    disk_plan("metal-amd64.raw.xz", out_format=".xz"),
    disk_plan("metal-amd64.raw.gz", out_format=".gz"),
    disk_plan("metal-amd64.qcow2", "qcow2"),
    disk_plan("metal-amd64.qcow2.xz", "qcow2", ".xz"),
)


def test_one_run_serves_every_format_of_a_disk(shop: Shop) -> None:
    found = shop.contents(*FORMATS)
    assert shop.programs.count("/bin/imager") == 1
    assert shop.programs.count("qemu-img") == 1
    assert found["metal-amd64.raw"] == found["metal-amd64.qcow2"] == DISK
    assert zstandard.ZstdDecompressor().decompress(found["metal-amd64.raw.zst"]) == DISK
    assert lzma.decompress(found["metal-amd64.raw.xz"]) == DISK
    assert lzma.decompress(found["metal-amd64.qcow2.xz"]) == DISK
    assert gzip.decompress(found["metal-amd64.raw.gz"]) == DISK


def test_the_shared_run_asks_for_the_plain_disk(shop: Shop) -> None:
    shop.contents(disk_plan("oracle-amd64.qcow2", "qcow2", ".zst", options="cluster_size=8k"))
    imager, convert = shop.runner.requests
    output = json.loads(imager.stdin)["output"]
    assert output["outFormat"] == "raw" and output["imageOptions"]["diskFormat"] == "raw"
    assert "diskFormatOptions" not in output["imageOptions"]
    assert convert.command[-4:-2] == ("-o", "cluster_size=8k")
    assert convert.disk_dir == imager.output_dir and imager.keep
    assert imager.keep_in_engine == {"oracle-amd64.raw"}


def test_different_disks_do_not_share(shop: Shop) -> None:
    other = disk_plan("metal-amd64.raw.xz", out_format=".xz", schematic_id="cd" * 32)
    aws = disk_plan("aws-amd64.raw")
    aws = replace(aws, profile=Profile({**aws.profile.document, "platform": "aws"}))
    assert len(group_jobs(shop.jobs(RAW, other, aws), exact=False)) == 3
    assert len(group_jobs(shop.jobs(*FORMATS), exact=False)) == 1
    assert len(group_jobs(shop.jobs(*FORMATS), exact=True)) == len(FORMATS)
    old = [replace(entry, builder=TalosVersion(1, 12, 1)) for entry in FORMATS]
    assert len(group_jobs(shop.jobs(*old), exact=False)) == len(FORMATS)


def test_exact_lets_the_imager_compress(shop: Shop) -> None:
    options = replace(OPTIONS, exact=True)
    list(shop.build(disk_plan("metal-amd64.raw.zst", out_format=".zst"), options=options))
    (request,) = shop.runner.requests
    assert json.loads(request.stdin)["output"]["outFormat"] == ".zst"
    assert request.outputs == {"metal-amd64.raw.zst"}


def test_a_run_is_reproducible_and_bounded(shop: Shop) -> None:
    list(shop.build(plan(), options=replace(OPTIONS, epoch=7, memory_bytes=1 << 31, timeout_s=9)))
    assert len(shop.runner.requests) == 2
    for request in shop.runner.requests:
        assert request.env == {"SOURCE_DATE_EPOCH": "7", "DETERMINISTIC_SEED": "1"}
        assert (request.limits.memory_bytes, request.limits.timeout_s) == (1 << 31, 9)
        assert not request.privileges


def test_each_asset_has_its_record_and_log(shop: Shop) -> None:
    built: list[BuiltAsset] = list(shop.build(*FORMATS))
    for item in built:
        json.dumps(item.record)
        assert item.record["asset"] == item.asset
        assert "UKI ready" in item.log
        assert item.record["runs"][0]["exit_code"] == 0
    packed = next(item for item in built if item.asset == "metal-amd64.qcow2.xz")
    assert [run.get("compression") for run in packed.record["runs"]] == [None, None, ".xz"]


def test_nothing_is_left_over(shop: Shop) -> None:
    for built in shop.build(plan(), *FORMATS):
        built.path.rename(shop.workspace / built.asset)
    assert sorted(os.listdir(shop.workspace)) == sorted(
        ["metal-amd64-uki.efi", *(entry.asset for entry in FORMATS)]
    )
    assert not shop.runner.kept


def test_secrets_make_private_files_and_stay_out_of_record_and_log(tmp_path: Path) -> None:
    def leaky(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        (name,) = request.outputs
        script = f"cat; echo done > {request.output_dir / name}"
        return ("sh", "-c", f"{script}; echo kernel command line: pass=correct-horse")

    shop = Shop(tmp_path, FakeRunner(leaky))
    customization = {
        "embeddedMachineConfiguration": "machine:\n  token: battery-staple\n",
        "extraKernelArgs": ["pass=correct-horse"],
    }
    secret = Profile(document(customization=customization))
    for built in shop.build(plan(profile=secret, holds_secrets=True)):
        everything = built.log + json.dumps(built.record) + repr(shop.sink.events)
        assert "battery-staple" not in everything and "correct-horse" not in everything
        assert built.path.stat().st_mode & 0o077 == 0


def failing(status: int) -> Any:
    def fail(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        if command[0] == "qemu-img":
            return ("sh", "-c", f"echo no conversion today; exit {status}")
        return pretend(request, command)

    return fail


@pytest.mark.parametrize("within_jobs", [True, False])
def test_conversions_run_one_by_one_where_containers_are_counted(
    tmp_path: Path, within_jobs: bool
) -> None:
    second, running, most = threading.Event(), list[str](), list[int]()

    def slow(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        if command[0] == "qemu-img":
            running.append(command[-1])
            most.append(len(running))
            second.set() if len(running) > 1 else second.wait(0.2 if within_jobs else 10)
            running.remove(command[-1])
        return pretend(request, command)

    place = Shop(tmp_path, FakeRunner(slow))
    plans = [
        disk_plan("metal-amd64.qcow2", "qcow2"),
        disk_plan("metal-amd64.qcow2.xz", "qcow2", ".xz", options="cluster_size=8k"),
    ]
    place.contents(*plans, options=replace(OPTIONS, within_jobs=within_jobs))
    assert max(most) == (1 if within_jobs else 2)


def test_a_failed_conversion_fails_the_build_and_cleans_up(tmp_path: Path) -> None:
    shop = Shop(tmp_path, FakeRunner(failing(9)))
    with pytest.raises(ImagerFailed) as caught:
        list(shop.build(*FORMATS))
    assert caught.value.status == 9
    assert "no conversion today" in caught.value.message
    assert os.listdir(shop.workspace) == []
    assert not shop.runner.kept


def test_a_failed_imager_says_what_to_do(tmp_path: Path) -> None:
    def fail(_request: ImagerRequest, _command: tuple[str, ...]) -> tuple[str, ...]:
        return ("sh", "-c", "echo Error: profile is invalid; exit 1")

    shop = Shop(tmp_path, FakeRunner(fail))
    with pytest.raises(ImagerFailed) as caught:
        list(shop.build(plan()))
    assert "profile is invalid" in caught.value.message
    assert "docker run" in caught.value.hint
    failed = [event for event in shop.sink.events if isinstance(event, StepFinished)]
    assert failed[-1].outcome == "failed"


def test_a_stop_ends_a_build_between_runs(shop: Shop) -> None:
    shop.cancel.set()
    with pytest.raises(Interrupted):
        list(shop.build(plan()))
    assert shop.runner.requests == []


def test_a_stop_ends_the_conversions(tmp_path: Path) -> None:
    def slow(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        if command[0] == "qemu-img":
            threading.Timer(0.2, place.cancel.set).start()
            return ("sleep", "30")
        return pretend(request, command)

    place = Shop(tmp_path, FakeRunner(slow))
    with pytest.raises(Interrupted):
        list(place.build(disk_plan("metal-amd64.qcow2", "qcow2")))
    assert os.listdir(place.workspace) == []


def test_closing_the_iterator_ends_everything(shop: Shop) -> None:
    results = shop.build(*FORMATS)
    next(results)
    results.close()
    assert os.listdir(shop.workspace) == []
    assert not shop.runner.kept


def test_what_a_host_cannot_do_is_refused_before_the_first_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replace(disk_plan("aws-amd64.raw"), builder=TalosVersion(1, 9, 0))
    with pytest.raises(HostError) as caught:
        list(shop.build(plan(), old))
    assert caught.value.code == "privilege-needed"

    def full(_folder: Path, needed_bytes: int) -> None:
        raise HostError(f"{needed_bytes} bytes are needed", code="disk-space")

    monkeypatch.setattr(assemble, "require_disk_space", full)
    with pytest.raises(HostError) as caught:
        list(shop.build(plan()))
    assert caught.value.code == "disk-space"
    assert shop.runner.requests == []


def test_unexpected_outputs_are_not_kept(tmp_path: Path) -> None:
    def hostile(request: ImagerRequest, _command: tuple[str, ...]) -> tuple[str, ...]:
        (name,) = request.outputs
        return ("ln", "-s", "/etc/passwd", str(request.output_dir / name))

    shop = Shop(tmp_path, FakeRunner(hostile))
    with pytest.raises(BuildError) as caught:
        list(shop.build(plan()))
    assert caught.value.code == "output-unexpected"
    assert os.listdir(shop.workspace) == []
