"""Building a matrix: each cell told, equal ones built once, failures apart, memory divided."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.build.request import BegunRun, ImagerRequest
from local_imager.errors import ExitCode, HostError, InputError, VerificationRefused
from local_imager.events import EventSink, Message, RecordingSink, StepFinished
from local_imager.pipeline import Factory
from local_imager.pipeline.matrix import (
    CellResult,
    MatrixOrder,
    Shares,
    build_matrix,
    shares,
    worst_exit_code,
)
from local_imager.pipeline.matrixfile import Cell
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from tests.fakerunner import FakeRunner
from tests.unit.pipeline.test_factory import imager, settings_for
from tests.unit.sources.test_upstream import World

GIB = 1 << 30
PLAIN = parse_schematic(b"customization: {}\n")
ARGS = parse_schematic(b"customization: {extraKernelArgs: [a=b]}\n")


def cell(asset: str, version: str = "v1.13.0", file: str = "plain.yaml") -> Cell:
    schematic = ARGS if file == "args.yaml" else PLAIN
    return Cell(file, schematic, str(schematic_id(schematic)), version, asset)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def built(
    world: World,
    cells: Sequence[Cell],
    runner: FakeRunner,
    *,
    sink: RecordingSink | None = None,
    cancel: threading.Event | None = None,
    **more: object,
) -> dict[Cell, CellResult]:
    order = MatrixOrder(tuple(cells), jobs=2, memory_bytes=8 * GIB)
    sink = sink or RecordingSink()
    results = build_matrix(
        replace(order, **more),  # type: ignore[arg-type]
        Factory(settings_for(world), sink=sink),
        runner=runner,
        sink=sink,
        cancel=cancel or threading.Event(),
    )
    found = list(results)
    assert len(found) == len(cells)
    return {result.cell: result for result in found}


CELLS = [
    cell(asset, version, file)
    for file in ("plain.yaml", "args.yaml")
    for version in ("v1.9.0", "v1.13.0")
    for asset in ("metal-amd64.iso", "metal-amd64-uki.efi", "metal-arm64-uki.efi")
]


def test_every_cell_is_built_and_found_again(world: World) -> None:
    runner = FakeRunner(imager)
    first = built(world, CELLS, runner, export_to=world.path / "out")
    assert {result.outcome for result in first.values()} == {"built"}
    for result in first.values():
        assert result.result is not None and result.result.path is not None
        assert result.result.path.is_file()
        assert result.result.version == result.cell.version
        assert result.cell.schematic_id[:12] in result.result.path.parts
    runs = len(runner.requests)
    again = built(world, CELLS, runner)
    assert {result.outcome for result in again.values()} == {"cached"}
    assert len(runner.requests) == runs
    assert worst_exit_code(list(again.values())) == ExitCode.OK
    digests = {result.cell: result.as_dict()["digest"] for result in first.values()}
    assert digests == {result.cell: result.as_dict()["digest"] for result in again.values()}


def test_equal_cells_are_built_once(world: World) -> None:
    runner = FakeRunner(imager)
    cells = [cell("kernel-amd64"), cell("kernel-amd64", file="same.yaml")]
    results = built(world, cells, runner)
    assert [results[one].outcome for one in cells] == ["built", "cached"]
    assert len(runner.requests) == 1
    assert results[cells[0]].as_dict()["digest"] == results[cells[1]].as_dict()["digest"]


def test_an_equal_kernel_is_kept_under_each_schematic(world: World) -> None:
    cells = [cell("kernel-amd64"), cell("kernel-amd64", file="args.yaml")]
    results = built(world, cells, FakeRunner(imager), export_to=world.path / "out")
    told = [results[one].as_dict() for one in cells]
    assert [one["outcome"] for one in told] == ["built", "built"]
    assert told[0]["digest"] == told[1]["digest"]
    for one in cells:
        folder = world.path / "out" / one.schematic_id[:12] / one.version
        assert results[one].as_dict()["path"] == str(folder / "kernel-amd64")
        assert (folder / "kernel-amd64").is_file()


def test_images_are_fetched_once(world: World) -> None:
    sink = RecordingSink()
    built(world, CELLS, FakeRunner(imager), sink=sink)
    ended = [e for e in sink.events if isinstance(e, StepFinished)]
    fetched = [event.subject for event in ended if event.step == "fetch"]
    assert len(fetched) == len(set(fetched)) == 2
    # The newest imager is also a base, of which another architecture may be wanted.
    assert len([event for event in ended if event.step == "verify"]) <= 3
    told = [e.text for e in sink.events if isinstance(e, Message) and e.level != "log"]
    assert told[0] == "12 cells, 2 at once with 4.0 GiB of memory each"
    assert len(told) == len(set(told))
    cells = [event.subject for event in ended if event.step == "cell"]
    assert sorted(cells) == sorted(f"{one.label} {one.asset}" for one in CELLS)


def test_a_cell_that_fails_costs_no_other(world: World) -> None:
    def fails_for_one(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        return ("false",) if "metal-amd64-uki" in request.subject else imager(request, command)

    unknown = cell("kernel-amd64", "v1.12.9")
    cells = [
        *(cell("kernel-amd64"), cell("metal-amd64-uki.efi"), cell("metal-amd64.iso")),
        *(unknown, cell("kernel-arm64", "v1.9.0")),
    ]
    results = built(world, cells, FakeRunner(fails_for_one))
    outcomes = [results[one].outcome for one in cells]
    assert outcomes[0] in ("built", "cached") and outcomes[2] in ("built", "cached")
    assert [outcomes[1], *outcomes[3:]] == ["failed", "failed", "built"]
    failure = results[cells[1]].error
    assert failure is not None and "metal-amd64-uki.efi" in failure.message
    assert worst_exit_code(list(results.values())) == ExitCode.FAILED
    said = results[unknown].as_dict()["error"]
    assert isinstance(said, dict) and said["code"] == "unknown-version"
    assert worst_exit_code([results[unknown]]) == ExitCode.INPUT_INVALID


def test_fail_fast_begins_nothing_more(world: World) -> None:
    runner = FakeRunner(lambda _request, _command: ("false",))
    results = built(world, CELLS, runner, fail_fast=True, jobs=1)
    outcomes = [result.outcome for result in results.values()]
    assert outcomes.count("failed") >= 1
    assert outcomes.count("stopped") >= len(CELLS) - 3
    assert worst_exit_code(list(results.values())) == ExitCode.FAILED


def test_fail_fast_ends_with_the_exit_code_of_the_cell_that_failed(world: World) -> None:
    cells = [cell("kernel-amd64", "v1.12.9"), *CELLS]
    results = built(world, cells, FakeRunner(imager), fail_fast=True, jobs=1)
    outcomes = [result.outcome for result in results.values()]
    assert "stopped" in outcomes and outcomes.count("failed") == 1
    assert worst_exit_code(list(results.values())) == ExitCode.INPUT_INVALID


def test_stopping_ends_what_runs_and_begins_nothing(world: World) -> None:
    cancel, running = threading.Event(), threading.Event()

    def hangs(request: ImagerRequest, _command: tuple[str, ...]) -> tuple[str, ...]:
        running.set()
        return ("sleep", "600")

    def stops() -> None:
        running.wait()
        cancel.set()

    stopper = threading.Thread(target=stops)
    stopper.start()
    results = built(world, CELLS, FakeRunner(hangs), cancel=cancel)
    stopper.join()
    assert {result.outcome for result in results.values()} == {"stopped"}
    assert threading.active_count() == 1
    assert list((world.path / "store" / "work").iterdir()) == []


def test_a_caller_that_goes_away_stops_everything(world: World) -> None:
    cancel = threading.Event()
    order = MatrixOrder(tuple(CELLS), jobs=2, memory_bytes=8 * GIB)
    results = build_matrix(
        order,
        Factory(settings_for(world)),
        runner=FakeRunner(imager),
        sink=RecordingSink(),
        cancel=cancel,
    )
    next(results)
    results.close()
    assert cancel.is_set() and threading.active_count() == 1


def test_an_unexpected_fault_is_that_of_its_cell(world: World) -> None:
    def breaks(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        if "arm64" in request.subject:
            raise ZeroDivisionError("oh")
        return imager(request, command)

    cells = [cell("kernel-arm64"), cell("kernel-amd64")]
    results = built(world, cells, FakeRunner(breaks))
    error = results[cells[0]].error
    assert error is not None and "ZeroDivisionError: oh" in error.message
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert results[cells[1]].outcome == "built"


def test_a_full_disk_is_the_hosts_fault_also_where_nothing_explains_it(world: World) -> None:
    def breaks(_request: ImagerRequest, _command: tuple[str, ...]) -> tuple[str, ...]:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/x")

    results = built(world, [cell("kernel-amd64")], FakeRunner(breaks))
    (error,) = [result.error for result in results.values()]
    assert error is not None and error.code == "disk-full" and "/somewhere/x" in error.message
    assert worst_exit_code(list(results.values())) == ExitCode.HOST_UNABLE


def test_no_container_is_started_that_was_not_counted(world: World) -> None:
    class Counted(FakeRunner):
        def begin(
            self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
        ) -> AbstractContextManager[BegunRun]:
            raise AssertionError("one container more than was counted")

    found = built(world, CELLS[:3], Counted(imager))
    assert {result.outcome for result in found.values()} == {"built"}


@pytest.mark.parametrize(
    ("jobs", "memory", "units", "cores", "wanted"),
    [
        (2, 16 * GIB, 12, 2, Shares(2, 4 * GIB, 1)),
        (2, 6 * GIB, 12, 2, Shares(2, 3 * GIB, 1)),
        (2, 4 * GIB, 12, 2, Shares(2, 2 * GIB, 1)),
        (2, 3 * GIB, 12, 2, Shares(1, 3 * GIB, 1)),
        (8, 9 * GIB, 12, 8, Shares(4, 9 * GIB // 4, 1)),
        (2, GIB, 12, 2, Shares(1, GIB, 1)),
        (2, 16 * GIB, 1, 2, Shares(1, 4 * GIB, 2)),
        (2, 5 * GIB, 1, 2, Shares(1, 5 * GIB // 2, 2)),
        (2, 3 * GIB, 1, 2, Shares(1, 3 * GIB, 1)),
        (4, 64 * GIB, 12, 2, Shares(4, 4 * GIB, 1)),
    ],
)
def test_containers_never_have_more_than_the_limit_together(
    jobs: int, memory: int, units: int, cores: int, wanted: Shares
) -> None:
    found = shares(jobs, memory, units, Settings(jobs=cores, memory_bytes=4 * GIB))
    assert found == wanted
    assert found.at_once * found.threads * found.memory_bytes <= memory


def test_the_worst_cell_gives_the_exit_code() -> None:
    one = cell("kernel-amd64")
    errors = (InputError("i"), HostError("h"), VerificationRefused("v"))
    results = [CellResult(one, "failed", error=error) for error in errors]
    assert worst_exit_code(results) == ExitCode.VERIFICATION_REFUSED
    assert worst_exit_code(results[:2]) == ExitCode.HOST_UNABLE
    assert worst_exit_code(results[:1]) == ExitCode.INPUT_INVALID
    assert worst_exit_code([CellResult(one, "built"), CellResult(one, "cached")]) == ExitCode.OK
    assert worst_exit_code([CellResult(one, "stopped")]) == ExitCode.FAILED
    stopped = [results[0], CellResult(one, "stopped")]
    assert worst_exit_code(stopped) == ExitCode.INPUT_INVALID
