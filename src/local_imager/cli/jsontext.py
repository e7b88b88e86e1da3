"""JSON on standard output that holds texts of files: written in pieces, safe in a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import click

# What changes how a terminal shows text (C0, C1, directions of writing), and half characters.
UNSAFE: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_WRITTEN_CHARS: Final = 1 << 16


def echo_json(document: Mapping[str, Any]) -> None:
    """Print a document without holding the whole text of it; what is unsafe stands escaped.

    All that the pattern covers can only stand within strings of JSON, so the values stay the same.
    """
    held: list[str] = []
    size = 0
    for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(document):
        held.append(piece)
        size += len(piece)
        if size >= _WRITTEN_CHARS:
            click.echo(_escaped("".join(held)), nl=False)
            held, size = [], 0
    click.echo(_escaped("".join(held)))


def _escaped(json_text: str) -> str:
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)
