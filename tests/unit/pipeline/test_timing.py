"""The table of phases: everything passes on, parts lie inside, outer rows add up to the whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from local_imager import events
from local_imager.events import (
    Event,
    Message,
    RecordingSink,
    StepFinished,
    StepStarted,
    Timing,
    step,
    timed,
)
from local_imager.pipeline import timing
from local_imager.pipeline.timing import Phase, Stopwatch, process_start_s

Path = tuple[str, ...]


class Clock:
    """A clock that only :meth:`pass_s` moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(events, "time", clock)
    monkeypatch.setattr(timing, "time", clock)
    return clock


def beside(work: Callable[[], None]) -> None:
    """Do work in a thread of its own."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def rows(watch: Stopwatch) -> dict[Path, Phase]:
    """The phases by their whole path; each stands there once."""
    found = watch.phases()
    by_path = {(*phase.inside, phase.name): phase for phase in found}
    assert len(by_path) == len(found)
    return by_path


def outer(watch: Stopwatch) -> float:
    return sum(p.seconds for p in watch.phases() if not p.inside and p.name != "whole")


def test_every_event_is_handed_on() -> None:
    seen = RecordingSink()
    told: list[Event] = [StepStarted("build", "a"), Message("hello"), Timing("run", "a", 1.0)]
    watch = Stopwatch(seen)
    for event in told:
        watch.emit(event)
    assert seen.events == told


def test_durations_of_a_phase_are_added_up_and_the_whole_comes_last(clock: Clock) -> None:
    watch = Stopwatch(RecordingSink(), clock.now_s - 3.0)
    for seconds in (1.0, 2.0):
        with timed(watch, "keys", "a"):
            clock.pass_s(seconds)
    with timed(watch, "plan", "a"):
        clock.pass_s(2.0)
    keys, plan, other, whole = watch.phases()
    assert (keys.name, keys.count, keys.seconds, keys.longest_s) == ("keys", 2, 3.0, 2.0)
    assert (plan.name, plan.count, plan.share) == ("plan", 1, 0.25)
    assert (other.name, other.seconds) == ("other", 3.0)
    assert (whole.name, whole.seconds, whole.share) == ("whole", 8.0, 1.0)
    assert keys.as_dict() == {
        **{"phase": "keys", "inside": [], "count": 2, "seconds": 3.0},
        **{"longest_s": 2.0, "share": 0.375},
    }


def test_what_a_phase_holds_lies_inside_and_is_not_counted_twice(clock: Clock) -> None:
    watch = Stopwatch(RecordingSink(), clock.now_s)
    with timed(watch, "catalogue", "a"):
        with step(watch, "verify", "x"):
            clock.pass_s(1.0)
            with timed(watch, "hash", "x"):
                clock.pass_s(1.0)
        clock.pass_s(0.5)
    with timed(watch, "images", "a"), step(watch, "verify", "y"):
        clock.pass_s(4.0)
    found = rows(watch)
    assert [(*path, found[path].seconds) for path in found] == [
        ("catalogue", 2.5),
        ("catalogue", "verify", 2.0),
        ("catalogue", "verify", "hash", 1.0),
        ("images", 4.0),
        ("images", "verify", 4.0),
        ("other", 0.0),
        ("whole", 6.5),
    ]
    assert outer(watch) == found["whole",].seconds


@pytest.mark.parametrize(
    ("phase", "place"), [("builds", ("builds",)), ("again", ("again",)), ("plan", ("other",))]
)
def test_what_other_threads_do_lies_inside_the_phase_that_waits_for_them(
    clock: Clock, phase: str, place: Path
) -> None:
    watch = Stopwatch(RecordingSink(), clock.now_s)

    def work() -> None:
        with step(watch, "build", "a"), timed(watch, "run", "a"):
            clock.pass_s(3.0)

    with timed(watch, phase, "v1"):
        clock.pass_s(1.0)
        with timed(watch, "store", "a"):
            beside(work)
    found = rows(watch)
    assert found[*place, "build"].seconds == found[*place, "build", "run"].seconds == 3.0
    assert found[phase, "store"].seconds == 3.0
    assert outer(watch) == found["whole",].seconds == 4.0


def test_the_second_build_has_a_place_of_its_own(clock: Clock) -> None:
    watch = Stopwatch(RecordingSink(), clock.now_s)

    @contextmanager
    def building() -> Iterator[None]:
        def work() -> None:
            with step(watch, "build", "a"):
                clock.pass_s(2.0)

        with timed(watch, "builds", "v1"):
            beside(work)
            yield

    with building():
        pass
    with step(watch, "again", "1 assets"), building():
        pass
    found = rows(watch)
    assert found["builds", "build"].count == found["again", "builds", "build"].count == 1
    assert outer(watch) == found["whole",].seconds == 4.0


def test_a_duration_that_is_told_afterwards_holds_nothing(clock: Clock) -> None:
    watch = Stopwatch(RecordingSink(), clock.now_s)

    def work() -> None:
        with timed(watch, "builds", "a"):
            clock.pass_s(2.0)
        watch.emit(StepFinished("cell", "a", 5.0))

    with timed(watch, "matrix", "m"):
        clock.pass_s(9.0)
        beside(work)
    found = rows(watch)
    assert found["matrix", "builds"].seconds == 2.0
    assert found["matrix", "cell"].seconds == 5.0


def test_a_phase_that_fails_is_not_counted() -> None:
    watch = Stopwatch(RecordingSink())
    try:
        with timed(watch, "run", "a"):
            raise ValueError
    except ValueError:
        pass
    assert [phase.name for phase in watch.phases()] == ["other", "whole"]


def test_the_process_began_before_now_and_not_long_before_this_module() -> None:
    assert process_start_s() <= time.monotonic()
