"""Working directories for builds, in the store's file system, that do not outlive their process."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from local_imager.oci.blobs import STAGING_GRACE_S
from local_imager.oci.durable import FileLock, explained

_LOCK_SUFFIX: Final = ".lock"


@contextlib.contextmanager
def workspace(work_dir: Path) -> Iterator[Path]:
    """Yield an empty directory (0700); it is removed at the end, whatever happens."""
    name = secrets.token_hex(8)
    path = work_dir / name
    lock = FileLock(work_dir / (name + _LOCK_SUFFIX))
    with explained(f"make a working directory in {work_dir}"):
        work_dir.mkdir(exist_ok=True)
        lock.acquire()
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove_tree(path)
        (work_dir / (name + _LOCK_SUFFIX)).unlink(missing_ok=True)
        lock.release()


def stale_workspaces(work_dir: Path) -> list[Path]:
    """List working directories (and lock files without one) whose process is gone."""
    stale = []
    for path in sorted(work_dir.iterdir()) if work_dir.is_dir() else []:
        with contextlib.suppress(OSError):
            is_lock = path.suffix == _LOCK_SUFFIX
            if is_lock and path.with_suffix("").exists():
                continue  # goes with its directory
            # A lock is taken before its directory is made, so only a bare lock may be in between.
            if is_lock and time.time() - path.stat().st_mtime < STAGING_GRACE_S:
                continue
            lock = FileLock(path if is_lock else path.with_name(path.name + _LOCK_SUFFIX))
            if lock.try_acquire():
                stale.append(path)
                lock.release()
    return stale


def clean_workspaces(work_dir: Path) -> int:
    """Remove working directories whose process is gone; return how many bytes that freed."""
    freed = 0
    for path in stale_workspaces(work_dir):
        freed += disk_bytes(path)
        if path.suffix == _LOCK_SUFFIX:
            path.unlink(missing_ok=True)
        else:
            remove_tree(path)
            path.with_name(path.name + _LOCK_SUFFIX).unlink(missing_ok=True)
    return freed


def disk_bytes(path: Path) -> int:
    """Return the bytes that a tree or file takes on disk; holes do not count."""
    total = 0
    with contextlib.suppress(OSError):
        total += path.lstat().st_blocks * 512
    if path.is_dir() and not path.is_symlink():
        for folder, _, files in os.walk(path):
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def remove_tree(path: Path) -> None:
    """Remove a tree, read-only directories in it too; what resists stays for the next cleaning."""

    def make_writable(_do: Callable[..., Any], name: str, _error: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), stat.S_IRWXU)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, stat.S_IRWXU)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    shutil.rmtree(path, onerror=make_writable)
