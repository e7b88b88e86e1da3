"""The ``docker run`` line that repeats a run by hand, for error messages and for ``plan``."""

from __future__ import annotations

import shlex

from local_imager.build.container import SMALL_TMP_BYTES, container_user
from local_imager.build.request import (
    DISK_ROOT,
    INPUT_ROOT,
    KEY_ROOT,
    OUTPUT_ROOT,
    SCRATCH_ROOT,
    EngineInfo,
    ImagerRequest,
)


def equivalent_command(request: ImagerRequest, engine: EngineInfo) -> str:
    """Return a shell command that does what the runner does, with secrets masked.

    Relative directories of the request are taken from where the command is given.
    """
    limits, extra = request.limits, request.privileges
    user = "0:0" if extra.root else container_user(engine).inside
    words = ["docker", "run", "--rm", *(["-i"] if request.stdin else [])]
    words += ["--network", "none", "--read-only", "--cap-drop", "ALL"]
    words += [f"--cap-add={name}" for name in extra.capabilities]
    words += ["--security-opt", "no-new-privileges"]
    words += ["--security-opt", "seccomp=unconfined"] if extra.unconfined_seccomp else []
    words += [f"--device-cgroup-rule={rule}" for rule in extra.device_rules]
    words += ["--pids-limit", str(limits.pids), "--memory", str(limits.memory_bytes)]
    words += ["--user", user]
    environment, scratch = dict(request.env), None
    if not limits.scratch_bytes:
        scratch = request.output_dir.with_name(f"{request.output_dir.name}.tmp")
        environment["TMPDIR"] = SCRATCH_ROOT
    size_bytes = limits.scratch_bytes or SMALL_TMP_BYTES
    words += ["--tmpfs", f"/tmp:exec,mode=1777,size={size_bytes}"]  # noqa: S108
    for name, value in sorted(environment.items()):
        words += ["--env", f"{name}={value}"]
    mounts = []
    for source, target, mode in (
        (request.input_dir, INPUT_ROOT, ",readonly"),
        (request.disk_dir, DISK_ROOT, ",readonly"),
        (request.key_dir, KEY_ROOT, ",readonly"),
        (request.output_dir, OUTPUT_ROOT, ""),
        (scratch, SCRATCH_ROOT, ""),
    ):
        if source is not None:
            place = shlex.quote(str(source))
            place = place if source.is_absolute() else f'"$PWD"/{place}'
            mounts.append(f"--mount type=bind,source={place},target={target}{mode}")
    if extra.host_devices:
        mounts.append("--mount type=bind,source=/dev,target=/dev")
    program = ["--entrypoint", request.command[0], request.image_id, *request.command[1:]]
    line = " ".join([shlex.join(words), *mounts, shlex.join(program)])
    if not request.stdin:
        return line
    return f"{line} <<'PROFILE'\n{request.shown_stdin.rstrip()}\nPROFILE"
