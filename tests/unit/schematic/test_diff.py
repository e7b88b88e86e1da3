"""Differences in words: complete, in order, and without secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.diff import MASK, Difference, diff_schematics
from local_imager.schematic.parse import parse_schematic

GOLDEN = Path(__file__).parents[2] / "golden"


def _diff(first: str, second: str, *, show_secrets: bool = False) -> list[Difference]:
    a, b = (parse_schematic(text.encode()) for text in (first, second))
    return diff_schematics(a, b, show_secrets=show_secrets)


def _texts(first: str, second: str, *, show_secrets: bool = False) -> list[str]:
    return [found.text for found in _diff(first, second, show_secrets=show_secrets)]


def test_equal_schematics_have_no_differences() -> None:
    json_form = '{"customization": {"extraKernelArgs": ["a", "b"]}, "overlay": {}}'
    assert _diff("customization:\n  extraKernelArgs: [a, 'b'] # c\n", json_form) == []


def test_lists_tell_added_removed_and_reordered() -> None:
    args = "customization: {{extraKernelArgs: [{}]}}".format
    assert _texts(args("a, b"), args("a, c")) == [
        "kernel argument removed: b",
        "kernel argument added: c",
    ]
    (found,) = _diff(args("a, b, c"), args("c, a, b"))
    assert (found.kind, found.before, found.after) == ("reordered", "a, b, c", "c, a, b")
    assert "the ID depends on the order" in found.text
    assert [found.kind for found in _diff(args("a, a, b"), args("b, a"))] == [
        "removed",
        "reordered",
    ]
    assert _texts(
        "customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}", "{}"
    ) == ["extension removed: siderolabs/gvisor"]


def test_meta_is_compared_by_key() -> None:
    first = "customization: {meta: [{key: 10, value: a}, {key: 12, value: b}, {key: 1, value: q}]}"
    second = "customization: {meta: [{key: 12, value: B}, {key: 10, value: a}, {key: 9, value: c}]}"
    assert _texts(first, second, show_secrets=True) == [
        "META value 0xc changes from b to B",
        "META value 0x1 is no longer set (was q)",
        "META value 0x9 is set to c",
        "customization.meta: the entries stand in another order; the ID depends on the order",
    ]
    twice = "customization: {meta: [{key: 1, value: x}, {key: 1, value: y}]}"
    assert _texts(first, twice)[-1] == f"META entry added: 0x1={MASK}"


def test_options_are_compared_by_path() -> None:
    first = "overlay: {options: {a: 1, m: {x: [1, {y: z}], 2: t, gone: []}, same: {k: v}}}"
    second = "overlay: {options: {m: {x: [1, {y: 5}], 2: ~, new: {q: 1}}, a: '1', same: {k: v}}}"
    assert _texts(first, second) == [
        "overlay.options.a changes from 1 to '1'",
        "overlay.options.m.x[1].y changes from z to 5",
        "overlay.options.m.2 changes from t to null",
        "overlay.options.m.gone is removed (was a list (0 items))",
        "overlay.options.m.new is set to a mapping (1 keys)",
    ]


def test_single_values() -> None:
    first = "{overlay: {name: n, image: i}, customization: {bootloader: grub}}"
    second = (
        "{overlay: {name: m}, customization: {diskImage: {sectorSize: 512},"
        " secureboot: {enrollKeys: force, includeWellKnownCertificates: true}}}"
    )
    assert _texts(first, second) == [
        "overlay.image is no longer set (was i)",
        "overlay.name changes from n to m",
        "customization.bootloader is no longer set (was grub)",
        "customization.secureboot.enrollKeys is set to force",
        "customization.secureboot.includeWellKnownCertificates is set to true",
        "customization.diskImage.sectorSize is set to 512",
    ]


SECRETS = """
customization:
  embeddedMachineConfiguration: "token: {0}"
  extraKernelArgs: ["talos.config=https://u:{0}@h", "b={0}"]
  meta: [{{key: 10, value: "{0}"}}]
"""


def test_secrets_are_masked_unless_asked_for() -> None:
    first, second = SECRETS.format("hunter2"), SECRETS.format("hunter3")
    for found in (*_diff(first, second), *_diff(first, "{}"), *_diff("{}", second)):
        assert "hunter" not in json.dumps(found.as_dict())
    assert "kernel argument removed: talos.config=(hidden)" in _texts(first, second)
    shown = " ".join(_texts(first, second, show_secrets=True))
    assert "hunter2" in shown and "hunter3" in shown


def test_control_characters_are_not_printed_as_they_are() -> None:
    for found in _diff(
        "{}", 'overlay: {name: "\\e[2J", options: {"\\e": "\\e", b: !!binary /w==}}'
    ):
        assert found.text.isprintable()


ROWS = [row for row in json.loads((GOLDEN / "schematics.json").read_text())["rows"] if "id" in row]


@pytest.mark.parametrize("step", [1, 7, 31])
def test_there_is_a_difference_exactly_when_the_ids_differ(step: int) -> None:
    schematics = [
        parse_schematic(row["canonical"].encode()) for row in ROWS if "reparsed_id" not in row
    ]
    for index, first in enumerate(schematics):
        second = schematics[(index + step) % len(schematics)]
        differ = schematic_id(first) != schematic_id(second)
        assert bool(diff_schematics(first, second)) == differ
