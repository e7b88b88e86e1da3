"""What is handed on as JSON: every value has a form there, or the schematic is refused."""

from __future__ import annotations

import json

import pytest

from local_imager.errors import SchematicError
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic
from local_imager.schematic.plain import plain_options, require_text


def test_options_become_json() -> None:
    text = (
        b"overlay: {options: {d: 2024-01-01, n: .nan, i: -.inf, f: 1.5, b: true, z: ~,"
        b" l: [1, {2: x, true: y, 1.0: z}], m: {k: {2024-01-02: v}}}}"
    )
    options = plain_options(parse_schematic(text).overlay)
    assert options == {
        "d": "2024-01-01T00:00:00Z",
        "n": ".nan",
        "i": "-.inf",
        "f": 1.5,
        "b": True,
        "z": None,
        "l": [1, {"2": "x", "true": "y", "1": "z"}],
        "m": {"k": {"2024-01-02T00:00:00Z": "v"}},
    }
    assert json.loads(json.dumps(options, allow_nan=False)) == options


@pytest.mark.parametrize(
    "text",
    [
        "overlay: {name: VALUE}",
        "overlay: {options: {a: [{b: VALUE}]}}",
        "overlay: {options: {a: {VALUE : b}}}",
        "overlay: {options: {a: {1: VALUE}}}",
        "customization: {extraKernelArgs: [a, VALUE]}",
        "customization: {meta: [{key: 1, value: VALUE}]}",
        "customization: {embeddedMachineConfiguration: VALUE}",
        "customization: {systemExtensions: {officialExtensions: [VALUE]}}",
        "customization: {secureboot: {enrollKeys: VALUE}}",
    ],
)
def test_binary_that_is_not_text_is_refused(text: str) -> None:
    require_text(parse_schematic(text.replace("VALUE", "!!binary aGVsbG8=").encode()))
    with pytest.raises(SchematicError, match="not UTF-8"):
        require_text(parse_schematic(text.replace("VALUE", "!!binary /w==").encode()))


def test_vanilla_is_text() -> None:
    require_text(Schematic())
