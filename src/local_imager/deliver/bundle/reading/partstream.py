"""The bytes of a part in order: small reads, and contents in views that are not copied.

A thread reads ahead into a few buffers, so that the medium (and zstd) and the hashing of what came
before go on at the same time; memory stays at those buffers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Final

from local_imager.deliver.bundle.reading.packing import Filler

CHUNK_BYTES: Final = 1024 * 1024
_BUFFERS: Final = 6
_JOIN_S: Final = 1.0

_Filled = tuple[memoryview, int] | BaseException


class ReadAhead:
    """Buffers of a filler, filled in a thread; one after the other is lent out."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._full: SimpleQueue[_Filled] = SimpleQueue()
        self._lent: memoryview | None = None
        self._made, self._ended, self._stopped = 0, False, False
        # A read of a pipe cannot be called off: such a thread must not hold the process up.
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def _buffer(self) -> memoryview | None:
        if self._made < _BUFFERS and self._free.empty():
            self._made += 1
            return memoryview(bytearray(CHUNK_BYTES))
        return self._free.get()

    def _run(self) -> None:
        try:
            while not self._stopped and (buffer := self._buffer()) is not None:
                count = self._filler.fill(buffer)
                self._full.put((buffer, count))
                if count < len(buffer):
                    return
        except BaseException as error:  # handed to the thread that waits for bytes
            self._full.put(error)

    def next(self) -> memoryview:
        """Return the next bytes, which end those lent before; empty at the end."""
        if self._lent is not None:
            self._free.put(self._lent)
            self._lent = None
        if self._ended:
            return memoryview(b"")
        filled = self._full.get()
        if isinstance(filled, BaseException):
            self._ended = True
            raise filled
        self._lent, count = filled
        self._ended = count < len(self._lent)
        return self._lent[:count]

    def close(self) -> None:
        """End the thread, unless it waits for a pipe."""
        self._stopped = True
        self._free.put(None)
        self._thread.join(_JOIN_S)


class PartStream:
    """Reads what a filler gives; ``position`` counts the bytes of the tar that were consumed."""

    def __init__(self, filler: Filler) -> None:
        self._filler = filler
        self._ahead = ReadAhead(filler)
        self._view = memoryview(b"")
        self._returned = memoryview(b"")
        self.position = 0

    @property
    def filler(self) -> Filler:
        """What the bytes come from; its ``problem`` is set when they ended too soon."""
        return self._filler

    def read(self, count: int) -> bytes:
        """Return exactly this many bytes, fewer only at the end."""
        view = self._view
        if len(view) >= count and not self._returned:
            self._view = view[count:]
            self.position += count
            return bytes(view[:count])
        return b"".join(bytes(part) for part in self.content(count))

    def content(self, count: int) -> Iterator[memoryview]:
        """Yield this many bytes in views, fewer only at the end; a view lives until the next."""
        while count > 0 and len(part := self._some(count)):
            count -= len(part)
            self.position += len(part)
            yield part

    def _some(self, most: int) -> memoryview:
        if self._returned:
            part, self._returned = self._returned[:most], self._returned[most:]
            return part
        if not self._view:
            self._view = self._ahead.next()
        view = self._view[:most]
        self._view = self._view[most:]
        return view

    def give_back(self, data: bytes) -> None:
        """Return bytes that were just read; they come again."""
        self._returned = memoryview(data + self._returned.tobytes())
        self.position -= len(data)

    def peek(self, count: int) -> bytes:
        """Return the next bytes, which come again."""
        data = self.read(count)
        self.give_back(data)
        return data

    def close(self) -> None:
        """Stop reading ahead."""
        self._view = memoryview(b"")
        self._ahead.close()
