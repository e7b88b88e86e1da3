"""``compare --build``: its flags, the table, and what is refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_imager.cli import compare_build
from local_imager.cli.main import run
from local_imager.deliver.compare import batch
from local_imager.deliver.compare.batch import BatchEntry, BatchResult
from local_imager.deliver.compare.verdict import Comparison, SideSummary, Verdict
from local_imager.errors import NotFound

ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"


@pytest.fixture
def schematic(tmp_path: Path) -> Path:
    path = tmp_path / "schematic.yaml"
    path.write_text("customization: {}\n")
    return path


def comparison(verdict: Verdict) -> Comparison:
    sides = (SideSummary("ours", "sha256:1", 10, {}), SideSummary("theirs", "sha256:2", 10, {}))
    counts = {"altered": int(verdict is Verdict.DIFFERENT)}
    return Comparison(*sides, verdict, (), counts, Verdict.IDENTICAL, "it is a test")


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--version", "v1.13.0", "a", "b"], "--version goes with --build"),
        (["--upload", "a", "b"], "--upload goes with --build"),
        (["--locked", "a", "b"], "--locked goes with --build"),
        (["--build", "{schematic}", "kernel-amd64"], "--build needs --version"),
        (["a"], "name two sides"),
    ],
)
def test_flags_that_do_not_fit(
    arguments: list[str], phrase: str, schematic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(schematic=schematic) for argument in arguments]
    assert run(["compare", *filled]) == 2
    assert phrase in capsys.readouterr().err


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> BatchResult:
    """What the comparison of a set gives, in place of building it."""
    entries = (
        BatchEntry("kernel-amd64", comparison=comparison(Verdict.IDENTICAL)),
        BatchEntry("cmdline-metal-amd64", comparison=comparison(Verdict.DIFFERENT)),
        BatchEntry("metal-amd64.iso", error=NotFound("the factory lacks it", hint="ask another")),
    )
    made = BatchResult(ID, "v1.13.0", "factory:", False, entries)
    monkeypatch.setattr(batch, "compare_batch", lambda *_a, **_k: made)
    return made


def order(schematic: Path, tmp_path: Path, *more: str) -> list[str]:
    store = ["-q", "--store", str(tmp_path / "store")]
    return [*store, "compare", "--build", str(schematic), "--version", "v1.13.0", *more]


def test_the_table_names_each_and_the_worst_is_the_code(
    result: BatchResult, schematic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(order(schematic, tmp_path)) == 2
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"schematic {ID}  version v1.13.0  against factory:"
    assert [line.split()[0] for line in lines[1:4]] == [e.asset for e in result.entries]
    assert "identical bytes" in lines[1] and "1 difference" in lines[2] and "failed" in lines[3]
    assert lines[-1] == "1 identical, 1 different, 1 failed; exit code 2"
    assert "the factory lacks it" in said.err and "ask another" in said.err


def test_json_is_the_result(
    result: BatchResult, schematic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run(order(schematic, tmp_path, "--json", "--html", str(page))) == 2
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result.as_dict()))
    html = page.read_text()
    assert all(entry.asset in html for entry in result.entries)
    assert "the factory lacks it (ask another)" in html
    assert run(order(schematic, tmp_path, "--html", str(page))) == 2
    assert "--force" in capsys.readouterr().err


def test_every_flag_of_a_build_is_known_as_one() -> None:
    """A new option of --build must be refused without it, too."""
    names = {"schematic"}
    command = compare_build.build_options(lambda: None)
    names |= {option.name for option in command.__click_params__}  # type: ignore[attr-defined]
    assert names == {"schematic", *compare_build._BUILD_ONLY}
