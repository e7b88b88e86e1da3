"""Locks between processes: one build of a key at a time, a limit on builds at once.

All of them are dropped by the kernel when their process dies, however it dies. Waiting is polling
and so can be interrupted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from local_imager.events import NULL_SINK, EventSink, Message
from local_imager.oci.durable import FileLock, explained

_POLL_S: Final = 0.1


@contextlib.contextmanager
def build_lock(
    locks_dir: Path, build_key: str, sink: EventSink = NULL_SINK, what: str = ""
) -> Iterator[bool]:
    """Hold the lock of one build key; yields whether it had to be waited for.

    Who waited looks the build up again: the other process has probably made it.
    """
    subject = what or f"build {build_key[:12]}"
    waited = False

    def on_wait() -> None:
        nonlocal waited
        waited = True
        sink.emit(Message(f"waiting: another process is building {subject}"))

    with explained(f"lock a build in {locks_dir}"):
        lock = FileLock(locks_dir / f"build-{build_key}").acquire(on_wait=on_wait)
    with lock:
        yield waited


@contextlib.contextmanager
def build_slot(locks_dir: Path, limit: int, sink: EventSink = NULL_SINK) -> Iterator[int]:
    """Hold one of ``limit`` slots, over all processes that use this store; yields its number."""
    limit = max(1, limit)
    told = False
    while True:
        for number in range(limit):
            with explained(f"take a build slot in {locks_dir}"):
                lock = FileLock(locks_dir / f"slot-{number}")
                taken = lock.try_acquire()
            if taken:
                with lock:
                    yield number
                return
        if not told:
            told = True
            sink.emit(Message(f"waiting: {limit} builds are running, which is the limit"))
        time.sleep(_POLL_S + os.getpid() % 10 / 200)  # waiters do not wake in step
