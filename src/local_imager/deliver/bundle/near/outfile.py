"""The files of a bundle on the disk: whole under their name, or not there at all.

A file grows beside its target under one fixed name (``.site.tar.part``), locked by who writes it.
What a killed run left under that name is taken over by the next one, and files of other parts that
nobody holds are removed, so nothing heaps up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.form.model import MANIFEST_NAME
from local_imager.deliver.bundle.form.signing import signature_path
from local_imager.deliver.bundle.reading.zstdframe import MAGIC
from local_imager.errors import HostError, InputError, StoreError, StoreUnable
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import explained, sync_dir

# The kernel begins to write at once what it would keep back until the end, while we go on hashing.
_WRITE_BACK_BYTES: Final = 16 * 1024**2
# Directory entries, the signature, and whoever else writes there.
_RESERVE_BYTES: Final = 16 * 1024**2
_PUBLIC: Final = 0o666
_PRIVATE: Final = 0o600


def part_name(output: Path, number: int, count: int) -> Path:
    """Return the file of a part: ``site.part2of3.tar`` for ``site.tar``; the file itself for one.

    ``site.tar.zst`` becomes ``site.part2of3.tar.zst``.
    """
    if count == 1:
        return output
    packing = ".zst" if output.name.endswith(".zst") else ""
    stem = output.name.removesuffix(packing)
    head, dot, last = stem.rpartition(".")
    if not head:
        head, dot, last = stem, "", ""
    return output.with_name(f"{head}.part{number}of{count}{dot}{last}{packing}")


def refuse_foreign(target: Path, *, force: bool) -> None:
    """Check the place of an output before work is done for it.

    Raises :class:`InputError` when there is no such directory, when the target is something else
    than a file, or a file that is no bundle and is not to be replaced.
    """
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"there is no directory {folder}", hint="make it first, or choose another")
    if target.is_dir():
        raise InputError(f"{target} is a directory", hint="name the file: -o DIRECTORY/site.tar")
    if os.path.lexists(target) and not stat.S_ISREG(target.lstat().st_mode):
        raise InputError(
            f"{target} is no regular file, so it is not replaced",
            hint="name a file: -o DIRECTORY/site.tar",
            code="exists",
        )
    if force or not os.path.lexists(target):
        return
    if not _begins_as_bundle(target):
        raise InputError(
            f"{target} is there already and is no bundle",
            hint="choose another name, or say --force to replace it",
            code="exists",
        )


def _begins_as_bundle(target: Path) -> bool:
    try:
        with os.fdopen(open_regular(target), "rb") as stream:
            head = stream.read(len(MANIFEST_NAME) + 1)
    except OSError:
        return False
    return head.startswith((MANIFEST_NAME.encode() + b"\0", MAGIC))


def check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse before a byte is written when the disk has no room for all; raises HostError."""
    with explained(f"look at the disk of {folder}"):
        free = shutil.disk_usage(folder).free
    if needed_bytes + _RESERVE_BYTES > free:
        raise HostError(
            f"the bundle has {needed_bytes // 1024**2 + 1} MiB, "
            f"and {free // 1024**2} MiB are free in {folder}",
            hint="free some space, choose another place, or leave out what the far side has "
            "(--since); on the far side `local-imager store inventory` says what that is",
            code="disk-full",
        )


class GrowingFile:
    """A file that is being written; :meth:`commit` gives it its name."""

    def __init__(self, handle: int, temporary: Path, target: Path, *, private: bool) -> None:
        self._handle, self._temporary, self._target = handle, temporary, target
        self._private = private
        self.size_bytes = self._handed_over = 0
        self.committed = False

    def write(self, data: memoryview) -> None:
        """Append bytes; raises :class:`StoreError`."""
        with explained(f"write {self._target}"), _explained_limit(self._target):
            while data:
                count = os.write(self._handle, data)
                self.size_bytes += count
                data = data[count:]
            pending = self.size_bytes - self._handed_over
            if pending >= _WRITE_BACK_BYTES:
                os.posix_fadvise(self._handle, self._handed_over, pending, os.POSIX_FADV_DONTNEED)
                self._handed_over = self.size_bytes

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def commit(self) -> None:
        """Let the file have its name once all of it is on the disk; raises :class:`StoreError`."""
        with explained(f"write {self._target}"):
            mode = _PRIVATE if self._private else _PUBLIC & ~_umask()
            if stat.S_IMODE(os.fstat(self._handle).st_mode) != mode:
                with contextlib.suppress(PermissionError):  # a file system without modes
                    os.fchmod(self._handle, mode)
            os.fsync(self._handle)
            self._temporary.rename(self._target)
            sync_dir(self._target.parent)
        self.committed = True


@contextlib.contextmanager
def _explained_limit(target: Path) -> Iterator[None]:
    """Say what to do about media whose file system holds no file of this size."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise StoreUnable(
            f"{target} grows larger than a file may be there",
            hint="--split 3900MiB makes parts that FAT32 holds; exFAT and Linux file systems "
            "hold larger ones (see also: ulimit -f)",
            code="disk-full",
        ) from error


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def growing(target: Path, *, private: bool) -> Iterator[GrowingFile]:
    """Yield a file to write; without a commit nothing of it stays.

    Raises :class:`StoreError` (``busy``) while another process writes the same file.
    """
    temporary = _temporary(target)
    file = None
    try:
        with explained(f"write {target}"):
            handle = _claim(temporary)
        if handle is None:
            raise StoreError(
                f"another process is writing {target}",
                hint="wait until it is done, or choose another name",
                code="busy",
            )
        file = GrowingFile(handle, temporary, target, private=private)
        yield file
    finally:
        # Ctrl-C may come at any point, also when the file was just made and nobody holds it yet.
        if file is None or not file.committed:
            if file is not None:
                file.close()
            _discard(temporary)
        else:
            file.close()


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _claim(temporary: Path) -> int | None:
    """Open and lock a temporary file, emptied; None when a living process holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        handle = os.open(temporary, flags, _PRIVATE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(temporary).st_ino == os.fstat(handle).st_ino:
                os.ftruncate(handle, 0)
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass  # its writer has just given it its name, or taken it away
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def remove_leftovers(output: Path) -> None:
    """Remove what killed runs left beside an output, for any number of parts."""
    of_parts = rf"{_any_part(output)}|{re.escape(output.name)}"
    pattern = re.compile(rf"\.(?:{of_parts}|{re.escape(signature_path(output).name)})\.part")
    with contextlib.suppress(OSError):
        for name in os.listdir(output.parent):
            if pattern.fullmatch(name):
                _discard(output.with_name(name))


def _discard(temporary: Path) -> None:
    """Remove a temporary file unless a living process holds it."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(temporary):
            return
        handle = _claim(temporary)
        if handle is not None:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def other_parts(output: Path, own: Collection[Path]) -> tuple[Path, ...]:
    """Return files that are named like parts of this output and do not belong to the set."""
    pattern = re.compile(_any_part(output))
    names = sorted(name for name in os.listdir(output.parent) if pattern.fullmatch(name))
    found = (output.with_name(name) for name in names)
    return tuple(path for path in found if path not in own)


def _any_part(output: Path) -> str:
    name = re.escape(part_name(output, 1, 2).name)
    return name.replace("part1of2", r"part\d+of\d+")


class Differs(Exception):
    """The file that is there has other bytes than the bundle."""


class Comparison:
    """Takes the bytes of a bundle and compares them with a file that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self.size_bytes = 0

    def __enter__(self) -> Comparison:
        with explained(f"read {self._path}"):
            self._handle = open_regular(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, data: memoryview) -> None:
        """Compare the next bytes; raises :class:`Differs`."""
        while data:
            with explained(f"read {self._path}"):
                found = os.pread(self._handle, len(data), self.size_bytes)
            if not found or found != data[: len(found)]:
                raise Differs
            self.size_bytes += len(found)
            data = data[len(found) :]

    def end(self) -> None:
        """Check that the file ends here, too; raises :class:`Differs`."""
        with explained(f"read {self._path}"):
            if os.fstat(self._handle).st_size != self.size_bytes:
                raise Differs
