"""What the lab says to the person who runs it, and how it runs other programs."""

import shlex
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


def say(text: str) -> None:
    """Write one progress line, with the time since the start, to standard error."""
    elapsed_s = time.monotonic() - _started_s
    with _lock:
        print(f"lab {elapsed_s:6.1f}s  {text}", file=sys.stderr, flush=True)


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
    stdin: bytes | None = None,
) -> str:
    """Run a program to its end and return its standard output as text.

    Its standard error goes to `log` (appended) when one is given. Raises LabError with the last
    lines of what it said when it fails or is not there.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, input=stdin, capture_output=True, check=False
        )
    except FileNotFoundError as missing:
        raise LabError(f"program not found: {words[0]}") from missing
    if log is not None:
        with log.open("ab") as out:
            out.write(f"$ {shlex.join(words)}\n".encode() + done.stderr + b"\n")
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-15:]
        raise LabError(f"{shlex.join(words)} ended with {done.returncode}:\n  " + "\n  ".join(tail))
    return done.stdout.decode(errors="replace")
