"""Why a run failed, in words: what happened, the program's last lines, and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from local_imager.build.command import equivalent_command
from local_imager.build.request import EngineInfo, ImagerFailed, ImagerRequest, RunResult

_LAST_LINES: Final = 8
# POSIX shells and container engines; 128 + n is death by signal n.
_MEANINGS: Final = {
    125: "the engine could not run the container",
    126: "the program in the image cannot be executed",
    127: "the program is not in the image",
    134: "it aborted",
    135: "it crashed (bus error)",
    137: "it was killed from outside",
    139: "it crashed (segmentation fault)",
    143: "it was asked to stop",
    153: "it wrote a file larger than the limit",
}
_HINTS: Final = (
    ("no space left on device", "temporary files did not fit: raise build.memory, or free disk"),
    ("vfat", "this imager mounts the disk it makes; use a builder from v1.13 on (the default)"),
    ("/dev/loop", "this imager needs loop devices; use a builder from v1.13 on (the default)"),
    ("no OCI image found", "the image given has no variant for this architecture"),
    ("COFF symbols", "the systemd stub of the base image is too old for this imager"),
)


def require_success(request: ImagerRequest, result: RunResult, engine: EngineInfo) -> None:
    """Return when the run ended well; raises :class:`ImagerFailed` that explains otherwise."""
    if result.exit_code == 0:
        return
    if result.out_of_memory:
        meaning = f"it needed more than its {request.limits.memory_bytes >> 20} MiB of memory"
        hint, code = "raise build.memory (for example to 8GiB)", "out-of-memory"
    else:
        meaning = _MEANINGS.get(result.exit_code, "its own last lines say why")
        hint, code = _hint(result.log), "imager-failed"
    raise ImagerFailed(
        f"{request.command[0]} failed for {request.subject} with status {result.exit_code}: "
        f"{meaning}\n{last_lines(result.log)}",
        hint=f"{hint}\nto repeat it by hand, with the inputs in ./in:\n{_by_hand(request, engine)}",
        status=result.exit_code,
        log=result.log,
        code=code,
    )


def _by_hand(request: ImagerRequest, engine: EngineInfo) -> str:
    """The run's own directories are gone when this is read, so it names ones to be made."""
    here = replace(
        request,
        output_dir=Path("out"),
        input_dir=Path("in") if request.input_dir else None,
        disk_dir=Path("disk") if request.disk_dir else None,
        key_dir=Path("keys") if request.key_dir else None,
    )
    return equivalent_command(here, engine)


def last_lines(log: str) -> str:
    """Return the last lines of a log that say something, indented."""
    lines = [line for line in log.splitlines() if line.strip()]
    return "\n".join(f"  | {line[:500]}" for line in lines[-_LAST_LINES:])


def _hint(log: str) -> str:
    tail = log[-4000:]
    found = [hint for text, hint in _HINTS if text.lower() in tail.lower()]
    return found[0] if found else "run it again with -v (--verbose) to see all that the imager says"
