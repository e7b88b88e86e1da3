"""What is understood of an engine: its answers, its faults, its left-overs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import docker.errors
import pytest
import requests

from local_imager.build import ownership
from local_imager.build.docker import (
    Engine,
    NoSuchObject,
    OwnedObject,
    engine_endpoints,
    read_info,
    require_usable,
)
from local_imager.build.failure import require_success
from local_imager.build.ownership import owner_labels, remove_stale
from local_imager.build.request import (
    GIB,
    EngineInfo,
    ImagerFailed,
    ImagerRequest,
    Limits,
    RunResult,
)
from local_imager.build.runner import DockerRunner
from local_imager.errors import ExitCode, HostError

VERSION = {"Version": "28.5.2", "ApiVersion": "1.51", "Components": [{"Name": "Engine"}]}
FACTS = {"OSType": "linux", "Architecture": "x86_64", "MemTotal": 8 << 30, "NCPU": 4}


def info(facts: dict[str, Any], **version: Any) -> EngineInfo:
    return read_info({**VERSION, **version}, {**FACTS, **facts}, "unix:///x")


def test_the_kind_of_image_store() -> None:
    assert info({}).storage == "classic"
    snapshotter = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert info(snapshotter).storage == "containerd"
    podman = info({}, Components=[{"Name": "Podman Engine"}])
    assert (podman.name, podman.storage) == ("podman", "podman")


def test_security_options() -> None:
    found = info({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]})
    assert (found.rootless, found.selinux, found.remapped_users) == (True, False, False)
    found = info({"SecurityOptions": ["name=selinux", "name=userns"]})
    assert (found.rootless, found.selinux, found.remapped_users) == (False, True, True)


def test_sparse_answers_are_enough() -> None:
    found = read_info({"ApiVersion": "1.41"}, {"Architecture": "aarch64"}, "tcp://x")
    assert (found.arch, found.memory_bytes, found.limits_memory) == ("arm64", 0, True)
    require_usable(found)


@pytest.mark.parametrize(
    ("facts", "version", "code"),
    [({"OSType": "windows"}, {}, "engine-os"), ({}, {"ApiVersion": "1.24"}, "engine-old")],
)
def test_an_engine_that_will_not_do(
    facts: dict[str, Any], version: dict[str, Any], code: str
) -> None:
    with pytest.raises(HostError) as caught:
        require_usable(info(facts, **version))
    assert caught.value.code == code
    assert caught.value.exit_code == ExitCode.HOST_UNABLE
    assert caught.value.hint


def test_where_an_engine_is_looked_for(tmp_path: Path) -> None:
    assert engine_endpoints({"DOCKER_HOST": "tcp://h:1"}) == ["tcp://h:1"]
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman/podman.sock").touch()
    found = engine_endpoints({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert f"unix://{tmp_path}/podman/podman.sock" in found
    assert all(endpoint.startswith("unix://") for endpoint in engine_endpoints({}))


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_no_engine_is_a_host_error_with_a_way_out(host: str) -> None:
    with pytest.raises(HostError) as caught:
        DockerRunner(host).info()
    assert caught.value.code == "engine-unreachable"
    assert "nothing answers there" in caught.value.message
    assert "DOCKER_HOST" in caught.value.hint


def test_a_context_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(HostError):
        Engine().info()


class Client:
    """Stands in for the SDK's client; raises what it was given."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, _name: str) -> Any:
        return self._fail

    def _fail(self, *_: Any, **__: Any) -> None:
        raise self._error


def api_error(status: int, text: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("x", response=response, explanation=text)


def faulty(error: Exception) -> Engine:
    engine = Engine("unix:///nowhere")
    engine._api = Client(error)
    return engine


FAULTS = {
    "engine-rights": docker.errors.DockerException("PermissionError(13, 'Permission denied')"),
    "engine-refused": api_error(500, "invalid mount \x1b[2J"),
    "engine-not-found": api_error(404, "no such container"),
    "engine-unreachable": requests.exceptions.ReadTimeout("timed out"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_faults_of_the_engine_become_host_errors(code: str) -> None:
    with pytest.raises(HostError) as caught:
        faulty(FAULTS[code]).start("c")
    assert caught.value.code == code
    assert "start the build container" in caught.value.message
    assert "\x1b" not in caught.value.message


def test_what_is_gone_already_is_fine() -> None:
    gone = faulty(FAULTS["engine-not-found"])
    gone.remove("c")
    gone.remove_volume("v")
    gone.kill("c")
    assert gone.image_id("sha256:0") is None
    with pytest.raises(NoSuchObject):
        gone.state("c")


class Leftovers:
    """An engine that holds objects and forgets the removed ones."""

    def __init__(self, *owned: OwnedObject) -> None:
        self.objects = list(owned)

    def owned(self, label: str) -> list[OwnedObject]:
        return [item for item in self.objects if label in item.labels]

    def remove(self, name: str) -> None:
        self.objects = [item for item in self.objects if item.name != name]

    remove_volume = remove


def owned(name: str, kind: str = "container", **changes: str) -> OwnedObject:
    labels = {**owner_labels(), **changes}
    return OwnedObject(
        kind, name, {f"io.local-imager.{key}": value for key, value in labels.items()}
    )


def test_only_left_overs_of_dead_processes_of_this_host_go() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    dead = f"{process.pid}.12345"
    ours, recycled = f"{os.getpid()}", f"{os.getpid()}.1"
    engine: Any = Leftovers(
        owned("alive"),
        owned("dead", **{"owner-process": dead}),
        owned("dead volume", "volume", **{"owner-process": dead}),
        owned("another process with the same number", **{"owner-process": recycled}),
        owned("another host's", **{"owner-process": dead, "owner-host": "elsewhere"}),
        OwnedObject("container", "a stranger", {}),
    )
    assert remove_stale(engine) == 3
    assert [item.name for item in engine.objects] == ["alive", "another host's", "a stranger"]
    assert ours in owner_labels()["owner-process"]


def test_what_another_build_removes_at_this_moment_stops_nobody() -> None:
    class Busy(Leftovers):
        """Docker's answer while the first of two removals is under way."""

        def remove(self, name: str) -> None:
            if name == "busy":
                raise HostError("removal of container busy is already in progress")
            super().remove(name)

    dead = {"owner-process": "1.not-when-init-began"}
    engine: Any = Busy(owned("busy", **dead), owned("dead", **dead))
    assert remove_stale(engine) == 1
    assert [item.name for item in engine.objects] == ["busy"]


def test_a_process_is_known_by_more_than_its_number() -> None:
    labels = owner_labels()
    assert ownership._is_alive(labels["owner-process"])
    assert not ownership._is_alive("nonsense")
    assert not ownership._is_alive("")


REQUEST = ImagerRequest("metal.iso", "sha256:0", ("/bin/imager", "-"), frozenset(), Path("/o"))
ENGINE = info({})
# The end of the log of v1.13.0 that makes a VHD, with words that are no reasons of it.
VHD = "creating disk image...\nmkfs.vfat\nno space left on device, trying again\n/dev/loop0"
VHD_ENDS = "exit status 1: qemu-img: Invalid option list:\nError: exit status 1: qemu-img: Invalid "
VHD_ENDS += "option list: \n"


@pytest.mark.parametrize(
    ("result", "code", "words"),
    [
        (RunResult(1, "a\nError: bad profile\n", 1.0), "imager-failed", "Error: bad profile"),
        (RunResult(137, "x\n", 1.0, out_of_memory=True), "out-of-memory", "4096 MiB"),
        (RunResult(127, "", 1.0), "imager-failed", "not in the image"),
        (RunResult(1, "write: no space left on device\n", 1.0), "no-space", "build.memory"),
        (RunResult(1, f"{VHD}\n{VHD_ENDS}", 1.0), "imager-failed", "empty option list (-o '')"),
        (RunResult(1, "Error: a\nb /dev/loop0\n", 1.0), "imager-failed", "needs loop devices"),
    ],
)
def test_a_failure_explains_itself(result: RunResult, code: str, words: str) -> None:
    with pytest.raises(ImagerFailed) as caught:
        require_success(REQUEST, result, ENGINE)
    error = caught.value
    assert error.code == code
    assert words in error.message + error.hint
    assert "docker run --rm" in error.hint
    assert (error.status, error.log) == (result.exit_code, result.log)


@pytest.mark.parametrize(
    ("line", "scratch_bytes", "words"),
    [
        ("write /out/files/a.raw: no space left on device", GIB, {"the disk is full"}),
        ("cp: error writing '/out/files/a': No space left on device", GIB, {"the disk is full"}),
        ("write /tmp/imager1/a: no space left on device", GIB, {"into memory"}),
        ("copying /out/files/a -> /tmp/b: no space left on device", GIB, {"into memory"}),
        ("write /tmp/imager1/a: no space left on device", 0, {"the disk is full"}),
        ("copy_file_range: no space left on device", GIB, {"the disk is full", "into memory"}),
    ],
)
def test_no_room_is_the_hosts_fault(line: str, scratch_bytes: int, words: set[str]) -> None:
    request = replace(REQUEST, limits=Limits(scratch_bytes=scratch_bytes))
    with pytest.raises(ImagerFailed) as caught:
        require_success(request, RunResult(1, f"{line}\nError: {line}\n", 1.0), ENGINE)
    assert (caught.value.code, caught.value.exit_code) == ("no-space", ExitCode.HOST_UNABLE)
    hint = caught.value.hint.splitlines()[0]
    assert {one for one in ("the disk is full", "into memory") if one in hint} == words


@pytest.mark.parametrize("early", ["mkfs.vfat /dev/loop0", "retry: no space left on device"])
def test_a_hint_comes_from_the_last_words_of_a_log(early: str) -> None:
    log = f"{early}\nError: bad profile\n"
    with pytest.raises(ImagerFailed) as caught:
        require_success(REQUEST, RunResult(1, log, 1.0), ENGINE)
    assert (caught.value.code, caught.value.exit_code) == ("imager-failed", ExitCode.FAILED)
    assert caught.value.hint.startswith("run it again with -v")


def test_success_is_silent() -> None:
    require_success(REQUEST, RunResult(0, "", 1.0), ENGINE)


def test_a_container_that_is_created_while_we_are_interrupted_is_removed() -> None:
    from docker.errors import NotFound

    class Api:
        removed: ClassVar[list[str]] = []
        tries = 0

        def create_container_from_config(self, _document: object, _name: str) -> object:
            raise KeyboardInterrupt

        def remove_container(self, name: str, **_flags: object) -> None:
            self.tries += 1
            if self.tries == 1:  # the engine has not made it yet
                raise NotFound("no such container")
            self.removed.append(name)

    engine = Engine("unix:///nowhere")
    engine._api = Api()
    with pytest.raises(KeyboardInterrupt):
        engine.create({}, "local-imager-late")
    assert Api.removed == ["local-imager-late"]
