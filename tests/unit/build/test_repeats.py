"""A build record tells what may come out otherwise, and where the build ran; nothing is trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from local_imager.build.record import build_record
from local_imager.build.repeats import (
    Surroundings,
    follows_disk,
    parse_record,
    scratch_of,
    surroundings_of,
    varying,
)
from local_imager.build.request import EngineInfo
from local_imager.profile.version import TalosVersion
from tests.unit.build.samples import disk_plan, made_up_images, plan

ENGINE = EngineInfo("docker", "28", "1.51", "linux", "amd64", "classic", cpus=4)


def record_of(engine: EngineInfo = ENGINE, entry: Any = None, **more: Any) -> dict[str, Any]:
    document = build_record(
        entry or plan(), made_up_images(), engine=engine, profile={}, runs=[],
        started_at="", duration_s=1.0, exact=False, epoch=1, workers=3,
    )  # fmt: skip
    read: dict[str, Any] = json.loads(json.dumps({**document, **more}))
    return read


def test_a_record_says_where_the_build_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert surroundings_of(record_of()) == Surroundings(3, "65532:65532", 4)
    one = replace(ENGINE, cpuset="0", unprivileged_id=7)
    assert surroundings_of(record_of(one)) == Surroundings(3, "7:7", 1)
    mounting = disk_plan("metal-amd64.raw", builder=TalosVersion(1, 9, 0))
    assert surroundings_of(record_of(entry=mounting)) == Surroundings(3, "0:0", 4)


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {"workers": 3, "user": "1:1"},
        {"workers": "3", "user": "1:1", "processors": 1},
        {"workers": 3, "user": 1, "processors": 1},
        {"workers": 0, "user": "1:1", "processors": 1},
        {"workers": 10**40, "user": "1:1", "processors": 1},
    ],
)
def test_a_record_that_does_not_say_it_is_not_guessed_at(told: Any) -> None:
    assert surroundings_of({"surroundings": told}) is None


def run(scratch: Any) -> dict[str, Any]:
    return {"runs": [{"scratch": "memory"}, {"scratch": scratch}, 3]}


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (run("memory"), "memory"),
        (run("disk"), "disk"),
        (run(["disk"]), "memory"),
        ({"runs": "disk"}, ""),
        ({}, ""),
    ],
)
def test_temporary_files_are_on_disk_when_one_run_had_them_there(record: Any, place: str) -> None:
    assert scratch_of(record) == place


def test_only_file_systems_follow_the_disk_of_temporary_files() -> None:
    for kind, said in (("iso", 1), ("image", 1), ("uki", 0), ([], 0)):
        record = run("disk") | {"profile": {"output": {"kind": kind}}}
        assert follows_disk(record) == bool(said)
        assert len(varying(record)) == said


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 200_000, b"\xff"])
def test_what_is_no_record_says_nothing(data: bytes) -> None:
    assert parse_record([b"{}", data]) == {}


def test_the_last_record_counts() -> None:
    assert parse_record([]) == {}
    assert parse_record([b'{"a": 1}', b'{"a": 2}']) == {"a": 2}
