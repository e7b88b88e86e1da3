"""The `local-imager` command as a user starts it: a process with an exit code and two streams."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMATICS = ROOT / "schematics"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    duration_s: float

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.stdout)

    @property
    def text(self) -> str:
        """Both streams, without colours, white space folded."""
        return " ".join(_COLOURS.sub("", f"{self.stdout}\n{self.stderr}").split())

    def expect(self, code: int, *phrases: str) -> Outcome:
        """Check the exit code and that every phrase was said; no traceback ever."""
        assert self.code == code, self._told(f"status {self.code} in place of {code}")
        assert "Traceback" not in self.text, self._told("a traceback")
        for phrase in phrases:
            assert phrase.lower() in self.text.lower(), self._told(f"{phrase!r} was not said")
        return self

    def _told(self, fault: str) -> str:
        return f"{fault}: {' '.join(self.argv)}\n{self.stdout[-2000:]}\n{self.stderr[-4000:]}"


@dataclass(frozen=True)
class Program:
    """The command with settings, a store and an output folder of its own."""

    config: Path
    store: Path
    out: Path
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def argv(self, *arguments: str | Path) -> list[str]:
        """Return the command line with its global options first."""
        options = ["--config", str(self.config), "--store", str(self.store)]
        program = [sys.executable, "-m", "local_imager", *options]
        return [*self.prefix, *program, *map(str, arguments)]

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Outcome:
        """Run it to its end."""
        argv, began_s = self.argv(*arguments), time.monotonic()
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=self._environment, check=False
        )
        took_s = time.monotonic() - began_s
        return Outcome(tuple(argv), done.returncode, done.stdout, done.stderr, took_s)

    def start(self, *arguments: str | Path) -> Running:
        """Start it and return at once."""
        argv = self.argv(*arguments)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        return Running(tuple(argv), process, time.monotonic())

    def build(
        self, schematic: str | Path, *arguments: str, version: str, code: int = 0
    ) -> list[dict[str, Any]]:
        """Build and export; returns what `--json` says."""
        done = self(
            "build", schematic, *arguments, "--version", version, "--out", self.out, "--json"
        )
        results: list[dict[str, Any]] = done.expect(code).json
        return results

    def fsck(self) -> Outcome:
        """Check that the store is clean."""
        return self("store", "fsck").expect(0)

    @property
    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCAL_IMAGER_")}
        return {**kept, **self.env}


@dataclass(frozen=True)
class Running:
    """A call under way."""

    argv: tuple[str, ...]
    process: subprocess.Popen[str]
    began_s: float

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 180) -> Outcome:
        """Wait for the end."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        took_s = time.monotonic() - self.began_s
        return Outcome(self.argv, self.process.returncode, stdout, stderr, took_s)
