"""Stopping in the middle: by the user, by a killed process, by a time limit."""

from __future__ import annotations

import signal
import time

import docker
import pytest

from tests.integration.containers import (
    containers_of,
    removed_since,
    volumes_of,
    wait_until,
)
from tests.labfolder import OLDEST
from tests.program import SCHEMATICS, Program, Running

pytestmark = [pytest.mark.lab, pytest.mark.engine]

ORDER = ("build", SCHEMATICS / "vanilla.yaml", "nocloud-amd64.raw.zst", "--version", OLDEST)
STOP_WITHIN_S = 2.0


def start_until_the_imager_runs(program: Program, engine: docker.DockerClient) -> Running:
    call = program.start(*ORDER, "--out", program.out)
    pid = call.process.pid

    def runs() -> bool:
        assert call.process.poll() is None, call.wait().stderr
        return bool(containers_of(engine, pid, running=True))

    wait_until(runs, "the imager's start")
    time.sleep(0.3)
    return call


def kill_while_it_has_a_container(call: Running, engine: docker.DockerClient) -> float:
    """Kill it at a moment when a container is there; returns that moment (Unix time).

    Between two of its containers there is none. It is frozen, so that none goes while we look.
    """

    def has_one() -> bool:
        assert call.process.poll() is None, call.wait().stderr
        call.signal(signal.SIGSTOP)
        # What it asked of the engine before is done by then.
        time.sleep(0.3)
        if containers_of(engine, call.process.pid):
            return True
        call.signal(signal.SIGCONT)
        return False

    wait_until(has_one, "a container")
    killed_s = time.time()
    call.signal(signal.SIGKILL)
    return killed_s


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_imager_at_once(
    own: Program, engine: docker.DockerClient, number: signal.Signals
) -> None:
    call = start_until_the_imager_runs(own, engine)
    call.signal(number)
    took_s = wait_until(
        lambda: not containers_of(engine, call.process.pid), "the container's end", 30
    )
    call.wait(30).expect(130, "interrupted")
    assert took_s < STOP_WITHIN_S
    assert not volumes_of(engine, call.process.pid)
    assert not list(own.out.rglob("*.zst*"))
    own.fsck()
    assert own("store", "ls", "--json").expect(0).json["assets"][0]["asset"] == "kernel-amd64"


def test_a_killed_build_leaves_nothing_that_the_next_one_does_not_mend(
    own: Program, engine: docker.DockerClient
) -> None:
    call = start_until_the_imager_runs(own, engine)
    pid = call.process.pid
    killed_s = kill_while_it_has_a_container(call, engine)
    assert call.wait(10).code == -signal.SIGKILL
    # It is left behind; on a shared engine the next build may be that of another test.
    assert containers_of(engine, pid) or removed_since(engine, pid, killed_s)
    own.fsck()
    own(*ORDER, "--out", own.out).expect(0, "nocloud-amd64.raw.zst")
    assert not containers_of(engine, pid)
    own.fsck()


def test_a_build_that_takes_too_long_is_stopped(own: Program, engine: docker.DockerClient) -> None:
    own(*ORDER, "--timeout", "1", "--out", own.out).expect(
        1, "did not end within 1 s", "build.timeout_s"
    )
    own.fsck()
