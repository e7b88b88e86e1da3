"""One container from its start to its end: fed, read, watched, stopped in time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

from local_imager.build.docker import ContainerInput, Engine
from local_imager.build.failure import last_lines
from local_imager.build.imagerlog import ImagerLog
from local_imager.build.request import ImagerFailed, ImagerRequest, RunResult
from local_imager.errors import Interrupted
from local_imager.events import EventSink, timed

# How often a run is looked at; also the longest delay before a stop is noticed.
_POLL_S: Final = 0.05


class Later:
    """A run whose rest is a function; the :class:`~.request.BegunRun` of every runner."""

    def __init__(self, finish: Callable[[], RunResult]) -> None:
        self._finish = finish

    def finish(self) -> RunResult:
        """Do the rest."""
        return self._finish()


class Following:
    """Starts a created container on entering, and has it send nothing more when left."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        request: ImagerRequest,
        sink: EventSink,
        cancel: threading.Event,
    ) -> None:
        self.container = container
        self.request = request
        self.sink = sink
        self._engine = engine
        self._cancel = cancel
        self._log = ImagerLog(
            request.subject, sink, request.secrets, hide_command_line=request.hide_command_line
        )
        self._held = ExitStack()

    def __enter__(self) -> Following:
        with timed(self.sink, "start", self.request.subject):
            output = self._engine.output(self.container)
            self._reader = threading.Thread(target=_pump, args=(output, self._log), daemon=True)
            # Attached before the start: Podman would revive a container that ended meanwhile.
            self._stdin = self._engine.open_input(self.container) if self.request.stdin else None
            if self._stdin is not None:
                self._held.callback(self._stdin.close)
            self._engine.start(self.container)
            self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def finish(self) -> RunResult:
        """Send the input and return how the program ended.

        Raises :class:`Interrupted` when the work was stopped and :class:`ImagerFailed` when the
        program takes too long; then it was killed. Its time counts from this call.
        """
        began = time.monotonic()
        with timed(self.sink, "run", self.request.subject):
            with _feeding(self._stdin, self.request.stdin):
                self._await_end(began)
            exit_code = self._engine.exit_code(self.container)
            out_of_memory = self._engine.state(self.container).out_of_memory
        return RunResult(exit_code, self._log.finish(), time.monotonic() - began, out_of_memory)

    def _await_end(self, began: float) -> None:
        while self._reader.is_alive() or self._engine.state(self.container).running:
            if self._cancel.is_set():
                self._engine.kill(self.container)
                raise Interrupted(f"the build of {self.request.subject} was stopped")
            if time.monotonic() - began > self.request.limits.timeout_s:
                self._engine.kill(self.container)
                self._reader.join(1)
                self._raise_timeout()
            self._reader.join(_POLL_S)

    def _raise_timeout(self) -> None:
        text, request = self._log.finish(), self.request
        raise ImagerFailed(
            f"{request.command[0]} did not end within {request.limits.timeout_s} s for "
            f"{request.subject}\n{last_lines(text)}",
            hint="raise build.timeout_s if this host is slow; the last lines say where it hangs",
            status=137,
            log=text,
            code="timeout",
        )


@contextlib.contextmanager
def _feeding(stream: ContainerInput | None, data: bytes) -> Iterator[None]:
    """Send stdin beside the body; a program that does not read it holds nobody up."""
    if stream is None:
        yield
        return
    sender = threading.Thread(target=_send, args=(stream, data), daemon=True)
    sender.start()
    try:
        yield
    finally:
        stream.close()
        sender.join(1)


def _send(stream: ContainerInput, data: bytes) -> None:
    # A program that ends before it has read its input closes the connection on us; its exit
    # status is what counts then.
    with contextlib.suppress(OSError):
        stream.send(data)


def _pump(output: Iterator[bytes], log: ImagerLog) -> None:
    # The stream breaks when the container is removed under it; the caller knows why.
    with contextlib.suppress(OSError):
        for chunk in output:
            log.feed(chunk)
