"""Memory and disk that a run needs, worked out before it starts instead of found out in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from local_imager.build.record import converts
from local_imager.build.request import GIB, MIB, EngineInfo
from local_imager.errors import HostError
from local_imager.profile.imager import filled_output
from local_imager.profile.model import BuildPlan
from local_imager.profile.version import TalosVersion

# What the imager's temporary files come to: inputs unpacked, packed again, in the rebuilt
# initramfs, in the UKI, in the file systems that hold both; each about once the inputs' size.
_SCRATCH_PER_INPUT: Final = 9
_SCRATCH_BASE: Final = 256 * MIB
# A disk's partitions are preallocated in /tmp, and a failure to do so is only a warning (Talos
# pkg/imager/utils/raw.go). From v1.10 on EFI and BOOT are 2 GiB each, before 100 and 1000 MB: a
# /tmp smaller than one such partition wastes nothing, one that holds just one is the worst.
_PREALLOCATES_SINCE: Final = TalosVersion(1, 10, 0)
_SMALL_SCRATCH: Final = 1900 * MIB
_PREALLOCATED_NEW: Final = 4200 * MIB
_PREALLOCATED_OLD: Final = 1150 * MIB
# Output plus our compressed copy of it: incompressible content counts twice.
_OUTPUT_PER_INPUT: Final = 3
_OUTPUT_BASE: Final = 64 * MIB


def tree_bytes(folder: Path) -> int:
    """Return the size of all files below a directory."""
    total = 0
    for root, _, names in os.walk(folder):
        total += sum(os.stat(os.path.join(root, name)).st_size for name in names)
    return total


def scratch_bytes(
    plan: BuildPlan,
    input_bytes: int,
    memory_bytes: int,
    engine: EngineInfo,
    *,
    exact: bool = False,
) -> int:
    """Return the size of an in-memory /tmp, or 0 when it would not fit and disk must serve.

    Pages of a tmpfs count as the container's memory, so it gets at most three quarters of the
    limit: a build that needs more then ends with "no space left" rather than being killed.
    """
    need = _inputs_in_scratch(input_bytes)
    size = memory_bytes * 3 // 4
    if plan.profile.kind == "image":
        new = plan.version.release >= _PREALLOCATES_SINCE.release
        if new and need <= _SMALL_SCRATCH and not _copies_disk(plan, exact=exact):
            size = min(size, _SMALL_SCRATCH)
        else:
            need = scratch_on_disk_bytes(plan, input_bytes, exact=exact)
    free = available_memory(engine)
    if need > size or (free and need + 512 * MIB > free):
        return 0
    return size


def scratch_on_disk_bytes(plan: BuildPlan, input_bytes: int, *, exact: bool = False) -> int:
    """Return about what the temporary files of a run come to where nothing holds them small."""
    need = _inputs_in_scratch(input_bytes)
    if plan.profile.kind == "image":
        new = plan.version.release >= _PREALLOCATES_SINCE.release
        need += _PREALLOCATED_NEW if new else _PREALLOCATED_OLD
        if _copies_disk(plan, exact=exact):
            need += output_bytes(plan, input_bytes)
    return need


def _inputs_in_scratch(input_bytes: int) -> int:
    return _SCRATCH_BASE + _SCRATCH_PER_INPUT * input_bytes


def _copies_disk(plan: BuildPlan, *, exact: bool) -> bool:
    """Whether the imager makes the OVA itself.

    It copies the raw disk into its temporary directory, with all zeros, and makes the VMDK there
    (Talos pkg/imager/ova).
    """
    options = plan.profile.document["output"].get("imageOptions", {})
    return options.get("diskFormat") == "ova" and not converts(plan, exact=exact)


def available_memory(engine: EngineInfo) -> int:
    """MemAvailable where the engine is this host's, its total memory otherwise, 0 if unknown."""
    if engine.endpoint.startswith("unix://"):
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        except (OSError, ValueError):
            return 0
    return engine.memory_bytes


def output_bytes(plan: BuildPlan, input_bytes: int) -> int:
    """Return about how much disk a run's outputs take while they are made.

    The imager writes a raw disk with all its zeros, so its nominal size counts until holes are dug.
    """
    size = _OUTPUT_BASE + _OUTPUT_PER_INPUT * input_bytes
    if plan.profile.kind == "image":
        size += int(filled_output(plan.profile.document)["imageOptions"]["diskSize"])
    return size


def require_disk_space(folder: Path, needed_bytes: int) -> None:
    """Raise :class:`HostError` when the work would not fit into the folder's file system."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise HostError(
            f"the build needs about {needed_bytes / GIB:.1f} GiB in {folder}, "
            f"{free / GIB:.1f} GiB are free",
            hint="free some space (`local-imager store gc` helps), or choose a store elsewhere",
            code="disk-space",
        )
