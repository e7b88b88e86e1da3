"""The command line's frame: quick help, nearest commands, exit codes, JSON errors."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import click
import pytest

from local_imager.cli import main as frame
from local_imager.errors import HostError, InputError, LocalImagerError


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command("doctor")
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        raise error

    monkeypatch.setattr(frame.LazyGroup, "get_command", lambda *_: command)


def test_help_names_every_command_without_importing_one() -> None:
    code = (
        "import sys; from local_imager.cli.main import run; code = run(['--help']);"
        "heavy = {*'docker cryptography httpx yaml rich sigstore'.split()} & set(sys.modules);"
        "sys.exit(1 if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in frame.COMMANDS:
        assert name in done.stdout


def test_every_command_of_the_table_exists_and_has_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in frame.COMMANDS:
        assert frame.run([name, "--help"]) == 0
        assert "Usage: local-imager" in capsys.readouterr().out


def test_a_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["biuld"]) == 2
    assert "did you mean build?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LocalImagerError("it failed"), 1),
        (InputError("wrong", hint="do this", source="a.yaml", line=3, column=4), 2),
        (HostError("no engine"), 5),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "/somewhere"), 5),
        (OSError(errno.EROFS, "Read-only file system", "/somewhere"), 5),
        (OSError(errno.EISDIR, "Is a directory", "/somewhere"), 1),
        (ZeroDivisionError("a defect\x1b[31m"), 1),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    fail_with(monkeypatch, error)
    assert frame.run(["doctor"]) == code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "\x1b[31ma" not in printed


def test_the_place_and_the_hint_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, InputError("wrong", hint="do this", source="a.yaml", line=3, column=4))
    frame.run(["doctor"])
    assert capsys.readouterr().err == "error: a.yaml:3:4: wrong\nhint:  do this\n"


def test_json_errors_go_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, HostError("no engine", hint="start it"))
    assert frame.run(["doctor", "--json"]) == 5
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"error": {"code": "host-unable", "message": "no engine", "hint": "start it"}}


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["build", "--jobs", "0", "--json"], "'--jobs'", "see `local-imager build --help`"),
        (["store", "ls", "--json", "--foo"], "'--foo'", "see `local-imager store ls --help`"),
        (["--json"], "'--json'", "see `local-imager --help`"),
    ],
)
def test_a_wrong_command_line_is_json_too(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str, hint: str
) -> None:
    assert frame.run(arguments) == 2
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert (error["code"], error["hint"]) == ("usage", hint) and says in error["message"]
    assert printed.err == ""
    assert frame.run([word for word in arguments if word != "--json"] + ["--foo"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "Usage: " in printed.err


def test_an_interruption_is_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert frame.run(["doctor", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "interrupted"
    assert frame.run(["doctor"]) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "error", "code", "says"),
    [
        (["--help"], None, 5, "error: No space left on device (standard output)\n"),
        (["build", "--foo", "--json"], None, 2, "error: No such option '--foo'."),
        (["doctor", "--json"], HostError("no engine"), 5, "error: no engine\n"),
        (["doctor", "--json"], KeyboardInterrupt(), 130, "error: interrupted;"),
    ],
)
def test_what_a_full_standard_output_does_not_take_goes_to_stderr(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: BaseException | None,
    code: int,
    says: str,
) -> None:
    if error is not None:
        fail_with(monkeypatch, error)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert frame.run(arguments) == code
        full.flush()  # nothing is left that the interpreter would write at its end
    printed = capsys.readouterr().err
    assert printed.lstrip().startswith(says)
    assert "Traceback" not in printed


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, HostError("no engine"))
    with pytest.raises(HostError):
        frame.run(["--debug", "doctor"])
