"""What was built is built again elsewhere, and the answer is kept beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local_imager.build.container import container_options, container_user
from local_imager.build.request import EngineInfo, ImagerRequest
from local_imager.build.runner import DockerRunner
from local_imager.cli import reproduce as shown
from local_imager.deliver import reproduce
from local_imager.deliver.reproduce import (
    OtherSurroundings,
    Reproduction,
    verify_reproducible,
)
from local_imager.deliver.reproduced import ARTIFACT_REPRODUCTION, last_reproduction
from local_imager.oci.model import Digest
from local_imager.pipeline import BuildOrder, Factory
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic
from tests.addedsegments import packed_extensions
from tests.fakerunner import ENGINE, FakeRunner
from tests.unit.pipeline.test_factory import settings_for
from tests.unit.sources.test_upstream import World

SECRET = parse_schematic(b"customization: {extraKernelArgs: [key=hunter2]}\n")
ASSETS = ("metal-amd64-uki.efi", "kernel-amd64", "initramfs-amd64.xz")
Imager = Callable[[ImagerRequest, tuple[str, ...]], tuple[str, ...]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(reproduce, "_APART_S", 0.0)
    return World(tmp_path)


def imager_of(day: int) -> Imager:
    """An imager whose kernels know the day; everything else follows from its inputs."""

    def imager(request: ImagerRequest, _: tuple[str, ...]) -> tuple[str, ...]:
        (name,) = request.outputs
        target = request.output_dir / name
        if name.startswith("initramfs"):
            target.write_bytes(packed_extensions(request))
        elif name.startswith("kernel"):
            target.write_bytes(b"kernel of day %d" % day)
        else:
            given = json.loads(request.stdin)["input"]["initramfs"]["path"]
            assert request.input_dir is not None
            target.write_bytes((request.input_dir / given.removeprefix("/in/")).read_bytes())
        return ("cat",)

    return imager


def answers(world: World, day: int = 1, *assets: str) -> tuple[Factory, list[Reproduction]]:
    factory = Factory(settings_for(world), runner=FakeRunner(imager_of(1)))
    order = BuildOrder(SECRET, "v1.13.0", assets or ASSETS)
    results = factory.build(order)
    runner = FakeRunner(imager_of(day))
    found = verify_reproducible(factory, order, results, runner=runner)
    assert [request.subject for request in runner.requests]  # nothing was taken from the first
    return factory, found


def test_equal_builds_are_told_and_kept(world: World) -> None:
    factory, found = answers(world)
    assert [(one.asset, one.equal) for one in found] == [(asset, True) for asset in ASSETS]
    assert shown.exit_code(found) == 0
    for asset in factory.store.assets():
        (document,) = factory.store.read_referrers(asset, ARTIFACT_REPRODUCTION)
        told = json.loads(document)
        assert (told["equal"], told["digest"]) == (True, str(asset.digest))
        assert "store" in told["varied"] and "workers" in told["varied"]
        assert str(world.path) not in document.decode()
        assert b"hunter2" not in document
    assert not list(factory.store.work_dir.iterdir())


def test_a_difference_is_found_and_kept(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "_compared", lambda *_: None)
    factory, found = answers(world, 2, "kernel-amd64", "metal-amd64-uki.efi")
    kernel, uki = found
    assert uki.equal and not kernel.equal
    assert kernel.first_offset == len("kernel of day ")
    stored = factory.store.show(str(kernel.digest))
    (document,) = factory.store.read_referrers(stored, ARTIFACT_REPRODUCTION)
    assert json.loads(document)["equal"] is False
    assert shown.exit_code(found) == 4
    shown.print_answers(found)
    text = capsys.readouterr().out
    assert "differs from byte 14 on" in text and "the same bytes" in text


def test_each_result_in_json_has_its_answer(world: World) -> None:
    _, found = answers(world)
    documents = shown.with_answers([{"asset": one.asset} for one in found], found)
    assert [document["reproducible"]["equal"] for document in documents] == [True] * 3
    json.dumps(documents)


def test_where_parts_differ_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    difference: Any = SimpleNamespace(path="ESP/x.efi", what="the signature", noise="signing-time")
    comparison: Any = SimpleNamespace(
        differences=(difference,), verdict=SimpleNamespace(word="named-noise")
    )
    one = Reproduction(
        "a.iso", Digest.of(b"1"), Digest.of(b"2"), {}, (), 3.0, 7, comparison=comparison
    )
    shown.print_answers([one])
    text = capsys.readouterr().out
    assert "named-noise" in text and "ESP/x.efi: the signature (known noise: signing-time)" in text


def ran(
    workers: int = 2,
    user: str = "1:1",
    processors: int = 2,
    *,
    kind: str = "uki",
    scratch: str = "",
) -> dict[str, Any]:
    """What of a build record counts here."""
    return {
        "surroundings": {"workers": workers, "user": user, "processors": processors},
        "profile": {"output": {"kind": kind}},
        "runs": [{"scratch": scratch or "memory"}],
    }


def test_what_was_varied_is_told_from_both_records() -> None:
    told = reproduce._compared_records(ran(), ran(1, "2:2", 1), ENGINE)
    assert set(told.varied) == {"store", "staging", "workers", "user", "processors"}
    assert told.varied["workers"] == "1 in place of 2"
    assert (told.kept, told.on_disk) == ([], False)


def test_what_was_not_varied_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    told = reproduce._compared_records(ran(processors=1), ran(3, processors=1), ENGINE)
    assert set(told.varied) == {"store", "staging", "workers"}
    assert told.kept == [
        "user: only root can choose another (1:1)",
        "processors: the engine has no more than one (1)",
    ]
    rootless = dataclasses.replace(ENGINE, rootless=True, cpus=2)
    told = reproduce._compared_records(ran(), ran(3), rootless)
    assert told.kept[1] == "processors: a rootless engine has no choice (2)"


def test_an_older_record_does_not_say_what_was_varied() -> None:
    told = reproduce._compared_records({"runs": []}, ran(), ENGINE)
    assert set(told.varied) == {"store", "staging"}
    assert [one.partition(": not known")[0] for one in told.kept] == [
        "workers",
        "user",
        "processors",
    ]


@pytest.mark.parametrize(
    ("kind", "first", "second", "varied", "kept", "on_disk"),
    [
        ("iso", "memory", "memory", False, False, False),
        ("iso", "disk", "disk", False, True, True),
        ("image", "disk", "disk", False, True, True),
        ("uki", "disk", "disk", False, False, False),
        ("iso", "memory", "disk", True, False, False),
        ("iso", "disk", "memory", True, False, False),
        ("iso", "unknown", "disk", False, True, True),
        ("iso", "unknown", "memory", False, True, False),
    ],
)
def test_equal_bytes_of_temporary_files_on_disk_are_no_proof(
    kind: str, first: str, second: str, varied: bool, kept: bool, on_disk: bool
) -> None:
    told = reproduce._compared_records(
        ran(kind=kind, scratch=first), ran(1, "2:2", 1, kind=kind, scratch=second), ENGINE
    )
    assert ("temporary files" in told.varied) == varied
    assert any(one.startswith("temporary files: ") for one in told.kept) == kept
    assert told.on_disk == on_disk


def test_the_same_bytes_on_a_disk_are_not_told_without_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    varied, same = {"store": "another"}, Digest.of(b"1")
    kernel = Reproduction("kernel", same, same, varied, (), 3.0)
    iso = Reproduction("a.iso", same, same, varied, ("temporary files: x",), 3.0, on_disk=True)
    shown.print_answers([kernel, iso])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  store       another"
    assert lines[2] == "  kernel  the same bytes"
    assert lines[3].startswith("  a.iso   the same bytes, with temporary files on disk: not")
    assert lines[4] == "    not varied: temporary files: x"
    assert iso.as_dict()["temporary_files_on_disk"] is True


def test_the_second_build_has_workers_that_no_first_had() -> None:
    assert reproduce._other_workers([ran(2), {}]) == 1
    assert reproduce._other_workers([ran(1), ran(2)]) == 3
    assert reproduce._other_workers([ran(1), ran(3)]) == 5


def test_a_build_that_had_its_temporary_files_on_disk_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_imager.build.bench.scratch_bytes", lambda *_, **__: 0)
    factory, (iso, uki) = answers(world, 1, "metal-amd64.iso", "metal-amd64-uki.efi")
    assert (iso.equal, iso.on_disk) == (True, True)
    assert any(one.startswith("temporary files: on disk in both builds") for one in iso.kept)
    assert (uki.equal, uki.on_disk) == (True, False)
    stored = factory.store.show(f"{schematic_id(SECRET)}/v1.13.0/metal-amd64.iso")
    kept = last_reproduction(factory.store, stored)
    assert kept is not None and kept.equal and kept.on_disk


def test_a_first_build_of_another_day_is_told_as_it_was(world: World) -> None:
    """The settings of today say nothing of how a stored asset was built."""
    settings = settings_for(world, jobs=1)
    first = Factory(settings, runner=FakeRunner(imager_of(1)))
    order = BuildOrder(SECRET, "v1.13.0", ("kernel-amd64",))
    first.build(order)
    today = Factory(dataclasses.replace(settings, jobs=2), runner=FakeRunner(imager_of(1)))
    results = today.build(order)
    assert results[0].cached
    (answer,) = verify_reproducible(today, order, results, runner=FakeRunner(imager_of(1)))
    assert answer.varied["workers"] == "3 in place of 1"


@pytest.mark.parametrize(
    ("left", "right", "offset"),
    [
        (b"abc", b"abd", 2),
        (b"abc", b"ab", 2),
        (b"", b"a", 0),
        (b"x" * 3000000 + b"a", b"x" * 3000000 + b"b", 3000000),
    ],
)
def test_the_first_difference_is_found(
    tmp_path: Path, left: bytes, right: bytes, offset: int
) -> None:
    paths = tmp_path / "left", tmp_path / "right"
    for path, data in zip(paths, (left, right), strict=True):
        path.write_bytes(data)
    assert reproduce._first_difference(*paths) == offset


def test_the_other_surroundings_reach_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    found: list[EngineInfo] = []
    for rootless in (False, True):
        plain = EngineInfo("Docker", "", "", "linux", "amd64", "classic", rootless=rootless)
        monkeypatch.setattr(DockerRunner, "info", lambda _self, plain=plain: plain)
        monkeypatch.setattr(DockerRunner, "__init__", lambda _self: None)
        found.append(OtherSurroundings().info())
    other, rootless_one = found
    assert container_user(other).inside != container_user(ENGINE).inside
    request = ImagerRequest("x", "sha256:0", ("/bin/imager",), frozenset({"x"}), Path("out"))
    for engine, cpuset in ((other, "0"), (rootless_one, ""), (ENGINE, "")):
        options = container_options(request, engine, {}, {})
        assert options["HostConfig"]["CpusetCpus"] == cpuset
    assert container_user(rootless_one).inside == "0:0"
