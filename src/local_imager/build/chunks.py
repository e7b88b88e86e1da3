"""Reading large sparse files in fixed pieces, and working on the pieces on all cores, in order.

Pieces are cut at fixed offsets and a piece of zeros is one whether the file system stored it as a
hole or not, so what is made from them never depends on the host's file system or core count.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from local_imager.errors import Interrupted

S = TypeVar("S")
T = TypeVar("T")

CHUNK_BYTES: Final = 1024 * 1024
# Holes are restored in units of this size; file systems allocate at least 4 KiB.
DIG_BYTES: Final = 64 * 1024
# Reading from the page cache is copying memory: a second thread helps, more do not.
_READERS: Final = 2
# What was read is freed in stretches of this size.
_FREE_BYTES: Final = 64 * CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream: its bytes, or None for that many zeros."""

    data: bytes | None
    length: int


def file_chunks(path: Path, chunk_bytes: int) -> Iterator[Chunk]:
    """Yield the file in pieces of ``chunk_bytes`` (the last may be shorter); holes are not read."""
    with _Pieces(path, chunk_bytes) as pieces:
        yield from map(pieces.read, pieces.offsets())


def file_chunks_ahead(
    path: Path, chunk_bytes: int, cancel: threading.Event, *, use_up: bool = False
) -> Generator[Chunk, None, None]:
    """Yield the same pieces, read by other threads while the caller works on the last ones.

    ``use_up`` frees what was read: a raw disk is gigabytes of zeros in the page cache, and giving
    them back beside the compression takes no time of its own, deleting the file afterwards would.
    """
    with _Pieces(path, chunk_bytes) as pieces:
        chunks = in_order(pieces.read, pieces.offsets(), _READERS, cancel)
        yield from _freeing(path, chunks) if use_up else chunks


def _freeing(path: Path, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    freed = offset = 0
    with path.open("r+b") as target, ThreadPoolExecutor(1, thread_name_prefix="freeing") as pool:
        for chunk in chunks:
            yield chunk
            offset += chunk.length
            if offset - freed >= _FREE_BYTES:
                pool.submit(_punch, target.fileno(), freed, offset - freed)
                freed = offset


class _Pieces:
    """An open file that can be read in fixed pieces by several threads."""

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size_bytes = os.fstat(self._handle).st_size
        self._chunk_bytes = chunk_bytes
        self._zeros = bytes(chunk_bytes)
        self._own = threading.local()

    def __enter__(self) -> _Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def offsets(self) -> range:
        return range(0, self._size_bytes, self._chunk_bytes)

    def read(self, offset: int) -> Chunk:
        length = min(self._chunk_bytes, self._size_bytes - offset)
        if _next_data(self._handle, offset, self._size_bytes) >= offset + length:
            return Chunk(None, length)
        buffer, zeros = self._buffer(length)
        _read_into(self._handle, buffer, offset)
        # bytes against bytearray is one memcmp; a memoryview would compare item by item.
        return Chunk(None if buffer == zeros else bytes(buffer), length)

    def _buffer(self, length: int) -> tuple[bytearray, bytes]:
        if length < self._chunk_bytes:
            return bytearray(length), bytes(length)
        if not hasattr(self._own, "buffer"):
            self._own.buffer = bytearray(length)
        buffer: bytearray = self._own.buffer
        return buffer, self._zeros


def dig_holes(path: Path) -> None:
    """Turn the zeros of a file into holes, in place; a file system without holes is left alone."""
    with path.open("r+b") as target:
        for start, end in _zero_runs(path):
            if not _punch(target.fileno(), start, end - start):
                return


def _zero_runs(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the stretches of zeros, joined as far as they go: one call to free each is quickest."""
    zeros = bytes(DIG_BYTES)
    begin = offset = 0
    for chunk in file_chunks_ahead(path, CHUNK_BYTES, threading.Event()):
        if chunk.data is None:
            offset += chunk.length
            continue
        for at in range(0, chunk.length, DIG_BYTES):
            piece = chunk.data[at : at + DIG_BYTES]
            if piece != zeros[: len(piece)]:
                if begin < offset:
                    yield begin, offset
                begin = offset + len(piece)
            offset += len(piece)
    if begin < offset:
        yield begin, offset


_PUNCH_HOLE_KEEP_SIZE: Final = 0x02 | 0x01  # linux/falloc.h


def _punch(handle: int, offset: int, length: int) -> bool:
    """Free a part of a file (Linux fallocate(2), which Python does not offer with a mode)."""
    import ctypes

    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if fallocate is None:
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(handle, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0)


def _next_data(handle: int, offset: int, size_bytes: int) -> int:
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return size_bytes
        raise


def _read_into(handle: int, buffer: bytearray, offset: int) -> None:
    view, done = memoryview(buffer), 0
    while done < len(view):
        count = os.preadv(handle, [view[done:]], offset + done)
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        done += count


def rechunk(parts: Iterable[bytes], chunk_bytes: int) -> Iterator[Chunk]:
    """Cut a stream of byte strings of any length into pieces of ``chunk_bytes``."""
    pending: list[bytes] = []
    have = 0
    for part in parts:
        pending.append(part)
        have += len(part)
        if have >= chunk_bytes:
            joined = b"".join(pending)
            whole = have - have % chunk_bytes
            for start in range(0, whole, chunk_bytes):
                yield Chunk(joined[start : start + chunk_bytes], chunk_bytes)
            pending, have = [joined[whole:]], have - whole
    if have:
        yield Chunk(b"".join(pending), have)


def in_order(
    work: Callable[[S], T], pieces: Iterable[S], workers: int, cancel: threading.Event
) -> Iterator[T]:
    """Apply ``work`` to the pieces on several threads and yield the results in order.

    Little more than one piece for each worker is held at once. Raises :class:`Interrupted` when
    ``cancel`` is set.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pieces") as pool:
        try:
            for piece in pieces:
                if cancel.is_set():
                    raise Interrupted("the compression was stopped")
                waiting.append(pool.submit(work, piece))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
