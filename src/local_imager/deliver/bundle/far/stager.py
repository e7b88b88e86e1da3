"""Writing blobs that come in one stream into a store, while the stream goes on.

Three things happen side by side: the reader hashes, one thread writes, a few others wait for the
disk. A blob gets its name in the store only when its bytes are on the disk; what was not intact
never does. Buffers are a fixed number, so memory does not grow with the blobs.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final

from local_imager.deliver.bundle.far.segments import adopt_segment
from local_imager.deliver.bundle.form.model import Blob, Piece
from local_imager.oci.durable import explained
from local_imager.oci.layout import Layout

_BUFFER_BYTES: Final = 1 << 20
_BUFFERS: Final = 16
_SYNCERS: Final = 4
# Small blobs wait for the disk together; each holds a file open.
_OPEN_FILES: Final = 64
# A large blob is brought to the disk while it comes, so that its end does not wait for all of it.
_SYNC_EVERY_BYTES: Final = 64 << 20
# Runs of zeros of this length are left out of the file.
_HOLE_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(_HOLE_BYTES)

Adopt = Callable[[int, "StagedPiece"], None]


class Stager:
    """Takes pieces into a layout; used as a context, whose end waits for all that was taken.

    A fault of the disk is raised (:class:`StoreError`) by the next write, or by :meth:`settled`.
    Blobs that were complete before it stay.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._free: queue.Queue[bytearray] = queue.Queue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(_BUFFER_BYTES))
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._slots = threading.Semaphore(_OPEN_FILES)
        self._fault: Exception | None = None
        self._syncers = ThreadPoolExecutor(_SYNCERS, thread_name_prefix="sync")
        self._writer = threading.Thread(target=self._write_all, name="write", daemon=True)

    def __enter__(self) -> Stager:
        self._writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._jobs.put(None)
        self._writer.join()
        self._syncers.shutdown(wait=True)

    def settled(self) -> None:
        """Raise the first fault, if there was one; to be called after the context's end."""
        if self._fault is not None:
            raise self._fault

    def blob(self, blob: Blob, *, private: bool = False) -> StagedPiece:
        """Take a whole blob; it is in the store once its bytes are on the disk."""

        def adopt(handle: int, piece: StagedPiece) -> None:
            self._layout.adopt(handle, piece.path, blob.digest, private=private)

        return self._opened(blob.size_bytes, adopt)

    def segment(self, segment: Piece) -> StagedPiece:
        """Take a part of a blob, to be kept beside the blobs until the others are there."""

        def adopt(handle: int, piece: StagedPiece) -> None:
            adopt_segment(self._layout, segment, handle, piece.path)

        return self._opened(segment.size_bytes, adopt)

    def _opened(self, size_bytes: int, adopt: Adopt) -> StagedPiece:
        self.settled()
        self._slots.acquire()
        try:
            with explained(f"write a blob to {self._layout.path}"):
                return StagedPiece(self, self._layout, size_bytes, adopt)
        except BaseException:
            self._slots.release()
            raise

    # What follows is for StagedPiece.

    def take_buffer(self) -> bytearray:
        """Wait until the writer has given a buffer back; raises the fault that stopped it."""
        self.settled()
        return self._free.get()

    def give_back(self, buffer: bytearray) -> None:
        """Let the buffer be filled again."""
        self._free.put(buffer)

    def later(self, job: Callable[[], None]) -> None:
        """Let the writing thread do this after all that it was given before."""
        self._jobs.put(job)

    def synced(self, job: Callable[[], None]) -> Future[None]:
        """Let a thread that may wait for the disk do this; a fault is kept."""
        return self._syncers.submit(self._guarded, job)

    def released(self) -> None:
        """Count one file less."""
        self._slots.release()

    @property
    def failed(self) -> bool:
        """Whether nothing more is written."""
        return self._fault is not None

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            with explained(f"write a blob to {self._layout.path}"):
                job()
        except Exception as error:  # raised again in the reading thread
            self._fault = self._fault or error

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._guarded(job)


class StagedPiece:
    """One piece on its way: bytes are copied into buffers, written and synced by other threads."""

    def __init__(self, stager: Stager, layout: Layout, size_bytes: int, adopt: Adopt) -> None:
        self._stager, self._size_bytes, self._adopt = stager, size_bytes, adopt
        self._file = contextlib.ExitStack()
        self._handle, self.path = self._file.enter_context(layout.staged())
        self._taken = self._unsynced = 0
        self._syncing: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; they are copied."""
        view = memoryview(data)
        while view:
            buffer = self._stager.take_buffer()
            count = min(len(view), len(buffer))
            buffer[:count] = view[:count]
            self._stager.later(partial(self._put, buffer, count, self._taken))
            self._taken += count
            view = view[count:]

    def close(self, intact: bool) -> None:
        """Let the piece be adopted when it is intact, else forgotten."""
        self._stager.later(partial(self._end, intact and self._taken == self._size_bytes))

    def _put(self, buffer: bytearray, count: int, offset: int) -> None:
        try:
            if self._stager.failed:
                return
            write_holes(self._handle, memoryview(buffer)[:count], offset)
        finally:
            self._stager.give_back(buffer)
        self._unsynced += count
        if self._unsynced >= _SYNC_EVERY_BYTES and (self._syncing is None or self._syncing.done()):
            self._unsynced = 0
            self._syncing = self._stager.synced(partial(os.fdatasync, self._handle))

    def _end(self, intact: bool) -> None:
        if intact and not self._stager.failed:
            self._stager.synced(self._finish)
        else:
            self._stager.synced(self._drop)

    def _finish(self) -> None:
        try:
            os.ftruncate(self._handle, self._size_bytes)  # it may end in a hole
            self._adopt(self._handle, self)
        finally:
            self._drop()

    def _drop(self) -> None:
        if self._syncing is not None:
            self._syncing.result()  # was begun before, so this thread is not the one it waits for
        self._file.close()
        self._stager.released()


def write_holes(handle: int, data: memoryview, offset: int) -> None:
    """Write bytes at an offset of a new file, but for whole blocks of zeros: those stay holes."""
    begin = 0
    for at in range(0, len(data), _HOLE_BYTES):
        block = data[at : at + _HOLE_BYTES]
        # Two bytes tell nearly always, without a look at the others.
        if block[0] or block[-1] or bytes(block) != _ZEROS[: len(block)]:
            continue
        _write(handle, data[begin:at], offset + begin)
        begin = at + len(block)
    _write(handle, data[begin:], offset + begin)


def _write(handle: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(handle, data, offset)
        data, offset = data[count:], offset + count
