"""Typed progress events and the sinks that take them.

Core code reports through an :class:`EventSink` and never prints. Texts from outside are cleaned by
:func:`printable` before they become part of an event.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A named step of work began (``step`` is stable: fetch, verify, load, build, convert, …)."""

    step: str
    subject: str
    kind: Literal["step-started"] = "step-started"


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The step ended; ``duration_s`` is wall time in seconds."""

    step: str
    subject: str
    duration_s: float
    outcome: Literal["done", "cached", "failed"] = "done"
    kind: Literal["step-finished"] = "step-finished"


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` bytes (or units) of the step's subject; ``total`` 0 means unknown."""

    step: str
    subject: str
    done: int
    total: int = 0
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Message:
    """One line of information, a warning, or a line of the imager's own log."""

    text: str
    level: Literal["debug", "info", "warning", "log"] = "info"
    kind: Literal["message"] = "message"


@dataclass(frozen=True, slots=True)
class Timing:
    """A phase of the work took ``duration_s`` seconds; for tables of where the time went.

    Phases are finer than steps and not shown as they happen (``phase`` is stable: plan, catalogue,
    create, start, wait, collect, hash, …).
    """

    phase: str
    subject: str
    duration_s: float
    kind: Literal["timing"] = "timing"


Event = StepStarted | StepFinished | Progress | Message | Timing


class EventSink(Protocol):
    """Whatever takes events: a terminal, a JSON stream, a test."""

    def emit(self, event: Event) -> None:
        """Take one event; must be quick and must not raise."""


class NullSink:
    """Drops every event."""

    def emit(self, event: Event) -> None:
        """Drop the event."""


@dataclass(slots=True)
class RecordingSink:
    """Keeps every event in order; for programs and tests that look at them afterwards."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Append the event."""
        self.events.append(event)


NULL_SINK: EventSink = NullSink()


@contextmanager
def step(sink: EventSink, name: str, subject: str) -> Iterator[None]:
    """Report a step's begin and end, with its duration and whether it failed."""
    sink.emit(StepStarted(name, subject))
    began = time.monotonic()
    try:
        yield
    except BaseException:
        sink.emit(StepFinished(name, subject, time.monotonic() - began, "failed"))
        raise
    sink.emit(StepFinished(name, subject, time.monotonic() - began))


@contextmanager
def timed(sink: EventSink, phase: str, subject: str) -> Iterator[None]:
    """Report how long a phase took, when it ends well."""
    began = time.monotonic()
    yield
    sink.emit(Timing(phase, subject, time.monotonic() - began))


def printable(untrusted_text: str, *, limit: int = 2000) -> str:
    """Return the text without control characters and no longer than ``limit`` characters.

    A registry or an imager must not be able to move the cursor, recolour the terminal or forge
    lines of our own output.
    """
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in untrusted_text)
    return kept if len(kept) <= limit else kept[:limit] + "…"


def printable_lines(untrusted_text: str, *, indent: str = "") -> str:
    """Return a text of several lines, each made printable; those after the first are indented."""
    lines = (printable(line, limit=10_000) for line in untrusted_text.split("\n"))
    return f"\n{indent}".join(lines)
