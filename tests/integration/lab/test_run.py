"""`lab run`: exit codes, signals, and nothing left behind however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.engine import DockerEngine
from lab.place import Place
from lab.services import engine_answers, is_used
from lab.sidengines import Podman, RemoteDocker
from tests.integration.lab.conftest import lab_run

pytestmark = pytest.mark.lab

TALK_TO_REGISTRY = (
    "import os, sys, urllib.request as u;"
    "sys.stdout.write(u.urlopen('http://' + os.environ['LAB_REGISTRY']"
    " + '/v2/siderolabs/imager/tags/list').read().decode());"
    "sys.exit(7)"
)


def _abandoned(place: Place) -> list[str]:
    """Registry folders whose `lab run` is gone; other runs on this machine may have theirs."""
    names = [folder.name for folder in (place.services / "registry").iterdir()]
    return [name for name in names if not Path(f"/proc/{name.partition('-')[0]}").exists()]


def test_exit_code_and_registry(lab_place: Place) -> None:
    done = lab_run("--registry", command=[sys.executable, "-c", TALK_TO_REGISTRY])
    assert done.returncode == 7, done.stderr
    assert "v1.13.0" in done.stdout
    assert _abandoned(lab_place) == []


def test_unknown_command_is_said_plainly(lab_place: Place) -> None:
    done = lab_run(command=["no-such-program-here"])
    assert done.returncode == 1
    assert "cannot run no-such-program-here" in done.stderr


def _start(*options: str, script: str, ready: Path) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "lab", "run", *options, "--", "sh", "-c", script]
    process = subprocess.Popen(argv, start_new_session=True)
    deadline_s = time.monotonic() + 120
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(
    lab_place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 42' TERM INT; echo $LAB_REGISTRY > {ready}; while :; do sleep 0.1; done"
    process = _start("--registry", script=script, ready=ready)
    process.send_signal(number)
    assert process.wait(20) == 42
    assert not engine_answers(f"tcp://{ready.read_text().strip()}")


def test_registry_dies_with_a_killed_run(lab_place: Place, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"echo $LAB_REGISTRY > {ready}; exec sleep 60"
    process = _start("--registry", script=script, ready=ready)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    address = ready.read_text().strip()
    deadline_s = time.monotonic() + 10
    while subprocess.run(["curl", "-sf", f"http://{address}/v2/"]).returncode == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert lab_run("--registry", command=["true"]).returncode == 0
    assert _abandoned(lab_place) == []


@pytest.mark.engine
def test_engine_is_shared_and_the_last_user_stops_it(
    lab_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A lab folder of its own, so that an engine of the tests around this one stays untouched, and
    # an address where nothing answers, so that an engine of the machine is not used instead.
    monkeypatch.setenv("LOCAL_IMAGER_LAB", str(tmp_path / "lab"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    service = DockerEngine(Place(tmp_path / "lab"))
    first, second = tmp_path / "first", tmp_path / "second"
    one = _start("--engine", script=f"touch {first}; sleep 60", ready=first)
    two = _start("--engine", script=f"touch {second}; sleep 60", ready=second)
    one.terminate()
    one.wait(30)
    assert service.answers()
    os.killpg(two.pid, signal.SIGKILL)  # nobody is left who could stop the engine …
    two.wait()
    assert service.answers()
    assert not is_used(service)
    done = lab_run("--engine", command=["sh", "-c", "echo $DOCKER_HOST"])
    assert done.stdout.strip() == service.address(), done.stderr  # … so the next one uses it
    assert not service.answers()  # … and stops it


@pytest.mark.engine
def test_newer_engines_answer(lab_place: Place) -> None:
    script = "echo $LAB_REMOTE_ENGINE $LAB_PODMAN; python3 -c '" + (
        "import os; from lab.services import engine_answers as a;"
        'print(a(os.environ["LAB_REMOTE_ENGINE"]), a(os.environ["LAB_PODMAN"]))'
    )
    done = lab_run("--remote-engine", "--podman", command=["sh", "-c", script + "'"])
    assert done.returncode == 0, done.stderr
    _, answers = done.stdout.splitlines()
    assert answers == "True True"
    for service in (RemoteDocker(lab_place), Podman(lab_place)):
        assert is_used(service) or not service.answers()  # other runs may have it still
