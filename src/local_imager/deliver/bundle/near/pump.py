"""A stream of bytes that is put together in one thread and written in another.

Reading and hashing take one core and writing most of another, so the two overlap. The bytes lie in
a few buffers that go round, so memory does not grow with what is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Final

BUFFER_BYTES: Final = 1 << 20
_BUFFERS: Final = 8

Write = Callable[[memoryview], None]
"""Takes all the bytes of a view, which is used again afterwards."""


class Pump:
    """Collects bytes into buffers; a thread writes each as it is full."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._free: Queue[bytearray] = Queue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(BUFFER_BYTES))
        self._full: Queue[tuple[bytearray, int] | None] = Queue()
        self._buffer = self._free.get()
        self._taken = 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="bundle-writer", daemon=True)
        self._thread.start()

    def room(self) -> memoryview:
        """Return the free rest of the buffer under way, never empty; raises what writing raised."""
        if self._taken == BUFFER_BYTES:
            self._flush()
        return memoryview(self._buffer)[self._taken :]

    def advance(self, count: int) -> None:
        """Count bytes that were put into :meth:`room`."""
        self._taken += count

    def put(self, data: bytes) -> None:
        """Take a copy of small bytes."""
        view = memoryview(data)
        while view:
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.advance(count)
            view = view[count:]

    def zeros(self, count: int) -> None:
        """Take a short run of zeros."""
        if count:
            self.put(bytes(count))

    def _flush(self) -> None:
        self._full.put((self._buffer, self._taken))
        self._buffer, self._taken = self._free.get(), 0
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Write what is left and wait for it; raises what writing raised."""
        self._full.put((self._buffer, self._taken))
        self._stop()
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        self._full.put(None)
        self._thread.join()

    def abort(self) -> None:
        """Write nothing more."""
        self._failure = self._failure or RuntimeError("aborted")
        self._stop()

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            buffer, count = item
            if self._failure is None:
                try:
                    with memoryview(buffer) as view:
                        self._write(view[:count])
                except BaseException as error:  # raised again in the thread that fills
                    self._failure = error
            self._free.put(buffer)


@contextmanager
def pumping(write: Write) -> Iterator[Pump]:
    """Yield a pump; at the end all is written, or nothing more after an error."""
    pump = Pump(write)
    try:
        yield pump
    except BaseException:
        pump.abort()
        raise
    pump.finish()
