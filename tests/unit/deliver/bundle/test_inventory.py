"""The list of what the far side has: what is in it, and that only our own spelling is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.form import inventory as module
from local_imager.deliver.bundle.form.inventory import (
    Inventory,
    Named,
    make_inventory,
    parse_inventory,
    read_inventory,
    render_inventory,
)
from local_imager.errors import InputError, SourceError
from local_imager.events import RecordingSink
from local_imager.oci.model import MEDIA_LAYER_TAR, Descriptor, Digest, Reference
from local_imager.store.incoming import hold
from local_imager.store.store import Store
from tests.images import put_image
from tests.unit.store.test_store import put

IMAGE = Reference.parse("registry.example/siderolabs/tools:v1.0.0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_everything_that_a_name_reaches_is_listed(store: Store) -> None:
    asset = put(store)
    image = put_image(store.layout, "amd64", {"hello": b"1"})
    store.layout.set_ref(str(IMAGE), image)
    signature = store.layout.attach(image, "signature/type", b"signed", "text/plain")
    found = make_inventory(store)
    on_disk = {Digest(path.name): path.stat().st_size for path in store.layout.blobs_dir.iterdir()}
    assert found.blobs == on_disk
    assert found.holds(asset.digest)
    assert found.holds(signature.digest)
    assert found.names == ()


def test_what_no_name_reaches_is_not_listed(store: Store) -> None:
    loose = store.layout.put_bytes(b"nobody names it", "text/plain")
    assert not make_inventory(store).holds(loose.digest)


def test_a_damaged_blob_is_not_listed(store: Store) -> None:
    asset = put(store)
    asset.path.chmod(0o644)
    asset.path.write_bytes(b"x" * asset.size_bytes)
    found = make_inventory(store)
    assert not found.holds(asset.digest)
    assert found.holds(asset.manifest_digest)


def test_a_blob_of_another_size_is_not_listed(store: Store) -> None:
    asset = put(store)
    os.truncate(asset.path, 0)
    assert not make_inventory(store).holds(asset.digest)


def test_what_came_of_an_incomplete_import_is_listed(store: Store) -> None:
    here = store.layout.put_bytes(b"arrived", MEDIA_LAYER_TAR)
    awaited = Descriptor(MEDIA_LAYER_TAR, Digest.of(b"not yet"), 7)
    hold(store.layout, Digest.of(b"set"), [here, awaited])
    found = make_inventory(store, names=True)
    assert found.holds(here.digest)
    assert not found.holds(awaited.digest)
    assert found.names == ()


def test_names_only_when_asked(store: Store) -> None:
    asset = put(store)
    image = put_image(store.layout, "amd64", {"hello": b"1"})
    store.layout.set_ref(str(IMAGE), image)
    store.layout.attach(image, "signature/type", b"signed", "text/plain")
    plain, told = make_inventory(store), make_inventory(store, names=True)
    named = {Named(asset.name, asset.manifest_digest), Named(str(IMAGE), image.digest)}
    assert set(told.names) == named
    assert asset.schematic_id.encode() not in render_inventory(plain)
    assert b"registry.example" not in render_inventory(plain)
    assert str(store.path).encode() not in render_inventory(told)


def test_progress_is_told(store: Store) -> None:
    put(store)
    sink = RecordingSink()
    made = make_inventory(store, sink=sink)
    assert [(e.done, e.total) for e in sink.events] == [(len(made.blobs),) * 2]  # type: ignore[union-attr]


def sample() -> Inventory:
    blobs = {Digest.of(b"%d" % number): number for number in range(5)}
    return Inventory(blobs, (Named("a", Digest.of(b"0")), Named("b", Digest.of(b"1"))))


def test_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "far.json"
    path.write_bytes(render_inventory(sample()))
    found = read_inventory(path)
    assert found == sample()
    assert found.digest == sample().digest == Digest.of(path.read_bytes())


def test_the_order_in_which_blobs_were_found_does_not_matter() -> None:
    turned = Inventory(dict(reversed([*sample().blobs.items()])), sample().names[::-1])
    assert turned.digest == sample().digest


def test_other_spaces_and_line_ends_are_the_same_inventory() -> None:
    document = json.dumps(json.loads(render_inventory(sample())), indent=2)
    assert parse_inventory(document.replace("\n", "\r\n").encode()).digest == sample().digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(format=2), "reads 1"),
        (lambda d: d.update(mediaType="text/plain"), "mediaType"),
        (lambda d: d.update(time=1), "'time' is not a field"),
        (lambda d: d.pop("blobs"), "'blobs' is missing"),
        (lambda d: d["blobs"].reverse(), "in order"),
        (lambda d: d["blobs"].append(d["blobs"][-1]), "in order"),
        (lambda d: d["blobs"][0].update(path="/srv"), "'path' is not a field"),
        (lambda d: d["blobs"][0].update(size=-1), "'size' wants"),
        (lambda d: d["blobs"][0].update(digest="md5:00"), "'digest' wants"),
        (lambda d: d["blobs"].pop(), "with their blobs"),
        (lambda d: d["names"].reverse(), "in order"),
        (lambda d: d["names"][0].update(name="a\nb"), "printable"),
    ],
)
def test_another_document_is_refused(change: Any, said: str) -> None:
    last = max(sample().blobs)
    named = Inventory(sample().blobs, (*sample().names, Named("c", last)))
    document = json.loads(render_inventory(named))
    change(document)
    with pytest.raises(SourceError, match=said) as caught:
        parse_inventory(json.dumps(document).encode())
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format":1,"format":1}', b"\xff", b"[" * 100_000])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        parse_inventory(data)
    assert caught.value.code == "malformed"


def test_a_huge_document_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_COMMAS", 10)
    with pytest.raises(SourceError, match="more than a store holds"):
        parse_inventory(render_inventory(sample()))
    monkeypatch.setattr(module, "MAX_INVENTORY_BYTES", 10)
    with pytest.raises(SourceError, match="larger than 10 bytes"):
        parse_inventory(b"{" + b" " * 11)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the inventory") as caught:
        read_inventory(tmp_path / "none.json")
    assert "store inventory" in caught.value.hint
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_inventory(tmp_path / "pipe")
