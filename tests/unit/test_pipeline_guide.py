"""docs/ci.md and action.yml as texts: every command is one, every file is well formed.

What they say is run in tests/integration/test_pipeline_docs.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from lab.clean import PACKAGES
from local_imager.errors import ExitCode, InputError
from local_imager.pipeline.matrixfile import read_matrix
from tests.pipelinedocs import (
    ACTION,
    GUIDE,
    blocks,
    commands,
    expression,
    files,
    gitlab,
    holds,
    parsed,
    scripts,
    workflow,
)
from tests.program import ROOT

CALLS = [(place, words) for place, script in scripts() for words in commands(script)]
RUNNER = {"github.action_path", "github.run_attempt", "github.run_id"}
RUNNER |= {"runner.arch", "runner.os", "runner.temp"}
_FULL_COMMIT = re.compile(r"[0-9a-f]{40}|COMMIT")


def every_step() -> list[dict[str, object]]:
    jobs = [job for name in ("images", "plain") for job in workflow(name)["jobs"].values()]
    return [*ACTION["runs"]["steps"], *(step for job in jobs for step in job["steps"])]


@pytest.mark.parametrize(("place", "words"), CALLS, ids=[f"{p}: {' '.join(w)}" for p, w in CALLS])
def test_every_command_is_one_that_the_program_knows(place: str, words: list[str]) -> None:
    if words == ["--version"]:
        with pytest.raises(click.exceptions.Exit):
            parsed(words)
    else:
        assert parsed(words)


def test_commands_are_found_in_all_places() -> None:
    places = {place.split()[0] for place, _ in CALLS}
    workflows = {"images.yml", "plain.yml", ".gitlab-ci.yml"}
    assert places == {"Makefile", "action.yml", "console", *workflows}
    named = {parsed(words) for _, words in CALLS if words != ["--version"]}
    assert named >= {"build", "lock", "lock diff", "compare", "store gc", "bundle import"}
    written = "\n".join(script for _, script in scripts())
    assert len(CALLS) == len(re.findall(r"local-imager\"? (?=\S)(?!%|needs)", written))


@pytest.mark.parametrize("words", [["build", "--no-such"], ["biuld"], ["lock", "--arch", "z80"]])
def test_the_check_of_commands_sees_a_mistake(words: list[str]) -> None:
    with pytest.raises((click.UsageError, InputError)):
        parsed(words)


def test_the_check_of_commands_reads_arrays_and_redirections() -> None:
    script = (
        'how=(--json)\nif x; then how+=(--strict="$A"); fi\n"$T/local-imager" "${how[@]}" a > b'
    )
    assert list(commands(script)) == [["--json", "--strict=$A", "a"]]


def test_every_block_of_yaml_is_yaml_and_every_file_has_a_name() -> None:
    for language, text in blocks():
        if language == "yaml":
            yaml.safe_load(text)
        if language != "console":
            assert text.startswith("# "), text.splitlines()[0]
    assert {"Makefile", "matrix.yaml", "ci/summary.jq", ".gitlab-ci.yml"} <= set(files())


def test_the_matrix_of_the_guide_is_one(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "schematics").mkdir()
    for name in ("edge", "rack"):
        (folder / "schematics" / f"{name}.yaml").write_text(
            f"customization: {{extraKernelArgs: [{name}=1]}}\n"
        )
    path = folder / "matrix.yaml"
    path.write_text(files()["matrix.yaml"])
    assert len(read_matrix(path, default_arch="arm64")) == 4


def test_actions_of_others_are_pinned_by_commit() -> None:
    used = [str(step["uses"]) for step in every_step() if "uses" in step]
    assert len(used) >= 7
    for name in used:
        assert _FULL_COMMIT.fullmatch(name.partition("@")[2]), name


def test_no_expression_stands_inside_a_script() -> None:
    for step in every_step():
        assert "${{" not in str(step.get("run", "")), step


def test_every_expression_of_the_action_is_about_something_that_is_there() -> None:
    ids = {step["id"] for step in ACTION["runs"]["steps"] if "id" in step}
    text = (ROOT / "action.yml").read_text()
    for name in re.findall(r"\$\{\{ (.*?) \}\}", text):
        first, _, rest = name.partition(".")
        if first == "inputs":
            assert rest in ACTION["inputs"], name
        elif first == "steps":
            assert rest.split(".")[0] in ids, name
        else:
            assert name in RUNNER, name
    for condition in (step.get("if", "") for step in ACTION["runs"]["steps"]):
        assert isinstance(holds(condition, {}, failed=False), bool)


def test_every_variable_that_a_script_of_the_action_reads_is_given_to_it() -> None:
    own = {"GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"}
    for step in ACTION["runs"]["steps"]:
        script = step.get("run", "")
        read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)\b", script)) - own
        assert read == set(step.get("env", {})), step["name"]


def test_the_guide_names_every_input_and_output_of_the_action() -> None:
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"`{name}`" in GUIDE, name
    (step,) = [s for s in workflow("images")["jobs"]["images"]["steps"] if s.get("id") == "images"]
    assert set(step["with"]) <= set(ACTION["inputs"])


def test_workflows_may_read_and_nothing_else() -> None:
    for name in ("images", "plain"):
        assert workflow(name)["permissions"] == {"contents": "read"}


def test_the_action_makes_the_summary_as_the_guide_does() -> None:
    (step,) = [step for step in ACTION["runs"]["steps"] if step["name"] == "Summary"]
    inside = step["run"].partition("jq -r '\n")[2].partition("\n'")[0]
    shown = files()["ci/summary.jq"].partition("\n")[2]
    assert "\n".join(line[2:] for line in inside.splitlines()) == shown.rstrip("\n")


def test_the_image_for_jobs_has_what_the_clean_container_has() -> None:
    (listed,) = re.findall(r"--no-install-recommends (.*?) \\", files()["ci/Dockerfile"])
    assert tuple(listed.split()) == PACKAGES


def test_the_table_of_exit_codes_is_whole() -> None:
    rows = re.findall(r"^\| (\d+) \|", GUIDE, re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def test_jobs_of_gitlab_stand_in_stages_that_are_there() -> None:
    pipeline = gitlab()
    jobs = [job for job in pipeline.values() if isinstance(job, dict) and "script" in job]
    assert len(jobs) == 3
    assert {job["stage"] for job in jobs} == set(pipeline["stages"])


def test_expressions_and_conditions_are_judged_as_github_does() -> None:
    assert expression("a ${{ x.y }} b", {"x.y": "1"}) == "a 1 b"
    with pytest.raises(KeyError):
        expression("${{ z }}", {})
    assert holds("a == 'b' && c != ''", {"a": "b", "c": "d"}, failed=False)
    assert not holds("a == 'b'", {"a": "c"}, failed=False)
    assert not holds("", {}, failed=True) and holds("always()", {}, failed=True)
