"""What is there and how to get rid of it: `lab status` and `lab clean`."""

import json
import os
from pathlib import Path
from typing import Any

from lab.build import NEEDED_GIB, damaged_blobs
from lab.console import LabError
from lab.debian import HOST_PACKAGES, missing_packages
from lab.engine import present_engine
from lab.oci import Layout
from lab.place import Place
from lab.runner import all_services, stop_leftovers
from lab.services import is_used
from lab.steps import remove_tree


def status(place: Place) -> dict[str, Any]:
    """Return what is built, what runs, and what of Debian is missing, as JSON values."""
    state: dict[str, Any] = {"place": str(place.root), "built": False}
    try:
        record = json.loads(place.record.read_text(encoding="utf-8"))
        layout = Layout.open(place.upstream)
        state |= {
            "built": True,
            "versions": record["versions"],
            "built_at": record["built_at"],
            "images": len(record["images"]),
            "damaged_blobs": len(damaged_blobs(layout)),
        }
    except (OSError, ValueError):
        state["hint"] = f"python3 -m lab build (needs about {NEEDED_GIB:.0f} GiB of disk)"
    state["size_mib"] = _size_bytes(place.root) >> 20
    state["engine_that_answers"] = present_engine()
    state["running"] = [s.address() for s in all_services(place) if is_used(s) and s.answers()]
    state["missing_packages"] = sorted(missing_packages(HOST_PACKAGES))
    return state


def _size_bytes(folder: Path) -> int:
    """Disk space of a folder; files with several names count once."""
    seen: set[int] = set()
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                found = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_blocks * 512
    return total


def clean(place: Place, everything: bool) -> list[str]:
    """Remove what can be made again; return what was removed.

    Without `everything` the finished lab stays: only engines' data, logs and leftovers of
    interrupted builds go. Refused while a `lab run` uses a service.
    """
    used = [service.name for service in all_services(place) if is_used(service)]
    if used:
        raise LabError(f"in use by a running `lab run`: {', '.join(used)}")
    stop_leftovers(place)
    doomed = [place.services, *place.steps.glob(".*"), *place.root.glob(".upstream*")]
    doomed += place.root.glob(".trust-demo-*")
    if everything:
        doomed = [place.root]
    removed = []
    for path in doomed:
        if path.exists():
            remove_tree(path)
            removed.append(str(path))
    return removed
