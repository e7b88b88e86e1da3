"""Groups beside each other: every result once, in the hands of one, and one failure stops all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from local_imager.build import scheduling
from local_imager.build.request import GIB
from local_imager.build.scheduling import LinkedEvent, runs_at_once, side_by_side
from local_imager.errors import BuildError, Interrupted
from tests.fakerunner import ENGINE

Work = Callable[[threading.Event], Iterator[str]]


def yielding(*names: str) -> Work:
    def work(_stop: threading.Event) -> Iterator[str]:
        yield from names

    return work


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_every_result_comes_once_and_in_the_order_of_its_group(at_once: int) -> None:
    groups = [yielding(*(f"{number}{letter}" for letter in "abc")) for number in range(6)]
    found = list(side_by_side(groups, at_once, threading.Event()))
    assert sorted(found) == sorted(f"{n}{letter}" for n in range(6) for letter in "abc")
    for number in range(6):
        own = [name for name in found if name.startswith(str(number))]
        assert own == sorted(own)


def test_two_groups_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def work(_stop: threading.Event) -> Iterator[str]:
        both.wait()  # broken, and so an error, when the other does not come
        yield "met"

    assert list(side_by_side([work, work], 2, threading.Event())) == ["met", "met"]


def test_a_maker_goes_on_only_when_its_result_was_taken() -> None:
    there: set[str] = set()

    def work(name: str) -> Work:
        def begin(_stop: threading.Event) -> Iterator[str]:
            there.add(name)
            yield name
            there.discard(name)

        return begin

    seen = []
    for name in side_by_side([work(f"file {n}") for n in range(8)], 3, threading.Event()):
        assert name in there
        seen.append(name)
    assert len(seen) == 8
    assert not there


def test_the_first_failure_stops_the_others_and_is_the_one_that_is_raised() -> None:
    begun = threading.Event()
    never: list[str] = []

    def fails(_stop: threading.Event) -> Iterator[str]:
        begun.wait(10)
        raise BuildError("the cause")
        yield ""

    def waits(stop: threading.Event) -> Iterator[str]:
        begun.set()
        for _ in range(10_000):
            if stop.is_set():
                raise Interrupted("stopped by the other")
            threading.Event().wait(0.001)
        yield "never stopped"

    def later(_stop: threading.Event) -> Iterator[str]:
        never.append("begun")
        yield "too late"

    with pytest.raises(BuildError, match="the cause"):
        list(side_by_side([waits, fails, later], 2, threading.Event()))
    assert never == []


def test_a_consumer_that_leaves_ends_every_maker() -> None:
    begun: list[int] = []
    closed: list[int] = []

    def work(number: int) -> Work:
        def begin(_stop: threading.Event) -> Iterator[str]:
            begun.append(number)
            try:
                yield f"{number}"
                yield f"{number} again"
            finally:
                closed.append(number)

        return begin

    results = side_by_side([work(n) for n in range(4)], 4, threading.Event())
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert begun
    assert sorted(closed) == sorted(begun)
    assert not [t for t in threading.enumerate() if t.name.startswith("groups")]


def test_stopping_from_outside_reaches_every_group() -> None:
    outer = threading.Event()
    outer.set()
    assert LinkedEvent(outer).is_set()
    inner = LinkedEvent(threading.Event())
    assert not inner.is_set()
    inner.set()
    assert inner.is_set()


@pytest.mark.parametrize(
    ("jobs", "cpus", "free_gib", "expected"),
    [(8, 8, 64, 4), (1, 8, 64, 1), (8, 2, 64, 2), (8, 8, 9, 2), (8, 8, 3, 1), (8, 8, 0, 1)],
)
def test_as_many_at_once_as_there_are_cores_and_memory_for(
    monkeypatch: pytest.MonkeyPatch, jobs: int, cpus: int, free_gib: int, expected: int
) -> None:
    monkeypatch.setattr(scheduling, "available_memory", lambda _engine: free_gib * GIB)
    assert runs_at_once(jobs, 4 * GIB, replace(ENGINE, cpus=cpus)) == expected
