"""The one place that decides what a build container may do, as the engine API's own document.

Pure: it turns a request and the facts about the engine into the body of ``POST
/containers/create``, so that every flag can be read, tested and printed without an engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from local_imager.build.request import MIB, SCRATCH_ROOT, EngineInfo, ImagerRequest

LABEL_PREFIX: Final = "io.local-imager."
# /tmp of a run whose temporary files lie on disk.
SMALL_TMP_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """``inside`` is the user in the container, ``outside`` the owner that bind mounts see."""

    inside: str
    outside_uid: int
    outside_gid: int


def container_user(engine: EngineInfo) -> ContainerUser:
    """Return who the container runs as.

    In a rootless engine the caller's own id *is* id 0 of the container's user namespace, so 0 is
    the unprivileged choice there; any other id would be a subordinate one that cannot read the
    caller's files.
    """
    uid, gid = os.geteuid(), os.getegid()
    if engine.rootless:
        return ContainerUser("0:0", uid, gid)
    if uid == 0:
        uid = gid = engine.unprivileged_id
    return ContainerUser(f"{uid}:{gid}", uid, gid)


def processors(engine: EngineInfo) -> int:
    """Return how many processors a container may use; a runner chooses none or just one."""
    return 1 if engine.cpuset else engine.cpus


@dataclass(frozen=True, slots=True)
class MountSource:
    """Where a mount's content is: a directory that the engine sees too, or an engine volume."""

    kind: str
    source: str


def container_options(
    request: ImagerRequest,
    engine: EngineInfo,
    mounts: Mapping[str, tuple[MountSource, bool]],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return the create document of a hardened container; ``mounts`` maps target to read-only.

    What is granted beyond nothing comes from ``request.privileges`` alone.
    """
    user = "0:0" if request.privileges.root else container_user(engine).inside
    environment = dict(request.env)
    if not request.limits.scratch_bytes:
        environment["TMPDIR"] = SCRATCH_ROOT
    return {
        "Image": request.image_id,  # an ID, so no tag can be moved under us and nothing is pulled
        "Entrypoint": list(request.command[:1]),
        "Cmd": list(request.command[1:]),
        "User": user,
        "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "Labels": {LABEL_PREFIX + name: value for name, value in labels.items()},
        "WorkingDir": "/",
        "Hostname": "local-imager",  # the engine's default is a random name
        "NetworkDisabled": True,
        "OpenStdin": bool(request.stdin),
        "StdinOnce": bool(request.stdin),  # the end of our input is the end of the program's
        "AttachStdin": bool(request.stdin),
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        # A health check of the image would start further programs beside the one that we want.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(request, engine, mounts),
    }


def _host_config(
    request: ImagerRequest,
    engine: EngineInfo,
    mounts: Mapping[str, tuple[MountSource, bool]],
) -> dict[str, Any]:
    limits, extra = request.limits, request.privileges
    return {
        # No interface but loopback: whatever the imager wants to pull, it cannot.
        "NetworkMode": "none",
        # Only the mounts below can be written.
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(extra.capabilities),
        "SecurityOpt": _security_options(request),
        "Privileged": False,
        "PidsLimit": limits.pids,
        "Memory": limits.memory_bytes if engine.limits_memory else 0,
        # As much as Memory: no swap on top, so the limit is one number that can be explained.
        "MemorySwap": limits.memory_bytes if engine.limits_memory else 0,
        "CpusetCpus": engine.cpuset,
        "Ulimits": [_file_size_limit(limits.max_file_bytes)],
        "Tmpfs": _tmpfs(request),
        "Mounts": [_mount(target, *source) for target, source in sorted(mounts.items())],
        "DeviceCgroupRules": list(extra.device_rules),
        # Output is taken from the attached stream; the engine keeps no copy on its disk,
        # because the imager prints its whole profile, secrets included.
        "LogConfig": {"Type": "none", "Config": {}},
        # Removed by us in all cases; the engine's own removal would race with reading the
        # exit status and the outputs.
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "Init": False,
        "IpcMode": "private",
    }


def _security_options(request: ImagerRequest) -> list[str]:
    options = ["no-new-privileges"]  # no setuid program of the image can raise rights
    if request.privileges.unconfined_seccomp:
        options.append("seccomp=unconfined")
    return options


def _tmpfs(request: ImagerRequest) -> dict[str, str]:
    """Keep temporary files in memory, which is what makes a disk image quick.

    Executable, because the installers of overlays are unpacked and run there.
    """
    size_bytes = request.limits.scratch_bytes or SMALL_TMP_BYTES
    return {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={size_bytes}"}  # noqa: S108


def _file_size_limit(max_file_bytes: int) -> dict[str, object]:
    """No single file may grow past this, so a runaway program cannot fill the disk unseen."""
    return {"Name": "fsize", "Soft": max_file_bytes, "Hard": max_file_bytes}


def _mount(target: str, source: MountSource, read_only: bool) -> dict[str, object]:
    mount: dict[str, object] = {
        "Target": target,
        "Source": source.source,
        "Type": source.kind,
        "ReadOnly": read_only,
    }
    if source.kind == "bind":
        mount["BindOptions"] = {"Propagation": "rprivate"}
    if source.kind == "volume":
        mount["VolumeOptions"] = {"NoCopy": True}
    return mount
