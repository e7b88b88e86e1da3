"""The factory over a signed upstream in miniature, with a runner that needs no engine."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.build.request import ImagerRequest
from local_imager.errors import BuildError, InputError, LocalImagerError, VerificationRefused
from local_imager.events import RecordingSink, StepFinished
from local_imager.pipeline import BuildOrder, Factory
from local_imager.pipeline.factory import (
    ARTIFACT_BUILD_LOG,
    ARTIFACT_BUILD_RECORD,
    ARTIFACT_SCHEMATIC,
)
from local_imager.schematic.canonical import canonical_bytes, schematic_id
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings, TrustEntries
from tests.addedsegments import packed_extensions
from tests.fakerunner import FakeRunner
from tests.unit.sources.forge import REGISTRY, Signing
from tests.unit.sources.test_upstream import World

PLAIN = parse_schematic(b"customization: {}\n")
SECRET = parse_schematic(b"customization: {extraKernelArgs: [key=hunter2]}\n")


def imager(request: ImagerRequest, _: tuple[str, ...]) -> tuple[str, ...]:
    """Write what was asked for; say how it was asked."""
    (name,) = request.outputs
    if name.startswith("initramfs"):
        (request.output_dir / name).write_bytes(packed_extensions(request))
        return ("cat",)
    script = 'cat; echo "made" > "$1"'
    return ("sh", "-c", script, "imager", str(request.output_dir / name))


def settings_for(world: World, **more: object) -> Settings:
    entry = {"pattern": f"{REGISTRY}/**", "key": world.signing.pem}
    trust = (TrustEntries("test", world.path, (entry,), True),)
    settings = Settings(
        store=world.path / "store",
        registry=REGISTRY,
        source=str(world.forge.layout.path),
        trust=trust,
    )
    return replace(settings, **more)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(imager)


def order(*assets: str, version: str = "v1.13.0", out: Path | None = None) -> BuildOrder:
    return BuildOrder(PLAIN, version, assets, export_to=out)


def test_a_result_says_what_of_it_another_build_may_have_otherwise(
    world: World, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = Factory(settings_for(world), runner=runner)
    assets = ("metal-amd64-uki.efi", "metal-amd64.iso")
    factory.build(order(*assets))
    monkeypatch.setattr("local_imager.build.bench.scratch_bytes", lambda *_, **__: 0)
    for rebuild in (True, False):
        uki, iso = factory.build(replace(order(*assets), rebuild=rebuild))
        assert (uki.cached, uki.varies) == (not rebuild, ())
        assert "file systems: their files were collected on a disk, not in memory" in iso.varies
        assert iso.as_dict()["varies"] == list(iso.varies)


def test_assets_are_built_once_and_exported_in_the_order_asked_for(
    world: World, runner: FakeRunner
) -> None:
    sink = RecordingSink()
    factory = Factory(settings_for(world), sink=sink, runner=runner)
    assets = ("metal-arm64-uki.efi", "kernel-amd64", "metal-amd64-uki.efi", "kernel-amd64")
    results = factory.build(order(*assets, out=world.path / "out"))
    assert [result.asset for result in results] == list(dict.fromkeys(assets))
    assert len(runner.requests) == 5  # the extensions are packed once for each architecture
    for result in results:
        wanted = world.path / "out" / result.schematic_id[:12] / "v1.13.0" / result.asset
        assert result.path == wanted and wanted.with_name(f"{wanted.name}.sha256").exists()
        assert not result.cached
    again = factory.build(order("kernel-amd64", "metal-amd64.iso"))
    assert [result.cached for result in again] == [True, False]
    assert [result.path for result in again] == [None, None]
    assert len(runner.requests) == 6  # and once for all builds
    outcomes = [e.outcome for e in sink.events if isinstance(e, StepFinished) and e.step == "build"]
    assert outcomes.count("cached") == 1


def test_what_was_done_is_kept_beside_the_asset(world: World, runner: FakeRunner) -> None:
    factory = Factory(settings_for(world), runner=runner)
    wanted = BuildOrder(SECRET, "v1.13.0", ("metal-amd64-uki.efi",))
    (result,) = factory.build(wanted)
    assert result.schematic_id == schematic_id(SECRET)
    stored = factory.store.find_build(result.build_key)
    assert stored is not None and stored.private
    (schematic,), (record,), (log,) = (
        factory.store.read_referrers(stored, kind)
        for kind in (ARTIFACT_SCHEMATIC, ARTIFACT_BUILD_RECORD, ARTIFACT_BUILD_LOG)
    )
    assert schematic == canonical_bytes(SECRET)
    assert b"hunter2" not in record + log
    document = json.loads(record)
    assert document["digest"] == str(result.digest)
    assert document["build_key"] == result.build_key


def test_what_was_finished_before_a_failure_stays(world: World) -> None:
    def fails_for_the_iso(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        return ("false",) if "iso" in request.subject else imager(request, command)

    factory = Factory(settings_for(world), runner=FakeRunner(fails_for_the_iso))
    with pytest.raises(BuildError, match=r"metal-amd64\.iso"):
        factory.build(order("kernel-amd64", "metal-amd64.iso"))
    (kept,) = factory.build(order("kernel-amd64"))
    assert kept.cached


def test_a_build_again_is_asked_for(world: World, runner: FakeRunner) -> None:
    factory = Factory(settings_for(world), runner=runner)
    factory.build(order("kernel-amd64"))
    (result,) = factory.build(replace(order("kernel-amd64"), rebuild=True))
    assert not result.cached and len(runner.requests) == 2


def test_a_plan_knows_what_is_cached_and_runs_nothing(world: World, runner: FakeRunner) -> None:
    factory = Factory(settings_for(world), runner=runner)
    assert not factory.plan(order("kernel-amd64"))[0].cached
    assert not runner.requests
    factory.build(order("kernel-amd64"))
    assert factory.plan(order("kernel-amd64"))[0].cached


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (order("metal-amd64.ios"), InputError),
        (order("kernel-amd64", version="v1.9"), InputError),
        (order("kernel-amd64", version="v1.12.9"), LocalImagerError),
    ],
)
def test_a_wrong_order_runs_nothing(
    world: World, runner: FakeRunner, wanted: BuildOrder, error: type[LocalImagerError]
) -> None:
    with pytest.raises(error) as caught:
        Factory(settings_for(world), runner=runner).build(wanted)
    assert caught.value.exit_code == 2
    assert not runner.requests


def test_an_image_that_nobody_vouches_for_is_not_run(world: World, runner: FakeRunner) -> None:
    world.signing = Signing()
    with pytest.raises(VerificationRefused):
        Factory(settings_for(world), runner=runner).build(order("kernel-amd64"))
    assert not runner.requests


def test_a_cancelled_build_leaves_no_working_files(world: World) -> None:
    cancel = threading.Event()

    def cancels(request: ImagerRequest, _: tuple[str, ...]) -> tuple[str, ...]:
        cancel.set()
        return ("sleep", "60")

    factory = Factory(settings_for(world), runner=FakeRunner(cancels), cancel=cancel)
    with pytest.raises(LocalImagerError) as caught:
        factory.build(order("kernel-amd64"))
    assert caught.value.exit_code == 130
    assert not list(factory.store.work_dir.iterdir())


def test_a_plan_says_what_is_made_from_a_normalised_initramfs(
    world: World, runner: FakeRunner
) -> None:
    factory = Factory(settings_for(world), runner=runner)
    wanted = order("kernel-amd64", "metal-amd64-uki.efi")
    assert [entry.as_dict()["initramfs"] for entry in factory.plan(wanted)] == [None, "normalised"]
    exact = factory.plan(replace(wanted, exact=True))
    assert [entry.as_dict()["initramfs"] for entry in exact] == [None, None]
    assert not runner.requests
