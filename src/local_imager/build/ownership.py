"""Which containers and volumes of an engine are ours, and which of them nobody waits for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_imager.build.container import LABEL_PREFIX
from local_imager.errors import HostError

if TYPE_CHECKING:
    from local_imager.build.docker import Engine

_OWNER: Final = "owner-process"
_HOST: Final = "owner-host"


def owner_labels() -> dict[str, str]:
    """Return labels (without prefix) that say which process of which boot made an object."""
    return {_HOST: _host_id(), _OWNER: f"{os.getpid()}.{_start_ticks(os.getpid())}"}


def remove_stale(engine: Engine) -> int:
    """Remove containers and volumes of processes of this host that are gone; return how many.

    Only a process of the same boot and the same PID namespace can be judged, so nothing of
    another host that shares the engine is ever touched. What the engine does not let go is left:
    another build that begins at this moment removes the same left-overs.
    """
    removed = 0
    for item in engine.owned(LABEL_PREFIX + _OWNER):
        labels = item.labels
        if labels.get(LABEL_PREFIX + _HOST) != _host_id():
            continue
        if _is_alive(labels.get(LABEL_PREFIX + _OWNER, "")):
            continue
        try:
            if item.kind == "container":
                engine.remove(item.name)
            else:
                engine.remove_volume(item.name)
        except HostError:
            continue
        removed += 1
    return removed


def _host_id() -> str:
    parts = [_read("/proc/sys/kernel/random/boot_id")]
    try:
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _is_alive(owner: str) -> bool:
    pid, _, ticks = owner.partition(".")
    if not pid.isdecimal():
        return False
    return _start_ticks(int(pid)) == ticks and ticks != ""


def _start_ticks(pid: int) -> str:
    """Field 22 of /proc/PID/stat; with the PID it names a process once per boot (proc(5))."""
    after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return after_name[19] if len(after_name) > 19 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
