"""A kept initramfs is found by its key, intact or not at all; not by who wants all made anew."""

from __future__ import annotations

from pathlib import Path

from local_imager.oci.sparse import hash_file
from local_imager.store.intermediates import KeptInitramfs
from local_imager.store.store import Store

KEY = "ab" * 32


def kept(store: Store, folder: Path) -> KeptInitramfs:
    made = folder / "made"
    made.write_bytes(b"an initramfs")
    keeper = KeptInitramfs(store)
    facts = {"key": KEY, "digest": str(hash_file(made)[0])}
    keeper.keep(KEY, made, facts, private=False)
    return keeper


def test_what_was_kept_is_found_by_its_key_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    keeper = kept(store, tmp_path)
    facts = keeper.find(KEY, tmp_path / "found")
    assert facts is not None
    assert facts["key"] == KEY
    assert (tmp_path / "found").read_bytes() == b"an initramfs"
    assert keeper.find("cd" * 32, tmp_path / "other") is None


def test_who_wants_all_made_anew_finds_none(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    kept(store, tmp_path)
    assert KeptInitramfs(store, fresh=True).find(KEY, tmp_path / "found") is None
    assert not (tmp_path / "found").exists()


def test_a_damaged_one_is_none_and_no_asset(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    keeper = kept(store, tmp_path)
    digest, _ = hash_file(tmp_path / "made")
    blob = store.layout.blob_path(digest)
    blob.chmod(0o644)
    blob.write_bytes(b"AN INITRAMFS")
    assert keeper.find(KEY, tmp_path / "found") is None
    assert store.assets() == ()
