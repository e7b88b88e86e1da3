"""Runs of the program that end by SIGKILL at a chosen change of the disk.

A small server process has the program's modules loaded and forks a child for each run, so a run
costs a fork and not the start of Python. In the child every call that changes a file is counted;
at the chosen one the child kills itself: before the call, or in the middle of a write. So each
point where a kill could leave something is reached, whatever the speed of the machine.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SERVER = r"""
import importlib, json, os, signal, sys, threading

MODULES = sys.argv[1:]
for name in MODULES:
    importlib.import_module(name)
from local_imager.cli.main import run

# Left out is what a kill loses nothing of: syncing, times and modes of files without a name.
CHANGES = ("rename", "replace", "unlink", "mkdir", "rmdir", "link")


def armed(kill_at, lock=threading.Lock()):
    count = [0]

    def reached():
        with lock:
            count[0] += 1
            return count[0] == kill_at

    def counted(call):
        def wrapper(*args, **options):
            if reached():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return wrapper

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    for name in ("write", "pwrite"):
        plain = getattr(os, name)

        def write(handle, data, *rest, plain=plain):
            if reached():
                plain(handle, memoryview(data)[: len(data) // 2], *rest)
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(handle, data, *rest)

        setattr(os, name, write)
    return count


for line in sys.stdin:
    asked = json.loads(line)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):
            os.dup2(null, number)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 2)
        tell = os.write
        count = armed(asked["kill_at"])
        code = run(asked["arguments"])
        tell(writer, json.dumps({"code": int(code), "changes": count[0]}).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    answer = json.loads(said) if said else {"code": -os.WTERMSIG(status), "changes": 0}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (-9 when it was killed) and how many changes it made."""

    code: int
    changes: int
    log: str

    @property
    def killed(self) -> bool:
        """Whether the chosen change was reached."""
        return self.code == -signal.SIGKILL


class Killer:
    """Runs the program with arguments; see :func:`killer`."""

    def __init__(self, requests: IO[str], answers: IO[str], log: Path) -> None:
        self._requests, self._answers, self._log = requests, answers, log

    def run(self, *arguments: str | Path, kill_at: int = 0) -> Ended:
        """Run to the end, or to the change of this number (counted from 1)."""
        asked = {
            "arguments": [str(one) for one in arguments],
            "kill_at": kill_at,
            "log": str(self._log),
        }
        self._requests.write(json.dumps(asked) + "\n")
        self._requests.flush()
        answer = json.loads(self._answers.readline())
        return Ended(answer["code"], answer["changes"], self._log.read_text())


@contextmanager
def killer(folder: Path, *modules: str) -> Iterator[Killer]:
    """Start the server with these modules loaded; it ends with the context."""
    argv = [sys.executable, "-c", SERVER, *modules]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Killer(process.stdin, process.stdout, folder / "stderr.log")
        finally:
            process.stdin.close()
            process.wait(30)
