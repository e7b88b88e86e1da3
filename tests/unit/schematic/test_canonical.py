"""The canonical text is made from the model, whatever the model was made from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.schematic.canonical import canonical_text, schematic_id
from local_imager.schematic.goyaml.resolver import Timestamp
from local_imager.schematic.goyaml.scalarstyle import format_float
from local_imager.schematic.goyaml.values import MixedMap
from local_imager.schematic.model import Customization, MetaValue, Overlay, Schematic, SecureBoot
from local_imager.schematic.parse import parse_schematic

VANILLA_ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"


def test_vanilla() -> None:
    assert canonical_text(Schematic()) == "customization: {}\n"
    assert schematic_id(Schematic()) == VANILLA_ID


def test_text_of_a_model_made_in_code() -> None:
    schematic = Schematic(
        Overlay("i", "", {"b": [1, {"z": None, "a": -0.5}], "a": MixedMap(((10, ""), (9, "y")))}),
        Customization(
            embedded_machine_configuration="a: b\n---\nc: d\n",
            meta=(MetaValue(255, "no"),),
            bootloader="grub",
            secureboot=SecureBoot("force", True),
            sector_size=512,
        ),
    )
    assert (
        canonical_text(schematic)
        == """\
overlay:
    image: i
    name: ""
    options:
        a:
            9: "y"
            10: ""
        b:
            - 1
            - a: -0.5
              z: null
customization:
    embeddedMachineConfiguration: |
        a: b
        ---
        c: d
    meta:
        - key: 255
          value: "no"
    bootloader: grub
    secureboot:
        enrollKeys: force
        includeWellKnownCertificates: true
    diskImage:
        sectorSize: 512
"""
    )


def test_value_without_yaml_form_is_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError, match="bytes"):
        canonical_text(Schematic(Overlay(options={"a": b"x"})))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (100000.0, "100000"),
        (1000000.0, "1e+06"),
        (1234567.5, "1.2345675e+06"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1e21, "1e+21"),
        (5e-324, "5e-324"),
        (-1.5e300, "-1.5e+300"),
        (math.inf, ".inf"),
        (-math.inf, "-.inf"),
        (math.nan, ".nan"),
    ],
)
def test_floats_are_written_as_go_writes_them(number: float, text: str) -> None:
    assert format_float(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_back(number: float) -> None:
    assert float(format_float(number)) == number


# Indented first lines and some line breaks do not survive the library's own text.
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)
TEXTS = st.one_of(
    LINES,
    # The library cannot read a block of its own that begins with a tab, nor can we.
    st.lists(LINES.filter(lambda line: line.strip() and line[0] not in " \t"), min_size=1).map(
        "\n".join
    ),
    st.sampled_from(
        ["yes", "1", "1_0", "0x1", "~", "<<", "12:30", "2024-01-01", "", "- a", "a: b"]
    ),
).filter(lambda text: "\u2028" not in text and "\u2029" not in text)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        TEXTS,
        st.builds(Timestamp, st.dates().map(lambda day: f"{day.year:04}-{day:%m-%d}T01:02:03Z")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.builds(
        Schematic,
        st.builds(Overlay, TEXTS, TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4)),
        st.builds(
            Customization,
            TEXTS,
            st.lists(TEXTS, max_size=4).map(tuple),
            st.lists(st.builds(MetaValue, st.integers(0, 255), TEXTS), max_size=3).map(tuple),
            st.lists(TEXTS, max_size=3).map(tuple),
            st.sampled_from(["", "grub", "sd-boot", "dual-boot"]),
            st.builds(SecureBoot, TEXTS, st.booleans()),
            st.integers(0, (1 << 64) - 1),
        ),
    )
)
def test_canonical_text_reads_back(schematic: Schematic) -> None:
    text = canonical_text(schematic)
    again = parse_schematic(text.encode())
    assert again == schematic
    assert canonical_text(again) == text
