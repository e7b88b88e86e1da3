"""What this host can and cannot do for a build, found out without building anything."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from local_imager.build.privilege import missing_for_loop_devices
from local_imager.build.request import GIB, EngineInfo, Runner
from local_imager.errors import LocalImagerError

Status = Literal["ok", "warn", "fail"]

# One disk image while it is made, with its formats beside it.
COMFORTABLE_BYTES: Final = 12 * GIB
# An ISO or UKI with its images.
LEAST_BYTES: Final = 2 * GIB
# No release of this program is older; a clock before it makes every certificate look invalid.
EARLIEST_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)
_QEMU: Final = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: ``fail`` means that builds do not work, ``warn`` that something does not."""

    name: str
    status: Status
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def check_host(runner: Runner, *, store: Path, out: Path, memory_bytes: int) -> Iterator[Check]:
    """Yield all findings in the order in which a build would meet them."""
    yield _python()
    engine, finding = _engine(runner)
    yield finding
    if engine is not None:
        yield _confinement(engine)
        yield _files(engine)
        yield _memory(engine, memory_bytes)
    yield _disk("store", store)
    yield _disk("export directory", out)
    yield _clock(datetime.now(UTC))
    yield _boot_test()
    yield _old_imagers()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", f"Python {version} on {os.uname().machine}")


def _engine(runner: Runner) -> tuple[EngineInfo | None, Check]:
    try:
        engine = runner.info()
    except LocalImagerError as error:
        return None, Check("engine", "fail", error.message, error.hint)
    mode = "rootless" if engine.rootless else "with root"
    detail = (
        f"{engine.name} {engine.version} (API {engine.api_version}), {engine.storage} image store, "
        f"{mode}, linux/{engine.arch}, {engine.cpus} CPUs"
    )
    if engine.arch not in _QEMU:
        fix = "use an engine on an amd64 or arm64 machine: imager images exist for those"
        return engine, Check("engine", "fail", detail, fix)
    return engine, Check("engine", "ok", detail)


def _confinement(engine: EngineInfo) -> Check:
    if engine.limits_memory:
        return Check("limits", "ok", f"memory limits are enforced (cgroup v{_cgroup(engine)})")
    return Check(
        "limits",
        "warn",
        "the engine cannot limit memory, so a runaway build can use all of it",
        "enable the memory cgroup (rootless engines: delegate it to your user)",
    )


def _cgroup(engine: EngineInfo) -> str:
    return engine.cgroup_version or "1"


def _files(engine: EngineInfo) -> Check:
    local = engine.endpoint.startswith("unix://")
    if engine.selinux or engine.remapped_users:
        reason = "SELinux" if engine.selinux else "user remapping"
        return Check("files", "ok", f"streamed through volumes, because of {reason}")
    if local:
        return Check("files", "ok", "shared with the engine by bind mount where it sees them")
    return Check("files", "ok", f"streamed to and from the engine at {engine.endpoint}")


def _memory(engine: EngineInfo, memory_bytes: int) -> Check:
    total = f"{engine.memory_bytes / GIB:.1f} GiB on the engine's host"
    limit = f"{memory_bytes / GIB:.1f} GiB per build"
    if engine.memory_bytes and engine.memory_bytes < memory_bytes:
        return Check(
            "memory",
            "warn",
            f"{total}, {limit}: temporary files go to disk, which is slower",
            "lower build.memory, or give the engine more",
        )
    return Check("memory", "ok", f"{total}, {limit}")


def _disk(name: str, folder: Path) -> Check:
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    detail = f"{folder}: {free / GIB:.1f} GiB free"
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, "fail", f"{folder} cannot be written", "choose another directory")
    if free < LEAST_BYTES:
        return Check(name, "fail", detail, "free some space; `local-imager store gc` may help")
    if free < COMFORTABLE_BYTES:
        fix = f"disk images want {COMFORTABLE_BYTES // GIB} GiB; `local-imager store gc` may help"
        return Check(name, "warn", detail, fix)
    return Check(name, "ok", detail)


def _clock(now: datetime) -> Check:
    if now < EARLIEST_DATE:
        fix = "set the clock: signatures and certificates are judged by it"
        return Check("clock", "fail", f"it is set to {now:%Y-%m-%d}", fix)
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def _boot_test() -> Check:
    missing = [program for program in _QEMU.values() if shutil.which(program) is None]
    if missing:
        return Check(
            "boot test",
            "warn",
            f"{' and '.join(missing)} not found, so images of that kind cannot be test-booted",
            "install QEMU with its UEFI firmware (Debian: qemu-system-x86 qemu-system-arm ovmf)",
        )
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK)
    return Check("boot test", "ok", "QEMU with KVM" if usable else "QEMU, emulated (no KVM)")


def _old_imagers() -> Check:
    missing = missing_for_loop_devices()
    if missing:
        return Check(
            "old imagers",
            "ok",
            f"disks with --builder below v1.13 are not possible: {'; '.join(missing)} "
            "(not needed otherwise)",
        )
    return Check("old imagers", "ok", "disks with --builder below v1.13 need --allow-privileged")
