"""Single steps of action.yml, with a program in place of local-imager that ends as it likes.

What they do with the real one is in test_pipeline_docs.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from lab.clean import clean_image
from lab.place import Place
from tests.integration.cleanrunner import CleanRunner, Ended, clean_runner
from tests.labfolder import NEWEST, Lab
from tests.pipelinedocs import ACTION

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.fixture(scope="module")
def container(lab: Lab, engine: docker.DockerClient, session_folder: Path) -> Iterator[CleanRunner]:
    """A container with bash and jq."""
    folder = session_folder / "steps-of-the-action"
    folder.mkdir()
    with clean_runner(engine, clean_image(Place(lab.root)), folder, []) as runner:
        yield runner


@pytest.fixture
def runner(container: CleanRunner) -> CleanRunner:
    """The container with an empty checkout."""
    shutil.rmtree(container.checkout, ignore_errors=True)
    container.checkout.mkdir()
    return container


def action_step(
    runner: CleanRunner, name: str, env: dict[str, str]
) -> tuple[Ended, dict[str, str]]:
    """Run one step of the action; returns how it ended, and its outputs."""
    (step,) = [step for step in ACTION["runs"]["steps"] if step["name"] == name]
    temp = runner.folder / "temp"
    told = {name: temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for path in told.values():
        path.write_text("")
    own = dict.fromkeys(step["env"], "") | {k: str(v) for k, v in told.items()}
    done = runner.run(step["run"], env={**own, "REPORTS": "reports", **env})
    lines = (line.partition("=") for line in told["GITHUB_OUTPUT"].read_text().splitlines())
    outputs = {name: value for name, _, value in lines}
    return done, outputs | {"said": told["GITHUB_STEP_SUMMARY"].read_text()}


def program_instead(runner: CleanRunner, script: str) -> dict[str, str]:
    """Put a script where the action looks for the program."""
    tool = runner.folder / "temp" / "instead"
    (tool / "bin").mkdir(parents=True, exist_ok=True)
    (tool / "bin" / "local-imager").write_text(f"#!/bin/sh\n{script}\n")
    (tool / "bin" / "local-imager").chmod(0o755)
    return {"TOOL": str(tool), "MATRIX": "matrix.yaml", "OUT": "out", "STORE": "s"}


@pytest.mark.parametrize(
    ("build", "compared", "fail", "code"),
    [
        ("0", "", "true", 0),
        ("0", " 0 4 0 ", "true", 4),
        ("0", " 0 4 0 ", "false", 0),
        ("0", " 4 2 ", "false", 2),
        ("2", " 4 3 ", "false", 3),
        ("130", " 3 ", "true", 130),
        ("1", " 5 ", "true", 5),
        ("137", "", "true", 1),
        ("0", " 0 139 ", "false", 1),
        ("4", " 127 ", "false", 1),
        ("137", " 3 ", "true", 3),
        ("", "", "true", 1),
    ],
)
def test_the_action_ends_with_the_worst_code(
    runner: CleanRunner, build: str, compared: str, fail: str, code: int
) -> None:
    env = {"BUILD_CODE": build, "COMPARE_CODES": compared, "FAIL_ON_DIFFERENCE": fail}
    done, told = action_step(runner, "Result", env)
    done.expect(code, *(["::warning::"] if "4" in compared and not code else []))
    worst = 4 if "4" in compared and not code else code
    assert told["exit-code"] == str(worst)


@pytest.mark.parametrize(
    ("script", "code"),
    [("kill -9 $$", 137), ("echo '{\"cells\": ['; kill -9 $$", 137), ("exit 127", 127), ("", 1)],
)
def test_the_action_fails_when_the_program_was_killed(
    runner: CleanRunner, script: str, code: int
) -> None:
    done, told = action_step(runner, "Build", program_instead(runner, script))
    done.expect(0, "::error::the build ended with status")
    assert (told["exit-code"], told["digests"]) == (str(code), "{}")
    summary, shown = action_step(runner, "Summary", {})
    summary.expect(0)
    assert "before its summary was written (no-summary)" in shown["said"].replace("\\", "")
    ended, result = action_step(runner, "Result", {"BUILD_CODE": told["exit-code"]})
    ended.expect(1)
    assert result["exit-code"] == "1"


COMPARED = '{"entries": [{"verdict": "different"}, {"verdict": "failed"}], "strict": false}'
CELL = {
    "schematic": "edge.yaml",
    "version": NEWEST,
    "asset": "cmdline-metal-amd64",
    "digest": "sha256:0",
}


@pytest.mark.parametrize(
    ("cells", "script", "codes", "differs"),
    [
        ([], "exit 0", "", ""),
        ([CELL | {"digest": None}], "exit 0", "", ""),
        ([CELL], "kill -9 $$", "137", ""),
        ([CELL], f"echo '{COMPARED}'; exit 2", "2", "true"),
        ([CELL], 'echo \'{"entries": [{"verdict": "failed"}]}\'; exit 1', "1", ""),
        ([CELL], 'echo \'{"entries": [{"verdict": "same-content"}]}\'', "0", "false"),
        (
            [CELL],
            'echo \'{"entries": [{"verdict": "same-content"}], "strict": true}\'; exit 4',
            "4",
            "true",
        ),
    ],
)
def test_the_action_says_that_something_differs_only_when_it_was_compared(
    runner: CleanRunner, cells: list[dict[str, Any]], script: str, codes: str, differs: str
) -> None:
    reports = runner.checkout / "reports"
    reports.mkdir()
    (reports / "summary.json").write_text(json.dumps({"cells": cells}))
    done, told = action_step(runner, "Compare", program_instead(runner, script))
    done.expect(0)
    assert (told["codes"].split(), told["differs"]) == (codes.split(), differs)
