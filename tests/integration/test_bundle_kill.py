"""Kill -9 anywhere in an import: nothing is ever half visible, and the next run goes on."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far.report import REPORT_PREFIX
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Index
from local_imager.oci.names import attached_to
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.inventory import held_images, verify_held
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.killing import Killer, killer
from tests.unit.deliver.bundle.nearside import NearSide

# So many imports are killed for the first time, at points spread over all changes of the disk; of
# those that go on so many are killed once more.
FIRST_KILLS, SECOND_KILLS = 50, 20
ARCHES = ("amd64",)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: a kill leaves the same there, and a hundred runs wait for no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="local-imager-test-") as path:
        yield Path(path)


@pytest.fixture
def near(folder: Path) -> NearSide:
    near = NearSide(folder)
    near.image("siderolabs/imager", size_bytes=400_000)
    near.image("siderolabs/installer-base", size_bytes=50_000)
    near.image("siderolabs/evil", signed=False)
    near.asset(b"\0" * 200_000 + b"secret iso", private=True)
    near.document("site.lock", b"lock")
    (folder / "images.pub").write_text(near.signing.pem)
    (folder / "bundles.pub").write_text(near.vouching.pem)
    (folder / "config.toml").write_text(
        '[[trust]]\npattern = "upstream.test/**"\nkey = "images.pub"\n'
        '[[trust]]\npattern = "bundles"\nkey = "bundles.pub"\n'
    )
    return near


@pytest.fixture
def program(folder: Path) -> Iterator[Killer]:
    with killer(
        folder,
        "local_imager.cli.bundle_import",
        "local_imager.deliver.bundle.far.importing",
        "local_imager.deliver.bundle.far.reportfiles",
        "local_imager.cli.context",
        "local_imager.pipeline",
        "local_imager.cli.progress",
    ) as running:
        yield running


def content(store: Store) -> dict[str, object]:
    """What the store shows: names with digests; lists without the evidence, which holds times."""
    shown: dict[str, object] = {}
    for entry in store.layout.entries():
        if entry.ref_name.startswith(REPORT_PREFIX):
            continue
        shown[entry.ref_name] = entry.digest
        attached = attached_to(entry.ref_name)
        if attached is not None and attached[1] == "":
            index = store.layout.read_manifest(entry)
            assert isinstance(index, Index)
            shown[entry.ref_name] = {
                one.digest for one in index.manifests if one.artifact_type != ARTIFACT_EVIDENCE
            }
    return shown


def assert_never_half(store: Store, near: NearSide) -> None:
    """The store is clean, and whatever has a name is whole and verifies."""
    report = check(store)
    assert report.clean, report.faults
    source = LayoutSource.open(store.path)
    for held in held_images(store):
        assert held.arches == ARCHES, held
        verify_held(source, held, near.policy())
    for asset in store.assets():
        assert store.layout.intact(asset.digest, asset.size_bytes)
        assert len(store.layout.referrers(asset.manifest_digest)) == 1


def test_an_import_killed_anywhere_is_never_half_visible_and_goes_on(
    near: NearSide, folder: Path, program: Killer
) -> None:
    files = near.write(parts=3)
    options: list[str | Path] = ["--config", folder / "config.toml", "--quiet"]
    draw, kills = random.Random(5), [0]

    def run(store: Path, kill_at: int = 0) -> int:
        arguments: list[str | Path] = ["bundle", "import", *files, "--report", folder / "reports"]
        ended = program.run(*options, "--store", store, *arguments, kill_at=kill_at)
        assert ended.killed or ended.code == 3, ended.log  # 3: the unsigned image is refused
        kills[0] += ended.killed
        return ended.changes if not ended.killed else -1

    changes = run(folder / "undisturbed")
    wanted = content(Store.open(folder / "undisturbed"))
    assert len(wanted) > 6 and changes > 100
    place, held = folder / "far", 0
    for number in range(FIRST_KILLS):
        point = (number + draw.random()) * changes / FIRST_KILLS
        points = [1 + int(point)]
        if number * SECOND_KILLS % FIRST_KILLS < SECOND_KILLS:
            points.append(draw.randint(1, changes - points[0] + 1))
        for kill_at in points:
            run(place, kill_at)
            if not (place / "oci-layout").exists():
                continue  # killed before there was a store
            store = Store.open(place)
            assert_never_half(store, near)
            held += any(map(is_incoming, store.layout.entries()))
            if draw.random() < 0.2:
                collect(store, Rules(grace_s=-1))
                assert_never_half(store, near)
        assert run(place) >= 0
        assert content(Store.open(place)) == wanted
        assert_never_half(Store.open(place), near)
        shutil.rmtree(place)
    assert kills[0] > FIRST_KILLS + SECOND_KILLS // 2 and held > FIRST_KILLS // 4
