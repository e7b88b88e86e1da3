"""Harnesses for YAML: catalogues, overlay profiles, schematics."""

from __future__ import annotations

from typing import Final

import yaml  # noqa: F401  so that its modules are followed by the engine

from local_imager.profile.overlay import parse_overlay_profile
from local_imager.schematic.canonical import canonical_bytes, schematic_id
from local_imager.schematic.diff import diff_schematics
from local_imager.schematic.parse import parse_schematic
from local_imager.sources.catalog import parse_extensions, parse_overlays
from tests.fuzz.driver import Fault, Harness

_LINE: Final = b"ghcr.io/siderolabs/gvisor:v1@sha256:" + b"ab" * 32


def catalogue(data: bytes) -> None:
    """The files of the catalogue images; each rests on its own."""
    if data.startswith(b"overlays"):
        parse_overlays(data, "ghcr.io")
    elif data.startswith(b"ghcr.io") and not data.rstrip().endswith(b":") and b"\n  " not in data:
        parse_extensions(data, b"", "ghcr.io")
    else:
        parse_extensions(_LINE, data, "ghcr.io")


def overlay(data: bytes) -> None:
    """An overlay's profile document."""
    parse_overlay_profile(data.decode("utf-8", "replace"), "fuzz")


def schematic(data: bytes) -> None:
    """A schematic; its canonical text has to mean the same again."""
    parsed = parse_schematic(data)
    first = schematic_id(parsed)
    again = parse_schematic(canonical_bytes(parsed))
    if schematic_id(again) != first or canonical_bytes(again) != canonical_bytes(parsed):
        raise Fault("the canonical text reads as another schematic")
    if list(diff_schematics(parsed, again)):
        raise Fault("the canonical text differs from the schematic")


HARNESSES: Final = (
    Harness("catalogue", catalogue),
    Harness("overlay", overlay, 8192),
    Harness("schematic", schematic, 8192),
)
