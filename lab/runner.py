"""`lab run`: start what is asked for, run a command with it, stop all of it."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lab.console import LabError, say
from lab.engine import DockerEngine, present_engine
from lab.oci import Layout
from lab.place import Place
from lab.registry import fill_storage, running_registry
from lab.services import Service, shared_service, stop_unused
from lab.sidengines import Podman, RemoteDocker
from lab.steps import load_result, remove_tree


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `lab run` is to start."""

    engine: bool = False
    registry: bool = False
    remote_engine: bool = False
    podman: bool = False


class _Stopped(BaseException):
    """A signal came before the command was started."""


def run_with(place: Place, wanted: Wanted, command: Sequence[str]) -> int:
    """Run a command in the lab's company and return its exit code (128 + N for signal N)."""
    if not command:
        raise LabError("no command given: python3 -m lab run [options] -- COMMAND …")
    place.ensure()
    child: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: FrameType | None) -> None:
        if not child:
            raise _Stopped(number)
        by_terminal = number == signal.SIGINT and _in_foreground()
        if child[0].poll() is None and not by_terminal:
            child[0].send_signal(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, forward) for number in handled}
    try:
        with ExitStack() as stack:
            env = _start(place, wanted, stack)
            try:
                child.append(subprocess.Popen(command, env={**os.environ, **env}))
            except OSError as problem:
                raise LabError(f"cannot run {command[0]}: {problem.strerror}") from problem
            code = child[0].wait()
        return code if code >= 0 else 128 - code
    except _Stopped as stopped:
        return 128 + int(stopped.args[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a Ctrl-C of the terminal reaches the command by itself, as one of its group."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _start(place: Place, wanted: Wanted, stack: ExitStack) -> dict[str, str]:
    env = {"LOCAL_IMAGER_LAB": str(place.root)}
    if wanted.engine:
        present = present_engine()
        if present is None:
            env["DOCKER_HOST"] = stack.enter_context(shared_service(DockerEngine(place)))
        else:
            say(f"using the engine that answers at {present}")
    if wanted.registry:
        env["LAB_REGISTRY"] = stack.enter_context(lab_registry(place))
    if wanted.remote_engine:
        env["LAB_REMOTE_ENGINE"] = stack.enter_context(shared_service(RemoteDocker(place)))
    if wanted.podman:
        env["LAB_PODMAN"] = stack.enter_context(shared_service(Podman(place)))
    return env


@contextmanager
def lab_registry(place: Place) -> Iterator[str]:
    """Serve the lab's images from a real registry of this run's own; yield its address.

    The storage is a folder of hard links, so what a run pushes or deletes is gone with it.
    """
    package = load_result(place, "registry")
    try:
        layout = Layout.open(place.upstream)
    except (OSError, ValueError):
        layout = None
    if package is None or layout is None:
        raise LabError("the lab is not built: python3 -m lab build")
    base = place.services / "registry"
    base.mkdir(parents=True, exist_ok=True)
    _remove_stale(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
    try:
        fill_storage(layout, folder / "storage")
        with running_registry(package.folder / "unpacked", folder) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(base: Path) -> None:
    for folder in base.iterdir():
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            remove_tree(folder)


def all_services(place: Place) -> list[Service]:
    """Return every shared service of the lab, running or not."""
    return [DockerEngine(place), RemoteDocker(place), Podman(place)]


def stop_leftovers(place: Place) -> None:
    """Stop services that a killed `lab run` left behind."""
    for service in all_services(place):
        stop_unused(service)
