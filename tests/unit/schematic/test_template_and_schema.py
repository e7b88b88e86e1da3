"""The template of ``schematic init`` and the JSON Schema for editors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from local_imager.errors import SchematicError
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.json_schema import json_schema_text
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic
from local_imager.schematic.template import TEMPLATE

REPOSITORY = Path(__file__).parents[3]
SCHEMA: dict[str, Any] = json.loads(json_schema_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_template_is_the_vanilla_schematic() -> None:
    assert parse_schematic(TEMPLATE.encode()) == Schematic()


def test_examples_in_the_template_are_valid_and_complete() -> None:
    # An example has no space behind its "#", or more than one; a sentence has one.
    text = re.sub(r"(?m)^( *)#(?=\S|  )", r"\1", TEMPLATE)
    schematic = parse_schematic(text.encode())
    custom = schematic.customization
    assert custom.extra_kernel_args == ("console=ttyS0", "-selinux")
    assert custom.meta[0].key == 10
    assert custom.meta[0].value == "apiVersion: v1alpha1\nkind: LinkConfig\n"
    assert custom.official_extensions[0] == "siderolabs/qemu-guest-agent"
    assert custom.bootloader == "sd-boot"
    assert custom.secureboot.enroll_keys == "if-safe"
    assert custom.sector_size == 4096
    assert "hostname: worker-1" in custom.embedded_machine_configuration
    assert schematic.overlay.options == {"configTxtAppend": "dtparam=audio=on"}


def test_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


GOOD = [
    "{}",
    "customization:",
    "customization: {extraKernelArgs: [a, 1], meta: [{key: 0xa, value: x}]}",
    "customization: {bootloader: sd-boot, secureboot: {enrollKeys: 'off'}}",
    "customization: {diskImage: {sectorSize: 4096}, embeddedMachineConfiguration: 'a: b'}",
    "customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}",
    "overlay: {image: i, name: n, options: {any: [1, {thing: x}]}}",
]
BAD = [
    "[]",
    "customisation: {}",
    "owner: me",
    "customization: {extraKernelArgs: a b}",
    "customization: {extraKernelArgs: [{a: b}]}",
    "customization: {meta: [{key: 256, value: x}]}",
    "customization: {meta: [{key: ten, value: x}]}",
    "customization: {meta: {key: 1}}",
    "customization: {bootloader: efi}",
    "customization: {secureBoot: {}}",
    "customization: {secureboot: {includeWellKnownCertificates: 1}}",
    "customization: {diskImage: {sectorSize: -1}}",
    "customization: {systemExtensions: [siderolabs/gvisor]}",
    "overlay: {options: text}",
]


@pytest.mark.parametrize("text", GOOD)
def test_schema_accepts_what_is_read(text: str) -> None:
    VALIDATOR.validate(yaml.safe_load(text))
    parse_schematic(text.encode())


@pytest.mark.parametrize("text", BAD)
def test_schema_refuses_what_is_refused(text: str) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
    with pytest.raises(SchematicError):
        parse_schematic(text.encode())


def test_schema_names_every_key_of_the_parser() -> None:
    from local_imager.schematic import parse
    from local_imager.schematic.goyaml.shapes import ListOf, Shape, Struct

    def check(shape: Shape, schema: dict[str, Any]) -> None:
        if isinstance(shape, Struct):
            assert set(schema["properties"]) == set(shape.fields)
            for key, inner in shape.fields.items():
                assert schema["properties"][key]["description"]
                check(inner, schema["properties"][key])
        elif isinstance(shape, ListOf) and isinstance(shape.item, Struct):
            check(shape.item, schema["items"])

    check(parse._SCHEMATIC, SCHEMA)


def test_examples_of_the_repository_pass() -> None:
    examples = sorted((REPOSITORY / "schematics").glob("*.yaml"))
    ids = set()
    for example in examples:
        VALIDATOR.validate(yaml.safe_load(example.read_text()))
        ids.add(schematic_id(parse_schematic(example.read_bytes())))
    assert len(ids) == len(examples) >= 8
