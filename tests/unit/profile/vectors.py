"""The golden files of planning, read once, and the fake catalogue that they were made with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from local_imager.oci.model import Digest, Reference
from local_imager.profile.model import (
    BaseFile,
    Catalogue,
    CatalogueExtension,
    CatalogueOverlay,
    ImageInput,
    Input,
    KeyFile,
    TarInput,
)
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic

GOLDEN = Path(__file__).parents[2] / "golden"
ALL_KEYS = frozenset({"uki-signing-key.pem", "uki-signing-cert.pem", "pcr-signing-key.pem"})

# The factory that printed the files had its keys under these names.
_KEY_NAMES = {
    "uki-signing-key.pem": "sign-key.pem",
    "uki-signing-cert.pem": "sign-cert.pem",
    "pcr-signing-key.pem": "pcr-key.pem",
}


@cache
def golden(name: str) -> Any:
    """Return a golden file."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def version(text: str) -> TalosVersion:
    """Return a version."""
    return TalosVersion.parse(text)


@cache
def catalogue(tag: str) -> Catalogue:
    """Return the fake catalogue of a version."""
    data = golden("catalog")
    entry = next(entry for entry in data["per_version"] if entry["version"] == tag)
    extensions = tuple(
        CatalogueExtension(
            item["name"],
            Reference.parse(item["image_ref"]),
            Digest.parse(item["digest"]),
            item["author"],
            item["description"],
        )
        for item in entry["extensions"]
    )
    overlays = tuple(
        CatalogueOverlay(
            item["name"],
            Reference.parse(item["image"]).repository,
            Reference.parse(item["image"]),
            Digest.parse(item["digest"]),
            data["overlay_profiles"].get(item["name"], ""),
        )
        for item in entry["overlays"] or ()
    )
    return Catalogue(version(tag), extensions, overlays)


@cache
def schematics() -> dict[str, Schematic]:
    """Return the schematics of enhanced.json by name."""
    rows = golden("enhanced")["schematics"]
    return {row["name"]: parse_schematic(row["input"].encode()) for row in rows}


def schematic(text: str) -> Schematic:
    """Return a schematic from its YAML."""
    return parse_schematic(text.encode())


def factory_path(item: Input) -> str:
    """Return where the factory that printed the golden files kept an input."""
    if isinstance(item, KeyFile):
        return _KEY_NAMES[item.name]
    if isinstance(item, TarInput):
        return f"/cache/schematics/{item.name}"
    if isinstance(item, BaseFile):
        return f"/usr/install/{item.arch}/{item.name}"
    assert isinstance(item, ImageInput)
    needed = item.requirement
    if needed.role == "base-installer":
        return f"/cache/{needed.arch}-installer-{needed.tag}"
    return f"/cache/{needed.arch}-{needed.digest}"


def filled(document: Any, tag: str) -> Any:
    """Return a golden document with the version in place of ``{version}``."""
    return json.loads(json.dumps(document).replace("{version}", tag))
