"""Which upstream a demo reads from, with and without a registry and an engine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.console import LabError
from lab.upstream import Choice, choose, registry_fault

ROOT = Path(__file__).parents[3]
ENGINE = "unix:///var/run/docker.sock"


def no_engine() -> str | None:
    return None


def an_engine() -> str | None:
    return ENGINE


def never() -> str:
    raise AssertionError("nobody was to be asked")


def test_the_official_registry_where_it_and_an_engine_answer() -> None:
    choice = choose("auto", engine=an_engine, fault=lambda: "")
    assert choice.name == "official"
    assert "ghcr.io answers" in choice.why and ENGINE in choice.why


@pytest.mark.parametrize("fault", ["no answer within 3 s", "Name or service not known"])
def test_the_lab_where_the_registry_cannot_be_reached(fault: str) -> None:
    choice = choose("auto", engine=an_engine, fault=lambda: fault)
    assert choice == Choice("lab", f"ghcr.io cannot be reached ({fault})")


def test_the_lab_where_no_engine_answers_and_then_nobody_is_asked() -> None:
    choice = choose("auto", engine=no_engine, fault=never)
    assert choice == Choice("lab", "no container engine answers on this machine")


@pytest.mark.parametrize("asked", ["official", "lab"])
def test_what_is_asked_for_is_taken_without_a_question(asked: str) -> None:
    assert choose(asked, engine=no_engine, fault=never).name == asked


def test_another_word_is_refused() -> None:
    with pytest.raises(LabError, match="UPSTREAM=offical is none of auto, official, lab"):
        choose("offical")


@contextmanager
def server_with(status: int) -> Iterator[str]:
    """A server that gives every request this status; None of it is said aloud."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v2/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "fault"), [(200, ""), (401, ""), (407, "status 407"), (503, "status 503")]
)
def test_only_a_registrys_own_answer_counts(status: int, fault: str) -> None:
    with server_with(status) as url:
        assert registry_fault(url) == fault


def test_nobody_there_is_a_fault() -> None:
    assert "refused" in registry_fault("http://127.0.0.1:1/v2/")


def test_a_name_that_takes_too_long_to_look_up_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def slow(_url: str, _timeout_s: float) -> str:
        asked.wait(5)
        return ""

    monkeypatch.setattr("lab.upstream._ask", slow)
    try:
        assert registry_fault("http://registry.example/", 0.05) == "no answer within 0.05 s"
    finally:
        asked.set()


def test_the_command_prints_the_name_alone_and_the_reason_beside_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "upstream", "official"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "official\n"
    assert "upstream: official, as asked for by UPSTREAM" in done.stderr
