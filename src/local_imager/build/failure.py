"""Why a run failed, in words: what happened, the program's last lines, and what to do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from local_imager.build.command import equivalent_command
from local_imager.build.request import EngineInfo, ImagerFailed, ImagerRequest, RunResult
from local_imager.errors import ExitCode

_LAST_LINES: Final = 8
_ERROR_LINES: Final = 40
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
# How the imager's command line (cobra) begins its last words; they may have several lines.
_LAST_WORDS: Final = "Error: "
_NO_SPACE: Final = "no space left on device"
# A file that such an error names; Go writes `write /tmp/a: no space left on device`.
_PATH: Final = re.compile(r"(?<![^\s'\"])/[^\s:'\"]+")
_HINTS: Final = (
    (
        "qemu-img: Invalid option list",
        "this imager hands qemu-img an empty option list (-o ''), which it refuses; "
        "without --exact the disk is converted in another way",
    ),
    ("vfat", "this imager mounts the disk it makes; use a builder from v1.13 on (the default)"),
    ("/dev/loop", "this imager needs loop devices; use a builder from v1.13 on (the default)"),
    ("no OCI image found", "the image given has no variant for this architecture"),
    ("COFF symbols", "the systemd stub of the base image is too old for this imager"),
)


class NoSpace(ImagerFailed):
    """The program in the container had no room for a file: it can work on a larger host."""

    exit_code = ExitCode.HOST_UNABLE

    def __init__(self, message: str, *, hint: str, status: int, log: str) -> None:
        super().__init__(message, hint=hint, status=status, log=log, code="no-space")


def require_success(request: ImagerRequest, result: RunResult, engine: EngineInfo) -> None:
    """Return when the run ended well; raises :class:`ImagerFailed` that explains otherwise.

    What it says to do comes from the program's last words; of all that it wrote before, a word
    may stand there for any reason.
    """
    if result.exit_code == 0:
        return
    words = _last_words(result.log)
    full = _NO_SPACE in words.lower()
    if result.out_of_memory:
        meaning = f"it needed more than its {request.limits.memory_bytes >> 20} MiB of memory"
        hint, code = "raise build.memory (for example to 8GiB)", "out-of-memory"
    else:
        meaning = _MEANINGS.get(result.exit_code, "its own last lines say why")
        hint, code = _room_hint(request, words) if full else _hint(words), "imager-failed"
    message = (
        f"{request.command[0]} failed for {request.subject} with status {result.exit_code}: "
        f"{meaning}\n{last_lines(result.log)}"
    )
    hint += f"\nto repeat it by hand, with the inputs in ./in:\n{_by_hand(request, engine)}"
    if full and not result.out_of_memory:
        raise NoSpace(message, hint=hint, status=result.exit_code, log=result.log)
    raise ImagerFailed(message, hint=hint, status=result.exit_code, log=result.log, code=code)


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


def _last_words(log: str) -> str:
    """Return the error that a program ended with: all from its mark on, else its last line."""
    lines = [line for line in log.splitlines() if line.strip()][-_ERROR_LINES:]
    marked = [number for number, line in enumerate(lines) if line.startswith(_LAST_WORDS)]
    return "\n".join(lines[marked[-1] if marked else -1 :])


def _room_hint(request: ImagerRequest, words: str) -> str:
    """Say which room was too small: the memory behind /tmp, or the disk behind all else."""
    paths = _PATH.findall(words[: words.lower().rindex(_NO_SPACE)])
    memory = "temporary files did not fit into memory: raise build.memory (for example to 8GiB)"
    disk = "the disk is full: free some space, or see `local-imager store gc --dry-run`"
    elsewhere = paths and not paths[-1].startswith("/tmp/")  # noqa: S108
    if elsewhere or not request.limits.scratch_bytes:
        return disk
    return memory if paths else f"{disk}; else {memory}"


def _hint(words: str) -> str:
    found = [hint for text, hint in _HINTS if text.lower() in words.lower()]
    return found[0] if found else "run it again with -v (--verbose) to see all that the imager says"
