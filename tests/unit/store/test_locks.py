"""Locks between processes; threads with locks of their own stand for processes here."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from local_imager.events import Message, RecordingSink
from local_imager.oci.durable import FileLock
from local_imager.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_the_same_build_waits_and_is_told_so(store: Store) -> None:
    sink, order = RecordingSink(), list[str]()

    def second() -> None:
        with store.build_lock("k" * 64, sink=sink, what="metal-amd64.iso") as waited:
            order.append(f"second {waited}")

    thread = threading.Thread(target=second)
    with store.build_lock("k" * 64) as waited:
        assert not waited
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second True"]
    (message,) = sink.events
    assert isinstance(message, Message) and "metal-amd64.iso" in message.text


def test_other_builds_do_not_wait(store: Store) -> None:
    with store.build_lock("a" * 64), store.build_lock("b" * 64) as waited:
        assert not waited


def test_slots_limit_builds_at_once(store: Store) -> None:
    running, most, lock, sink = 0, 0, threading.Lock(), RecordingSink()

    def build() -> None:
        nonlocal running, most
        with Store.open(store.path).build_slot(2, sink=sink):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.1)
            with lock:
                running -= 1

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2
    assert any("limit" in event.text for event in sink.events if isinstance(event, Message))


def test_a_lock_whose_file_was_removed_is_not_held_twice(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    path.unlink()
    assert second.try_acquire()
    first.release()
    assert not FileLock(path).try_acquire()
    second.release()
    assert FileLock(path).try_acquire()


def test_a_file_removed_while_it_is_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "lock", fcntl.flock
    other = FileLock(path)

    def flock(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()  # as the collector does between our open and our lock
        assert other.try_acquire()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    late = FileLock(path)
    assert not late.try_acquire()
    other.release()
    assert late.try_acquire()


def test_shared_locks_share_and_keep_out_the_exclusive_one(tmp_path: Path) -> None:
    one, two, alone = (FileLock(tmp_path / "lock") for _ in range(3))
    assert one.try_acquire(shared=True) and two.try_acquire(shared=True)
    assert not alone.try_acquire()
    one.release()
    two.release()
    assert alone.try_acquire()
