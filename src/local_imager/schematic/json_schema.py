"""The JSON Schema (draft 2020-12) of schematics, for editors."""

from __future__ import annotations

from typing import Final

SCHEMA_FILE: Final = "schematic.schema.json"


def json_schema_text() -> str:
    """Return the schema as the JSON text that the package ships."""
    from importlib.resources import files

    return files("local_imager.schematic").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
