"""Groups of assets built beside each other, their results handed over one at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from local_imager.build.request import EngineInfo
from local_imager.build.resources import available_memory
from local_imager.errors import Interrupted

T = TypeVar("T")

# Each run of an imager keeps one core busy; more at once than this only take memory.
MAX_AT_ONCE: Final = 4


class LinkedEvent(threading.Event):
    """An event that is also set when its parent is: stops a group without stopping the rest."""

    def __init__(self, parent: threading.Event) -> None:
        super().__init__()
        self._parent = parent

    def is_set(self) -> bool:
        """Whether this event or its parent was set."""
        return super().is_set() or self._parent.is_set()


def runs_at_once(jobs: int, memory_bytes: int, engine: EngineInfo) -> int:
    """Return how many imagers may run beside each other: for each there is a core and memory."""
    free = available_memory(engine)
    fitting = max(1, free // memory_bytes) if free else 1
    return max(1, min(jobs, engine.cpus, fitting, MAX_AT_ONCE))


def side_by_side(
    work: Sequence[Callable[[threading.Event], Iterator[T]]],
    at_once: int,
    cancel: threading.Event,
) -> Iterator[T]:
    """Run several iterators on threads and yield what they yield, as it comes.

    Each gets an event that tells it to stop. An iterator goes on only when its last result was
    taken and the next one was asked for, so a result may be a file that its maker removes. The
    first failure stops all others and is raised when they have ended; the order of ``work`` is the
    order in which it is begun. One at once runs in the caller's thread.
    """
    if at_once == 1 or len(work) == 1:
        for begin in work:
            yield from begin(cancel)
        return
    stop = LinkedEvent(cancel)
    board: _Board[T] = _Board(stop)
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="groups")
    try:
        for begin in work:
            pool.submit(board.fill, begin)
        yield from board.take(len(work))
    finally:
        stop.set()
        board.release()
        pool.shutdown(wait=True, cancel_futures=True)


class _Board(Generic[T]):
    """Where workers lay results down, each until it was taken."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._laid: queue.SimpleQueue[_Laid[T]] = queue.SimpleQueue()
        self._released = threading.Event()

    def fill(self, begin: Callable[[threading.Event], Iterator[T]]) -> None:
        """Lay down what an iterator yields, one by one, and then its end."""
        end: _Laid[T] = _Laid()
        try:
            if not self._stop.is_set():
                with contextlib.ExitStack() as held:
                    results = begin(self._stop)
                    if isinstance(results, Generator):
                        held.enter_context(contextlib.closing(results))
                    for result in results:
                        laid = _Laid(result=(result,))
                        self._laid.put(laid)
                        if not self._released.is_set():
                            laid.taken.wait()
                        if self._stop.is_set():
                            break
        except BaseException as error:
            end = _Laid(error=error)
            self._stop.set()
        self._laid.put(end)

    def take(self, workers: int) -> Iterator[T]:
        """Yield results until every worker has ended; raises what made the first one fail."""
        failures: list[BaseException] = []
        while workers:
            laid = self._laid.get()
            if laid.result is not None:
                try:
                    if not failures:
                        yield laid.result[0]
                finally:
                    laid.taken.set()
                continue
            workers -= 1
            if laid.error is not None:
                failures.append(laid.error)
        # A worker that was stopped because another failed is not the cause.
        causes = [error for error in failures if not isinstance(error, Interrupted)]
        for error in causes or failures:
            raise error

    def release(self) -> None:
        """Let workers end that wait for a result to be taken; nobody takes any more."""
        self._released.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._laid.get_nowait().taken.set()


@dataclass(eq=False)
class _Laid(Generic[T]):
    """A result, a failure, or neither: the end."""

    result: tuple[T] | None = None
    error: BaseException | None = None
    taken: threading.Event = field(default_factory=threading.Event)
