"""Build steps: each has a key over its inputs, is done once, and survives interruption.

A step writes into a staging folder that is renamed into place when all of it is there, so a
process that is killed leaves either a whole result or none.
"""

import ast
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.console import LabError, run, say, step
from lab.place import Place

Facts = dict[str, Any]


def recipe_digest(*modules: ModuleType) -> str:
    """Digest of what the modules' code says; comments and layout of the text do not count."""
    total = hashlib.sha256()
    for module in modules:
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        total.update(ast.dump(ast.parse(text)).encode())
    return total.hexdigest()


def key_of(inputs: Mapping[str, Any]) -> str:
    """Digest over a step's inputs, which must be plain JSON values."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StepResult:
    """A finished step: its folder, the facts it recorded, and whether it was made just now."""

    folder: Path
    facts: Facts
    fresh: bool

    @property
    def content(self) -> str:
        """Digest of what came out: later steps need no new run when an earlier one gave the same.

        It is over the facts, so a step records in them the digests of what others use of it.
        """
        return key_of({k: v for k, v in self.facts.items() if k not in ("key", "seconds")})


def _files_of(folder: Path) -> dict[str, int]:
    """Sizes of the regular files at the top of a result, which is enough to see damage fast."""
    return {
        entry.name: entry.stat().st_size
        for entry in folder.iterdir()
        if entry.is_file() and not entry.is_symlink() and entry.name != "result.json"
    }


def load_result(place: Place, name: str) -> StepResult | None:
    """Return the stored result of a step when it is there and its files have their sizes."""
    folder = place.steps / name
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if result.get("files") != _files_of(folder):
        say(f"{name}: the stored result is damaged and will be made again")
        return None
    return StepResult(folder, {**result["facts"], "key": result["key"]}, fresh=False)


def do_step(
    place: Place,
    name: str,
    title: str,
    inputs: Mapping[str, Any],
    work: Callable[[Path], Facts],
) -> StepResult:
    """Return the result of a step, making it only when no intact one with the same key is there.

    `work` gets an empty staging folder and returns facts (JSON values) to be kept.
    """
    key = key_of(inputs)
    stored = load_result(place, name)
    if stored is not None and stored.facts["key"] == key:
        return stored
    for stale in place.steps.glob(f".{name}.staging-*"):
        remove_tree(stale)
    # A name of its own: a program of a killed build may still write into the former one.
    staging = Path(tempfile.mkdtemp(prefix=f".{name}.staging-", dir=place.steps))
    staging.chmod(0o755)
    began_s = time.monotonic()
    with step(title):
        facts = work(staging)
    facts["seconds"] = round(time.monotonic() - began_s, 1)
    result = {"key": key, "facts": facts, "files": _files_of(staging)}
    (staging / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    final = place.steps / name
    replace_folder(staging, final)
    return StepResult(final, {**facts, "key": key}, fresh=True)


def replace_folder(staging: Path, final: Path) -> None:
    """Put a finished folder in the place of an older one, which is removed afterwards."""
    old = final.with_name(f".{final.name}.old")
    remove_tree(old)
    if final.exists():
        os.rename(final, old)
    os.rename(staging, final)
    remove_tree(old)


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it; no error when it is not there.

    What a killed debootstrap left mounted below it is unmounted, never emptied.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        unmount_below(folder)
        _remove_patiently(folder)


def _remove_patiently(folder: Path) -> None:
    for patience in range(10, -1, -1):
        try:
            shutil.rmtree(folder)
            return
        except OSError:
            if not folder.exists():  # somebody else removes the same left-overs
                return
            if not patience:
                raise
            time.sleep(0.5)  # the last programs of a killed build are still writing


def unmount_below(folder: Path) -> None:
    """Unmount everything that is mounted below a folder, deepest first."""
    points = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split(" ")[1].replace("\\040", " ")
        if point.startswith(f"{folder}/"):
            points.append(point)
    for point in sorted(points, key=len, reverse=True):
        run(["umount", "--lazy", point])


@contextmanager
def build_lock(place: Place) -> Iterator[None]:
    """Hold the lab for one build; a second one waits and says so. The kernel frees it on death."""
    place.ensure()
    with (place.root / ".build.lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build of this lab is running: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_free_space(place: Place, needed_gib: float) -> None:
    """Raise LabError when the file system of the lab has less than `needed_gib` GiB free."""
    free_gib = shutil.disk_usage(place.root).free / 2**30
    if free_gib < needed_gib:
        raise LabError(
            f"{place.root}: {free_gib:.1f} GiB free, the lab needs about {needed_gib:.0f} GiB; "
            "make room or set LOCAL_IMAGER_LAB to a folder on another disk"
        )
