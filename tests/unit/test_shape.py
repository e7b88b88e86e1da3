"""The shape of the code: sizes, where printing and the Docker SDK may stand, no foreign names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "local_imager"
MODULES = sorted(SOURCE.rglob("*.py"))
OUR_CODE = sorted([*MODULES, *(ROOT / "lab").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", OUR_CODE, ids=named)
def test_modules_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_MODULE_LINES, f"{lines} lines"
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION_LINES, f"{function.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_the_command_line_prints(path: Path) -> None:
    if path.is_relative_to(SOURCE / "cli"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print in line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_the_runner_knows_the_docker_sdk(path: Path) -> None:
    if path != SOURCE / "build" / "docker.py":
        assert not {name for name in imported(path) if name.partition(".")[0] == "docker"}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_the_gate_makes_verified_images(path: Path) -> None:
    if path == SOURCE / "sources" / "verify.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert name != "VerifiedImage", f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_public_definition_says_what_it_promises(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public:
            assert isinstance(node, ast.FunctionDef | ast.ClassDef)
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert not [named(path) for path in OUR_CODE if path.stem in drawers]


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_names_one_machine_or_a_package_host() -> None:
    foreign = re.compile(
        rb"(?<![\w.])/(?:wor" + rb"k|far" + rb"m|ro" + rb"ot)/[a-z.]"
        rb"|files\.pythonhosted|(?:pypi|npmjs|crates|maven)\.org|deb\.debian\.org|proxy\.golang"
    )
    golden = ROOT / "tests" / "golden"
    for path in tracked_files():
        if path.is_relative_to(golden) or path == Path(__file__).resolve():
            continue
        found = foreign.search(path.read_bytes())
        assert not found, f"{named(path)}: {found.group()!r}" if found else ""
