"""What tests of making bundles share: an upstream in miniature, and a store with all of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.deliver.bundle.making import FLANNEL, RICH, Making, schematic_file


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """The upstream, which no test may change."""
    return Making(tmp_path_factory.mktemp("making"))


@pytest.fixture(scope="session")
def seeded(miniature: Making) -> Path:
    """A store with everything, so that most tests need not fetch."""
    order = miniature.order(schematic_file("rich.yaml", RICH), images=(FLANNEL,))
    miniature.create(order, "seed.tar", store="seed")
    return miniature.path / "seed"


@pytest.fixture
def making(miniature: Making, seeded: Path, tmp_path: Path) -> Making:
    """The upstream with a full store of the test's own."""
    ignored = shutil.ignore_patterns("locks")
    shutil.copytree(seeded, tmp_path / "store", copy_function=_link, ignore=ignored)
    return miniature.at(tmp_path)


def _link(source: str, target: str) -> str:
    if "/blobs/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
    return target
