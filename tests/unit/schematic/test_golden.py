"""The canonical text, the ID and the accept or refuse decision against the original's answers."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import SchematicError
from local_imager.schematic.canonical import canonical_bytes, canonical_text, schematic_id
from local_imager.schematic.parse import parse_schematic

GOLDEN = Path(__file__).parents[2] / "golden"
FACTORY_ROWS: list[dict[str, Any]] = json.loads((GOLDEN / "schematics.json").read_text())["rows"]
LIBRARY_ROWS: list[dict[str, Any]] = json.loads((GOLDEN / "schematics_oracle.json").read_text())


def _input(row: dict[str, Any]) -> bytes:
    return row["input"].encode() if "input" in row else b64decode(row["input_base64"])


@pytest.mark.parametrize("row", FACTORY_ROWS, ids=lambda row: row["name"])
def test_factory_row(row: dict[str, Any]) -> None:
    if "error" in row:
        with pytest.raises(SchematicError):
            parse_schematic(_input(row))
        return
    schematic = parse_schematic(_input(row))
    assert canonical_text(schematic) == row["canonical"]
    assert schematic_id(schematic) == row["id"]


def test_all_factory_rows_are_there() -> None:
    assert len(FACTORY_ROWS) == 322
    assert sum("error" in row for row in FACTORY_ROWS) > 50


def test_library_rows() -> None:
    wrong = []
    for number, row in enumerate(LIBRARY_ROWS):
        try:
            text: str | None = canonical_text(parse_schematic(_input(row)))
        except SchematicError:
            text = None
        if text != row.get("canonical"):
            wrong.append((number, row["kind"], _input(row), text))
    assert wrong == []
    assert len(LIBRARY_ROWS) > 800


# Two texts do not read back as what they were made from: a fault of the library.
READ_BACK_ROWS = [row for row in FACTORY_ROWS if "id" in row and "reparsed_id" not in row]


@pytest.mark.parametrize("row", READ_BACK_ROWS, ids=lambda row: row["name"])
def test_canonical_text_reads_back_as_the_same_schematic(row: dict[str, Any]) -> None:
    again = parse_schematic(row["canonical"].encode())
    assert schematic_id(again) == row["id"]
    assert canonical_bytes(again) == row["canonical"].encode()
