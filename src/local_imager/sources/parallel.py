"""Running downloads side by side so that Ctrl-C and a failure end them at once.

The standard pools wait for every thread, also at the end of the process; a registry that never
answers would keep an interrupted program alive until its time-out. These threads are not waited
for longer than a moment: what they write is kept apart until it is complete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from local_imager.errors import Interrupted

# Threads look at ``stop`` with each piece that arrives; one that waits for the network does not.
GRACE_S: Final = 1.0
_POLL_S: Final = 0.2
# A task that runs tasks of its own waits its grace before it tells what failed in it.
_LATE_S: Final = 0.5

T = TypeVar("T")
_Answer = tuple[int, list[T], BaseException | None]


def run_all(
    tasks: Sequence[Callable[[], T]], jobs: int, stop: threading.Event | None = None
) -> list[T]:
    """Run the tasks, ``jobs`` at a time, and return their results in order.

    The first failure is raised, after ``stop`` was set so that the other tasks end early; setting
    ``stop`` from outside ends all with :class:`Interrupted`. Where tasks share ``stop`` with others
    inside them, one that was only stopped may answer first: the failure that stopped it is raised.
    """
    stop = stop or threading.Event()
    answers: SimpleQueue[_Answer[T]] = SimpleQueue()
    numbers, lock = iter(range(len(tasks))), threading.Lock()

    def work() -> None:
        while not stop.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                answers.put((number, [tasks[number]()], None))
            except BaseException as error:  # raised again in the caller's thread
                answers.put((number, [], error))
        answers.put((0, [], Interrupted("the work was stopped")))

    count = max(1, min(jobs, len(tasks)))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    results: dict[int, T] = {}
    try:
        while len(results) < len(tasks):
            try:
                # In pieces, so that Ctrl-C is noticed whichever thread the signal went to.
                number, result, error = answers.get(timeout=_POLL_S)
            except Empty:
                continue
            if error is not None:
                raise error
            results[number] = result[0]
    except BaseException as first:
        stop.set()
        _join(threads, GRACE_S + _LATE_S if isinstance(first, Interrupted) else GRACE_S)
        raise _cause(first, answers)  # noqa: B904  most often the same; never its consequence
    return [results[number] for number in range(len(tasks))]


def _join(threads: Sequence[threading.Thread], grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _cause(first: BaseException, answers: SimpleQueue[_Answer[T]]) -> BaseException:
    """Return the failure that stopped the others, where only a stopped one was heard of so far."""
    while isinstance(first, Interrupted) and not answers.empty():
        error = answers.get()[2]
        if error is not None:
            first = error
    return first
