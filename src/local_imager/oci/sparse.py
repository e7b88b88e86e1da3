"""Large files with holes: hashing, copying and cloning that touch only what holds data.

A raw disk image of 4.4 GB has about 30 MB of content; reading and writing its holes would cost
seconds and fill disks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from local_imager.oci.model import Digest

CHUNK_BYTES: Final = 1 << 20
# linux/fs.h: _IOW(0x94, 9, int); no Python module exports it.
_FICLONE: Final = 0x40049409
_ZEROS: Final = memoryview(bytes(CHUNK_BYTES))
# What a file system answers when it has no reflinks, or none between these two files.
_NO_CLONE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)


def extents(handle: int, size_bytes: int) -> Iterator[tuple[int, int, bool]]:
    """Yield ``(offset, length, is_data)`` parts that cover the file once, in order.

    A file system without hole reporting answers with one data part, which is correct too.
    """
    position = 0
    while position < size_bytes:
        try:
            start = os.lseek(handle, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            start = size_bytes
        start = min(start, size_bytes)
        if start > position:
            yield position, start - position, False
        if start < size_bytes:
            end = min(os.lseek(handle, start, os.SEEK_HOLE), size_bytes)
            yield start, end - start, True
            start = end
        position = start


class Hasher:
    """SHA-256 over data and holes."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.size_bytes = 0

    def data(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._sha.update(chunk)
        self.size_bytes += len(chunk)

    def hole(self, length: int) -> None:
        """Take a run of zeros without reading it."""
        while length > 0:
            part = min(length, CHUNK_BYTES)
            self.data(_ZEROS[:part])
            length -= part

    @property
    def digest(self) -> Digest:
        """Digest of everything taken so far."""
        return Digest(self._sha.hexdigest())


def walk(handle: int, size_bytes: int, take: Callable[[int, memoryview | None, int], None]) -> None:
    """Call ``take(offset, chunk or None for a hole, length)`` over the whole file, in order.

    One buffer of ``CHUNK_BYTES`` serves the whole walk, so ``take`` must not keep the chunk.
    Raises ``OSError`` (EIO) when the file is shorter than ``size_bytes``.
    """
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for offset, length, is_data in extents(handle, size_bytes):
        if not is_data:
            take(offset, None, length)
            continue
        end = offset + length
        while offset < end:
            count = os.preadv(handle, [buffer[: min(CHUNK_BYTES, end - offset)]], offset)
            if count == 0:
                raise OSError(errno.EIO, "the file became shorter while it was read")
            take(offset, buffer[:count], count)
            offset += count


def hash_handle(handle: int, size_bytes: int) -> Digest:
    """Return the digest of an open file's first ``size_bytes`` bytes."""
    hasher = Hasher()

    def take(_offset: int, chunk: memoryview | None, length: int) -> None:
        if chunk is None:
            hasher.hole(length)
        else:
            hasher.data(chunk)

    walk(handle, size_bytes, take)
    return hasher.digest


def hash_file(path: Path) -> tuple[Digest, int]:
    """Return digest and size of a file, reading only what holds data."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(handle).st_size
        return hash_handle(handle, size_bytes), size_bytes
    finally:
        os.close(handle)


def copy_hashed(source: int, target: int) -> tuple[Digest, int]:
    """Copy an open file into another, holes stay holes; return digest and size of what was read."""
    size_bytes = os.fstat(source).st_size
    hasher = Hasher()

    def take(offset: int, chunk: memoryview | None, length: int) -> None:
        if chunk is None:
            hasher.hole(length)
            return
        hasher.data(chunk)
        write_all(target, chunk, offset)

    os.ftruncate(target, size_bytes)
    walk(source, size_bytes, take)
    return hasher.digest, size_bytes


def copy_sparse(source: int, target: int) -> None:
    """Copy an open file into another without hashing; holes stay holes."""
    size_bytes = os.fstat(source).st_size

    def take(offset: int, chunk: memoryview | None, _length: int) -> None:
        if chunk is not None:
            write_all(target, chunk, offset)

    os.ftruncate(target, size_bytes)
    walk(source, size_bytes, take)


def write_all(handle: int, chunk: bytes | memoryview, offset: int) -> None:
    """Write all bytes at the offset (a single write may be short)."""
    view = memoryview(chunk)
    while view:
        count = os.pwrite(handle, view, offset)
        view = view[count:]
        offset += count


def clone(source: int, target: int) -> bool:
    """Make the target share the source's blocks (reflink); False where that cannot be done."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True
