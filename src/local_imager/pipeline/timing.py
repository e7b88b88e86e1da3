"""Where the time of a build went: steps and phases as a table whose outer rows add up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from local_imager.events import Event, EventSink, StepFinished, StepStarted, Timing

OTHER: Final = "other"
WHOLE: Final = "whole"
# Phases in which the program's own thread waits for others: what these do lies inside.
_HOSTS: Final = frozenset({"catalogue", "images", "builds", "matrix", "again"})


@dataclass(frozen=True, slots=True)
class Phase:
    """All parts of one kind of work: how often, and the seconds that they took together.

    ``inside`` names the phases that this one is a part of, the outermost first. Those that are
    inside of none come one after the other, and with ``other`` they are the whole wall time; parts
    of a phase may run beside each other, so together they can take longer. ``share`` is of the
    whole.
    """

    name: str
    count: int
    seconds: float
    longest_s: float
    share: float
    inside: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of ``build --timings --json``."""
        return {
            "phase": self.name,
            "inside": list(self.inside),
            "count": self.count,
            "seconds": round(self.seconds, 4),
            "longest_s": round(self.longest_s, 4),
            "share": round(self.share, 4),
        }


@dataclass(slots=True)
class _Span:
    """One phase as it was: from when to when, and what the same thread did meanwhile."""

    name: str
    began_s: float
    seconds: float
    parts: list[_Span] = field(default_factory=list)

    @property
    def middle_s(self) -> float:
        return self.began_s + self.seconds / 2


class Stopwatch:
    """A sink that hands every event on and remembers how long steps and phases took.

    ``began_s`` is when the work began (``time.monotonic``); the start of the process where that is
    known, so that imports count. The thread that makes it is the one whose phases are the whole.
    """

    def __init__(self, sink: EventSink, began_s: float | None = None) -> None:
        self._sink = sink
        self._began_s = time.monotonic() if began_s is None else began_s
        self._own = threading.get_ident()
        self._lock = threading.Lock()
        self._begun: set[tuple[int, str, str]] = set()
        self._spans: dict[int, list[_Span]] = {self._own: []}

    def emit(self, event: Event) -> None:
        """Hand the event on, and count it when it says a duration."""
        now, thread = time.monotonic(), threading.get_ident()
        with self._lock:
            match event:
                case StepStarted(step=name):
                    self._begun.add((thread, name, event.subject))
                case StepFinished(step=name):
                    begun = (thread, name, event.subject)
                    whole = begun in self._begun
                    self._begun.discard(begun)
                    self._add(thread, _Span(name, now - event.duration_s, event.duration_s), whole)
                case Timing(phase=name):
                    self._add(thread, _Span(name, now - event.duration_s, event.duration_s), True)
                case _:
                    pass
        self._sink.emit(event)

    def _add(self, thread: int, span: _Span, holds: bool) -> None:
        """Put a span, just ended, behind those of its thread, or around the last of them.

        ``holds`` is false for a duration that is told later than it was, such as that of a cell.
        """
        spans = self._spans.setdefault(thread, [])
        first = len(spans)
        while holds and first and spans[first - 1].middle_s >= span.began_s:
            first -= 1
        span.parts = spans[first:]
        spans[first:] = [span]

    def phases(self) -> list[Phase]:
        """Return the phases so far, each before its parts; then ``other`` and ``whole``.

        Those beside each other stand in the order of their first end.
        """
        whole_s = time.monotonic() - self._began_s
        taken: dict[tuple[str, ...], list[float]] = {}
        with self._lock:
            own = self._spans[self._own]
            found = [*_walk(own, ())]
            for thread, spans in self._spans.items():
                for span in spans if thread != self._own else ():
                    found += _walk([span], _host(own, span.middle_s) or (OTHER,))
            outer_s = sum(span.seconds for span in own)
        for path, seconds in found:
            taken.setdefault(path, []).append(seconds)
        taken[OTHER,] = [max(0.0, whole_s - outer_s)]
        taken[WHOLE,] = [whole_s]
        return [
            Phase(path[-1], len(times), sum(times), max(times), sum(times) / whole_s, path[:-1])
            for path, times in _in_order(taken)
        ]


def _walk(
    spans: Sequence[_Span], inside: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], float]]:
    for span in spans:
        path = (*inside, span.name)
        yield path, span.seconds
        yield from _walk(span.parts, path)


def _host(spans: Sequence[_Span], when_s: float) -> tuple[str, ...]:
    """Return the phases in which the own thread waited for others at a moment."""
    for span in spans:
        if span.name in _HOSTS and span.began_s <= when_s <= span.began_s + span.seconds:
            return (span.name, *_host(span.parts, when_s))
    return ()


def _in_order(
    taken: Mapping[tuple[str, ...], list[float]], inside: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    for path, times in taken.items():
        if path[:-1] == inside:
            yield path, times
            yield from _in_order(taken, path)


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
