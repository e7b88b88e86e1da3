"""What the store saves: building twice, two processes with one wish, two with different ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import docker
import pytest

from tests.integration.containers import containers_of, wait_until
from tests.labfolder import OLDEST
from tests.program import SCHEMATICS, Program, Running

pytestmark = [pytest.mark.lab, pytest.mark.engine]

VANILLA = SCHEMATICS / "vanilla.yaml"
RECORD = "application/vnd.local-imager.build-record.v1+json"


def start_build(program: Program, asset: str, out: Path) -> Running:
    arguments = ("--version", OLDEST, "--out", out, "--json")
    return program.start("build", VANILLA, asset, *arguments)


def test_a_second_build_is_cached(own: Program, folder: Path) -> None:
    first = own.build(VANILLA, "metal-amd64-uki.efi", version=OLDEST)
    other_out = Program(own.config, own.store, folder / "other", env={"DOCKER_HOST": "unix:///no"})
    second = other_out.build(VANILLA, "metal-amd64-uki.efi", version=OLDEST)
    assert [result["cached"] for result in first + second] == [False, True]
    assert Path(second[0]["path"]).read_bytes() == Path(first[0]["path"]).read_bytes()
    same = ("digest", "build_key", "manifest_digest", "schematic_id", "size_bytes")
    assert [second[0][name] for name in same] == [first[0][name] for name in same]
    rebuilt = own.build(VANILLA, "metal-amd64-uki.efi", "--rebuild", version=OLDEST)
    assert not rebuilt[0]["cached"]
    own.fsck()


def test_two_processes_that_want_the_same_build_it_once(own: Program, folder: Path) -> None:
    calls = [start_build(own, "metal-amd64.iso", folder / name) for name in ("one", "two")]
    results = [call.wait().expect(0).json[0] for call in calls]
    assert Counter(result["cached"] for result in results) == {False: 1, True: 1}
    assert len({result["digest"] for result in results}) == 1
    shown = own("store", "show", results[0]["manifest_digest"], "--json").expect(0).json
    assert [entry["type"] for entry in shown["attached"]].count(RECORD) == 1
    own.fsck()


@pytest.mark.parametrize(("limit", "together"), [("2", True), ("1", False)])
def test_different_builds_run_side_by_side_up_to_the_limit(
    own: Program, folder: Path, engine: docker.DockerClient, limit: str, together: bool
) -> None:
    env = {"LOCAL_IMAGER_BUILD_MAX_BUILDS": limit}
    program = Program(own.config, own.store, own.out, env=env)
    calls = [
        start_build(program, asset, folder / asset)
        for asset in ("metal-amd64.qcow2", "nocloud-amd64.qcow2")
    ]
    most = 0

    def all_ended() -> bool:
        nonlocal most
        busy = [bool(containers_of(engine, call.process.pid, running=True)) for call in calls]
        most = max(most, sum(busy))
        return all(call.process.poll() is not None for call in calls)

    wait_until(all_ended, "the end of both builds", 180)
    for call in calls:
        call.wait().expect(0)
    assert most == (2 if together else 1)
    own.fsck()
