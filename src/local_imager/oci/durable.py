"""Writing that survives a crash and locks that end with their process.

A file written here is either there with all its bytes or not there at all. Operating system faults
become :class:`StoreError` with a hint that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from local_imager.errors import StoreError, StoreUnable

_POLL_S: Final = 0.05

# What the host is to blame for, and what its owner can do.
_HINTS: Final = {
    errno.ENOSPC: "the disk is full: free some space, or see `local-imager store gc --dry-run`",
    errno.EDQUOT: "your disk quota is used up: see `local-imager store gc --dry-run`",
    errno.EFBIG: "the file is larger than the file system or the process limit (ulimit -f) allows",
    errno.EROFS: "the file system is mounted read-only; choose another place",
    errno.EACCES: "check who owns the directory and its mode",
    errno.EPERM: "check who owns the directory and its mode",
    errno.ENOLCK: "this file system has no locks; put the store on a local disk",
    errno.EIO: "the disk reports a fault; look at the system log before you go on",
}
_CODES: Final = {errno.ENOSPC: "disk-full", errno.EDQUOT: "disk-full", errno.EFBIG: "disk-full"}


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an ``OSError`` of the body into a :class:`StoreError` that says what was being done.

    It is a :class:`StoreUnable` where the host lacks room or rights.
    """
    try:
        yield
    except OSError as error:
        raise fault(error, f"could not {doing}: {error.strerror or error}") from error


def fault(error: OSError, message: str) -> StoreError:
    """Return the error for a fault of the operating system, with a hint where one is known."""
    number = error.errno or 0
    kind = StoreUnable if number in _HINTS else StoreError
    return kind(message, hint=_HINTS.get(number, ""), code=_CODES.get(number))


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot sync a directory; their rename is what it is.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def replace_file(
    path: Path, data: bytes, *, mode: int = 0o644, staging_dir: Path | None = None
) -> None:
    """Write a small file so that a reader sees the old bytes or the new ones, never a mixture.

    The bytes are collected in ``staging_dir`` (same file system), or beside the file under a name
    that ends in ``.part``.
    """
    temporary = (staging_dir or path.parent) / f".{path.name}.{secrets.token_hex(6)}.part"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


class FileLock:
    """An advisory lock on a file, shared or exclusive, that the kernel drops with its process.

    ``flock`` is used directly because writers hold the store together (shared) while the garbage
    collector wants it alone, which lock-file packages do not offer. Waiting is polling, so it can
    be interrupted. One instance is one lock: threads use one each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock if nobody holds it in a conflicting way; return whether it was taken."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            current = os.stat(self._path).st_ino == os.fstat(handle).st_ino
        except (BlockingIOError, FileNotFoundError):
            current = False
        except BaseException:
            os.close(handle)
            raise
        if not current:  # held by another, or the file was removed between open and lock
            os.close(handle)
            return False
        self._handle = handle
        return True

    def acquire(
        self, *, shared: bool = False, on_wait: Callable[[], None] | None = None
    ) -> FileLock:
        """Wait for the lock; ``on_wait`` is called once when it is not free at once."""
        waited = False
        while not self.try_acquire(shared=shared):
            if not waited and on_wait is not None:
                on_wait()
            waited = True
            time.sleep(_POLL_S)
        return self

    def release(self) -> None:
        """Give the lock back; the file stays, so that waiters need not agree on a new one."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
