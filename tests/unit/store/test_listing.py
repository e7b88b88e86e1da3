"""Lists and searches over many assets: from the index alone, and from older programs' indexes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.generated_store import fill, record_of
from local_imager.errors import InputError, NotFound
from local_imager.oci import indexlines
from local_imager.oci.indexlines import Document
from local_imager.oci.model import ANNOTATION_REF_NAME, Digest
from local_imager.store.fsck import check
from local_imager.store.records import (
    ANNOTATION_BUILD_KEY,
    ANNOTATION_FILE,
    ANNOTATION_SIZE,
    ARTIFACT_ASSET,
    AssetRecord,
    AttachedDocument,
    StoredAsset,
)
from local_imager.store.store import Store
from tests.images import IMAGE, SINGLE
from tests.unit.store.test_gc import copy_sample
from tests.unit.store.test_store import put

COUNT = 24


@pytest.fixture(params=[0, 1 << 20], ids=["marked", "unmarked"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(indexlines, "MARKED_FROM_BYTES", request.param)
    store = Store.open(tmp_path / "store")
    fill(store, COUNT)
    return store


def forget_facts(store: Store) -> None:
    """Make the index one of an older program, which says less in the entries of assets."""

    def change(document: Document) -> None:
        for entry in document["manifests"]:
            if entry.get("artifactType") == ARTIFACT_ASSET:
                said = entry["annotations"]
                entry["annotations"] = {
                    key: said[key]
                    for key in (ANNOTATION_BUILD_KEY, ANNOTATION_REF_NAME)
                    if key in said
                }

    store.layout.update_index(change)


def file_of(number: int) -> Digest:
    return Digest.of(b"file %d" % number)


def test_a_generated_store_is_one_of_ours(store: Store) -> None:
    assert check(store).clean
    assert len(store.assets()) == COUNT
    found = store.find_build(record_of(5).build_key)
    assert found is not None and found.name == record_of(5).name
    assert len(store.layout.referrers(found.manifest_digest)) == 3
    before = (store.path / "index.json").read_bytes()
    (store.work_dir / "again").write_bytes(b"file 5")
    assert store.put_asset(record_of(5, store.work_dir / "again")) == found
    assert len((store.path / "index.json").read_bytes()) == len(before)


def test_a_list_reads_no_manifest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    known = store.assets()
    monkeypatch.setattr(type(store.layout), "read_manifest", None)
    assert Store.open(store.path).assets() == known


def test_older_entries_are_listed_and_found_alike(store: Store) -> None:
    known = store.assets()
    forget_facts(store)
    assert ANNOTATION_FILE not in (store.path / "index.json").read_text()
    older = Store.open(store.path)
    assert older.assets() == known
    assert older.show(str(file_of(3))).name == record_of(3).name
    found = older.find_build(record_of(3).build_key)
    assert found is not None and found.digest == file_of(3)
    newer = put(older, b"file 3", asset="again", key="c" * 64)
    with pytest.raises(InputError, match="fits 2 assets"):
        older.show(newer.digest.hex)


def test_what_is_listed_wrongly_is_shown_rightly(store: Store) -> None:
    """An entry's annotations are only what its writer said: the manifest counts."""

    def say(document: Document, **wrong: str) -> None:
        for entry in document["manifests"]:
            if entry["annotations"].get(ANNOTATION_REF_NAME) == record_of(2).name:
                entry["annotations"] |= {ANNOTATION_FILE: str(Digest.of(b"other")), **wrong}

    store.layout.update_index(say)
    listed = {asset.name: asset for asset in store.assets()}
    assert listed[record_of(2).name].digest == Digest.of(b"other")
    assert store.show(record_of(2).name).digest == file_of(2)
    too_long = {ANNOTATION_SIZE: "9" * 16}
    store.layout.update_index(lambda document: say(document, **too_long))
    listed = {asset.name: asset for asset in store.assets()}
    assert listed[record_of(2).name].digest == file_of(2)


def test_an_asset_without_its_manifest_is_not_listed(store: Store) -> None:
    gone = store.show(record_of(1).name)
    store.layout.blob_path(gone.manifest_digest).unlink()
    assert gone.name not in {asset.name for asset in store.assets()}
    with pytest.raises(NotFound):
        store.show(gone.name)


def test_images_are_told_from_all_that_is_attached(store: Store, tmp_path: Path) -> None:
    copy_sample(store, tmp_path)
    assert [entry.ref_name for entry in store.images()] == sorted([str(IMAGE), str(SINGLE)])


def put_with_documents(store: Store, *, private: bool = False) -> StoredAsset:
    path = store.work_dir / "file"
    path.write_bytes(b"an image")
    record = AssetRecord("5" * 64, "v1.13.0", "x.iso", "a" * 64, path, private=private)
    return store.put_asset(
        record,
        documents=lambda digest: [
            AttachedDocument("application/x-record", str(digest).encode(), "text/plain"),
            AttachedDocument("application/x-log", b"log", "text/plain"),
        ],
    )


def test_documents_come_with_their_asset_in_one_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[int] = []
    plain = type(store.layout).rewrite_index

    def counted(self: object, *made: object) -> None:
        changes.append(len(made))
        plain(self, *made)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store.layout), "rewrite_index", counted)
    stored = put_with_documents(store)
    assert changes == [1]
    assert store.read_referrers(stored, "application/x-record") == (str(stored.digest).encode(),)
    more = store.add_referrer(stored, "application/x-log", b"second", "text/plain")
    assert store.read_referrers(stored, "application/x-log") == (b"log", b"second")
    assert store.layout.referrers(stored.manifest_digest)[-1].digest == more.digest
    assert put_with_documents(store) == stored
    assert len(store.layout.referrers(stored.manifest_digest)) == 3
    assert check(store).clean


def test_documents_of_a_secret_asset_are_for_the_owner_only(store: Store) -> None:
    stored = put_with_documents(store, private=True)
    for document in (b"log", str(stored.digest).encode()):
        path = store.layout.blob_path(Digest.of(document))
        assert path.stat().st_mode & 0o777 == 0o400
    assert [asset.name for asset in store.assets() if asset.private] == [stored.name]
