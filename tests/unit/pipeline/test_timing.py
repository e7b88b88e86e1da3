"""The table of phases: everything passes on, durations are added up, the whole comes last."""

from __future__ import annotations

import time

from local_imager.events import (
    Event,
    Message,
    RecordingSink,
    StepFinished,
    StepStarted,
    Timing,
    timed,
)
from local_imager.pipeline.timing import Stopwatch, process_start_s


def test_every_event_is_handed_on() -> None:
    seen = RecordingSink()
    events: list[Event] = [StepStarted("build", "a"), Message("hello"), Timing("run", "a", 1.0)]
    watch = Stopwatch(seen)
    for event in events:
        watch.emit(event)
    assert seen.events == events


def test_durations_of_a_phase_are_added_up_and_the_whole_comes_last() -> None:
    watch = Stopwatch(RecordingSink(), time.monotonic() - 10.0)
    watch.emit(Timing("run", "a", 1.0))
    watch.emit(StepFinished("build", "a", 4.0))
    watch.emit(Timing("run", "b", 2.0))
    run, build, whole = watch.phases()
    assert (run.name, run.count, run.seconds, run.longest_s) == ("run", 2, 3.0, 2.0)
    assert (build.name, build.count) == ("build", 1)
    assert whole.name == "whole"
    assert whole.seconds >= 10.0
    assert abs(run.share - 3.0 / whole.seconds) < 0.01
    assert run.as_dict()["phase"] == "run"


def test_a_phase_that_fails_is_not_counted() -> None:
    watch = Stopwatch(RecordingSink())
    try:
        with timed(watch, "run", "a"):
            raise ValueError
    except ValueError:
        pass
    assert [phase.name for phase in watch.phases()] == ["whole"]


def test_the_process_began_before_now_and_not_long_before_this_module() -> None:
    assert process_start_s() <= time.monotonic()
