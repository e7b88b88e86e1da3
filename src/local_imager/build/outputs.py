"""What a container left behind is checked before anything of it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from local_imager.errors import BuildError
from local_imager.events import printable


def check_outputs(output_dir: Path, expected: Iterable[str], max_file_bytes: int) -> None:
    """Accept only regular files of the expected names; raises :class:`BuildError` otherwise.

    A container that was talked into something else could leave a link to a file of ours, a
    device, or a file with a name that some later step takes for its own.
    """
    wanted = set(expected)
    with os.scandir(output_dir) as entries:
        for entry in entries:
            _check_entry(entry, wanted, max_file_bytes)
            wanted.discard(entry.name)
    if wanted:
        raise BuildError(
            f"the imager ended well but did not write {', '.join(sorted(wanted))}",
            code="output-missing",
            hint="the log says what it wrote; the plan and this imager do not fit together",
        )


def _check_entry(entry: os.DirEntry[str], wanted: set[str], max_file_bytes: int) -> None:
    status = entry.stat(follow_symlinks=False)
    name = printable(entry.name, limit=100)
    fault = ""
    if entry.name not in wanted:
        fault = "is not a file that was asked for"
    elif stat.S_ISLNK(status.st_mode):
        fault = "is a symbolic link"
    elif not stat.S_ISREG(status.st_mode):
        fault = "is not a regular file"
    elif status.st_nlink != 1:
        fault = "has further names (hard links)"
    elif status.st_size > max_file_bytes:
        fault = f"is larger than {max_file_bytes} bytes"
    elif status.st_size == 0:
        fault = "is empty"
    if fault:
        raise BuildError(
            f"the imager left {name!r} in the output directory, which {fault}; nothing is kept",
            code="output-unexpected",
            hint="an imager that does this is broken or hostile: check what was verified",
        )


def take_ownership(path: Path, *, private: bool) -> None:
    """Make an accepted output the caller's own, without set-id bits and execute rights.

    ``private`` files can be read by their owner only (the schematic holds secrets).
    """
    if os.geteuid() == 0:
        os.chown(path, 0, os.getegid(), follow_symlinks=False)
    os.chmod(path, 0o600 if private else 0o644)
