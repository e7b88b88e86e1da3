"""Events: steps report how they ended, and outside text cannot drive the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_imager.events import RecordingSink, StepFinished, StepStarted, printable, step


def test_a_step_reports_begin_and_end() -> None:
    sink = RecordingSink()
    with step(sink, "fetch", "image"):
        pass
    started, finished = sink.events
    assert started == StepStarted("fetch", "image")
    assert isinstance(finished, StepFinished)
    assert (finished.outcome, finished.duration_s >= 0) == ("done", True)


def test_a_failing_step_says_so_and_lets_the_error_through() -> None:
    sink = RecordingSink()
    with pytest.raises(KeyboardInterrupt), step(sink, "build", "x"):
        raise KeyboardInterrupt
    assert isinstance(sink.events[-1], StepFinished)
    assert sink.events[-1].outcome == "failed"


@given(st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    cleaned = printable(text, limit=50)
    assert cleaned.isprintable()
    assert len(cleaned) <= 51


def test_escape_sequences_do_not_survive() -> None:
    assert "\x1b" not in printable("\x1b[31mred\x1b[0m\r\n")
