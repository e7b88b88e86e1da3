"""What is asked of a container engine and what comes back; no engine is spoken to in here.

A request is complete: nothing about a run is decided later by the engine's defaults. The same
values drive the real runner, the fake of the unit tests, the build record and the ``docker run``
line that repeats a run by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from local_imager.errors import BuildError
from local_imager.events import EventSink
from local_imager.profile.model import Arch

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout
    from local_imager.sources.verify import VerifiedImage

# The epoch that the official factory builds with (2019-05-28), so equal inputs stay equal there.
DEFAULT_EPOCH: Final = 1559424892
# Read by mkfs.xfs in place of random numbers for inode seeds and the like.
DETERMINISTIC_SEED: Final = "1"

# Places inside the container. None holds a colon: profile paths and mounts would break on it.
# Inputs, an earlier run's outputs and the outputs lie one level below their mount, because the
# root directory of an engine volume belongs to root and cannot be given to another user.
INPUT_ROOT: Final = "/in"
OUTPUT_ROOT: Final = "/out/files"
SCRATCH_ROOT: Final = "/out/tmp"
DISK_ROOT: Final = "/disk/files"
KEY_ROOT: Final = "/secureboot"

# Used when the caller is root: an id without an account, a home or files anywhere.
UNPRIVILEGED_ID: Final = 65532

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one run.

    ``scratch_bytes`` is the size of the in-memory /tmp; 0 puts the temporary files beside the
    outputs on disk. ``max_file_bytes`` bounds every single file that the container writes.
    """

    memory_bytes: int = 4 * GIB
    pids: int = 256
    timeout_s: int = 1800
    scratch_bytes: int = 3 * GIB
    max_file_bytes: int = 64 * GIB


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a run gets beyond nothing; the default is nothing at all."""

    capabilities: tuple[str, ...] = ()
    device_rules: tuple[str, ...] = ()
    host_devices: bool = False
    unconfined_seccomp: bool = False
    root: bool = False

    def __bool__(self) -> bool:
        return self != NO_PRIVILEGES


NO_PRIVILEGES: Final = Privileges()


@dataclass(frozen=True, slots=True)
class ImagerRequest:
    """One run of a program of the builder image.

    ``image_id`` is the engine's ID as :meth:`Runner.load` gave it. ``command`` replaces the
    image's entrypoint. ``stdin`` is the profile document and ``shown_stdin`` what people may see
    of it. ``outputs`` are the only names that may appear in ``output_dir``; ``keep_in_engine`` are
    those of them that need not be brought to this host. ``keep`` holds the outputs ready for later
    requests that name ``output_dir`` as their ``disk_dir``, until :meth:`Runner.release`.
    ``secrets`` are texts that must not appear in logs or events.
    """

    subject: str
    image_id: str
    command: tuple[str, ...]
    outputs: frozenset[str]
    output_dir: Path
    arch: Arch = "amd64"
    stdin: bytes = field(default=b"", repr=False)
    input_dir: Path | None = None
    disk_dir: Path | None = None
    key_dir: Path | None = None
    keep: bool = False
    keep_in_engine: frozenset[str] = frozenset()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    privileges: Privileges = NO_PRIVILEGES
    shown_stdin: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    hide_command_line: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: its exit status, its (bounded, masked) log and its wall time."""

    exit_code: int
    log: str
    duration_s: float
    out_of_memory: bool = False


Storage = Literal["classic", "containerd", "podman"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the engine says of itself, as far as a build depends on it.

    The last two are choices of a runner: the id that root's containers run as, and the processors
    that they may use (all, when empty).
    """

    name: str
    version: str
    api_version: str
    os_type: str
    arch: str
    storage: Storage
    rootless: bool = False
    remapped_users: bool = False
    selinux: bool = False
    memory_bytes: int = 0
    cpus: int = 1
    cgroup_version: str = ""
    limits_memory: bool = True
    endpoint: str = ""
    unprivileged_id: int = UNPRIVILEGED_ID
    cpuset: str = ""


class ImagerFailed(BuildError):
    """The program in the container failed; carries its exit status and its log."""

    def __init__(
        self, message: str, *, hint: str, status: int, log: str, code: str = "imager-failed"
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.log = log


class BegunRun(Protocol):
    """A program that was started and waits for its input."""

    def finish(self) -> RunResult:
        """Give it its input and let it end; see :meth:`Runner.run`. To be called once."""


class Runner(Protocol):
    """A place where programs of verified images can be run."""

    def info(self) -> EngineInfo:
        """Return what the engine is; raises :class:`HostError` when it cannot be used."""

    def load(self, image: VerifiedImage, layout: Layout, arch: str | None, sink: EventSink) -> str:
        """Make a verified image available and return the ID that the engine knows it by.

        The ID is checked to be a digest of the verified image. ``arch`` None means the engine's
        own architecture. Nothing is ever pulled.
        """

    def run(self, request: ImagerRequest, sink: EventSink, cancel: threading.Event) -> RunResult:
        """Run to the end and leave the expected files in ``request.output_dir``.

        A non-zero exit is returned, not raised. Raises :class:`BuildError` for unexpected outputs
        and for a run that takes too long, :class:`Interrupted` when ``cancel`` is set, and
        :class:`HostError` when the engine cannot run it. The container is gone afterwards.
        """

    def begin(
        self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
    ) -> AbstractContextManager[BegunRun]:
        """Start a program that has a stdin before all its input files are there.

        They have to be in ``request.input_dir``, which exists already, when ``finish`` is called.
        Starting a container takes as long as a small asset: done beside the work that makes an
        input, it costs nothing. Whether anything happens before ``finish`` is the runner's choice.
        Leaving the context without ``finish`` stops the program; the container is gone afterwards.
        """

    def release(self, output_dir: Path) -> None:
        """Give back what was kept of a request's outputs; the files on this host stay."""

    def close(self) -> None:
        """Give back everything that the engine still holds for this runner."""
