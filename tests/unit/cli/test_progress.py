"""Progress: what a person, a pipe and a program see of the same events."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from typing import Literal

import click
import pytest

from local_imager.cli.progress import JsonSink, LiveSink, PlainSink, make_sink
from local_imager.events import NULL_SINK, Message, Progress, StepFinished, StepStarted

DIGEST = "a" * 64


def lines(capsys: pytest.CaptureFixture[str], verbose: bool = False) -> str:
    sink = PlainSink(verbose=verbose)
    sink.emit(StepStarted("fetch", f"r.example/x:v1@sha256:{DIGEST}"))
    sink.emit(Progress("fetch", f"r.example/x:v1@sha256:{DIGEST}", 5_000_000, 12_300_000))
    sink.emit(StepFinished("fetch", f"r.example/x:v1@sha256:{DIGEST}", 1.25))
    sink.emit(StepFinished("verify", "r.example/x:v1", 0.01))
    sink.emit(StepFinished("verify", "r.example/y:v1", 0.01, "failed"))
    sink.emit(StepFinished("build", "metal-amd64.iso", 0.0, "cached"))
    sink.emit(Message("look out", "warning"))
    sink.emit(Message("imager says", "log"))
    return capsys.readouterr().err


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys).splitlines() == [
        "    fetch  r.example/x:v1@aaaaaaaaaaaa  11.7 MiB  1.2 s",
        "   verify  r.example/y:v1  0.0 s  failed",
        "    build  metal-amd64.iso  cached",
        "  warning  look out",
    ]


def test_verbose_adds_brief_steps_and_the_imagers_log(capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines(capsys, verbose=True)
    assert "verify  r.example/x:v1" in printed
    assert "| imager says" in printed


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonSink()
    sink.emit(StepStarted("build", "x"))
    sink.emit(Progress("build", "x", 1, 2))
    printed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry["kind"] for entry in printed] == ["step-started", "progress"]
    assert printed[1]["total"] == 2


def test_a_pipe_gets_plain_lines_and_quiet_nothing() -> None:
    assert type(make_sink("auto")) is PlainSink
    assert make_sink("none") is NULL_SINK


def written_to(handle: int) -> str:
    """Return all that was written to a terminal whose other end is closed."""
    found = b""
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while data := os.read(handle, 65_536):
            found += data
    os.close(handle)
    return found.decode()


@pytest.mark.parametrize(("outcome", "word"), [("done", ""), ("failed", "  failed")])
def test_what_is_said_after_a_step_has_a_line_of_its_own(
    outcome: Literal["done", "failed"], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        sink = make_sink("auto")
        assert type(sink) is LiveSink
        for _ in range(2):  # bars come again with the next step
            sink.emit(StepStarted("read", "site.tar"))
            sink.emit(Progress("read", "site.tar", 1, 2))
            sink.emit(StepFinished("read", "site.tar", 0.1, outcome))
            click.echo("this is what came of it", err=True)
    first, second, _ = written_to(ours).split("this is what came of it")
    for before in (first, second):
        assert before.endswith(f"site.tar  2 B  0.1 s{word}\r\n")
