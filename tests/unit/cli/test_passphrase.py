"""Where a signing key's passphrase comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from local_imager.cli.passphrase import passphrase_for
from local_imager.settings import load_settings

KEY = Path("bundle.key")
VARIABLE = "LOCAL_IMAGER_KEY_PASSPHRASE"


def test_the_environment_goes_before_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setenv(VARIABLE, "grün")
    ask = passphrase_for(KEY)
    assert ask is not None and ask() == "grün".encode()


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert passphrase_for(KEY) is None


def test_a_person_types_it_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool, bool]] = []

    def prompt(text: str, *, hide_input: bool, err: bool) -> str:
        asked.append((text, hide_input, err))
        return "typed"

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", prompt)
    ask = passphrase_for(KEY)
    assert ask is not None and not asked
    assert ask() == b"typed"
    assert asked == [("Passphrase of bundle.key", True, True)]


def test_the_variable_is_no_setting(tmp_path: Path) -> None:
    load_settings(environment={VARIABLE: "secret"}, project_dir=tmp_path)
