"""What a refusal says, and the bounds on untrusted input."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from local_imager.errors import ExitCode, SchematicError
from local_imager.schematic.goyaml import limits
from local_imager.schematic.goyaml.resolver import Timestamp
from local_imager.schematic.goyaml.values import MixedMap
from local_imager.schematic.model import (
    Customization,
    MetaValue,
    Overlay,
    Schematic,
    SchematicID,
    SecureBoot,
)
from local_imager.schematic.parse import MAX_SIZE_BYTES, parse_schematic, read_schematic


def _refusal(text: str) -> SchematicError:
    with pytest.raises(SchematicError) as caught:
        parse_schematic(text.encode(), source="s.yaml")
    return caught.value


def test_reads_every_field() -> None:
    schematic = parse_schematic(
        b"""
overlay:
  image: siderolabs/sbc-raspberrypi
  name: rpi_generic
  options: {n: 1, f: 1.5, b: true, none: ~, l: [a, {1: x}], d: 2024-01-02, m: {k: v}}
customization:
  embeddedMachineConfiguration: "kind: A"
  extraKernelArgs: [a, b=1]
  meta: [{key: 0xa, value: x}, {}]
  systemExtensions: {officialExtensions: [siderolabs/gvisor]}
  bootloader: SD-Boot
  secureboot: {enrollKeys: "off", includeWellKnownCertificates: yes}
  diskImage: {sectorSize: 4_096}
"""
    )
    assert schematic == Schematic(
        overlay=Overlay(
            image="siderolabs/sbc-raspberrypi",
            name="rpi_generic",
            options={
                "n": 1,
                "f": 1.5,
                "b": True,
                "none": None,
                "l": ("a", MixedMap(((1, "x"),))),
                "d": Timestamp("2024-01-02T00:00:00Z"),
                "m": {"k": "v"},
            },
        ),
        customization=Customization(
            embedded_machine_configuration="kind: A",
            extra_kernel_args=("a", "b=1"),
            meta=(MetaValue(10, "x"), MetaValue(0, "")),
            official_extensions=("siderolabs/gvisor",),
            bootloader="sd-boot",
            secureboot=SecureBoot("off", True),
            sector_size=4096,
        ),
    )


@pytest.mark.parametrize(
    ("text", "line", "column", "words", "hint"),
    [
        ("customization:\n  extrKernelArgs: [a]\n", 2, 3, "extrKernelArgs", "'extraKernelArgs'"),
        ("customisation: {}\n", 1, 1, "customisation", "'customization'"),
        ("customization:\n  secureBoot: {}\n", 2, 3, "secureBoot", "'secureboot'"),
        ("zzz: 1\n", 1, 1, "'zzz'", "owner, overlay, customization"),
        ("customization: {}\ncustomization: {}\n", 2, 1, "twice (first at line 1)", ""),
        ("customization:\n  extraKernelArgs: a\n", 2, 20, "a list of texts is expected", ""),
        ("customization:\n  meta:\n  - key: 256\n", 3, 10, "from 0 to 255", ""),
        ("customization:\n  bootloader: efi\n", 2, 15, "sd-boot", ""),
        ("customization:\n  extraKernelArgs:\n  - 2024-01-01\n", 3, 5, "date", "quotes"),
        ("customization:\n\textraKernelArgs: []\n", 2, 1, "spaces, not with tabs", ""),
        ("customization: {extraKernelArgs: [a}\n", 1, 36, "']' is missing", ""),
        ("customization: {a: *x}\n", 1, 20, "anchor 'x' is not defined", ""),
        ('customization: "abc\n', 1, 16, "not closed", ""),
        ("%YAML 1.2\n---\n", 1, 1, "%YAML 1.1", ""),
        ("a: b: c\n", 1, 5, "mapping value", ""),
        ("overlay: {options: {[a]: b}}\n", 1, 21, "a text is expected here, not a list", ""),
        ("overlay: {options: {a: !!int x}}\n", 1, 24, "!!int", ""),
        ("customization: \x01\n", 1, 16, "U+0001", ""),
        ("overlay: {options: {a: &a [*a]}}\n", 1, 28, "contains itself", ""),
        ("overlay: {options: {<<: x}}\n", 1, 25, "merges a mapping", ""),
    ],
)
def test_refusal_names_place_cause_and_remedy(
    text: str, line: int, column: int, words: str, hint: str
) -> None:
    error = _refusal(text)
    assert (error.line, error.column) == (line, column)
    assert words in error.message
    assert hint in error.hint
    assert error.location == f"s.yaml:{line}:{column}"
    assert error.exit_code is ExitCode.INPUT_INVALID


@pytest.mark.parametrize("text", ["", "# only a comment\n", "   \n", "...\n"])
def test_no_document_is_refused(text: str) -> None:
    assert "empty" in _refusal(text).message


def test_owner_is_refused_and_empty_owner_is_not() -> None:
    assert _refusal("owner: me\n").code == "owner-not-supported"
    assert parse_schematic(b"owner: ''\n") == Schematic()


def test_errors_do_not_show_values_that_may_be_secrets() -> None:
    for text in (
        "customization: {extraKernelArgs: hunter2}",
        "customization: {embeddedMachineConfiguration: [hunter2]}",
        "customization: {meta: hunter2}",
        "customization: hunter2",
    ):
        error = _refusal(text)
        assert "hunter2" not in error.message + error.hint


def test_file_of_50_mib_is_refused_without_reading_it(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    with big.open("wb") as file:
        file.truncate(50 << 20)
    started = time.monotonic()
    with pytest.raises(SchematicError, match="larger than 1 MiB") as caught:
        read_schematic(str(big))
    assert time.monotonic() - started < 0.5
    assert caught.value.code == "schematic-too-large"


def test_standard_input_is_read_to_the_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        asked = 0

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= MAX_SIZE_BYTES + 1
            self.asked += size
            return b"#" * size

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": endless})())
    with pytest.raises(SchematicError, match="larger"):
        read_schematic("-")
    assert endless.asked <= MAX_SIZE_BYTES + 1


def test_size_limit_is_exact() -> None:
    filler = b"customization: {}\n#"
    parse_schematic(filler + b"x" * (MAX_SIZE_BYTES - len(filler)))
    with pytest.raises(SchematicError, match="larger"):
        parse_schematic(filler + b"x" * (MAX_SIZE_BYTES - len(filler) + 1))


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(SchematicError, match="cannot read") as caught:
            read_schematic(str(path))
        assert caught.value.exit_code is ExitCode.INPUT_INVALID


def _laughs(levels: int, width: int) -> str:
    lines = ["overlay:", "  options:", f"    a0: &a0 [{','.join('x' * width)}]"]
    for level in range(1, levels):
        aliases = ",".join([f"*a{level - 1}"] * width)
        lines.append(f"    a{level}: &a{level} [{aliases}]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("padding", [0, 5000])
def test_billion_laughs_is_refused_fast(padding: int) -> None:
    text = _laughs(12, 10) + f"    padding: [{','.join('1' * padding)}]\n"
    started = time.monotonic()
    error = _refusal(text)
    assert time.monotonic() - started < 5
    assert "aliases" in error.message


def test_values_are_counted() -> None:
    text = "overlay: {options: {a: [" + "a," * (limits.MAX_NODES + 1) + "]}}"
    assert f"more than {limits.MAX_NODES} values" in _refusal(text).message


def test_values_with_aliases_followed_are_counted() -> None:
    plain = ",".join("1" * 60_000)
    text = f"overlay: {{options: {{p: &p [{plain}], q: [{', '.join(['*p'] * 8)}]}}}}"
    assert str(limits.MAX_CONSTRUCTED_NODES) in _refusal(text).message


@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("[a: ", "]"), ("\n- ", "")]
)
def test_depth_is_bounded(opening: str, closing: str) -> None:
    for depth in (limits.MAX_DEPTH + 1, 50_000):
        text = f"overlay: {{options: {{a: {opening * depth}1{closing * depth}}}}}"
        if "\n" in opening:
            text = "overlay:\n  options:\n    a: " + "- " * depth + "1\n"
            text = text.replace("a: - ", "a:\n    - ", 1)
        assert "nested deeper" in _refusal(text).message


def test_depth_up_to_the_bound_is_read() -> None:
    inner = limits.MAX_DEPTH - 3
    text = f"overlay: {{options: {{a: {'[' * inner}1{']' * inner}}}}}"
    value = parse_schematic(text.encode()).overlay.options["a"]
    for _ in range(inner):
        assert isinstance(value, tuple)
        (value,) = value
    assert value == 1


def test_chains_of_aliases_and_merges_are_bounded() -> None:
    links = [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 5000)]
    assert (
        "nested deeper"
        in _refusal("overlay: {options: {a0: &a0 [], " + ", ".join(links) + "}}").message
    )
    merges = [f"a{n}: &a{n} {{<<: *a{n - 1}}}" for n in range(1, 5000)]
    assert (
        "merges" in _refusal("overlay: {options: {a0: &a0 {}, " + ", ".join(merges) + "}}").message
    )


def test_reading_a_megabyte_takes_seconds_at_most() -> None:
    items = "    - siderolabs/an-extension-name\n" * 28_000
    text = f"customization:\n  extraKernelArgs:\n{items}"
    started = time.monotonic()
    schematic = parse_schematic(text.encode())
    assert len(schematic.customization.extra_kernel_args) == 28_000
    assert time.monotonic() - started < 20


def test_schematic_id_is_64_digits() -> None:
    digits = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
    assert SchematicID(digits) == digits
    assert SchematicID(digits).short == "376567988ad3"
    for bad in ("", digits[:-1], digits + "0", digits.upper(), digits[:-1] + "g", digits + "\n"):
        with pytest.raises(SchematicError, match="not a schematic ID"):
            SchematicID(bad)
