"""What all parts of `make bench` share: figures, timed processes, tables."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError


@dataclass(frozen=True, slots=True)
class Figures:
    """Wall seconds of each run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.seconds):.2f}–{max(self.seconds):.2f})"


def timed(argv: list[str]) -> float:
    """Run a process to its end and return its wall seconds; raises LabError when it fails."""
    began_s = time.monotonic()
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-800:]
        raise LabError(f"{' '.join(argv)[:200]} ended with {done.returncode}: {said}")
    return time.monotonic() - began_s


def program(config: Path, store: Path, *arguments: str) -> list[str]:
    """Return the argv of the program with the lab's settings."""
    binary = str(Path(sys.executable).parent / "local-imager")
    return [binary, "-q", "--config", str(config), "--store", str(store), *arguments]


def peak_memory_mb(argv: list[str]) -> float:
    """Run a process and return its own largest resident size in MB (not the engine's)."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LabError(f"the build for the memory figure ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e6


def show(title: str, head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
