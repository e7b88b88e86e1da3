"""The blobs of a layout directory: written completely or not at all, checked when they are read.

Commit protocol: bytes go to ``staging/`` (a download whose digest is known: to ``unverified/``)
in the same file system, are hashed on the way, synced, and renamed to ``blobs/sha256/<hex>``.
A blob that is there already is success. A process killed anywhere leaves at most a staging file
whose lock nobody holds, which :meth:`BlobDir.clean_staging` removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from local_imager.errors import IntegrityError, NotFound, StoreError
from local_imager.oci import sparse
from local_imager.oci.durable import FileLock, explained, fault, sync_dir
from local_imager.oci.model import Descriptor, Digest
from local_imager.oci.seal import is_sealed, seal, touch

# A staging file is created and then locked; younger ones may be in between.
STAGING_GRACE_S: Final = 60.0
PUBLIC_MODE: Final = 0o444
PRIVATE_MODE: Final = 0o400
_SYNCS_AT_ONCE: Final = 8


def open_regular(path: Path) -> int:
    """Open a file for reading; raises ``OSError`` (EINVAL) when it is no regular file.

    Never blocks on a FIFO that somebody put there, and leaves the access time alone where that is
    allowed: only :func:`~local_imager.oci.seal.touch` notes a use.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only the owner may ask for that
        handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


class BlobDir:
    """Blobs below one directory; safe for many threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs_dir = path / "blobs" / "sha256"
        self.staging_dir = path / "staging"
        self.unverified_dir = path / "unverified"
        self.locks_dir = path / "locks"

    def blob_path(self, digest: Digest) -> Path:
        """Return where the blob is or would be; says nothing of whether it is there."""
        return self.blobs_dir / digest.hex

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there (its bytes are not looked at, see ``intact``)."""
        return self.blob_path(digest).is_file()

    def intact(self, digest: Digest, size_bytes: int | None = None) -> bool:
        """Return whether the blob is there with the right bytes.

        Quick while the seal holds; a blob that may have been written to is hashed again.
        """
        try:
            handle = open_regular(self.blob_path(digest))
        except OSError:
            return False
        try:
            status = os.fstat(handle)
            if size_bytes is not None and status.st_size != size_bytes:
                return False
            if is_sealed(status, digest):
                return True
            if sparse.hash_handle(handle, status.st_size) != digest:
                return False
            with contextlib.suppress(OSError):  # a read-only layout stays unsealed
                seal(handle, digest)
            return True
        finally:
            os.close(handle)

    def is_private(self, digest: Digest) -> bool:
        """Return whether a blob is there and its owner alone may read it."""
        with contextlib.suppress(OSError):
            return not self.blob_path(digest).stat().st_mode & 0o077
        return False

    def read_blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob's bytes, checked against the digest.

        Raises :class:`NotFound`, or :class:`IntegrityError` when it is larger than ``max_bytes``
        or its bytes have another digest.
        """
        try:
            handle = open_regular(self.blob_path(digest))
        except FileNotFoundError:
            raise NotFound(f"{self.path} has no blob {digest}") from None
        except OSError as error:
            raise fault(error, f"could not read blob {digest}: {error.strerror}") from error
        with os.fdopen(handle, "rb") as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise IntegrityError(f"blob {digest} is larger than the {max_bytes} bytes expected")
        if Digest.of(data) != digest:
            raise IntegrityError(
                f"blob {digest} in {self.path} does not have the bytes of its digest",
                hint="`local-imager store fsck --repair` removes bad blobs",
            )
        return data

    def put_bytes(
        self, data: bytes, media_type: str, *, private: bool = False, **fields: Any
    ) -> Descriptor:
        """Store bytes as a blob and return their descriptor (``fields`` become part of it).

        ``private`` blobs can be read by their owner only. Raises :class:`StoreError`.
        """
        descriptor = Descriptor.of(data, media_type, **fields)
        if self._already(descriptor.digest, descriptor.size_bytes, private=private):
            return descriptor
        with explained(f"write a blob to {self.path}"), self.staged() as (handle, temporary):
            sparse.write_all(handle, data, 0)
            self.adopt(handle, temporary, descriptor.digest, private=private)
        return descriptor

    def put_all(self, blobs: Iterable[bytes], *, private: bool = False) -> None:
        """Store small blobs together, which waits for the disk about once; see ``put_bytes``."""
        from concurrent.futures import ThreadPoolExecutor

        written: list[tuple[int, Path, Digest]] = []
        with explained(f"write blobs to {self.path}"), self.writing(), ExitStack() as staging:
            for data in dict.fromkeys(blobs):
                digest = Digest.of(data)
                if self._already(digest, len(data), private=private):
                    continue
                handle, temporary = staging.enter_context(self.staged())
                sparse.write_all(handle, data, 0)
                os.fchmod(handle, PRIVATE_MODE if private else PUBLIC_MODE)
                seal(handle, digest)
                written.append((handle, temporary, digest))
            # File systems join what is asked of them at the same time.
            with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
                list(pool.map(os.fsync, [handle for handle, _, _ in written]))
            for _, temporary, digest in written:
                temporary.rename(self.blob_path(digest))
            if written:
                sync_dir(self.blobs_dir)

    def put_file(
        self,
        path: Path,
        media_type: str,
        *,
        move: bool = False,
        private: bool = False,
        **fields: Any,
    ) -> Descriptor:
        """Store a file as a blob; holes stay holes.

        ``move`` renames the file into place when it is ours alone and on the same file system,
        and removes it otherwise. Without it the bytes are cloned (reflink) or copied: never hard
        linked, since the caller may go on writing. Raises :class:`StoreError`.
        """
        with explained(f"store {path.name}"):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise StoreError(f"{path.name} is not a regular file, so it is not stored")
                if move and self._may_adopt(handle):
                    size_bytes = os.fstat(handle).st_size
                    digest = sparse.hash_handle(handle, size_bytes)
                    self.adopt(handle, path, digest, private=private)
                else:
                    digest, size_bytes = self._copy_in(handle, private=private)
                    if move:
                        path.unlink()
            finally:
                os.close(handle)
        return Descriptor(media_type, digest, size_bytes, **fields)

    def _copy_in(self, source: int, *, private: bool) -> tuple[Digest, int]:
        with self.staged() as (handle, temporary):
            if sparse.clone(source, handle):
                size_bytes = os.fstat(handle).st_size
                digest = sparse.hash_handle(handle, size_bytes)
            else:
                digest, size_bytes = sparse.copy_hashed(source, handle)
            self.adopt(handle, temporary, digest, private=private)
        return digest, size_bytes

    def _may_adopt(self, handle: int) -> bool:
        """Whether renaming the file makes it a blob that nobody else can write to by right."""
        status = os.fstat(handle)
        if status.st_dev != os.stat(self.blobs_dir).st_dev or status.st_nlink != 1:
            return False
        if status.st_uid == os.geteuid():
            return True
        # A container wrote it as its own user: a blob must not stay in that user's hands.
        with contextlib.suppress(OSError):
            os.fchown(handle, os.geteuid(), os.getegid())
            return True
        return False

    @contextlib.contextmanager
    def staged(self) -> Iterator[tuple[int, Path]]:
        """Yield an open, locked temporary file; what is left of it at the end is removed."""
        self.staging_dir.mkdir(exist_ok=True)
        temporary = self.staging_dir / secrets.token_hex(8)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        lock_open_file(handle)
        try:
            yield handle, temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)

    def adopt(self, handle: int, temporary: Path, digest: Digest, *, private: bool) -> None:
        """Make a completely written file the blob of this digest (which the caller computed)."""
        size_bytes = os.fstat(handle).st_size
        if self._already(digest, size_bytes, private=private):
            temporary.unlink()
            return
        with self.writing():
            os.fchmod(handle, PRIVATE_MODE if private else PUBLIC_MODE)
            seal(handle, digest)
            os.fsync(handle)
            temporary.rename(self.blob_path(digest))
            sync_dir(self.blobs_dir)

    def _already(self, digest: Digest, size_bytes: int, *, private: bool) -> bool:
        """Whether an intact blob is there; it then counts as just written (for the collector)."""
        with self.writing():
            if not self.intact(digest, size_bytes):
                return False
            path = self.blob_path(digest)
            if private:
                path.chmod(PRIVATE_MODE)
            touch(path)
            return True

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold off the garbage collector while blobs are written and named; any number may."""
        with explained(f"lock the layout {self.path}"):
            self.locks_dir.mkdir(exist_ok=True)
            lock = FileLock(self.locks_dir / "writers").acquire(shared=True)
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def alone(self, *, patience_s: float = 10.0) -> Iterator[None]:
        """Keep every writer out, so that blobs may be removed.

        Raises :class:`StoreError` with the code ``busy`` when writers do not end in time.
        """
        deadline_s = time.monotonic() + patience_s
        with explained(f"lock the layout {self.path}"):
            self.locks_dir.mkdir(exist_ok=True)
            lock = FileLock(self.locks_dir / "writers")
            while not lock.try_acquire():
                if time.monotonic() > deadline_s:
                    raise StoreError(
                        f"another process is writing to {self.path}",
                        hint="wait until builds and downloads are done, then try again",
                        code="busy",
                    )
                time.sleep(0.05)
        with lock:
            yield

    def stale_staging(self) -> list[Path]:
        """List staging files whose writer is gone."""
        stale = []
        for path in sorted(self.staging_dir.glob("*")) if self.staging_dir.is_dir() else []:
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > STAGING_GRACE_S
                if old and not is_locked(path):
                    stale.append(path)
        return stale

    def clean_staging(self) -> int:
        """Remove staging files whose writer is gone; return how many bytes that freed."""
        freed = 0
        for path in self.stale_staging():
            with contextlib.suppress(OSError):
                freed += path.stat().st_blocks * 512
                path.unlink()
        return freed


def lock_open_file(handle: int) -> None:
    """Hold a lock on an open file for as long as it is open; shows that its writer lives."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the file's lock."""
    lock = FileLock(path)
    free = lock.try_acquire()
    lock.release()
    return not free
