"""The commands ``local-imager schematic …``, run as users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from local_imager.cli.schematic import schematic as group
from local_imager.errors import InputError, SchematicError

VANILLA_ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
ARGS = b"customization: {extraKernelArgs: [token=hunter2]}\n"
ARGS_TEXT = "customization:\n    extraKernelArgs:\n        - token=hunter2\n"


def _run(*arguments: str, stdin: bytes = b"", code: int = 0) -> str:
    result = CliRunner().invoke(group, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code
    return result.stdout


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "args.yaml"
    path.write_bytes(ARGS)
    return str(path)


def test_id_of_a_file_and_of_standard_input(file: str) -> None:
    assert _run("id", "-", stdin=b"customization:\n") == f"{VANILLA_ID}\n"
    both = _run("id", file, "-", stdin=b"{}").splitlines()
    assert both[1] == f"{VANILLA_ID}  -"
    assert both[0].endswith(f"  {file}") and len(both[0].split()[0]) == 64
    rows = json.loads(_run("id", "--json", "-", stdin=b"{}"))
    assert rows == [{"file": "-", "schematic_id": VANILLA_ID}]


def test_canonical_is_the_hashed_text_byte_for_byte(file: str) -> None:
    assert _run("canonical", file) == ARGS_TEXT
    printed = json.loads(_run("canonical", "--json", file))
    assert printed["canonical"] == ARGS_TEXT


def test_diff_exits_4_when_ids_differ_and_0_when_not(file: str) -> None:
    text = _run("diff", file, "-", stdin=b"{}", code=4)
    assert "kernel argument removed: token=(hidden)" in text
    assert VANILLA_ID in text and "hunter2" not in text
    assert "hunter2" in _run("diff", "--show-secrets", file, "-", stdin=b"{}", code=4)
    assert "equal" in _run("diff", file, "-", stdin=ARGS_TEXT.encode())
    printed = json.loads(_run("diff", "--json", file, "-", stdin=b"{}", code=4))
    assert printed["equal"] is False
    assert printed["second"] == {"file": "-", "schematic_id": VANILLA_ID}
    assert printed["differences"][0]["kind"] == "removed"
    with pytest.raises(InputError, match="standard input"):
        _run("diff", "-", "-")


def test_init_prints_or_writes_and_does_not_overwrite(tmp_path: Path) -> None:
    assert _run("id", "-", stdin=_run("init").encode()) == f"{VANILLA_ID}\n"
    target = tmp_path / "new.yaml"
    _run("init", "-o", str(target))
    assert target.read_text() == _run("init")
    target.write_text("mine")
    with pytest.raises(InputError, match="exists already") as caught:
        _run("init", "-o", str(target))
    assert "--force" in caught.value.hint
    assert target.read_text() == "mine"
    _run("init", "-o", str(target), "--force")
    assert target.read_text() == _run("init")
    with pytest.raises(InputError, match="cannot write"):
        _run("init", "-o", str(tmp_path / "no" / "folder.yaml"))


def test_json_schema_is_printed() -> None:
    assert json.loads(_run("json-schema"))["$schema"].endswith("2020-12/schema")


def test_refusal_reaches_the_boundary(file: str) -> None:
    with pytest.raises(SchematicError) as caught:
        _run("id", file, "-", stdin=b"custom: 1")
    assert caught.value.location == "<stdin>:1:1"


def test_id_stays_light() -> None:
    """Modules that take long to import must not come in on the way to an ID."""
    program = (
        "import sys; from local_imager.cli.main import run; "
        "code = run(['schematic', 'id', '-']); "
        "print(code, *sorted(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], input=b"{}", capture_output=True, check=True
    )
    first, second = finished.stdout.decode().splitlines()
    assert first == VANILLA_ID
    code, *modules = second.split()
    assert code == "0"
    heavy = {"yaml", "docker", "cryptography", "httpx", "rich", "difflib", "json", "asyncio"}
    assert heavy & set(modules) == set()
