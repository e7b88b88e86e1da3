"""What an old imager needs to make a disk image: loop devices and the right to mount.

Builders from v1.13 on write file systems into files and need nothing; they are the default for
every version. Only ``--builder same`` (or a version below v1.13) leads here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from local_imager.build.request import NO_PRIVILEGES, Privileges
from local_imager.errors import HostError
from local_imager.profile.builder import knows
from local_imager.profile.model import BuildPlan
from local_imager.profile.quirks import BuilderFeature

# Exactly what attaching a loop device and mounting its partitions takes; --privileged never.
LOOP_PRIVILEGES: Final = Privileges(
    capabilities=("SYS_ADMIN", "MKNOD"),
    device_rules=("b 7:* rmw", "b 259:* rmw", "c 10:237 rmw"),
    host_devices=True,
    unconfined_seccomp=True,
    root=True,
)


def needs_loop_devices(plan: BuildPlan) -> bool:
    """Whether this plan's builder makes its disk by mounting it."""
    builder = plan.builder or plan.version
    return plan.profile.kind == "image" and not knows(builder, BuilderFeature.UNPRIVILEGED_DISK)


def privileges_for(plan: BuildPlan, allow_privileged: bool) -> Privileges:
    """Return what the plan's run needs beyond nothing.

    Raises :class:`HostError` when it needs rights that were not allowed, or that this host cannot
    give; the message names what is missing.
    """
    if not needs_loop_devices(plan):
        return NO_PRIVILEGES
    missing = missing_for_loop_devices()
    if not allow_privileged:
        host = f" On this host it would fail anyway: {'; '.join(missing)}." if missing else ""
        raise HostError(
            f"the imager {plan.builder or plan.version} makes {plan.asset} with loop devices and "
            f"mounts, which needs SYS_ADMIN, MKNOD and the host's /dev.{host}",
            hint="leave out --builder: an imager from v1.13 on makes disks of every version "
            "without any right; or allow it with --allow-privileged",
            code="privilege-needed",
        )
    if missing:
        raise HostError(
            f"the imager {plan.builder or plan.version} cannot make {plan.asset} here: "
            f"{'; '.join(missing)}",
            hint="load the kernel modules loop and vfat, or leave out --builder: an imager from "
            "v1.13 on needs neither",
            code="privilege-impossible",
        )
    return LOOP_PRIVILEGES


def missing_for_loop_devices(root: Path = Path("/")) -> list[str]:
    """Return what this host lacks for loop-mounted FAT file systems; empty when all is there."""
    missing = []
    if not (root / "dev/loop-control").exists():
        missing.append("there is no /dev/loop-control (kernel module loop)")
    if not _file_system_known(root, "vfat"):
        missing.append("the kernel has no vfat file system")
    return missing


def _file_system_known(root: Path, name: str) -> bool:
    try:
        known = (root / "proc/filesystems").read_text().split()
    except OSError:
        return True  # another operating system: the engine's kernel is not this one
    return name in known or _module_exists(root, name)


def _module_exists(root: Path, name: str) -> bool:
    folder = root / "lib/modules" / os.uname().release
    for listing in ("modules.dep", "modules.builtin"):
        try:
            text = (folder / listing).read_text(errors="replace")
        except OSError:
            continue
        if any(
            line.partition(":")[0].partition(".ko")[0].endswith(f"/{name}")
            for line in text.splitlines()
        ):
            return True
    return False
