"""What docs/ci.md and action.yml say to write and to run, taken out of them as values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click
import yaml

from local_imager.cli.main import cli
from tests.program import ROOT

GUIDE = (ROOT / "docs" / "ci.md").read_text()
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\S+)\n")


def blocks() -> list[tuple[str, str]]:
    """Return language and text of every block of the guide, in order."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(GUIDE)]


def files() -> dict[str, str]:
    """Return the files that the guide shows, by the name in their first line."""
    found = {}
    for _, text in blocks():
        if named := _NAMED.match(text):
            assert named[1] not in found, named[1]
            found[named[1]] = text
    return found


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow of the guide; YAML 1.1 reads its key ``on`` as true."""
    document: dict[Any, Any] = yaml.safe_load(files()[f".github/workflows/{name}.yml"])
    document["on"] = document.pop(True)
    return document


def gitlab() -> dict[str, Any]:
    """Return the pipeline for GitLab."""
    document: dict[str, Any] = yaml.safe_load(files()[".gitlab-ci.yml"])
    return document


def scripts() -> Iterator[tuple[str, str]]:
    """Yield where it stands and the text of everything that a shell is to run."""
    for name in ("images", "plain"):
        for job in workflow(name)["jobs"].values():
            yield from _runs(f"{name}.yml", job["steps"])
    for name, job in gitlab().items():
        if isinstance(job, dict):
            for line in (*job.get("before_script", ()), *job.get("script", ())):
                yield f".gitlab-ci.yml {name}", line
    yield from _runs("action.yml", ACTION["runs"]["steps"])
    yield "Makefile", files()["Makefile"].replace("$(LOCAL_IMAGER)", "local-imager")
    for language, text in blocks():
        if language == "console":
            yield "console", text


def _runs(place: str, steps: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for step in steps:
        if "run" in step:
            yield f"{place} {step.get('name', '')}", step["run"]


def commands(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of local-imager in a script, without redirections.

    Arrays of the shell are replaced by all that the script puts into them.
    """
    text = script.replace("\\\n", " ")
    arrays: dict[str, str] = {}
    for name, values in re.findall(r"(\w+)\+?=\(((?:--|[^()\s])[^()]*)\)", text):
        arrays[name] = f"{arrays.get(name, '')} {values}"
    for name, values in arrays.items():
        text = text.replace(f'"${{{name}[@]}}"', values)
    text = re.sub(r'"\$\{set\[@\]:2\}"', "cmdline-metal-amd64", text)
    for line in text.splitlines():
        for call in re.findall(r'(?:^|[\s;])"?(?:\S*/)?local-imager"? ([^;|>#\n]*)', line):
            words = shlex.split(re.sub(r"\d?$", "", call.strip()) if "$?" in call else call)
            if words and not words[0].startswith("%"):
                yield words


def parsed(arguments: list[str]) -> str:
    """Return the name of the command that parses these arguments; raises click's errors."""
    command: click.Command = cli
    context = cli.make_context("local-imager", list(arguments))
    names = []
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None and found is not None, arguments
        command = found
        context = command.make_context(name, rest, parent=context)
        names.append(str(context.info_name))
    return " ".join(names)


def expression(text: str, known: Mapping[str, str]) -> str:
    """Expand ``${{ … }}`` of GitHub by a table of what is known; KeyError for anything else."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], text)


def holds(condition: str, known: Mapping[str, str], *, failed: bool) -> bool:
    """Judge the ``if:`` of a step: comparisons with a text, joined by ``&&``, and ``always()``."""
    always = False
    for part in condition.split(" && "):
        if part in ("", "always()"):
            always = part != ""
            continue
        name, operator, value = part.split(" ", 2)
        equal = known.get(name, "") == value.strip("'")
        if equal != (operator == "=="):
            return False
    return always or not failed
