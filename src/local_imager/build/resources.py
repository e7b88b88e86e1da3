"""Memory and disk that a run needs, worked out before it starts instead of found out in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from local_imager.build.request import GIB, MIB, EngineInfo
from local_imager.errors import HostError

# What the imager's temporary files were measured to need: the inputs unpacked, the rebuilt
# initramfs, the UKI, and the file systems that hold them, each about once the inputs' size.
_SCRATCH_PER_INPUT: Final = 6
_SCRATCH_BASE: Final = 256 * MIB
# Output plus our compressed copy of it: incompressible content counts twice.
_OUTPUT_PER_INPUT: Final = 3
_OUTPUT_BASE: Final = 64 * MIB


def tree_bytes(folder: Path) -> int:
    """Return the size of all files below a directory."""
    total = 0
    for root, _, names in os.walk(folder):
        total += sum(os.stat(os.path.join(root, name)).st_size for name in names)
    return total


def scratch_bytes(input_bytes: int, memory_bytes: int, engine: EngineInfo) -> int:
    """Return the size of an in-memory /tmp, or 0 when it would not fit and disk must serve.

    Pages of a tmpfs count as the container's memory, so it gets three quarters of the limit: a
    build that needs more then ends with "no space left" rather than being killed.
    """
    size = memory_bytes * 3 // 4
    need = _SCRATCH_BASE + _SCRATCH_PER_INPUT * input_bytes
    free = _available_memory(engine)
    if need > size or (free and need + 512 * MIB > free):
        return 0
    return size


def _available_memory(engine: EngineInfo) -> int:
    """MemAvailable where the engine is this host's, its total memory otherwise, 0 if unknown."""
    if engine.endpoint.startswith(("unix://", "http+docker://")):
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        except (OSError, ValueError):
            return 0
    return engine.memory_bytes


def require_disk_space(folder: Path, input_bytes: Iterable[int], *, on_disk_scratch: bool) -> None:
    """Raise :class:`HostError` when the work would not fit; ``input_bytes`` has one per asset.

    Disk images are sparse, so it is their content that counts and not their nominal size.
    """
    per_input = _OUTPUT_PER_INPUT + (_SCRATCH_PER_INPUT if on_disk_scratch else 0)
    needed = sum(_OUTPUT_BASE + per_input * size for size in input_bytes)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise HostError(
            f"the build needs about {needed / GIB:.1f} GiB in {folder}, "
            f"{free / GIB:.1f} GiB are free",
            hint="free some space (`local-imager store gc` helps), or choose a store elsewhere",
            code="disk-space",
        )
