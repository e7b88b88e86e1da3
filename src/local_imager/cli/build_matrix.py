"""``build --matrix FILE``: many builds in one call, told in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from local_imager.cli.lock import read_locked
from local_imager.cli.timings import print_timings, timings_document
from local_imager.events import timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_imager.cli.context import App
    from local_imager.pipeline.matrix import CellResult, MatrixOrder
    from local_imager.pipeline.timing import Stopwatch

F = TypeVar("F", bound=Callable[..., Any])


def matrix_options(command: F) -> F:
    """Add the options that are about a matrix."""
    options = (
        click.option("--matrix", metavar="FILE", help="Build what this file lists, as one job."),
        click.option(
            "--jobs", type=click.IntRange(1, 64), metavar="N", help="Cells of a matrix at once."
        ),
        click.option(
            "--memory", metavar="SIZE", help="Memory for all containers of a matrix together."
        ),
        click.option("--fail-fast", is_flag=True, help="Begin no more cells after a failure."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class BuildFlags:
    """The flags that a single build and a matrix have in common, beside settings."""

    exact: bool
    offline: bool
    rebuild: bool
    no_export: bool
    locked: str | None
    timings: bool
    as_json: bool

    @classmethod
    def taken_from(cls, flags: dict[str, Any]) -> BuildFlags:
        """Take them out of all flags; what stays there are settings."""
        return cls(**{one.name: flags.pop(one.name) for one in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class MatrixFlags:
    """The flags of :func:`matrix_options`."""

    file: str | None
    jobs: int | None
    memory: str | None
    fail_fast: bool

    @classmethod
    def taken_from(cls, flags: dict[str, Any]) -> MatrixFlags:
        """Take them out of all flags."""
        names = ("matrix", "jobs", "memory", "fail_fast")
        return cls(*(flags.pop(name) for name in names))

    def refuse(self, others: Mapping[str, object]) -> None:
        """Refuse what a matrix says itself or cannot have; raises ``UsageError``."""
        for name, value in others.items():
            if value:
                raise click.UsageError(f"{name} does not go with --matrix")

    def refuse_alone(self) -> None:
        """Refuse options of a matrix without one; raises ``UsageError``."""
        given = {"--jobs": self.jobs, "--memory": self.memory, "--fail-fast": self.fail_fast}
        for name, value in given.items():
            if value:
                raise click.UsageError(f"{name} is for --matrix FILE")


def build_cells(app: App, flags: MatrixFlags, how: BuildFlags, watch: Stopwatch | None) -> int:
    """Build a matrix, print its summary, and return the exit code of the worst cell."""
    with timed(app.sink, "imports", "pipeline and settings"):
        from local_imager.errors import ExitCode
        from local_imager.oci.host import host_arch
        from local_imager.pipeline.matrix import MatrixOrder, worst_exit_code
        from local_imager.pipeline.matrixfile import read_matrix

        _ = app.factory
    with timed(app.sink, "order", str(flags.file)):
        cells = read_matrix(Path(str(flags.file)), default_arch=host_arch())
    order = MatrixOrder(
        cells,
        # One more than cores: while one is started or stored the others run.
        jobs=flags.jobs or app.settings.jobs + 1,
        memory_bytes=_memory(flags.memory) if flags.memory else 0,
        fail_fast=flags.fail_fast,
        exact=how.exact,
        offline=how.offline,
        rebuild=how.rebuild,
        export_to=None if how.no_export else app.settings.out,
        lock=read_locked(how.locked),
    )
    results: list[CellResult] = []
    code: int = ExitCode.INTERRUPTED
    try:
        with timed(app.sink, "matrix", str(flags.file)):
            for result in _results(app, order):
                results.append(result)
        code = worst_exit_code(results)
    except KeyboardInterrupt:
        click.echo("interrupted; what was started is stopped and cleaned up", err=True)
    results = _in_order(order, results)
    if how.as_json:
        _print_json(results, code, watch)
    else:
        _print_table(results)
        if watch is not None:
            print_timings(watch)
    return code


def _memory(text: str) -> int:
    """Read ``--memory``; raises :class:`InputError` for less than one container needs."""
    from local_imager.cli.sizes import parse_size
    from local_imager.errors import InputError
    from local_imager.settings import LEAST_MEMORY_BYTES

    size_bytes = parse_size(text)
    if size_bytes < LEAST_MEMORY_BYTES:
        raise InputError(
            f"--memory {text} is too little: no imager runs with less than 64MiB",
            hint="2GiB for each cell that is to run at once is usual",
        )
    return size_bytes


def _results(app: App, order: MatrixOrder) -> Iterator[CellResult]:
    import threading
    from contextlib import closing

    from local_imager.build.runner import DockerRunner
    from local_imager.pipeline.matrix import build_matrix

    with closing(DockerRunner()) as runner:
        made = build_matrix(
            order, app.factory, runner=runner, sink=app.sink, cancel=threading.Event()
        )
        with closing(made):
            yield from made


def _in_order(order: MatrixOrder, results: Sequence[CellResult]) -> list[CellResult]:
    """Return one result for each cell in the order of the matrix; others were stopped."""
    from local_imager.pipeline.matrix import CellResult

    known = {result.cell: result for result in results}
    return [known.get(cell, CellResult(cell, "stopped")) for cell in order.cells]


def _print_json(results: Sequence[CellResult], code: int, watch: Stopwatch | None) -> None:
    import json
    from collections import Counter

    counts = Counter(result.outcome for result in results)
    document: dict[str, object] = {
        "cells": [result.as_dict() for result in results],
        "counts": {name: counts[name] for name in ("built", "cached", "failed", "stopped")},
        "exit_code": int(code),
    }
    if watch is not None:
        document |= timings_document(watch)
    click.echo(json.dumps(document, indent=2))


_COLOURS = {"built": "green", "cached": "cyan", "failed": "red", "stopped": "yellow"}


def _print_table(results: Sequence[CellResult]) -> None:
    from collections import Counter

    from local_imager.cli.sizes import counted
    from local_imager.events import printable_lines

    rows = [_row(result) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row, result in zip(rows, results, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[3] = click.style(cells[3], fg=_COLOURS[result.outcome])
        click.echo("  ".join(cells).rstrip())
    for result in results:
        where = f"{result.cell.file} {result.cell.version} {result.cell.asset}"
        for text in result.result.varies if result.result is not None else ():
            click.echo(f"{where}: may have other bytes the next time: {printable_lines(text)}")
        if result.error is not None:
            click.echo()
            click.echo(f"{where}: {printable_lines(result.error.message, indent='  ')}")
            if result.error.hint:
                click.echo(f"  hint: {printable_lines(result.error.hint, indent='    ')}")
    counts = Counter(result.outcome for result in results)
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    click.echo(f"{counted(len(results), 'cell')}: {said}")


def _row(result: CellResult) -> tuple[str, ...]:
    from local_imager.cli.sizes import human_size

    made = result.result
    return (
        result.cell.file,
        result.cell.version,
        result.cell.asset,
        result.outcome,
        f"sha256:{made.digest.hex[:16]}…  {human_size(made.size_bytes):>9}" if made else "",
        f"{result.seconds:.1f} s" if result.outcome == "built" else "",
    )
