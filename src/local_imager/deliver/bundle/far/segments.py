"""Segments: the pieces of a blob that travelled in several parts, until they can be joined.

Each lies in ``unverified/`` as a file of its own, named after the blob, its offset and its own
digest. It got that name only after its bytes had matched and were on the disk, so the names alone
say what is there, whatever was killed, and two imports that bring one segment bring the same.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from local_imager.deliver.bundle.form.model import Blob, Piece
from local_imager.errors import IntegrityError
from local_imager.oci import sparse
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import FileLock, explained, sync_dir
from local_imager.oci.layout import Layout


def segment_path(layout: Layout, segment: Piece) -> Path:
    """Return where a segment is or would be."""
    name = f"{segment.blob.hex}.{segment.offset:020d}.{segment.digest.hex}"
    return layout.unverified_dir / name


def has_segment(layout: Layout, segment: Piece) -> bool:
    """Return whether a segment is there (its bytes are looked at when the blob is joined)."""
    try:
        status = segment_path(layout, segment).lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == segment.size_bytes


def adopt_segment(layout: Layout, segment: Piece, handle: int, temporary: Path) -> None:
    """Keep a completely written file as this segment (its digest was checked by the caller)."""
    with layout.writing():
        layout.unverified_dir.mkdir(exist_ok=True)
        os.fsync(handle)
        temporary.rename(segment_path(layout, segment))
        sync_dir(layout.unverified_dir)


def join_segments(
    layout: Layout, blob: Blob, segments: Sequence[Piece], *, private: bool = False
) -> None:
    """Make the blob of all its segments (in order), and remove them; hashed on the way.

    One process at a time makes a blob; what another one has made meanwhile is not made again.
    Raises :class:`IntegrityError` when they do not give the blob: those that are damaged are
    removed, so that only their parts have to come again. Raises :class:`StoreError`.
    """
    with explained(f"put blob {blob.digest} together"):
        lock = FileLock(layout.locks_dir / f"blob-{blob.digest.hex}").acquire()
    with lock:
        if not layout.intact(blob.digest, blob.size_bytes):
            _join(layout, blob, segments, private=private)
    drop_segments(layout, segments)


def _join(layout: Layout, blob: Blob, segments: Sequence[Piece], *, private: bool) -> None:
    with layout.writing(), explained(f"put blob {blob.digest} together"):
        with layout.staged() as (handle, temporary):
            hasher = sparse.Hasher()
            os.ftruncate(handle, blob.size_bytes)
            for segment in segments:
                _append(layout, segment, handle, hasher)
            if hasher.digest != blob.digest:
                raise _not_the_blob(layout, blob, segments)
            layout.adopt(handle, temporary, blob.digest, private=private)


def _append(layout: Layout, segment: Piece, target: int, hasher: sparse.Hasher) -> None:
    def take(offset: int, chunk: memoryview | None, length: int) -> None:
        if chunk is None:
            hasher.hole(length)
            return
        hasher.data(chunk)
        sparse.write_all(target, chunk, segment.offset + offset)

    source = open_regular(segment_path(layout, segment))
    try:
        sparse.walk(source, segment.size_bytes, take)
    finally:
        os.close(source)


def _not_the_blob(layout: Layout, blob: Blob, segments: Sequence[Piece]) -> IntegrityError:
    damaged = [
        segment
        for segment in segments
        if sparse.hash_file(segment_path(layout, segment)) != (segment.digest, segment.size_bytes)
    ]
    drop_segments(layout, damaged or segments)
    if damaged:
        return IntegrityError(
            f"{len(damaged)} of {len(segments)} pieces of {blob.digest} were damaged on this disk",
            hint="look at the system log for faults of the disk, then import the parts again",
        )
    return IntegrityError(
        f"the pieces of {blob.digest} do not give it, though each is what the bundle says",
        hint="the bundle was made wrong, or by somebody who is not honest; get another",
    )


def drop_segments(layout: Layout, segments: Sequence[Piece]) -> None:
    """Remove segments that are not needed any more."""
    for segment in segments:
        with contextlib.suppress(OSError):
            segment_path(layout, segment).unlink()
