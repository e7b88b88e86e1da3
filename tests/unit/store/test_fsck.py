"""The check finds every damage, calls sound stores clean, and repairs what it can."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from local_imager.oci.model import ANNOTATION_REF_NAME
from local_imager.store.fsck import check
from local_imager.store.store import Store
from tests.images import IMAGE, Sample, make_sample
from tests.unit.store.test_gc import copy_sample
from tests.unit.store.test_store import put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    copy_sample(store, tmp_path)
    asset = put(store)
    store.add_referrer(asset, "application/x-record", b"record", "text/plain")
    return store


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path / "again")


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def edit_index(store: Store, change: Callable[[list[dict[str, object]]], None]) -> None:
    index = json.loads((store.path / "index.json").read_text())
    change(index["manifests"])
    (store.path / "index.json").write_text(json.dumps(index))


def test_a_sound_store_is_clean(store: Store) -> None:
    report = check(store)
    assert report.clean
    assert report.blobs == len(list(store.layout.blobs_dir.iterdir()))


def test_platforms_that_were_never_fetched_are_no_fault(store: Store, sample: Sample) -> None:
    for digest in (sample.children["arm64"].digest, sample.layer_of("arm64").digest):
        store.layout.blob_path(digest).unlink()
    assert check(store).clean


def test_every_flipped_blob_is_found_and_repaired(store: Store) -> None:
    for path in sorted(store.layout.blobs_dir.iterdir()):
        before = path.read_bytes()
        flip(path)
        faults = check(store).faults
        assert f"sha256:{path.name}" in {f.subject for f in faults if f.kind == "bytes"}
        path.write_bytes(before)
    assert check(store).clean
    asset = put(store)
    flip(asset.path)
    report = check(store, repair=True)
    assert [f.kind for f in report.faults] == ["bytes"] and report.repaired
    assert check(store).clean
    assert store.assets() == ()
    assert put(store).path.read_bytes() == b"an image"


def test_a_missing_layer_is_found_with_who_needs_it(store: Store, sample: Sample) -> None:
    layer = sample.layer_of("amd64")
    store.layout.blob_path(layer.digest).unlink()
    (fault,) = check(store).faults
    assert (fault.kind, fault.subject, fault.needed_by) == (
        "missing",
        str(layer.digest),
        str(IMAGE),
    )
    check(store, repair=True)
    assert check(store).clean
    assert store.layout.resolve(str(IMAGE)) is None


def test_a_name_without_a_manifest(store: Store) -> None:
    asset = put(store)
    store.layout.blob_path(asset.manifest_digest).unlink()
    assert ("missing", asset.name) in {(f.kind, f.needed_by) for f in check(store).faults}
    check(store, repair=True)
    assert check(store).clean


def test_a_wrong_size_in_the_index(store: Store) -> None:
    def change(entries: list[dict[str, object]]) -> None:
        entries[0]["size"] = 5

    edit_index(store, change)
    (fault,) = check(store).faults
    assert fault.kind == "size"
    check(store, repair=True)
    assert check(store).clean


def test_a_manifest_that_is_none(store: Store) -> None:
    broken = store.layout.put_bytes(b"not json", "application/vnd.oci.image.manifest.v1+json")
    entry = {**broken.as_dict(), "annotations": {ANNOTATION_REF_NAME: "broken:1"}}
    edit_index(store, lambda entries: entries.append(entry))
    assert [f.kind for f in check(store).faults] == ["malformed"]
    check(store, repair=True)
    assert check(store).clean


def test_foreign_files_among_the_blobs(store: Store) -> None:
    (store.layout.blobs_dir / "README").write_text("x")
    (store.layout.blobs_dir / ("F" * 64)).write_text("x")
    assert [f.kind for f in check(store).faults] == ["foreign", "foreign"]


def test_leftovers_are_counted_and_no_fault(store: Store) -> None:
    clean = check(store)
    store.layout.put_bytes(b"stray" * 10_000, "x")
    store.layout.staging_dir.mkdir(exist_ok=True)
    (store.layout.staging_dir / "dead").write_bytes(b"x")
    report = check(store)
    assert report.clean
    assert report.unnamed_blobs == clean.unnamed_blobs + 1
    assert report.reclaimable_bytes > clean.reclaimable_bytes
