"""The command line of a matrix: what goes together, what is printed, how the time is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result

from local_imager.cli.main import cli
from local_imager.cli.timings import print_timings
from local_imager.errors import ExitCode, InputError, VerificationRefused
from local_imager.oci.model import Digest
from local_imager.pipeline import matrix as pipeline_matrix
from local_imager.pipeline.matrix import CellResult, MatrixOrder
from local_imager.pipeline.timing import Phase, Stopwatch
from local_imager.pipeline.values import BuildResult

DIGEST = Digest.of(b"x")
HINT = ["  hint: sign", "    it"]


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    (tmp_path / "plain.yaml").write_text("customization: {}\n")
    path = tmp_path / "matrix.yaml"
    path.write_text(
        "schematics: [plain.yaml]\nversions: [v1.13.0]\narches: [amd64, arm64]\n"
        "assets: [kernel-ARCH, cmdline-metal-amd64]\n"
    )
    return path


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[MatrixOrder]:
    """The orders that come; one cell is built, one fails, the last is interrupted."""
    seen: list[MatrixOrder] = []

    def build(order: MatrixOrder, *_: object, **__: object):  # type: ignore[no-untyped-def]
        seen.append(order)
        first, second, *rest = order.cells
        own = (first.schematic_id, first.version, "k", DIGEST)
        result = BuildResult(
            first.asset,
            None,
            DIGEST,
            2048,
            *own,
            cached=False,
            duration_s=1.5,
            varies=("meta: odd",),
        )
        error = VerificationRefused("not signed\n  | by\x1b[31m", hint="sign\nit")
        yield CellResult(second, "failed", error=error)
        yield CellResult(first, "built", result, seconds=1.5)
        if order.fail_fast:
            raise KeyboardInterrupt
        yield from (CellResult(one, "cached", result) for one in rest)

    monkeypatch.setattr(pipeline_matrix, "build_matrix", build)
    return seen


def call(tmp_path: Path, *arguments: str | Path) -> Result:
    argv = ["-q", "--store", str(tmp_path / "store"), "build", *map(str, arguments)]
    return CliRunner().invoke(cli, argv)


def test_a_table_in_the_order_of_the_matrix(
    tmp_path: Path, matrix: Path, orders: list[MatrixOrder]
) -> None:
    done = call(tmp_path, "--matrix", matrix, "--jobs", "3", "--memory", "6GiB", "--no-export")
    assert done.exit_code == ExitCode.VERIFICATION_REFUSED
    lines = done.stdout.splitlines()
    short = f"sha256:{DIGEST.hex[:16]}…"
    assert lines[0].split() == [
        *("plain.yaml", "v1.13.0", "kernel-amd64", "built", short, "2.0", "KiB", "1.5", "s")
    ]
    assert lines[1].split() == ["plain.yaml", "v1.13.0", "kernel-arm64", "failed"]
    assert lines[-1] == "3 cells: 1 built, 1 failed, 1 cached"
    varies = "kernel-amd64: may have other bytes the next time: meta: odd"
    assert f"plain.yaml v1.13.0 {varies}" in lines
    where = lines.index("plain.yaml v1.13.0 kernel-arm64: not signed")
    assert lines[where + 1 : where + 4] == ["    | by\N{REPLACEMENT CHARACTER}[31m", *HINT]
    (order,) = orders
    assert (order.jobs, order.memory_bytes, order.export_to) == (3, 6 << 30, None)


def test_the_same_as_json(tmp_path: Path, matrix: Path, orders: list[MatrixOrder]) -> None:
    done = call(tmp_path, "--matrix", matrix, "--json", "--timings", "--rebuild", "--exact")
    document = json.loads(done.stdout)
    assert document["counts"] == {"built": 1, "cached": 1, "failed": 1, "stopped": 0}
    assert document["exit_code"] == done.exit_code == ExitCode.VERIFICATION_REFUSED
    *parts, other, whole = document["timings"]
    assert [part["phase"] for part in parts] == ["start", "imports", "order", "matrix"]
    assert (other["phase"], whole["phase"]) == ("other", "whole")
    outer = sum(part["seconds"] for part in (*parts, other))
    assert outer == pytest.approx(whole["seconds"], abs=0.001)
    first, second, third = document["cells"]
    assert (first["outcome"], first["digest"], first["seconds"]) == ("built", str(DIGEST), 1.5)
    assert first["varies"] == ["meta: odd"] and second["varies"] == []
    assert second["digest"] is None and second["error"]["code"] == "verification-refused"
    assert third["cached"] and third["asset"] == "cmdline-metal-amd64"
    assert orders[0].rebuild and orders[0].exact and not orders[0].offline


def test_what_was_finished_is_told_when_the_user_stops_it(
    tmp_path: Path, matrix: Path, orders: list[MatrixOrder]
) -> None:
    done = call(tmp_path, "--matrix", matrix, "--fail-fast", "--json")
    assert done.exit_code == ExitCode.INTERRUPTED and orders[0].fail_fast
    document = json.loads(done.stdout)
    assert [cell["outcome"] for cell in document["cells"]] == ["built", "failed", "stopped"]
    assert "interrupted" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--matrix", "M", "x.yaml"], "SCHEMATIC does not go with --matrix"),
        (["--matrix", "M", "--version", "v1.13.0"], "--version does not go with --matrix"),
        (["--matrix", "M", "--dry-run"], "--dry-run does not go with --matrix"),
        (["--matrix", "M", "--jobs", "0"], "0 is not in the range"),
        (["x.yaml", "--version", "v1.13.0", "--jobs", "2"], "--jobs is for --matrix FILE"),
        (["x.yaml", "--version", "v1.13.0", "--fail-fast"], "--fail-fast is for --matrix"),
        (["x.yaml"], "Missing option '--version'"),
        ([], "Missing argument '[SCHEMATIC]'"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = call(tmp_path, *arguments)
    assert done.exit_code == ExitCode.INPUT_INVALID
    assert words in done.stderr


@pytest.mark.parametrize("size", ["1", "1KiB", "63MiB"])
def test_memory_that_no_cell_runs_with_is_refused(
    tmp_path: Path, matrix: Path, orders: list[MatrixOrder], size: str
) -> None:
    done = CliRunner().invoke(cli, ["-q", "build", "--matrix", str(matrix), "--memory", size])
    assert isinstance(done.exception, InputError) and "64MiB" in done.exception.message
    assert not orders
    call(tmp_path, "--matrix", matrix, "--memory", "64MiB")
    assert orders[0].memory_bytes == 64 << 20


def test_a_lock_of_a_matrix_says_itself_what_it_holds(tmp_path: Path, matrix: Path) -> None:
    argv = ["--store", str(tmp_path / "store"), "lock", "--matrix", str(matrix), "other.yaml"]
    done = CliRunner().invoke(cli, argv)
    assert done.exit_code == ExitCode.INPUT_INVALID
    assert "--matrix says the schematics" in done.stderr


def test_phases_that_took_longest_come_first_and_parts_below_theirs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Watch:
        def phases(self) -> list[Phase]:
            return [
                Phase("plan", 2, 0.75, 0.5, 0.15),
                Phase("builds", 1, 2.0, 2.0, 0.4),
                Phase("build", 1, 1.0, 1.0, 0.2, ("builds",)),
                Phase("run", 1, 0.5, 0.5, 0.1, ("builds", "build")),
                Phase("store", 1, 1.5, 1.5, 0.3, ("builds",)),
                Phase("other", 1, 2.25, 2.25, 0.45),
                Phase("whole", 1, 5.0, 5.0, 1.0),
            ]

    print_timings(cast("Stopwatch", Watch()))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0].split() == ["phase", "count", "seconds", "longest", "share"]
    assert [line[:9].rstrip() for line in lines[1:]] == [
        *("builds", "  store", "  build", "    run", "plan", "other", "whole")
    ]
    assert lines[5].split() == ["plan", "2", "0.750", "0.500", "15", "%"]
