"""Bundles that are well formed but not honest: nothing of what they claim becomes visible."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far.importing import import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.deliver.bundle.far.report import ImportReport
from local_imager.deliver.bundle.form.model import Blob, Bundle, Item
from local_imager.deliver.bundle.near.contents import ARTIFACT_DOCUMENT, Contents
from local_imager.deliver.bundle.near.split import whole_part
from local_imager.errors import ExitCode, SettingsError
from local_imager.events import NULL_SINK
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    canonical_json,
)
from local_imager.store.fsck import check
from local_imager.store.records import ANNOTATION_BUILD_KEY, ARTIFACT_ASSET, ASSET_PREFIX
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide
from tests.unit.sources.forge import REGISTRY

GOOD = f"{REGISTRY}/siderolabs/good:v1"


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    near = NearSide(tmp_path)
    near.image("siderolabs/good", size_bytes=2000)
    return near


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def take(
    near: NearSide, store: Store, contents: Contents, bundle: Bundle, **more: bytes
) -> ImportReport:
    extra = {Digest.of(data): data for data in more.values()}
    files = near.write_bundle(contents, bundle, extra=extra)
    done = import_files([str(p) for p in files], store, Wishes(near.policy()), NULL_SINK)
    assert check(store).clean
    return done.reports[0]


def the(report: ImportReport, name: str) -> tuple[str, str]:
    (found,) = [one for one in report.outcomes if one.item.name == name]
    return found.state, found.code


def with_item(bundle: Bundle, item: Item, *documents: bytes) -> Bundle:
    """The bundle with another item, over documents that are not in it yet."""
    blobs = {blob.digest: blob for blob in bundle.blobs}
    for data in documents:
        digest = Digest.of(data)
        blobs[digest] = Blob(digest, len(data), "a document", document=True)
    first = sorted((b for b in blobs.values() if b.document), key=lambda blob: blob.digest)
    rest = [blob for blob in bundle.blobs if not blob.document]
    return replace(bundle, items=(*bundle.items, item), blobs=(*first, *rest))


def with_index(contents: Contents, bundle: Bundle, *entries: Descriptor) -> tuple[Contents, Bundle]:
    """Both with more entries in index.json."""
    document = json.loads(contents.index)
    document["manifests"] += [entry.as_dict() for entry in entries]
    data = canonical_json(document)
    index = Descriptor.of(data, MEDIA_INDEX)
    return replace(contents, index=data), replace(bundle, index=index)


def manifest_of(layer: bytes, artifact_type: str, annotations: dict[str, str]) -> bytes:
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "artifactType": artifact_type,
            "config": Descriptor.of(b"{}", MEDIA_EMPTY).as_dict(),
            "layers": [Descriptor.of(layer, "application/octet-stream").as_dict()],
            "annotations": annotations,
        }
    )


@pytest.mark.parametrize(
    "name",
    [
        "local-imager/asset/5/v1.13.0/metal-amd64.iso",
        "local-imager/incoming/aaaaaaaaaaaa",
        f"{REGISTRY}/siderolabs/good",
        f"{REGISTRY}/siderolabs/good:sha256-{'a' * 64}.sig",
        f"{REGISTRY}/siderolabs/other:v1",
        f"{REGISTRY.upper()}/siderolabs/good:v1",
    ],
)
def test_an_image_under_a_name_that_is_not_its_own(near: NearSide, store: Store, name: str) -> None:
    contents = near.contents()
    bundle = near.bundle(contents)
    item = replace(bundle.items[0], name=name)
    report = take(near, store, contents, replace(bundle, items=(*bundle.items, item)))
    assert the(report, name)[0] == "refused"
    assert the(report, GOOD)[0] == "imported"
    assert store.layout.resolve(name) is None


def test_manifest_and_index_name_two_images(near: NearSide, store: Store) -> None:
    near.image("siderolabs/evil", signed=False)
    contents = near.contents()
    bundle = near.bundle(contents)
    everything = tuple(blob.digest for blob in bundle.blobs)
    item = replace(bundle.items[1], name=GOOD, blobs=everything)
    report = take(near, store, contents, replace(bundle, items=(item,)))
    assert the(report, GOOD) == ("refused", "malformed")
    assert "two images" in report.outcomes[0].message
    assert store.layout.resolve(GOOD) is None


def drop_layer(item: Item, bundle: Bundle) -> tuple[Item, tuple[Blob, ...]]:
    layers = [b.digest for b in bundle.blobs if "layer" in b.purpose]
    kept = tuple(digest for digest in item.blobs if digest not in layers)
    return replace(item, blobs=kept), tuple(b for b in bundle.blobs if b.digest not in layers)


def grow_layer(item: Item, bundle: Bundle) -> tuple[Item, tuple[Blob, ...]]:
    return item, tuple(
        replace(b, size_bytes=b.size_bytes - 1, carried=False) if "layer" in b.purpose else b
        for b in bundle.blobs
    )


def test_a_name_that_is_spelt_otherwise_than_it_would_be_kept(near: NearSide, store: Store) -> None:
    contents = near.contents()
    bundle = near.bundle(contents)
    name = f"{REGISTRY}/siderolabs/good:@{bundle.items[0].descriptor.digest}"
    item = replace(bundle.items[0], name=name)
    report = take(near, store, contents, replace(bundle, items=(item,)))
    assert the(report, name) == ("refused", "malformed")


def test_a_layer_that_only_another_image_lists(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/same", {"x": b"1"})
    contents = near.contents()
    bundle = near.bundle(contents)
    layers = [blob.digest for blob in bundle.blobs if "layer" in blob.purpose]
    good, same = bundle.items
    good = replace(good, blobs=tuple(digest for digest in good.blobs if digest not in layers))
    same = replace(same, blobs=(*same.blobs, layers[0]))
    report = take(near, store, contents, replace(bundle, items=(good, same)))
    assert the(report, GOOD) == the(report, name) == ("refused", "malformed")
    assert "which it needs" in report.outcomes[0].message


@pytest.mark.parametrize("change", [drop_layer, grow_layer])
def test_a_bundle_that_tells_less_than_the_image_needs(
    near: NearSide,
    store: Store,
    change: Callable[[Item, Bundle], tuple[Item, tuple[Blob, ...]]],
) -> None:
    contents = near.contents()
    bundle = near.bundle(contents)
    item, blobs = change(bundle.items[0], bundle)
    report = take(near, store, contents, replace(bundle, items=(item,), blobs=blobs, parts=((),)))
    assert the(report, GOOD) == ("refused", "malformed")
    assert store.layout.resolve(GOOD) is None


def with_junk(near: NearSide, contents: Contents, number: int, junk: bytes) -> Bundle:
    """The bundle with a blob that an item lists and no manifest names."""
    bundle = near.bundle(contents)
    blob = Blob(Digest.of(junk), len(junk), "a layer")
    items = list(bundle.items)
    items[number] = replace(items[number], blobs=(*items[number].blobs, blob.digest))
    blobs = (*bundle.blobs, blob)
    return replace(bundle, items=tuple(items), blobs=blobs, parts=(whole_part(blobs),))


@pytest.mark.parametrize("number", [0, 1])
def test_a_blob_that_no_manifest_names_does_not_ride_along(
    near: NearSide, store: Store, number: int
) -> None:
    asset = near.asset(b"iso")
    contents, junk = near.contents(), os.urandom(500)
    bundle = with_junk(near, contents, number, junk)
    report = take(near, store, contents, bundle, junk=junk)
    name, other = (GOOD, asset.name) if number == 0 else (asset.name, GOOD)
    assert the(report, name) == ("refused", "malformed") and the(report, other)[0] == "imported"
    (message,) = [one.message for one in report.outcomes if one.item.name == name]
    assert "no manifest of it names" in message
    assert not store.layout.has(Digest.of(junk))


@pytest.mark.parametrize(
    "case", ["name", "key", "type", "other", "file", "version", "schematic", "build"]
)
def test_an_asset_whose_manifest_says_something_else(
    near: NearSide, store: Store, case: str
) -> None:
    file = "metal-amd64.iso" if case != "file" else "..%2fmetal.iso"
    version = "v1.13.0" if case != "version" else "v1.013"
    schematic = "5" * 64 if case != "schematic" else "5" * 63 + "G"
    build = "a" * 64 if case != "build" else "a"
    layer, name = b"file", f"{ASSET_PREFIX}{schematic}/{version}/{file}"
    said = {
        "io.local-imager.asset.name": file,
        "io.local-imager.schematic.id": schematic,
        "io.local-imager.talos.version": version if case != "name" else "v1.12.0",
        ANNOTATION_BUILD_KEY: build,
    }
    kind = ARTIFACT_ASSET if case != "type" else "application/x-other"
    manifest = manifest_of(layer, kind, said)
    key = build if case != "key" else "b" * 64
    entry = Descriptor.of(
        manifest,
        MEDIA_MANIFEST,
        annotations={
            ANNOTATION_REF_NAME: name if case != "other" else name + "x",
            ANNOTATION_BUILD_KEY: key,
        },
        artifact_type=kind,
    )
    contents = near.contents()
    contents, bundle = with_index(contents, near.bundle(contents), entry)
    plain = Descriptor(MEDIA_MANIFEST, entry.digest, entry.size_bytes)
    blobs = (entry.digest, Digest.of(b"{}"), Digest.of(layer))
    bundle = with_item(bundle, Item("asset", name, plain, blobs), manifest, b"{}", layer)
    report = take(near, store, contents, bundle, manifest=manifest, layer=layer, empty=b"{}")
    assert the(report, name) == ("refused", "malformed")
    assert store.assets() == () and the(report, GOOD)[0] == "imported"


def test_a_document_with_two_files(near: NearSide, store: Store) -> None:
    layer = os.urandom(20)
    body = json.loads(manifest_of(layer, ARTIFACT_DOCUMENT, {}))
    body["layers"] *= 2
    manifest = canonical_json(body)
    plain = Descriptor.of(manifest, MEDIA_MANIFEST)
    item = Item("document", "lock", plain, (plain.digest, Digest.of(b"{}"), Digest.of(layer)))
    contents = near.contents()
    bundle = with_item(near.bundle(contents), item, manifest, b"{}", layer)
    files = near.write_bundle(
        contents, bundle, extra={Digest.of(d): d for d in (manifest, b"{}", layer)}
    )
    wishes = Wishes(near.policy(), documents=True)
    (report,) = import_files([str(p) for p in files], store, wishes, NULL_SINK).reports
    assert the(report, "lock") == ("refused", "malformed")
    assert report.exit_code == ExitCode.VERIFICATION_REFUSED


def test_what_is_attached_to_an_asset_must_name_it(near: NearSide, store: Store) -> None:
    asset = near.asset(b"asset")
    contents = near.contents()
    other = canonical_json({**_loaded(manifest_of(b"x", "application/x-record", {}))})
    foreign = Descriptor.of(other, MEDIA_MANIFEST, artifact_type="application/x-record")
    body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [foreign.as_dict()]}
    listed = canonical_json(body)
    tag = f"sha256-{asset.manifest_digest.hex}"
    document = _loaded(contents.index)
    document["manifests"] = [
        entry for entry in document["manifests"] if entry["annotations"][ANNOTATION_REF_NAME] != tag
    ]
    contents = replace(contents, index=canonical_json(document))
    entry = Descriptor.of(listed, MEDIA_INDEX, annotations={ANNOTATION_REF_NAME: tag})
    contents, bundle = with_index(contents, near.bundle(contents), entry)
    item = bundle.items[1]
    more = (Digest.of(listed), Digest.of(other), Digest.of(b"x"))
    item = replace(item, blobs=(*item.blobs, *more))
    bundle = with_item(replace(bundle, items=bundle.items[:1]), item, listed, other, b"x")
    report = take(near, store, contents, bundle, listed=listed, other=other, x=b"x")
    assert the(report, asset.name) == ("refused", "malformed")
    assert store.assets() == ()


def _loaded(data: bytes) -> dict[str, list[dict[str, dict[str, str]]]]:
    loaded: dict[str, list[dict[str, dict[str, str]]]] = json.loads(data)
    return loaded


def test_a_policy_that_cannot_be_asked_is_an_error_and_no_refusal(
    near: NearSide, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unusable(*_: object, **__: object) -> None:
        raise SettingsError("the trusted root cannot be read")

    monkeypatch.setattr("local_imager.deliver.bundle.far.judging.verify_image", unusable)
    with pytest.raises(SettingsError):
        import_files([str(p) for p in near.write()], store, Wishes(near.policy()), NULL_SINK)
    assert store.layout.entries() == ()
