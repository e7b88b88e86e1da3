"""What the lab says to the person who runs it, and how it runs other programs."""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class LabError(Exception):
    """The lab cannot go on; the text says why and what to do."""


_started_s = time.monotonic()
_lock = threading.Lock()
_programs: set["subprocess.Popen[bytes]"] = set()
_stopping = threading.Event()
_libc = ctypes.CDLL(None)  # loaded here, since a child must not load libraries after the fork
_PR_SET_PDEATHSIG = 1


def say(text: str) -> None:
    """Write one progress line, with the time since the start, to standard error."""
    elapsed_s = time.monotonic() - _started_s
    with _lock:
        print(f"lab {elapsed_s:6.1f}s  {text}", file=sys.stderr, flush=True)


def die_with_parent() -> None:
    """Have the kernel end this process when the thread that made it is gone (for preexec_fn)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a piece of work, and how long it took once it is done."""
    say(f"{title} …")
    began_s = time.monotonic()
    yield
    say(f"{title}: done in {time.monotonic() - began_s:.1f} s")


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run a program to its end and return its standard output as text.

    Its standard error goes to `log` (appended) when one is given. Raises LabError with the last
    lines of what it said when it fails or is not there.
    """
    words = [str(word) for word in argv]
    try:
        # A session of its own, so that `stop_programs` reaches its children too.
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    except FileNotFoundError as missing:
        raise LabError(f"program not found: {words[0]}") from missing
    with _lock:
        _programs.add(process)
        if _stopping.is_set():
            os.killpg(process.pid, signal.SIGTERM)
    try:
        stdout, stderr = process.communicate()
    finally:
        with _lock:
            _programs.discard(process)
    if log is not None:
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(words)}\n".encode() + stderr + b"\n")
    if _stopping.is_set():
        raise LabError("stopped")
    if process.returncode != 0:
        tail = (stderr or stdout).decode(errors="replace").strip().splitlines()[-15:]
        raise LabError(
            f"{shlex.join(words)} ended with {process.returncode}:\n  " + "\n  ".join(tail)
        )
    return stdout.decode(errors="replace")


def stop_programs() -> None:
    """End every program that `run` is waiting for, and let it start no more."""
    _stopping.set()
    with _lock:
        for process in _programs:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
