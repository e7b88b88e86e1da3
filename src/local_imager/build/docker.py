"""The container engine's API as the few calls that we need; the only user of the Docker SDK.

Works with Docker (classic and containerd image stores) and with Podman's compatible socket, local
or remote. Every failure of the SDK or the connection becomes a :class:`HostError`. Nothing in here
decides what a container may do: see ``build/container.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.request import EngineInfo, Storage
from local_imager.errors import HostError
from local_imager.events import printable

if TYPE_CHECKING:
    from docker import APIClient

# Docker 19.03 (2019): mounts, device cgroup rules and the archive calls work as used here.
MINIMUM_API: Final = (1, 40)
# Creating a container of a large image for the first time unpacks it; a slow disk needs minutes.
CALL_TIMEOUT_S: Final = 300
# Creating takes some hundredths of a second; a stop need not wait for long either.
_LATE_TRIES: Final = 10
_LATE_EVERY_S: Final = 0.1
_ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_START_HINT: Final = (
    "start an engine (Docker, Podman's socket), or set DOCKER_HOST; "
    "`local-imager doctor` looks at the whole host"
)


class NoSuchObject(HostError):
    """The engine does not know the container, image, volume or path."""

    code = "engine-not-found"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """Where a container is in its life."""

    running: bool
    out_of_memory: bool
    error: str


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """A container or volume that carries our labels."""

    kind: str
    name: str
    labels: Mapping[str, str]


class ContainerInput:
    """The stdin of a container, for one sender."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._socket = getattr(stream, "_sock", stream)

    def send(self, data: bytes) -> None:
        """Send all and end the input; blocks while the program does not read.

        Raises ``OSError`` when the program or the connection has ended.
        """
        import socket as sockets

        self._socket.sendall(data)
        if hasattr(self._socket, "unwrap"):  # TLS: say properly that nothing follows
            self._socket.unwrap()
        with contextlib.suppress(AttributeError):
            self._socket.shutdown(sockets.SHUT_WR)

    def close(self) -> None:
        """Close the connection; a sender that is blocked comes back with an error."""
        import socket as sockets

        with contextlib.suppress(OSError, AttributeError):
            self._socket.shutdown(sockets.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._stream.close()


def engine_endpoints(environment: Mapping[str, str]) -> list[str]:
    """Return where an engine may be, most explicit first: DOCKER_HOST alone, else known sockets."""
    explicit = environment.get("DOCKER_HOST", "")
    if explicit:
        return [explicit]
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    folders = ["/var/run", *([runtime] if runtime.startswith("/") else []), "/run"]
    paths = [f"{folder}/docker.sock" for folder in folders[:-1]]
    paths += [f"{folder}/podman/podman.sock" for folder in folders[1:]]
    return [f"unix://{path}" for path in paths if Path(path).exists()] or [f"unix://{paths[0]}"]


class Engine:
    """A connection to one engine; made on first use, so making the object costs nothing."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._endpoint = ""
        self._api: Any = None  # docker.APIClient, whose type stubs cover half of its calls
        self._info: EngineInfo | None = None

    @property
    def api(self) -> Any:
        """The SDK's client; raises :class:`HostError` when no engine answers."""
        if self._api is None:
            self._endpoint, self._api = _connect(self._host)
        return self._api

    def close(self) -> None:
        """Close the connection."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def info(self) -> EngineInfo:
        """Return what the engine is; asked once."""
        if self._info is None:
            with _explained("ask the engine what it is"):
                version, facts = self.api.version(), self.api.info()
            self._info = read_info(version, facts, self._endpoint)
        return self._info

    def image_id(self, digest: str) -> str | None:
        """Return the ID of the image that the digest names, or None when there is none."""
        try:
            with _explained("look for the builder image"):
                return str(self.api.inspect_image(digest)["Id"])
        except NoSuchObject:
            return None

    def load_image(self, archive: Iterable[bytes]) -> list[str]:
        """Give an image archive to the engine; returns the lines that it answers with."""
        with _explained("load the builder image"):
            lines = [line for line in self.api.load_image(archive) if isinstance(line, dict)]
        for line in lines:
            if "error" in line:
                raise HostError(f"the engine refuses the image: {printable(str(line['error']))}")
        return [str(line.get("stream", "")).strip() for line in lines]

    def create(self, document: Mapping[str, Any], name: str) -> str:
        """Create a container from the API's own document and return its ID.

        Interrupted in the middle, it leaves none: the engine goes on creating what nobody would
        learn the ID of.
        """
        try:
            with _explained("create the build container"):
                return str(self.api.create_container_from_config(dict(document), name)["Id"])
        except KeyboardInterrupt:
            self._remove_late(name)
            raise

    def _remove_late(self, name: str) -> None:
        """Remove a container that may come into being a moment from now."""
        for _ in range(_LATE_TRIES):
            try:
                with _explained("remove the build container"):
                    self.api.remove_container(name, v=True, force=True)
                return
            except NoSuchObject:
                time.sleep(_LATE_EVERY_S)
            except HostError:  # the engine is gone, or is removing it already
                return

    def start(self, container: str) -> None:
        """Start a created container."""
        with _explained("start the build container"):
            self.api.start(container)

    def kill(self, container: str) -> None:
        """Stop a container at once; one that has ended already is fine."""
        with contextlib.suppress(HostError), _explained("stop the build container"):
            self.api.kill(container)

    def remove(self, container: str) -> None:
        """Remove a container with its anonymous volumes; one that is gone is fine."""
        with contextlib.suppress(NoSuchObject), _explained("remove the build container"):
            self.api.remove_container(container, v=True, force=True)

    def exit_code(self, container: str) -> int:
        """Return the exit status of a container that has ended.

        Asked by waiting: for a moment Podman's inspection shows an ended container with status 0.
        """
        with _explained("ask how the build container ended"):
            return int(self.api.wait(container)["StatusCode"])

    def state(self, container: str) -> ContainerState:
        """Return the container's state."""
        with _explained("look at the build container"):
            state = self.api.inspect_container(container)["State"]
        return ContainerState(
            bool(state.get("Running")),
            bool(state.get("OOMKilled")),
            printable(str(state.get("Error") or "")),
        )

    def output(self, container: str) -> Iterator[bytes]:
        """Attach to stdout and stderr of a container that is not started yet; ends with it."""
        with _explained("attach to the build container"):
            stream = self.api.attach(container, stdout=True, stderr=True, stream=True)
        return iter(stream)

    def open_input(self, container: str) -> ContainerInput:
        """Attach to the stdin of a container that is not started yet.

        A connection of its own: half-closing the one that carries the output is not possible
        over TLS.
        """
        with _explained("send the profile to the build container"):
            stream = self.api.attach_socket(container, params={"stdin": 1, "stream": 1})
        return ContainerInput(stream)

    def put_archive(self, container: str, path: str, archive: Iterable[bytes]) -> None:
        """Unpack a tar stream into a directory of a container."""
        with _explained("send files to the engine"):
            self.api.put_archive(container, path, archive)

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """Return a tar stream of a path of a container; raises :class:`NoSuchObject`."""
        with _explained("get files from the engine"):
            stream, _ = self.api.get_archive(container, path, chunk_size=1 << 20)
        return iter(stream)

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a named volume."""
        with _explained("create a volume"):
            self.api.create_volume(name, labels=dict(labels))

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone is fine."""
        with contextlib.suppress(NoSuchObject), _explained("remove a volume"):
            self.api.remove_volume(name, force=True)

    def owned(self, label: str) -> list[OwnedObject]:
        """Return the containers and volumes that carry a label, containers first."""
        with _explained("look for left-over containers"):
            containers = self.api.containers(all=True, filters={"label": label})
            volumes = self.api.volumes(filters={"label": label}).get("Volumes") or []
        found = [OwnedObject("container", c["Id"], c.get("Labels") or {}) for c in containers]
        return found + [OwnedObject("volume", v["Name"], v.get("Labels") or {}) for v in volumes]


def _connect(host: str) -> tuple[str, APIClient]:
    from docker import APIClient
    from docker.tls import TLSConfig
    from docker.utils import kwargs_from_env

    settings: dict[str, Any] = {**kwargs_from_env()}
    context = _context_endpoint() if not (host or os.environ.get("DOCKER_HOST")) else None
    if context is not None:
        endpoints, settings["tls"] = [context[0]], context[1]
    else:
        endpoints = [host] if host else engine_endpoints(os.environ)
    settings.pop("base_url", None)
    if not isinstance(settings.get("tls"), TLSConfig):
        settings.pop("tls", None)
    failures: list[HostError] = []
    for endpoint in endpoints:
        try:
            with _explained(f"reach a container engine at {endpoint}"):
                client = APIClient(
                    endpoint,
                    version="auto",
                    timeout=CALL_TIMEOUT_S,
                    use_ssh_client=endpoint.startswith("ssh://"),
                    **settings,
                )
                return endpoint, client
        except HostError as error:
            failures.append(error)
    raise failures[0]


def _context_endpoint() -> tuple[str, Any] | None:
    """Return host and TLS settings of the selected docker context, None for the default one."""
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        context = ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT") or None)
    except (DockerException, OSError, ValueError, KeyError) as error:
        raise HostError(
            f"the docker context cannot be read: {printable(str(error))}",
            hint="set DOCKER_HOST, or mend it with `docker context use default`",
        ) from error
    if context is None or context.Name == "default" or not context.Host:
        return None
    return context.Host, context.TLSConfig


def read_info(version: Mapping[str, Any], facts: Mapping[str, Any], endpoint: str) -> EngineInfo:
    """Turn the answers of /version and /info into an :class:`EngineInfo`; pure."""
    names = [str(item.get("Name", "")) for item in version.get("Components") or []]
    podman = any("podman" in name.lower() for name in names)
    status = {str(pair[0]): str(pair[1]) for pair in facts.get("DriverStatus") or []}
    snapshotter = "io.containerd.snapshotter" in status.get("driver-type", "")
    storage: Storage = "podman" if podman else "containerd" if snapshotter else "classic"
    security = [str(item) for item in facts.get("SecurityOptions") or []]

    def has(option: str) -> bool:
        return any(f"name={option}" in item.split(",") for item in security)

    machine = str(facts.get("Architecture", ""))
    return EngineInfo(
        name="podman" if podman else "docker",
        version=printable(str(version.get("Version", "")), limit=60),
        api_version=str(version.get("ApiVersion", "")),
        os_type=str(facts.get("OSType") or version.get("Os") or ""),
        arch=_ARCHES.get(machine, machine),
        storage=storage,
        rootless=has("rootless"),
        remapped_users=has("userns"),
        selinux=has("selinux"),
        memory_bytes=int(facts.get("MemTotal") or 0),
        cpus=int(facts.get("NCPU") or 1),
        cgroup_version=str(facts.get("CgroupVersion") or ""),
        limits_memory=bool(facts.get("MemoryLimit", True)),
        endpoint=endpoint,
    )


def require_usable(info: EngineInfo) -> None:
    """Raise :class:`HostError` when the engine is too old or runs no Linux containers."""
    numbers = tuple(int(part) for part in info.api_version.split(".") if part.isdecimal())
    if info.os_type not in ("", "linux"):
        raise HostError(
            f"the engine runs {info.os_type} containers, the imager is a Linux program",
            hint="switch the engine to Linux containers",
            code="engine-os",
        )
    if numbers and numbers < MINIMUM_API:
        raise HostError(
            f"the engine ({info.name} {info.version}, API {info.api_version}) is too old",
            hint="Docker 19.03 (API 1.40) or later is needed",
            code="engine-old",
        )


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn the faults of SDK and connection into :class:`HostError` with a way out."""
    from docker.errors import APIError, DockerException, NotFound
    from requests.exceptions import RequestException

    try:
        yield
    except NotFound as error:
        raise NoSuchObject(f"could not {doing}: {_reason(error)}") from error
    except APIError as error:
        raise HostError(f"could not {doing}: {_reason(error)}", code="engine-refused") from error
    except (DockerException, RequestException, OSError) as error:
        text = printable(str(error), limit=300)
        if "ermission denied" in text:
            raise HostError(
                f"could not {doing}: this user may not use the engine's socket",
                hint="join the engine's group (and log in again), use a rootless engine, "
                "or set DOCKER_HOST to a socket of your own",
                code="engine-rights",
            ) from error
        if any(word in text for word in ("No such file", "refused", "timed out", "unreachable")):
            text = "nothing answers there"
        raise HostError(
            f"could not {doing}: {text}", hint=_START_HINT, code="engine-unreachable"
        ) from error


def _reason(error: Any) -> str:
    return printable(str(error.explanation or error), limit=600)
