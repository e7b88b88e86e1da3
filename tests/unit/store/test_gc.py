"""Collection: what names reach stays, what is left goes, by age and size if asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from local_imager.errors import NotFound, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.intermediates import KeptInitramfs
from local_imager.store.records import StoredAsset
from local_imager.store.store import Store
from tests.images import IMAGE, make_sample
from tests.unit.store.test_store import put

AT_ONCE = Rules(grace_s=-1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def copy_sample(store: Store, tmp_path: Path) -> None:
    """Put the sample's images with their signatures into the store."""
    sample = make_sample(tmp_path / "sample")
    for path in sample.layout.blobs_dir.iterdir():
        store.layout.put_file(path, "x")
    for entry in sample.layout.entries():
        store.layout.set_ref(entry.ref_name, entry)


def blobs(store: Store) -> set[str]:
    return set(os.listdir(store.layout.blobs_dir))


def used_days_ago(store: Store, asset: StoredAsset, days: float) -> None:
    when = time.time() - days * 86_400
    for digest in (asset.digest, asset.manifest_digest):
        os.utime(store.layout.blob_path(digest), (when, when))


def test_what_names_reach_stays(store: Store, tmp_path: Path) -> None:
    copy_sample(store, tmp_path)
    asset = put(store)
    record = store.add_referrer(asset, "application/x-record", b"{}", "application/json")
    store.add_referrer(record, "application/x-signature", b"sig", "text/plain")
    before = blobs(store)
    done = collect(store, AT_ONCE)
    assert done.names == ()
    assert blobs(store) == before
    assert check(store).clean


def test_what_nothing_reaches_goes_after_its_grace_time(store: Store) -> None:
    stray = store.layout.put_bytes(b"stray", "x")
    assert collect(store).blobs == ()
    planned = collect(store, AT_ONCE, dry_run=True)
    assert planned.blobs == (stray.digest,) and store.layout.has(stray.digest)
    done = collect(store, AT_ONCE)
    assert done.blobs == (stray.digest,) and done.freed_bytes > 0
    assert not store.layout.has(stray.digest)


def test_a_removed_asset_goes_with_all_that_is_attached(store: Store) -> None:
    kept, gone = put(store, asset="kept"), put(store, b"2", asset="gone", key="b" * 64)
    record = store.add_referrer(gone, "application/x-record", b"{}", "application/json")
    store.add_referrer(record, "application/x-signature", b"sig", "text/plain")
    collect(store, AT_ONCE)
    done = collect(store, Rules(names=[gone.name]))
    assert gone.name in done.names and len(done.names) == 3
    assert store.assets() == (kept,)
    assert blobs(store) == {
        kept.digest.hex,
        kept.manifest_digest.hex,
        Digest.of(b"{}").hex,
    }
    with pytest.raises(NotFound):
        collect(store, Rules(names=[gone.name]))


def test_an_image_goes_with_its_signatures(store: Store, tmp_path: Path) -> None:
    copy_sample(store, tmp_path)
    done = collect(store, Rules(names=[str(IMAGE)]))
    assert len(done.names) == 3
    assert [entry.ref_name for entry in store.layout.entries()] == [
        "registry.example/siderolabs/single:v1.0.0"
    ]
    assert check(store).clean


def test_a_superseded_build_goes(store: Store) -> None:
    old, new = put(store, b"old", key="a" * 64), put(store, b"new", key="b" * 64)
    collect(store)
    assert store.find_build("a" * 64) is None
    assert not store.layout.has(old.digest)
    assert store.find_build("b" * 64) == new


def test_assets_go_by_age(store: Store, tmp_path: Path) -> None:
    copy_sample(store, tmp_path)
    old, fresh = put(store, b"1", asset="old", key="a" * 64), put(store, asset="fresh")
    used = put(store, b"3", asset="used", key="c" * 64)
    used_days_ago(store, old, 40)
    used_days_ago(store, used, 40)
    assert store.find_build("c" * 64) is not None
    done = collect(store, Rules(keep_days=30))
    assert done.names == (old.name,)
    assert store.assets() == (fresh, used)


def test_looking_is_no_use(store: Store) -> None:
    asset = put(store)
    used_days_ago(store, asset, 40)
    store.assets()
    store.show(asset.name)
    check(store)
    assert collect(store, Rules(keep_days=30)).names == (asset.name,)


def test_least_used_assets_go_until_the_store_fits(store: Store, tmp_path: Path) -> None:
    copy_sample(store, tmp_path)
    for number in range(4):
        data = bytes([number]) * 200_000
        asset = put(store, data, asset=f"asset-{number}", key=str(number) * 64)
        used_days_ago(store, asset, 10 - number)
    done = collect(store, Rules(max_bytes=550_000))
    assert [asset.asset for asset in store.assets()] == ["asset-2", "asset-3"]
    assert done.kept_bytes <= 550_000 and done.freed_bytes >= 400_000
    assert len(store.images()) == 2
    collect(store, Rules(max_bytes=0, images=True))
    assert store.layout.entries() == ()
    assert blobs(store) == set()


def test_nothing_is_collected_while_somebody_writes(store: Store) -> None:
    stray = store.layout.put_bytes(b"stray", "x")
    with store.layout.writing():
        with pytest.raises(StoreError) as caught, store.layout.alone(patience_s=0.1):
            pass
        assert caught.value.code == "busy"
        assert collect(store, AT_ONCE, dry_run=True).blobs == (stray.digest,)
    assert store.layout.has(stray.digest)


def test_leftovers_go(store: Store) -> None:
    long_ago = 1_000_000_000
    folder = store.work_dir / "dead"
    folder.mkdir()
    (folder / "big").write_bytes(b"x" * 100_000)
    store.layout.unverified_dir.mkdir()
    partial = store.layout.unverified_dir / ("a" * 64)
    partial.write_bytes(b"x" * 100_000)
    for path in (folder, partial):
        os.utime(path, (long_ago, long_ago))
    with store.build_lock("k" * 64):
        done = collect(store)
        assert (store.layout.locks_dir / f"build-{'k' * 64}").exists()
    assert sorted(done.scraps) == [f"unverified/{'a' * 64}", "work/dead"]
    assert done.freed_bytes >= 200_000
    assert not folder.exists() and not partial.exists()
    collect(store)
    assert not (store.layout.locks_dir / f"build-{'k' * 64}").exists()


def test_a_partial_download_in_progress_stays(store: Store) -> None:
    from tests.unit.oci.test_blobwriter import DATA, WANTED

    with store.layout.blob_writer(WANTED) as writer:
        writer.write(DATA)
        os.utime(store.layout.unverified_dir / WANTED.digest.hex, (1, 1))
        collect(store, AT_ONCE)
        writer.commit()
    assert Layout.open(store.path).intact(WANTED.digest)


def test_a_kept_initramfs_goes_by_age_and_size_as_assets_do(store: Store, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"an initramfs")
    digest = Digest.of(b"an initramfs")
    facts = {"key": "ab" * 32, "digest": str(digest)}
    KeptInitramfs(store).keep("ab" * 32, made, facts, private=True)
    assert store.layout.is_private(digest)
    assert collect(store, AT_ONCE).names == ()
    assert collect(store, Rules(keep_days=1, grace_s=-1)).names == ()
    assert collect(store, Rules(max_bytes=1 << 30, grace_s=-1)).names == ()
    assert check(store).clean
    old_s = time.time() - 3 * 86_400
    for blob in store.layout.blobs_dir.iterdir():
        os.utime(blob, (old_s, old_s))
    gone = collect(store, Rules(keep_days=1, grace_s=-1))
    assert gone.names == ("local-imager/initramfs/" + "ab" * 32,)
    assert digest in gone.blobs
    assert KeptInitramfs(store).find("ab" * 32, tmp_path / "found") is None
