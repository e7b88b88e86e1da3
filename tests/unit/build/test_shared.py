"""Assets that hold the same extensions share one run that packs them, and later builds do too."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.build import bench as bench_module
from local_imager.build.assemble import AssetJob, BuildOptions, BuiltAsset, build_assets
from local_imager.build.bench import Bench
from local_imager.build.request import BegunRun, ImagerFailed, ImagerRequest
from local_imager.build.shared import SharedInitramfs
from local_imager.errors import BuildError, Interrupted
from local_imager.events import EventSink, Message, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.profile.model import BuildPlan, Profile
from tests.addedsegments import packed_extensions
from tests.fakerunner import ENGINE, FakeRunner
from tests.unit.build.samples import SCHEMATIC_TAR, boot_files, document, plan, real_images

EMBEDDED = "embeddedMachineConfiguration"
UKI = plan()
ISO = plan("metal-amd64.iso", profile=Profile(document("iso")))
INITRAMFS = plan("initramfs-amd64.xz", profile=Profile(document("initramfs", customization={})))


def with_extensions(entry: BuildPlan, *extensions: object) -> BuildPlan:
    changed = dict(entry.profile.document)
    changed["input"] = {**changed["input"], "systemExtensions": list(extensions)}
    return replace(entry, profile=Profile(changed))


class Shelf:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, Mapping[str, Any], bool]] = {}

    def find(self, key: str, dest: Path) -> Mapping[str, Any] | None:
        if key not in self.kept:
            return None
        data, facts, _ = self.kept[key]
        dest.write_bytes(data)
        return facts

    def keep(self, key: str, path: Path, facts: Mapping[str, Any], *, private: bool) -> None:
        self.kept[key] = (path.read_bytes(), facts, private)


class Shop:
    """A runner that packs as the imager does, and copies the initramfs into everything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout.create(folder / "layout")
        self.images = real_images(self.layout)
        self.files = boot_files(folder / "boot")
        self.workspace = folder / "workspace"
        self.workspace.mkdir(mode=0o700)
        self.runner = FakeRunner(self.imager)
        self.sink = RecordingSink()
        self.shelf = Shelf()
        self.spoil = False

    def imager(self, request: ImagerRequest, _: tuple[str, ...]) -> tuple[str, ...]:
        (name,) = request.outputs
        target = request.output_dir / name
        given = json.loads(request.stdin)["input"]
        if "systemExtensions" in given:
            data = packed_extensions(request)
            target.write_bytes(data[:50] + b"?" + data[51:] if self.spoil else data)
        else:
            assert request.input_dir is not None
            path = request.input_dir / given["initramfs"]["path"].removeprefix("/in/")
            target.write_bytes(b"made of " + path.read_bytes())
        return ("sh", "-c", f"cat > /dev/null; echo {name} ready")

    def build(
        self, *plans: BuildPlan, exact: bool = False, within_jobs: bool = False
    ) -> dict[str, tuple[bytes, BuiltAsset]]:
        built = build_assets(
            [AssetJob(entry, self.images) for entry in plans],
            runner=self.runner,
            layout=self.layout,
            boot_files=lambda _base, _arch: self.files,
            key_dir=None,
            workspace=self.workspace,
            options=BuildOptions(exact=exact, within_jobs=within_jobs),
            sink=self.sink,
            cancel=threading.Event(),
            keeper=self.shelf,
        )
        return {item.asset: (item.path.read_bytes(), item) for item in built}

    @property
    def kinds(self) -> list[str]:
        return [json.loads(r.stdin)["output"]["kind"] for r in self.runner.requests]

    @property
    def profiles(self) -> list[dict[str, Any]]:
        return [json.loads(request.stdin) for request in self.runner.requests]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_one_run_packs_for_all(shop: Shop) -> None:
    built = shop.build(UKI, ISO, INITRAMFS)
    assert shop.kinds == ["initramfs", "uki", "iso"]
    initramfs, _ = built["initramfs-amd64.xz"]
    assert built["metal-amd64.iso"][0] == built[UKI.asset][0] == b"made of " + initramfs
    assert list(shop.workspace.iterdir()) == []


def test_the_packing_run_has_the_extensions_and_nothing_else(shop: Shop) -> None:
    custom = {"extraKernelArgs": ["quiet"], EMBEDDED: "machine: {}"}
    overlay = {"name": "board", "image": {"imageRef": "x"}}
    more = document("iso", customization=custom, secureboot=True, platform="aws", overlay=overlay)
    shop.build(plan("aws-amd64.iso", profile=Profile(more)))
    packing, iso = shop.profiles
    assert packing["output"] == {"kind": "initramfs", "outFormat": "raw"}
    assert packing["customization"] == {EMBEDDED: "machine: {}"}
    assert set(packing["input"]) == {"initramfs", "systemExtensions"}
    assert (packing["platform"], packing["secureboot"]) == ("metal", False)
    assert "overlay" not in packing
    # An embedded configuration is an extension too: given again, it would be packed again.
    assert iso["customization"] == {"extraKernelArgs": ["quiet"]}
    assert "systemExtensions" not in iso["input"]
    assert iso["input"]["kernel"] == packing["input"].get("kernel", iso["input"]["kernel"])
    assert iso["overlay"]["name"] == "board" and iso["secureboot"]


def test_an_embedded_configuration_alone_is_packed_too(shop: Shop) -> None:
    more = document("uki", customization={EMBEDDED: "machine: {}"})
    del more["input"]["systemExtensions"]
    shop.build(plan(profile=Profile(more)))
    assert shop.kinds == ["initramfs", "uki"]


def test_builds_of_two_days_are_equal_and_the_kept_one_serves(shop: Shop, tmp_path: Path) -> None:
    first = shop.build(UKI)[UKI.asset]
    again = shop.build(UKI, ISO)
    assert shop.kinds == ["initramfs", "uki", "uki", "iso"]
    assert again[UKI.asset][0] == first[0]
    assert (
        first[1].record["initramfs"]["kept"],
        again[UKI.asset][1].record["initramfs"]["kept"],
    ) == (
        False,
        True,
    )
    shop.shelf.kept.clear()
    assert shop.build(UKI)[UKI.asset][0] == first[0]
    assert shop.kinds[-2:] == ["initramfs", "uki"]


def test_the_record_says_how(shop: Shop) -> None:
    built = shop.build(UKI, INITRAMFS)
    data, item = built["initramfs-amd64.xz"]
    json.dumps(item.record)
    facts = built[UKI.asset][1].record["initramfs"]
    assert facts["way"] == "normalised" and facts["recipe"] == 1
    assert facts["digest"] == str(Digest.of(data)) != facts["plain_digest"]
    assert facts["profile"]["output"]["kind"] == "initramfs"
    assert facts["run"]["exit_code"] == 0
    assert built[UKI.asset][1].record["exact"] is False
    assert "initramfs-metal-amd64.xz ready" in built[UKI.asset][1].log
    (kept,) = shop.shelf.kept.values()
    assert kept[0] == data and kept[2] is False


def test_exact_is_one_run_with_everything(shop: Shop) -> None:
    built = shop.build(UKI, exact=True)
    (profile,) = shop.profiles
    assert profile["input"]["systemExtensions"]
    assert built[UKI.asset][1].record["initramfs"] is None
    assert built[UKI.asset][1].record["exact"] is True
    assert not shop.shelf.kept


def test_what_cannot_be_proved_equal_is_built_the_plain_way(shop: Shop) -> None:
    shop.spoil = True
    built = shop.build(UKI, ISO)
    assert shop.kinds == ["initramfs", "uki", "iso"]
    assert all(profile["input"]["systemExtensions"] for profile in shop.profiles)
    facts = built[UKI.asset][1].record["initramfs"]
    assert facts["way"] == "plain" and "unchanged" in facts["reason"]
    assert not shop.shelf.kept
    warnings = [e.text for e in shop.sink.events if isinstance(e, Message) and e.level == "warning"]
    assert len(warnings) == 1 and "will differ" in warnings[0]


def test_secrets_make_it_private(shop: Shop) -> None:
    built = shop.build(replace(INITRAMFS, holds_secrets=True))
    _, item = built["initramfs-amd64.xz"]
    assert [private for _, _, private in shop.shelf.kept.values()] == [True]
    assert "sha256" in json.dumps(item.record)


def test_keys_follow_what_is_packed(shop: Shop) -> None:
    shared = SharedInitramfs(shop_bench(shop), shop.workspace / "shared")
    keys = {shared.key(AssetJob(entry, shop.images)) for entry in (UKI, ISO, INITRAMFS)}
    assert len(keys) == 1 and "" not in keys
    other = shared.key(AssetJob(with_extensions(UKI, SCHEMATIC_TAR), shop.images))
    embedded = document("uki", customization={EMBEDDED: "machine: {}"})
    third = shared.key(AssetJob(plan(profile=Profile(embedded)), shop.images))
    assert len({other, third, *keys}) == 3
    kernel = plan("kernel-amd64", profile=Profile(document("kernel")))
    none = with_extensions(UKI)
    assert {shared.key(AssetJob(entry, shop.images)) for entry in (kernel, none)} == {""}


def test_who_comes_second_waits_for_the_first(shop: Shop) -> None:
    shared = SharedInitramfs(shop_bench(shop), shop.workspace / "shared")
    with ThreadPoolExecutor(4) as pool:
        ready = list(pool.map(lambda e: shared.prepared(AssetJob(e, shop.images)), [UKI, ISO] * 4))
    assert shop.kinds == ["initramfs"]
    assert len({item.path for item in ready}) == 1
    mode = stat.S_IMODE(ready[0].path.stat().st_mode) if ready[0].path else 0
    assert mode == 0o644


def test_a_failed_run_is_told_to_all(shop: Shop) -> None:
    shop.runner = FakeRunner(lambda _request, _command: ("false",))
    shared = SharedInitramfs(shop_bench(shop), shop.workspace / "shared")
    for _ in range(2):
        with pytest.raises(BuildError):
            shared.prepared(AssetJob(UKI, shop.images))
    assert len(shop.runner.requests) == 1


def shop_bench(shop: Shop) -> Bench:
    return Bench(
        shop.runner,
        ENGINE,
        shop.layout,
        lambda _base, _arch: shop.files,
        None,
        shop.workspace,
        BuildOptions(),
        shop.sink,
        threading.Event(),
    )


def test_temporary_files_on_disk_are_told_where_they_change_bytes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "scratch_bytes", lambda *_, **__: 0)
    shop.build(UKI, ISO)
    texts = [e.text for e in shop.sink.events if isinstance(e, Message) and e.level == "warning"]
    warnings = [text for text in texts if "temporary files" in text]
    assert len(warnings) == 1
    assert warnings[0].startswith(ISO.asset) and "build.memory" in warnings[0]


def test_a_program_is_begun_while_its_initramfs_is_still_made(shop: Shop) -> None:
    begun = threading.Event()

    class Eager(FakeRunner):
        def begin(
            self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
        ) -> AbstractContextManager[BegunRun]:
            begun.set()
            return super().begin(request, sink, cancel)

    def imager(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        if "systemExtensions" in json.loads(request.stdin)["input"]:
            assert begun.wait(10)
        return shop.imager(request, command)

    shop.runner = Eager(imager)
    assert UKI.asset in shop.build(UKI)
    assert shop.kinds == ["initramfs", "uki"]


def test_a_build_that_keeps_to_its_jobs_begins_nothing_ahead(shop: Shop) -> None:
    class Counted(FakeRunner):
        def begin(
            self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
        ) -> AbstractContextManager[BegunRun]:
            raise AssertionError("one container more than was counted")

    shop.runner = Counted(shop.imager)
    assert UKI.asset in shop.build(UKI, within_jobs=True)
    assert shop.kinds == ["initramfs", "uki"]


def test_a_packing_that_fails_fails_the_asset_and_leaves_nothing(shop: Shop) -> None:
    shop.runner = FakeRunner(lambda _request, _command: ("sh", "-c", "cat > /dev/null; exit 7"))
    with pytest.raises(ImagerFailed) as failure:
        shop.build(UKI, ISO)
    assert failure.value.status == 7
    assert list(shop.workspace.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("initramfs")]


def test_who_waits_for_an_initramfs_can_be_stopped(shop: Shop) -> None:
    shared = SharedInitramfs(shop_bench(shop), shop.workspace / "shared")
    shop.runner = FakeRunner(lambda _request, _command: ("sleep", "60"))
    shared.bench.runner = shop.runner
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        shared.prepared(AssetJob(UKI, shop.images), stop)
    shared.close()  # ends what is still being made
    assert not shared.folder.exists()
