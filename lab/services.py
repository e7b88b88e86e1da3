"""Long-running services that several `lab run` may share: the last user stops them.

Each user holds a shared lock; whoever gets the exclusive one afterwards was the last. The kernel
drops locks of killed processes, so nothing has to be counted.
"""

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from lab.console import say


class Service(Protocol):
    """Something that runs in the background and can be asked whether it answers."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def folder(self) -> Path:
        """Where its locks, data and logs lie."""

    def start(self) -> list[int]:
        """Start it, wait until it answers, and return the ids of its processes."""

    def answers(self) -> bool:
        """Whether it takes requests now."""

    def address(self) -> str:
        """Where it takes them."""

    def clean(self) -> None:
        """Remove what a stopped service leaves behind (sockets, mounts)."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, told apart by start time from a later one that got the same number."""

    pid: int
    started_ticks: int


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a running process, None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else ProcessId(pid, int(fields[19]))


def stop_process(process: ProcessId, patience_s: float = 15) -> None:
    """End a process: politely first, then by force. Others with its number are left alone."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
        if _has_ended(process):
            return
        os.kill(process.pid, number)
        deadline_s = time.monotonic() + wait_s
        while not _has_ended(process) and time.monotonic() < deadline_s:
            time.sleep(0.05)


def _has_ended(process: ProcessId) -> bool:
    try:
        # A child counts as ended when the kernel hands it over, with its last thread gone.
        return os.waitpid(process.pid, os.WNOHANG)[0] == process.pid
    except ChildProcessError:
        return identify(process.pid) != process


@contextmanager
def shared_service(service: Service) -> Iterator[str]:
    """Have the service running while the block runs, and yield its address."""
    service.folder.mkdir(parents=True, exist_ok=True)
    with (service.folder / "users.lock").open("a+") as users:
        with (service.folder / "start.lock").open("a+") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not service.answers():
                _stop(service)
                say(f"starting {service.name}")
                _remember(service, service.start())
        try:
            yield service.address()
        finally:
            with (service.folder / "start.lock").open("a+") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                if _is_last(users):
                    _stop(service)


def stop_unused(service: Service) -> None:
    """Stop a service that a killed `lab run` left behind, unless somebody uses it."""
    if not service.folder.exists():
        return
    with (service.folder / "users.lock").open("a+") as users:
        if _is_last(users):
            _stop(service)


def is_used(service: Service) -> bool:
    """Whether a running `lab run` holds the service."""
    if not service.folder.exists():
        return False
    with (service.folder / "users.lock").open("a+") as users:
        return not _is_last(users)


def _is_last(users: TextIO) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remember(service: Service, pids: list[int]) -> None:
    known = [identify(pid) for pid in pids]
    state = [[item.pid, item.started_ticks] for item in known if item is not None]
    (service.folder / "processes.json").write_text(json.dumps(state))


def _stop(service: Service) -> None:
    state = service.folder / "processes.json"
    try:
        processes = [ProcessId(*item) for item in json.loads(state.read_text())]
    except (OSError, ValueError, TypeError):
        processes = []
    for process in processes:
        stop_process(process)
    state.unlink(missing_ok=True)
    service.clean()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float = 5) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_answers(address: str) -> bool:
    """Whether a container engine answers at a ``unix://``, ``tcp://`` or ``ssh://`` address."""
    scheme, _, rest = address.partition("://")
    if scheme == "ssh":
        docker = shutil.which("docker")
        argv = [docker or "docker", "--host", address, "version"]
        return docker is not None and subprocess.run(argv, capture_output=True).returncode == 0
    connection: http.client.HTTPConnection
    if scheme == "unix":
        connection = UnixConnection(rest)
    else:
        connection = http.client.HTTPConnection(rest.rstrip("/"), timeout=5)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
