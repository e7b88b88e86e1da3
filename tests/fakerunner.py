"""A runner without an engine: runs the request's program on this host, paths mapped.

For unit tests of what stands above the runner. It keeps the promises of the runner's contract
(tests/contract/test_runner.py) but confines nothing, so only programs of the tests go through it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from local_imager.build.following import Later
from local_imager.build.imagerlog import ImagerLog
from local_imager.build.outputs import check_outputs
from local_imager.build.request import (
    DISK_ROOT,
    INPUT_ROOT,
    KEY_ROOT,
    OUTPUT_ROOT,
    BegunRun,
    EngineInfo,
    ImagerFailed,
    ImagerRequest,
    RunResult,
)
from local_imager.errors import Interrupted
from local_imager.events import EventSink
from local_imager.oci.layout import Layout
from local_imager.sources.verify import VerifiedImage

ENGINE = EngineInfo("fake", "1", "1.51", "linux", "amd64", "classic", memory_bytes=1 << 34)
Program = Callable[[ImagerRequest, tuple[str, ...]], tuple[str, ...]]


class FakeRunner:
    """Runs commands as processes of this host; ``imager`` stands in for the imager's own.

    ``imager`` gets the request and the command with mapped paths, and returns the command to run
    in its place.
    """

    def __init__(self, imager: Program | None = None) -> None:
        self._imager = imager
        self.requests: list[ImagerRequest] = []
        self.kept: set[Path] = set()

    def info(self) -> EngineInfo:
        return ENGINE

    def load(self, image: VerifiedImage, layout: Layout, arch: str | None, sink: EventSink) -> str:
        return f"sha256:{image.digest.hex}"

    def run(self, request: ImagerRequest, sink: EventSink, cancel: threading.Event) -> RunResult:
        self.requests.append(request)
        request.output_dir.mkdir(parents=True, exist_ok=True)
        command = mapped(request)
        if self._imager is not None:
            command = self._imager(request, command)
        log = ImagerLog(
            request.subject, sink, request.secrets, hide_command_line=request.hide_command_line
        )
        began = time.monotonic()
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **request.env},
            start_new_session=True,
        ) as process:
            reader = threading.Thread(target=_talk, args=(process, request.stdin, log))
            reader.start()
            _watch(process, request, cancel, began, log)
            reader.join()
        if process.returncode == 0:
            check_outputs(request.output_dir, request.outputs, request.limits.max_file_bytes)
        if request.keep:
            self.kept.add(request.output_dir)
        return RunResult(process.returncode, log.finish(), time.monotonic() - began)

    def begin(
        self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
    ) -> AbstractContextManager[BegunRun]:
        return nullcontext(Later(lambda: self.run(request, sink, cancel)))

    def release(self, output_dir: Path) -> None:
        self.kept.discard(output_dir)

    def close(self) -> None:
        self.kept.clear()


def mapped(request: ImagerRequest) -> tuple[str, ...]:
    """Return the command with the container's paths replaced by this host's."""
    places = {
        OUTPUT_ROOT: request.output_dir,
        DISK_ROOT: request.disk_dir,
        INPUT_ROOT: request.input_dir,
        KEY_ROOT: request.key_dir,
    }
    words = []
    for word in request.command:
        for inside, outside in places.items():
            if outside is not None:
                word = word.replace(inside, str(outside))
        words.append(word)
    return tuple(words)


def _talk(process: subprocess.Popen[bytes], stdin: bytes, log: ImagerLog) -> None:
    assert process.stdin and process.stdout
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # a program need not read its input
    try:
        while chunk := process.stdout.read1(4096):  # type: ignore[attr-defined]
            log.feed(chunk)
    except ValueError:
        return  # the process was killed, and its pipe closed under the reader


def _watch(
    process: subprocess.Popen[bytes],
    request: ImagerRequest,
    cancel: threading.Event,
    began: float,
    log: ImagerLog,
) -> None:
    while process.poll() is None:
        if cancel.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            raise Interrupted(f"the build of {request.subject} was stopped")
        if time.monotonic() - began > request.limits.timeout_s:
            os.killpg(process.pid, signal.SIGKILL)
            raise ImagerFailed("too slow", hint="", status=137, log=log.finish(), code="timeout")
        time.sleep(0.01)
