"""Newer engines out of a Debian sid root: a remote Docker, and Podman's socket.

Each runs in a mount namespace of its own whose root is the sid root (pivot_root, since a plain
chroot fails in runc).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, run
from lab.engine import await_engine, short_folder
from lab.place import Place
from lab.registry import free_port
from lab.services import engine_answers
from lab.sid import in_root, install_in, package_versions
from lab.steps import Facts, StepResult, build_lock, do_step, key_of, load_result, unmount_below

PACKAGES = ("docker.io", "podman", "runc", "iptables", "ca-certificates")

_DAEMON_JSON = {
    "features": {"containerd-snapshotter": True},
    "bridge": "none",
    "iptables": False,
    "ip6tables": False,
}

_CONTAINERS_CONF = """\
[containers]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""

_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""

_POLICY_JSON = '{"default": [{"type": "insecureAcceptAnything"}]}'

_ENTER = """\
set -e
root=$1; data=$2; inside=$3; binds=$4
shift 4
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$inside"
mount --bind "$data" "$root$inside"
printf '%s' "$binds" | while read -r path; do
  mkdir -p "$root$path"
  mount --rbind "$path" "$root$path"
done
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec "$@"
"""
"""Arguments: root, data folder outside and inside, paths to share one per line, command."""


def engines_root(place: Place) -> Path:
    """Return the sid root with the engines, making it first when that has not been done."""
    stored = load_result(place, "engines")
    if stored is None or stored.facts["key"] != key_of(_inputs(_sid(place))):
        with build_lock(place):
            stored = make_engines_root(place)
    return stored.folder / "root"


def _sid(place: Place) -> StepResult:
    sid = load_result(place, "sid")
    if sid is None:
        raise LabError("the lab is not built: python3 -m lab build")
    return sid


def _inputs(sid: StepResult) -> dict[str, object]:
    texts = [json.dumps(_DAEMON_JSON), _CONTAINERS_CONF, _STORAGE_CONF, _POLICY_JSON]
    return {"sid": sid.content, "packages": PACKAGES, "configuration": texts}


def make_engines_root(place: Place) -> StepResult:
    """Make the sid root with Docker and Podman, on top of a copy of the imager's root.

    For callers that hold the build lock.
    """
    sid = _sid(place)

    def work(folder: Path) -> Facts:
        root, log = folder / "root", folder / "log"
        run(["cp", "-a", "--reflink=auto", sid.folder / "root", root])
        in_root(root, ["apt-get", "update"], log)
        install_in(root, PACKAGES, log)
        files = {
            "etc/docker/daemon.json": json.dumps(_DAEMON_JSON),
            "etc/containers/containers.conf": _CONTAINERS_CONF,
            "etc/containers/storage.conf": _STORAGE_CONF,
            "etc/containers/policy.json": _POLICY_JSON,
        }
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        known = package_versions(root, log)
        return {"packages": {name: known[name] for name in PACKAGES}}

    title = "newer engines (Docker and Podman of Debian sid)"
    return do_step(place, "engines", title, _inputs(sid), work)


def _launch(
    service: "RemoteDocker | Podman", inside: str, shared: Sequence[str], command: Sequence[str]
) -> int:
    """Start a command in the sid root and return its process id once its engine answers."""
    if os.geteuid() != 0:
        raise LabError(f"{service.name} needs root")
    root = engines_root(service.place)
    data = service.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    log_path = service.folder / "log"
    binds = "".join(f"{path}\n" for path in shared)
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "enter"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*argv, str(root), str(data), inside, binds, *command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/var/lib", "LC_ALL": "C.UTF-8"},
        )
    await_engine(service.answers, process, log_path)
    return process.pid


@dataclass(slots=True)
class RemoteDocker:
    """Docker 28 with the containerd image store, over TCP, sharing no file system with us."""

    place: Place
    name: str = "a remote Docker engine (Debian sid)"

    @property
    def folder(self) -> Path:
        return self.place.services / "remote-engine"

    def address(self) -> str:
        try:
            return (self.folder / "address").read_text().strip()
        except OSError:
            return "tcp://127.0.0.1:1"

    def answers(self) -> bool:
        return engine_answers(self.address())

    def start(self) -> list[int]:
        """Start dockerd in its own mount namespace and wait for it."""
        address = f"tcp://127.0.0.1:{free_port()}"
        (self.folder / "address").write_text(address)
        command = ["dockerd", "--host", address, "--tls=false", "--pidfile", "/run/lab-docker.pid"]
        return [_launch(self, "/var/lib/docker", (), command)]

    def clean(self) -> None:
        """Forget the address; the mounts went with the namespace."""
        (self.folder / "address").unlink(missing_ok=True)


@dataclass(slots=True)
class Podman:
    """Podman's API socket; it sees the caller's files, as a local Podman does."""

    place: Place
    name: str = "Podman (Debian sid)"

    @property
    def folder(self) -> Path:
        return self.place.services / "podman"

    @property
    def _runtime(self) -> Path:
        return short_folder(self.place, "podman")

    def address(self) -> str:
        return f"unix://{self._runtime}/podman.sock"

    def answers(self) -> bool:
        return engine_answers(self.address())

    def start(self) -> list[int]:
        """Start Podman's service and wait for it."""
        (self._runtime / "podman.sock").unlink(missing_ok=True)
        command = ["podman", "system", "service", "--time=0", self.address()]
        return [_launch(self, "/var/lib/containers", _callers_folders(), command)]

    def clean(self) -> None:
        """Remove the socket."""
        unmount_below(self.folder)
        shutil.rmtree(self._runtime, ignore_errors=True)


_SYSTEM_FOLDERS = frozenset(
    "bin boot dev etc lib lib32 lib64 libx32 lost+found proc run sbin sys usr var".split()
)


def _callers_folders() -> list[str]:
    """Return the host's top folders that hold people's files, to be seen at the same paths."""
    tops = [path for path in Path("/").iterdir() if path.is_dir() and not path.is_symlink()]
    return sorted(f"/{path.name}" for path in tops if path.name not in _SYSTEM_FOLDERS)
