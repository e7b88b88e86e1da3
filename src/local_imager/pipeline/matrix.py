"""Building a whole matrix: several cells at once, equal ones once, and going on after a failure.

The unit of work is what shares most: all assets of one schematic, version and architecture. One
thread prepares units in turn (catalogue, plan, images: each fetched and verified once), workers
build them. A unit that fails is tried again asset by asset, so that one bad cell costs no other.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from local_imager.errors import ExitCode, HostError, Interrupted, LocalImagerError
from local_imager.events import (
    Event,
    EventSink,
    Message,
    StepFinished,
    printable,
)
from local_imager.oci.durable import fault
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.lockfile import LockFile
from local_imager.pipeline.matrixfile import Cell
from local_imager.pipeline.values import BuildOrder, BuildResult
from local_imager.settings import Settings

if TYPE_CHECKING:
    from local_imager.build.request import Runner
    from local_imager.pipeline.planning import Job
    from local_imager.profile.model import Requirement
    from local_imager.sources.verify import VerifiedImage

# Less than this is not given to a cell's container while fewer cells at once could have more.
LEAST_MEMORY_BYTES: Final = 2 * 1024**3
# What the rest of the machine keeps of its free memory, where no limit is given.
_FREE_SHARE: Final = 0.8

Outcome = Literal["built", "cached", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class MatrixOrder:
    """What is to be built of a matrix and how; see :class:`BuildOrder` for the common fields.

    ``jobs`` is how many cells are built at once, ``memory_bytes`` what their containers may have
    together (0: most of what is free now). ``fail_fast`` begins nothing after a failure.
    """

    cells: tuple[Cell, ...]
    jobs: int
    memory_bytes: int = 0
    fail_fast: bool = False
    exact: bool = False
    offline: bool = False
    rebuild: bool = False
    export_to: Path | None = None
    lock: LockFile | None = None


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of a cell; ``seconds`` is the wall time of its own building."""

    cell: Cell
    outcome: Outcome
    result: BuildResult | None = None
    error: LocalImagerError | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of ``build --matrix --json``."""
        result = self.result
        return {
            "schematic": self.cell.file,
            "schematic_id": self.cell.schematic_id,
            "version": self.cell.version,
            "asset": self.cell.asset,
            "outcome": self.outcome,
            "digest": str(result.digest) if result else None,
            "size_bytes": result.size_bytes if result else None,
            "path": str(result.path) if result and result.path else None,
            "cached": self.outcome == "cached",
            "seconds": round(self.seconds, 3),
            "varies": list(result.varies) if result else [],
            "error": self.error.as_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class Shares:
    """How many cells are built at once, with what memory and threads each."""

    at_once: int
    memory_bytes: int
    threads: int


def shares(jobs: int, memory_bytes: int, units: int, settings: Settings) -> Shares:
    """Divide memory and cores: the containers' limits never exceed ``memory_bytes`` together.

    Each has the limit of the settings where all fit; else less, but not below
    :data:`LEAST_MEMORY_BYTES` while several run: then fewer run at once.
    """
    least = min(LEAST_MEMORY_BYTES, settings.memory_bytes)
    most = max(1, min(jobs, units, memory_bytes // least))
    # A unit runs as many containers beside each other as it has threads.
    threads = max(1, min(settings.jobs // most, memory_bytes // (most * least)))
    return Shares(most, min(settings.memory_bytes, memory_bytes // (most * threads)), threads)


def worst_exit_code(results: Sequence[CellResult]) -> ExitCode:
    """Return the exit code of the worst outcome: interrupted, refused, host, failed, input.

    A cell that was not begun has no outcome of its own: it counts only where nothing failed.
    """
    codes = {result.error.exit_code for result in results if result.error is not None}
    if not codes and any(result.outcome == "stopped" for result in results):
        codes.add(ExitCode.FAILED)
    return next((code for code in _WORST_FIRST if code in codes), ExitCode.OK)


_WORST_FIRST: Final = (
    ExitCode.INTERRUPTED,
    ExitCode.VERIFICATION_REFUSED,
    ExitCode.HOST_UNABLE,
    ExitCode.FAILED,
    ExitCode.COMPARISON_DIFFERS,
    ExitCode.INPUT_INVALID,
)


@dataclass(slots=True)
class _Unit:
    """Cells that are built together."""

    cells: list[Cell]
    jobs: list[Job] = field(default_factory=list)
    problem: LocalImagerError | None = None

    @property
    def label(self) -> str:
        return self.cells[0].label


class _CellSink:
    """Hands events on under the name of the unit that they belong to; what was said, once."""

    def __init__(self, sink: EventSink, label: str, said: set[str]) -> None:
        self._sink, self._label, self._said = sink, label, said

    def emit(self, event: Event) -> None:
        """Hand the event on with the unit's label before its subject or text."""
        if isinstance(event, Message):
            text = f"{self._label}: {event.text}"
            if event.level == "log" or text not in self._said:
                self._said.add(text)
                self._sink.emit(replace(event, text=text))
        else:
            self._sink.emit(replace(event, subject=f"{self._label} {event.subject}"))


def build_matrix(
    order: MatrixOrder,
    factory: Factory,
    *,
    runner: Runner,
    sink: EventSink,
    cancel: threading.Event,
) -> Generator[CellResult, None, None]:
    """Build all cells and yield each as soon as it is known what became of it.

    Nothing is raised for a cell that fails. When ``cancel`` is set what runs is stopped and cleaned
    up, and the remaining cells are yielded as stopped; closing the iterator sets it.
    """
    matrix = _Matrix(order, factory, runner, sink, cancel)
    try:
        yield from matrix.results()
    except BaseException:  # also when the iterator is closed
        cancel.set()
        raise
    finally:
        matrix.stop()


class _Matrix:
    def __init__(
        self,
        order: MatrixOrder,
        factory: Factory,
        runner: Runner,
        sink: EventSink,
        cancel: threading.Event,
    ) -> None:
        self._order, self._factory, self._runner = order, factory, runner
        self._sink, self._cancel = sink, cancel
        self._units = _units(order.cells)
        self._shares = shares(order.jobs, self._memory(), len(self._units), factory.settings)
        self._told: queue.SimpleQueue[CellResult] = queue.SimpleQueue()
        self._images: dict[Requirement, VerifiedImage] = {}
        self._said: set[str] = set()
        self._preparing = threading.Lock()
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(self._shares.at_once, thread_name_prefix="cells")
        self._preparer = threading.Thread(target=self._prepare_all, name="prepare", daemon=True)
        # Units are prepared when a worker is about to be free, not all before the first is built.
        self._room = threading.Semaphore(self._shares.at_once + 1)

    def _memory(self) -> int:
        if self._order.memory_bytes:
            return self._order.memory_bytes
        from local_imager.build.resources import available_memory

        try:
            free = available_memory(self._runner.info())
        except HostError:  # what is in the store needs no engine
            free = 0
        return int(free * _FREE_SHARE) or self._factory.settings.memory_bytes

    @property
    def _stopped(self) -> bool:
        return self._cancel.is_set() or self._ended.is_set()

    def stop(self) -> None:
        """Begin nothing more, and wait for what runs."""
        self._ended.set()
        self._room.release(len(self._units))  # the one that prepares may wait for room
        if self._preparer.ident is not None:
            self._preparer.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def results(self) -> Iterator[CellResult]:
        self._sink.emit(Message(_begin_sentence(self._order.cells, self._shares)))
        self._preparer.start()
        left = {cell.key for cell in self._order.cells}
        while left:
            told = self._told.get()
            left.discard(told.cell.key)
            yield from self._with_equals(told)

    def _with_equals(self, told: CellResult) -> Iterator[CellResult]:
        """Yield a result for its cell, and for every cell that asked for the same."""
        for cell in self._order.cells:
            if cell.key == told.cell.key:
                same = cell is not told.cell and told.outcome == "built"
                outcome: Outcome = "cached" if same else told.outcome
                seconds = 0.0 if same else told.seconds
                yield replace(told, cell=cell, outcome=outcome, seconds=seconds)

    def _prepare_all(self) -> None:
        for unit in self._units:
            self._room.acquire()
            try:
                self._check_stopped()
                unit.jobs = self._jobs(unit.cells)
            except Exception as error:
                # One asset that cannot be planned must not take the others with it.
                unit.problem = _explained(error)
            self._pool.submit(self._build, unit)

    def _jobs(self, cells: Sequence[Cell]) -> list[Job]:
        factory = self._sharing(cells[0].label)
        with self._preparing:
            return factory.jobs(self._build_order(cells), self._images)

    def _sharing(self, label: str) -> Factory:
        settings = replace(
            self._factory.settings,
            jobs=self._shares.threads,
            memory_bytes=self._shares.memory_bytes,
            max_builds=max(self._factory.settings.max_builds, self._shares.at_once),
        )
        sink = _CellSink(self._sink, label, self._said)
        offline = self._order.offline
        return self._factory.sharing(settings, sink, self._cancel, self._runner, offline=offline)

    def _build_order(self, cells: Sequence[Cell]) -> BuildOrder:
        order = self._order
        return BuildOrder(
            cells[0].schematic,
            cells[0].version,
            tuple(cell.asset for cell in cells),
            exact=order.exact,
            offline=order.offline,
            rebuild=order.rebuild,
            export_to=order.export_to,
            lock=order.lock,
            within_jobs=True,
        )

    def _build(self, unit: _Unit) -> None:
        try:
            if unit.problem is None:
                self._build_cells(unit.cells, unit.jobs)
            else:
                self._apart(unit.cells, unit.problem)
        finally:
            self._room.release()

    def _build_cells(self, cells: list[Cell], jobs: list[Job]) -> None:
        by_asset = {cell.asset: cell for cell in cells}
        try:
            self._check_stopped()
            factory = self._sharing(cells[0].label)
            for result in factory.results(self._build_order(cells), jobs):
                self._tell_built(by_asset.pop(result.asset), result)
        except Exception as error:
            self._apart([cell for cell in cells if cell.asset in by_asset], _explained(error))

    def _apart(self, cells: list[Cell], error: LocalImagerError) -> None:
        """Say that a cell failed; where it is not known which of several did, try each alone."""
        stopped = isinstance(error, Interrupted) or self._stopped
        if stopped or len(cells) == 1:
            for cell in cells:
                self._tell_failed(cell, error, stopped=stopped)
            return
        for cell in cells:
            try:
                self._check_stopped()
                jobs = self._jobs([cell])
            except Exception as own:
                problem = _explained(own)
                self._tell_failed(cell, problem, stopped=isinstance(problem, Interrupted))
            else:
                self._build_cells([cell], jobs)

    def _check_stopped(self) -> None:
        if self._stopped:
            raise Interrupted("not begun, since the matrix was stopped", code="stopped")

    def _tell_built(self, cell: Cell, result: BuildResult) -> None:
        outcome: Outcome = "cached" if result.cached else "built"
        self._finish(CellResult(cell, outcome, result, None, result.duration_s))

    def _tell_failed(self, cell: Cell, error: LocalImagerError, *, stopped: bool) -> None:
        if stopped:
            self._finish(CellResult(cell, "stopped"))
            return
        if self._order.fail_fast:
            self._ended.set()
        self._finish(CellResult(cell, "failed", None, error))

    def _finish(self, told: CellResult) -> None:
        outcomes: dict[Outcome, Literal["done", "cached", "failed"]] = {
            "built": "done",
            "cached": "cached",
        }
        if told.outcome != "stopped":
            outcome = outcomes.get(told.outcome, "failed")
            subject = f"{told.cell.label} {told.cell.asset}"
            self._sink.emit(StepFinished("cell", subject, told.seconds, outcome))
        self._told.put(told)


def _units(cells: Sequence[Cell]) -> list[_Unit]:
    """Group the cells, each once, by what they share."""
    distinct = {cell.key: cell for cell in reversed(cells)}
    units: dict[tuple[str, str, str], _Unit] = {}
    for cell in cells:
        if distinct.get(cell.key) is cell:
            shared = (cell.schematic_id, cell.version, cell.arch)
            units.setdefault(shared, _Unit([])).cells.append(cell)
    return list(units.values())


def _explained(error: Exception) -> LocalImagerError:
    if isinstance(error, LocalImagerError):
        return error
    text = printable(f"{type(error).__name__}: {error}", limit=500)
    if isinstance(error, OSError):
        return fault(error, f"an unexpected error: {text}")
    found = LocalImagerError(f"an unexpected error: {text}", code="internal")
    found.__cause__ = error
    return found


def _begin_sentence(cells: Sequence[Cell], share: Shares) -> str:
    distinct = len({cell.key for cell in cells})
    same = f" ({distinct} distinct)" if distinct != len(cells) else ""
    memory = f"{share.memory_bytes / 1024**3:.1f} GiB"
    return f"{len(cells)} cells{same}, {share.at_once} at once with {memory} of memory each"
