"""Progress on stderr: live bars on a terminal, plain lines in a pipe, JSON lines for programs."""

from __future__ import annotations

import json
import re
import sys
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

import click

from local_imager.cli.sizes import human_size
from local_imager.events import (
    NULL_SINK,
    Event,
    EventSink,
    Message,
    Progress,
    StepFinished,
    StepStarted,
    Timing,
)

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Style = Literal["auto", "plain", "json", "none"]


def make_sink(style: Style = "auto", *, verbose: bool = False) -> EventSink:
    """Return the sink for a style; ``auto`` is live on a terminal and plain elsewhere."""
    if style == "none":
        return NULL_SINK
    if style == "json":
        return JsonSink()
    if style == "auto" and sys.stderr.isatty():
        return LiveSink(verbose=verbose)
    return PlainSink(verbose=verbose)


_COLOURS = {"done": "green", "cached": "cyan", "failed": "red"}
# Steps whose progress counts bytes; the others count their own small steps.
_BYTE_STEPS = frozenset({"fetch", "load", "convert", "compress", "export", "read", "rebuild"})
# Steps that happen for every image each time and take no time: shown only to who asks for more.
_BRIEF_STEPS = frozenset({"resolve", "verify"})
_DIGEST = re.compile(r"@sha256:([0-9a-f]{12})[0-9a-f]{52}")


def _short(subject: str) -> str:
    """Cut a pinned reference's digest to the twelve digits that a person compares."""
    return _DIGEST.sub(r"@\1", subject)


def _finished_line(event: StepFinished, size_bytes: int) -> str:
    mark = click.style(f"{event.step:>9}", fg=_COLOURS[event.outcome])
    size = f"  {human_size(size_bytes)}" if size_bytes and event.step in _BYTE_STEPS else ""
    word = "" if event.outcome == "done" else f"  {event.outcome}"
    time = "" if event.outcome == "cached" else f"  {event.duration_s:.1f} s"
    return f"{mark}  {_short(event.subject)}{size}{time}{word}"


class JsonSink:
    """Writes each event as one JSON object a line on stderr."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write the event."""
        with self._lock:
            click.echo(json.dumps(asdict(event)), err=True)


@dataclass
class PlainSink:
    """Writes a line when a step ends, warnings at once, and the imager's log when verbose."""

    verbose: bool = False
    _sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def emit(self, event: Event) -> None:
        """Write what a person wants to see of the event."""
        with self._lock:
            match event:
                case Progress():
                    self._sizes[event.step, event.subject] = event.total or event.done
                case StepFinished():
                    size = self._sizes.pop((event.step, event.subject), 0)
                    brief = event.step in _BRIEF_STEPS and event.outcome == "done"
                    if self.verbose or not brief:
                        self.line(_finished_line(event, size))
                case Message(level="warning"):
                    self.line(click.style("  warning", fg="yellow") + f"  {event.text}")
                case Message(level="info"):
                    self.line(f"{'':>9}  {event.text}")
                case Message() if self.verbose:
                    self.line(click.style(f"{'':>9}  | {event.text}", dim=True))
                case _:
                    pass

    def line(self, text: str) -> None:
        """Write one line to stderr."""
        click.echo(text, err=True)


@dataclass
class LiveSink(PlainSink):
    """Adds a live bar for each step under way; finished steps scroll up as plain lines."""

    _tasks: dict[tuple[str, str], list[TaskID]] = field(default_factory=dict)
    _bars: Bars | None = None

    def emit(self, event: Event) -> None:
        """Move the bar of the step, then write lines as :class:`PlainSink` does."""
        with self._lock:
            self._move(event)
        PlainSink.emit(self, event)

    def line(self, text: str) -> None:
        """Write one line above the bars."""
        if self._bars is None:
            click.echo(text, err=True)
        else:
            from rich.text import Text

            self._bars.console.print(Text.from_ansi(text), soft_wrap=True)

    def _move(self, event: Event) -> None:
        if isinstance(event, Message | Timing):
            return
        key = (event.step, event.subject)
        if isinstance(event, StepStarted):
            title = f"{event.step:>9}  {_short(event.subject)}"
            task = self._open_bars().add_task(title, total=None, amount="")
            self._tasks.setdefault(key, []).append(task)
        elif self._bars is not None and self._tasks.get(key):
            if isinstance(event, Progress):
                amount = _amount(event)
                total = event.total or None
                task = self._tasks[key][-1]
                self._bars.update(task, completed=event.done, total=total, amount=amount)
            else:
                self._bars.remove_task(self._tasks[key].pop())
                if not any(self._tasks.values()):
                    # A result or an error may be said next, and not in the line of a bar.
                    self._close_bars(self._bars)

    def _open_bars(self) -> Bars:
        """Start the display; it is cleared when no step is under way or the program ends."""
        if self._bars is None:
            import atexit

            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
            )
            console = Console(stderr=True, highlight=False)
            self._bars = RichProgress(*columns, console=console, transient=True)
            self._bars.start()
            atexit.register(self._bars.stop)
        return self._bars

    def _close_bars(self, bars: Bars) -> None:
        import atexit

        bars.stop()
        atexit.unregister(bars.stop)
        self._bars = None


def _amount(event: Progress) -> str:
    """Say how far a step is: in bytes, or as a share where it counts its own small steps."""
    if event.step in _BYTE_STEPS:
        total = f" of {human_size(event.total)}" if event.total else ""
        return human_size(event.done) + total
    return f"{100 * event.done // event.total} %" if event.total else ""
