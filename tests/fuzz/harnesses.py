"""Every harness by its name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import (
    archives,
    bootfiles,
    bundles,
    certificates,
    deltas,
    diskfiles,
    documents,
    factories,
    inspections,
    pefiles,
    registries,
    signatures,
    texts,
)
from tests.fuzz.driver import Harness

HARNESSES: Final[dict[str, Harness]] = {
    harness.name: harness
    for module in (
        documents,
        signatures,
        certificates,
        archives,
        texts,
        registries,
        factories,
        bundles,
        deltas,
        bootfiles,
        diskfiles,
        pefiles,
        inspections,
    )
    for harness in module.HARNESSES
}
