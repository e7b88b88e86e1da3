"""Kill -9 anywhere in a creation: no file is ever half there, and the next run leaves it whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.store.fsck import check
from local_imager.store.store import Store
from tests.killing import Killer, killer
from tests.unit.deliver.bundle.making import FLANNEL, RICH, Making, key_file
from tests.unit.sources.forge import REGISTRY, Signing

KILLS = 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: a kill leaves the same there, and many runs wait for no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="local-imager-test-") as path:
        yield Path(path)


@pytest.fixture
def program(folder: Path) -> Iterator[Killer]:
    modules = (
        "local_imager.cli.bundle_create",
        "local_imager.deliver.bundle.near.create",
        "local_imager.cli.context",
        "local_imager.cli.passphrase",
        "local_imager.cli.progress",
        "local_imager.pipeline",
        "local_imager.sources.upstream",
    )
    with killer(folder, *modules) as running:
        yield running


def test_a_creation_killed_anywhere_leaves_a_whole_file_or_none(
    folder: Path, program: Killer
) -> None:
    making = Making(folder)
    key = key_file(folder / "sign.key", Signing())
    (folder / "rich.yaml").write_bytes(RICH)
    config = folder / "config.toml"
    config.write_text(
        f'[upstream]\nregistry = "{REGISTRY}"\nsource = "{making.forge.layout.path}"\n'
        f'[[trust]]\npattern = "{REGISTRY}/**"\nkey = {json.dumps(making.signing.pem)}\n'
    )
    place, store = folder / "made", folder / "store"
    place.mkdir()
    options: list[str | Path] = ["--config", config, "--quiet", "--store", store]
    wanted: list[str | Path] = ["--version", "v1.9.0", "--schematic", folder / "rich.yaml"]
    wanted += ["--image", str(FLANNEL), "--arch", "amd64", "--split", "150KB", "--sign-key", key]

    def run(kill_at: int = 0) -> int:
        asked = ("bundle", "create", *wanted, "-o", place / "site.tar")
        ended = program.run(*options, *asked, kill_at=kill_at)
        assert ended.killed or ended.code == 0, ended.log
        return -1 if ended.killed else ended.changes

    cold = run()
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    assert len(whole) >= 4
    for path in place.iterdir():
        path.unlink()
    warm = run()  # the store has all of it
    assert cold > 300 and warm > 30
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole

    draw, kills, half_way = random.Random(7), 0, 0
    for path in place.iterdir():
        path.unlink()
    while kills < KILLS:
        if draw.random() < 0.2:
            shutil.rmtree(store, ignore_errors=True)
        changes = warm if store.exists() else cold
        kills += run(draw.randint(1, changes)) < 0
        there = {path.name: path for path in place.iterdir()}
        half_way += any(name.endswith(".part") for name in there)
        for name, path in there.items():
            if not name.endswith(".part"):  # what it may not be called before it is whole
                assert path.read_bytes() == whole[name], name
        if (store / "oci-layout").exists():
            report = check(Store.open(store))
            assert report.clean, report.faults
        if draw.random() < 0.4:
            assert run() >= 0
            assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
            for path in list(place.iterdir()):
                path.unlink()
    assert half_way > 5
    assert os.listdir(place) == [] or run() >= 0
