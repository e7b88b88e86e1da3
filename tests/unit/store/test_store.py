"""Assets in the store: kept by build key, found again, shown, never misread."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from local_imager.errors import InputError, NotFound, SourceError, StoreError
from local_imager.oci import indexlines, layout
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import MEDIA_MANIFEST, Reference
from local_imager.store.records import AssetRecord, StoredAsset
from local_imager.store.store import Store

SCHEMATIC = "5" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def put(
    store: Store,
    data: bytes = b"an image",
    *,
    asset: str = "metal-amd64.iso",
    key: str = "k" * 64,
    private: bool = False,
) -> StoredAsset:
    with store.workspace() as folder:
        path = folder / "file"
        path.write_bytes(data)
        record = AssetRecord(SCHEMATIC, "v1.13.0", asset, key, path, private=private)
        return store.put_asset(record)


def test_an_asset_is_found_by_its_build_key(store: Store) -> None:
    stored = put(store)
    assert stored.path.read_bytes() == b"an image"
    assert Store.open(store.path).find_build("k" * 64) == stored
    assert store.find_build("x" * 64) is None
    assert store.assets() == (stored,)
    assert (stored.schematic_id, stored.version, stored.asset) == (
        SCHEMATIC,
        "v1.13.0",
        "metal-amd64.iso",
    )


def test_the_same_build_gives_the_same_manifest(store: Store) -> None:
    assert put(store) == put(store)
    assert len(store.layout.entries()) == 1


def test_a_new_build_takes_the_name_and_the_old_is_still_found(store: Store) -> None:
    old = put(store, b"old", key="a" * 64)
    new = put(store, b"new", key="b" * 64)
    assert store.assets() == (new,)
    found = store.find_build("a" * 64)
    assert found is not None and found.digest == old.digest
    again = put(store, b"old", key="a" * 64)
    assert store.assets() == (again,)


def test_the_manifest_is_an_oci_artifact(store: Store) -> None:
    stored = put(store)
    manifest = json.loads(store.layout.blob_path(stored.manifest_digest).read_bytes())
    assert manifest["artifactType"] == "application/vnd.local-imager.asset.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    (layer,) = manifest["layers"]
    assert layer["digest"] == str(stored.digest)
    assert layer["annotations"]["org.opencontainers.image.title"] == "metal-amd64.iso"


@pytest.mark.parametrize("damage", ["removed", "changed", "shorter", "manifest removed"])
def test_a_damaged_build_is_not_found(store: Store, damage: str) -> None:
    stored = put(store)
    if damage == "manifest removed":
        store.layout.blob_path(stored.manifest_digest).unlink()
    elif damage == "removed":
        stored.path.unlink()
    else:
        stored.path.chmod(0o600)
        stored.path.write_bytes(b"AN IMAGE" if damage == "changed" else b"an")
    assert store.find_build("k" * 64) is None
    assert put(store).path.read_bytes() == b"an image"
    assert store.find_build("k" * 64) is not None


def test_secrets_are_for_the_owner_only(store: Store) -> None:
    stored = put(store, b"token: secret", private=True)
    record = store.add_referrer(stored, "application/x-record", b"secret", "text/plain")
    layer = store.layout.read_manifest(record).layers[0]  # type: ignore[union-attr]
    for path in (stored.path, store.layout.blob_path(layer.digest)):
        assert path.stat().st_mode & 0o777 == 0o400
    assert stored.private and store.find_build("k" * 64) == stored


def test_records_and_logs_stay_with_their_asset(store: Store) -> None:
    stored = put(store)
    store.add_referrer(stored, "application/x-log", b"one", "text/plain")
    store.add_referrer(stored, "application/x-log", b"two", "text/plain")
    store.add_referrer(stored, "application/x-record", b"{}", "application/json")
    assert store.read_referrers(stored, "application/x-log") == (b"one", b"two")
    assert store.read_referrers(stored, "application/x-none") == ()


@pytest.mark.parametrize(
    "name", ["{name}", "555/v1.13.0/metal-amd64.iso", "{digest}", "{manifest}", "kkkkkkkk"]
)
def test_ways_to_name_an_asset(store: Store, name: str) -> None:
    stored = put(store)
    put(store, b"other", asset="kernel-amd64", key="c" * 64)
    spelled = name.format(
        name=stored.name, digest=str(stored.digest)[:17], manifest=stored.manifest_digest
    )
    assert store.show(spelled) == stored


def test_names_that_fit_none_or_several(store: Store) -> None:
    put(store, asset="a", key="k" * 64)
    put(store, asset="b", key="k" * 64)
    with pytest.raises(InputError, match="fits 2 assets"):
        store.show("kkkkkkkk")
    for name in ("", "x", "kkk", "555/v1.13.0/c"):
        with pytest.raises(NotFound):
            store.show(name)


@pytest.mark.parametrize("part", ["", "a/b", "..\n"])
def test_names_that_cannot_be(store: Store, part: str) -> None:
    with pytest.raises(InputError):
        put(store, asset=part)
    assert store.assets() == ()


# Opening


def test_another_format_is_refused_in_clear_words(tmp_path: Path) -> None:
    Layout.create(tmp_path / "newer", annotations={"io.local-imager.store.format": "2"})
    Layout.create(tmp_path / "plain")
    for name, words in (("newer", "'2'"), ("plain", "not a store of this program")):
        with pytest.raises(StoreError, match=words) as caught:
            Store.open(tmp_path / name)
        assert caught.value.code == "store-format"


def test_places_that_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/somebody").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(StoreError, match="not empty"):
        Store.open(tmp_path / "full")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "file/below")
    with pytest.raises(NotFound):
        Store.open(tmp_path / "nothing", create=False)


def test_a_damaged_index_is_said_so(store: Store) -> None:
    (store.path / "index.json").write_text("{")
    with pytest.raises(SourceError, match=r"index\.json is not valid JSON"):
        Store.open(store.path)


# Working directories


def test_a_workspace_is_gone_afterwards(store: Store) -> None:
    with pytest.raises(RuntimeError), store.workspace() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        deep = folder / "read-only" / "deep"
        deep.mkdir(parents=True)
        (deep / "file").write_text("x")
        deep.chmod(0o500)
        raise RuntimeError
    assert os.listdir(store.work_dir) == []


def test_leftovers_of_dead_processes_are_cleaned_when_a_store_is_opened(store: Store) -> None:
    long_ago = 1_000_000_000
    with store.workspace() as living:
        dead = store.work_dir / "dead"
        (dead / "out").mkdir(parents=True)
        staging = store.layout.staging_dir / "dead"
        staging.parent.mkdir(exist_ok=True)
        staging.write_bytes(b"x")
        for path in (dead, living, staging):
            os.utime(path, (long_ago, long_ago))
        os.utime(store.layout.locks_dir / "cleaned", (long_ago, long_ago))
        Store.open(store.path)
        assert living.is_dir()
        assert not dead.exists() and not staging.exists()


ODD: Final[tuple[Mapping[str, str], ...]] = (
    {},
    {"artifactType": "vendor"},
    {"vendor.base": "sha256-" + "0" * 64},
    {"a": 'x", "artifactType": "y'},
)


def odd_images(store: Store) -> list[str]:
    """Name images whose annotations look like what other entries have."""
    plain = store.layout.put_bytes(b'{"schemaVersion":2}', MEDIA_MANIFEST)
    names = [f"registry.example/image/{n}:v1" for n in range(len(ODD))]
    for name, said in zip(names, ODD, strict=True):
        store.layout.set_ref(name, replace(plain, annotations=said))
    return names


def test_images_with_odd_annotations_are_images(store: Store) -> None:
    names = odd_images(store)
    assert [entry.ref_name for entry in store.images()] == names
    source = LayoutSource.open(store.path)
    for name in names:
        assert source.resolve(Reference.parse(name)).ref_name == name
    with pytest.raises(NotFound) as caught:
        source.resolve(Reference.parse("registry.example/other:v1"))
    assert all(name in caught.value.hint for name in names)


@pytest.mark.parametrize(("name", "ceiling"), [("MAX_INDEX_BYTES", 3000), ("MAX_ENTRIES", 4)])
def test_a_full_index_is_not_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, ceiling: int
) -> None:
    for module in (indexlines, layout):
        monkeypatch.setattr(module, name, ceiling)
    plain = store.layout.put_bytes(b"{}", MEDIA_MANIFEST)
    with pytest.raises(StoreError, match="is full") as caught:
        for number in range(60):
            store.layout.set_ref(f"registry.example/image:{number}", plain)
    assert "store gc" in caught.value.hint and caught.value.code == "index-full"
    again = Store.open(store.path)
    assert 4 <= len(again.images()) < 60
    assert again.remove("registry.example/image:0")
    again.layout.set_ref("registry.example/image:new", plain)
