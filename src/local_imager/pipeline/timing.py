"""Where the time of a build went: steps and phases, added up as a table."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from local_imager.events import Event, EventSink, StepFinished, Timing


@dataclass(frozen=True, slots=True)
class Phase:
    """All parts of one kind of work: how often, and the seconds that they took together.

    ``share`` is of the whole wall time; phases inside of each other or beside each other make the
    sum of all shares exceed 1.
    """

    name: str
    count: int
    seconds: float
    longest_s: float
    share: float

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of ``build --timings --json``."""
        return {
            "phase": self.name,
            "count": self.count,
            "seconds": round(self.seconds, 4),
            "longest_s": round(self.longest_s, 4),
            "share": round(self.share, 4),
        }


class Stopwatch:
    """A sink that hands every event on and remembers how long steps and phases took.

    ``began_s`` is when the work began (``time.monotonic``); the start of the process where that is
    known, so that imports count.
    """

    def __init__(self, sink: EventSink, began_s: float | None = None) -> None:
        self._sink = sink
        self._began_s = time.monotonic() if began_s is None else began_s
        self._lock = threading.Lock()
        self._taken: dict[str, list[float]] = {}

    def emit(self, event: Event) -> None:
        """Hand the event on, and count it when it says a duration."""
        match event:
            case Timing(phase=name) | StepFinished(step=name):
                with self._lock:
                    self._taken.setdefault(name, []).append(event.duration_s)
            case _:
                pass
        self._sink.emit(event)

    def phases(self) -> list[Phase]:
        """Return the phases so far in the order of their first end, then ``whole``."""
        whole = time.monotonic() - self._began_s
        with self._lock:
            taken = {name: list(times) for name, times in self._taken.items()}
        taken["whole"] = [whole]
        return [
            Phase(name, len(times), sum(times), max(times), sum(times) / whole)
            for name, times in taken.items()
        ]


def process_start_s() -> float:
    """Return when this process began, on the clock of ``time.monotonic``; now where unknown.

    Linux counts a process's start in ticks since boot (proc(5), field 22 of ``stat``).
    """
    import os

    try:
        with open("/proc/self/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
        ticks = int(fields[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic() - (since_boot - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic()
