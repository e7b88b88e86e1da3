"""Work side by side: order, the first failure, stopping, and threads that hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from local_imager.errors import Interrupted
from local_imager.sources.parallel import run_all


def test_results_keep_their_order_and_jobs_their_limit() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def task(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01 * (5 - number % 5))
        with lock:
            running -= 1
        return number

    assert run_all([lambda n=n: task(n) for n in range(12)], 3) == list(range(12))  # type: ignore[misc]
    assert most == 3
    assert run_all([], 3) == []


def test_the_first_failure_stops_the_others() -> None:
    stop, started = threading.Event(), []

    def slow() -> None:
        started.append(1)
        stop.wait(5)

    def broken() -> None:
        time.sleep(0.05)
        raise ValueError("broken")

    began_s = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        run_all([slow, broken, *[slow] * 10], 2, stop)
    assert stop.is_set()
    assert len(started) <= 2
    assert time.monotonic() - began_s < 3


def test_a_failure_inside_one_task_is_not_hidden_by_another_that_it_stopped() -> None:
    stop = threading.Event()

    def lingering() -> None:
        stop.wait(5)
        time.sleep(0.3)

    def broken() -> None:
        time.sleep(0.05)
        raise ValueError("broken")

    def waiting() -> None:
        stop.wait(5)
        raise Interrupted("the download was stopped")

    with pytest.raises(ValueError, match="broken"):
        run_all([lambda: run_all([broken, lingering], 2, stop), waiting], 2, stop)


def test_a_stop_from_outside_ends_the_work() -> None:
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Interrupted):
        run_all([lambda: time.sleep(0.02)] * 1000, 2, stop)


HANGING = """
import os, signal, threading, time
from local_imager.sources.parallel import run_all
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    run_all([lambda: time.sleep(60)] * 3, 3)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_not_held_up_by_a_thread_that_hangs() -> None:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "interrupted\n"
    assert time.monotonic() - began_s < 10
