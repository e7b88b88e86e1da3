"""Writing one blob piece by piece, and downloading one that may be interrupted and resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from local_imager.errors import IntegrityError, SourceError
from local_imager.oci import sparse
from local_imager.oci.blobs import BlobDir
from local_imager.oci.durable import FileLock, explained
from local_imager.oci.model import Descriptor

# ``chunks(offset)`` starts the stream of a blob at a byte offset.
Chunks = Callable[[int], Iterator[bytes]]
OnProgress = Callable[[int], None]

# Fewer than this many bytes are not worth a range request after a restart.
_KEEP_PARTIAL_BYTES: Final = 64 * 1024


class BlobWriter:
    """Takes the bytes of one blob in order; nothing is visible before :meth:`commit`."""

    def __init__(
        self, blobs: BlobDir, handle: int, path: Path, wanted: Descriptor | None, private: bool
    ) -> None:
        self._blobs, self._handle, self._path = blobs, handle, path
        self._wanted, self._private = wanted, private
        self._hasher = sparse.Hasher()
        self.committed = False

    @property
    def offset(self) -> int:
        """How many bytes are there already (more than zero at the start after a resume)."""
        return self._hasher.size_bytes

    def resume(self) -> None:
        """Count the bytes that an earlier process left; too many are dropped."""
        present = os.fstat(self._handle).st_size
        if self._wanted is None or present > self._wanted.size_bytes:
            self.restart()
            return
        sparse.walk(self._handle, present, lambda _o, chunk, n: self._take(chunk, n))

    def _take(self, chunk: memoryview | None, length: int) -> None:
        if chunk is None:
            self._hasher.hole(length)
        else:
            self._hasher.data(chunk)

    def restart(self) -> None:
        """Forget everything written so far."""
        os.ftruncate(self._handle, 0)
        self._hasher = sparse.Hasher()

    def write(self, data: bytes) -> None:
        """Append bytes; raises :class:`IntegrityError` at the first byte too many."""
        limit = None if self._wanted is None else self._wanted.size_bytes
        if limit is not None and self.offset + len(data) > limit:
            raise IntegrityError(f"more than the {limit} bytes announced came for a blob")
        with explained(f"write a blob to {self._path.parent}"):
            sparse.write_all(self._handle, data, self.offset)
        self._hasher.data(data)

    def commit(self, media_type: str = "") -> Descriptor:
        """Make the bytes a blob; raises :class:`IntegrityError` when others were wanted."""
        digest, size_bytes = self._hasher.digest, self.offset
        wanted = self._wanted
        if wanted is not None and (digest, size_bytes) != (wanted.digest, wanted.size_bytes):
            raise IntegrityError(
                f"the bytes that came have digest {digest} and size {size_bytes}, "
                f"wanted {wanted.digest} and {wanted.size_bytes}",
                hint="the source is damaged or not honest; nothing of it was kept",
            )
        with explained("keep a blob"):
            self._blobs.adopt(self._handle, self._path, digest, private=self._private)
        self.committed = True
        return wanted if wanted is not None else Descriptor(media_type, digest, size_bytes)


@contextlib.contextmanager
def blob_writer(
    blobs: BlobDir, wanted: Descriptor | None = None, *, private: bool = False
) -> Iterator[BlobWriter]:
    """Yield a writer; without a ``commit`` nothing becomes visible.

    With a wanted descriptor the bytes are kept apart in ``unverified/`` until they match, the
    size is a hard limit, one process at a time writes that blob, and what an interrupted one left
    is continued.
    """
    if wanted is None:
        with explained(f"write a blob to {blobs.path}"), blobs.staged() as (handle, path):
            yield BlobWriter(blobs, handle, path, None, private)
        return
    with explained(f"prepare a download to {blobs.path}"):
        blobs.unverified_dir.mkdir(exist_ok=True)
        blobs.locks_dir.mkdir(exist_ok=True)
        lock = FileLock(blobs.locks_dir / f"blob-{wanted.digest.hex}").acquire()
    with lock:
        path = blobs.unverified_dir / wanted.digest.hex
        with explained(f"prepare a download to {blobs.path}"):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        writer = BlobWriter(blobs, handle, path, wanted, private)
        try:
            with explained("read an interrupted download"):
                writer.resume()
            yield writer
        except IntegrityError:
            path.unlink(missing_ok=True)
            raise
        finally:
            if not writer.committed and os.fstat(handle).st_size < _KEEP_PARTIAL_BYTES:
                path.unlink(missing_ok=True)
            os.close(handle)


def download(
    blobs: BlobDir,
    wanted: Descriptor,
    chunks: Chunks,
    *,
    private: bool = False,
    on_progress: OnProgress | None = None,
) -> Descriptor:
    """Bring a blob into the directory unless it is there; resume what was interrupted.

    ``on_progress`` gets the number of bytes present. Raises :class:`IntegrityError` when what came
    is not the blob (after one more try from the start, if the begin was an old partial), and
    whatever ``chunks`` raises; then the partial is kept for the next try.
    """
    report = on_progress or (lambda _done: None)
    if blobs.intact(wanted.digest, wanted.size_bytes):
        report(wanted.size_bytes)
        return wanted
    with blob_writer(blobs, wanted, private=private) as writer:
        if blobs.intact(wanted.digest, wanted.size_bytes):  # another process was first
            report(wanted.size_bytes)
            return wanted
        resumed = writer.offset > 0
        try:
            _fill(writer, wanted, chunks, report)
            return writer.commit()
        except IntegrityError:
            if not resumed:
                raise
        writer.restart()
        _fill(writer, wanted, chunks, report)
        return writer.commit()


def _fill(writer: BlobWriter, wanted: Descriptor, chunks: Chunks, report: OnProgress) -> None:
    report(writer.offset)
    if writer.offset == wanted.size_bytes:
        return
    for chunk in chunks(writer.offset):
        writer.write(chunk)
        report(writer.offset)
    if writer.offset < wanted.size_bytes:
        raise SourceError(
            f"the download of {wanted.digest} ended after {writer.offset} "
            f"of {wanted.size_bytes} bytes",
            hint="run the command again: it goes on where this one stopped",
            code="truncated",
        )
