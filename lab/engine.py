"""Debian's Docker engine on a private socket, for machines where no engine answers."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError
from lab.debian import need_packages
from lab.place import Place
from lab.registry import wait_until
from lab.services import engine_answers
from lab.steps import unmount_below

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def present_engine() -> str | None:
    """Return the address of an engine that answers already: DOCKER_HOST or the usual socket."""
    named = os.environ.get("DOCKER_HOST")
    address = named or DEFAULT_SOCKET
    return address if engine_answers(address) else None


def short_folder(place: Place, name: str) -> Path:
    """Return a folder with a short path, since a unix socket's path may have 107 bytes only."""
    digest = hashlib.sha256(str(place.root).encode()).hexdigest()[:10]
    folder = Path(tempfile.gettempdir()) / f"local-imager-lab-{os.getuid()}-{digest}" / name
    folder.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)
    return folder


@dataclass(slots=True)
class DockerEngine:
    """dockerd from Debian's docker.io; data in the lab's folder, socket in a short one."""

    place: Place
    name: str = "the Docker engine of Debian"

    @property
    def folder(self) -> Path:
        return self.place.services / "engine"

    @property
    def _runtime(self) -> Path:
        return short_folder(self.place, "engine")

    def address(self) -> str:
        return f"unix://{self._runtime}/docker.sock"

    def answers(self) -> bool:
        return engine_answers(self.address())

    def start(self) -> list[int]:
        """Start dockerd and wait for it; LabError with the end of its log when it fails."""
        if os.geteuid() != 0:
            raise LabError(
                "no container engine answers, and starting one needs root; start Docker or "
                "Podman, or set DOCKER_HOST"
            )
        need_packages(["engine"])
        log_path = self.folder / "dockerd.log"
        argv = [
            shutil.which("dockerd", path=_PATH) or "dockerd",
            "--data-root", str(self.folder / "data"),
            "--exec-root", str(self._runtime / "exec"),
            "--pidfile", str(self._runtime / "dockerd.pid"),
            "--host", self.address(),
        ]  # fmt: skip
        (self._runtime / "dockerd.pid").unlink(missing_ok=True)
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                argv,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PATH": f"{_PATH}:{os.environ.get('PATH', '')}"},
            )
        await_engine(self.answers, process, log_path)
        return [process.pid]

    def clean(self) -> None:
        """Unmount what a killed dockerd left, and remove its sockets."""
        unmount_below(self.folder)
        unmount_below(self._runtime)
        shutil.rmtree(self._runtime, ignore_errors=True)


def await_engine(
    answers: Callable[[], bool], process: "subprocess.Popen[bytes]", log_path: Path
) -> None:
    """Wait for an engine to answer; when it does not, or a signal comes, end it again."""
    try:
        wait_until(answers, process, f"the engine did not start, see {log_path}", 60)
    except BaseException as problem:
        process.terminate()
        process.wait()
        if isinstance(problem, LabError):
            tail = log_path.read_text(errors="replace").splitlines()[-5:]
            raise LabError("\n  ".join([str(problem), *tail])) from None
        raise
