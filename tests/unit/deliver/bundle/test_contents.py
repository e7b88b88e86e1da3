"""What a bundle holds: everything that belongs to its roots, nothing else, always in one order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.form.manifest import parse_bundle, render_bundle
from local_imager.deliver.bundle.form.model import Blob
from local_imager.deliver.bundle.form.words import ROLE_LOCK
from local_imager.deliver.bundle.near.contents import (
    DOCUMENT_PREFIX,
    AssetRoot,
    Contents,
    DocumentRoot,
    ImageRoot,
    compose,
)
from local_imager.errors import NotFound, SourceError
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_LAYER_GZIP,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    canonical_json,
)
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.store.records import ANNOTATION_BUILD_KEY
from local_imager.store.store import Store
from tests.unit.sources.forge import MEDIA_BUNDLE, REGISTRY
from tests.unit.sources.test_keep import NAME, SBOM, Place, attach, place, tagged
from tests.unit.store.test_store import put

__all__ = ["place"]
IMAGE = f"{REGISTRY}/{NAME}:v1.0.0"
LOCK = DocumentRoot("local-imager.lock", b"format = 1\n", "application/toml", ROLE_LOCK)


def root(place: Place, *arches: str) -> ImageRoot:
    return ImageRoot(IMAGE, place.top, arches or ("amd64",), ("base",), "a key")


def contents_of(place: Place, layout: Layout | None = None, **more: Any) -> Contents:
    return compose(layout or place.store.layout, [root(place)], [], [LOCK], **more)


def by_purpose(contents: Contents) -> dict[str, Blob]:
    return {blob.purpose: blob for blob in contents.blobs}


def index_of(contents: Contents) -> dict[str, dict[str, Any]]:
    entries = json.loads(contents.index)["manifests"]
    return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry for entry in entries}


def test_every_blob_is_there_once_with_its_purpose(place: Place) -> None:
    place.gather()
    contents = contents_of(place)
    purposes = set(by_purpose(contents))
    assert len({blob.digest for blob in contents.blobs}) == len(contents.blobs)
    image = f"{IMAGE} (linux/amd64)"
    assert {
        f"index of {IMAGE}",
        f"manifest of {image}",
        f"configuration of {image}",
        f"layer 1 of 1 of {image}",
        f"list of referrers of {IMAGE}",
        f"list of referrers of {image}",
        f"manifest of the signature of {IMAGE}",
        f"signature of {IMAGE}",
        f"SBOM of {IMAGE}",
        f"SBOM of {image}",
        f"attestation of {IMAGE}",
        f"attestation of {image}",
        f"signature of SBOM of {IMAGE}",
        "the document local-imager.lock",
        "empty configuration",
    } <= purposes
    layout = place.store.layout
    for blob in contents.blobs:
        made = contents.made.get(blob.digest)
        size = len(made) if made is not None else layout.blob_path(blob.digest).stat().st_size
        assert size == blob.size_bytes
    bundle = contents.bundle({"versions": ("v1.0.0",)})
    assert parse_bundle(render_bundle(bundle)) == bundle


def test_all_that_is_attached_travels_and_can_be_found_by_name(place: Place) -> None:
    place.gather()
    contents = contents_of(place)
    (item, _) = contents.items
    for what, artifact in place.expected.items():
        assert artifact.digest in item.blobs, what
    entries = index_of(contents)
    for suffix, what in (("att", "att"), ("sbom", "old sbom")):
        entry = entries[f"{REGISTRY}/{NAME}:sha256-{place.top.digest.hex}.{suffix}"]
        assert entry["digest"] == str(place.expected[what].digest)
    for digest, wanted in (
        (place.top.digest, [place.expected["signature"], place.expected["sbom"]]),
        (place.children[0].digest, [place.expected["of a child"]]),
        (place.expected["sbom"].digest, [place.expected["of the sbom"]]),
    ):
        entry = entries[f"{REGISTRY}/{NAME}:sha256-{digest.hex}"]
        listed = json.loads(contents.made[Digest.parse(entry["digest"])])["manifests"]
        assert [one["digest"] for one in listed] == [str(one.digest) for one in wanted]


def test_evidence_with_its_times_and_other_architectures_stay_at_home(place: Place) -> None:
    place.gather()
    layout = place.store.layout
    kept = [e for e in layout.referrers(place.top.digest) if e.artifact_type == ARTIFACT_EVIDENCE]
    assert len(kept) == 1
    contents = contents_of(place)
    digests = {blob.digest for blob in contents.blobs}
    assert kept[0].digest not in digests
    assert place.children[1].digest not in digests
    assert ARTIFACT_EVIDENCE.encode() not in b"".join(contents.made.values())
    for arch in ("arm64", "riscv64"):  # not fetched, and not there at all
        with pytest.raises(NotFound):
            compose(layout, [root(place, arch)], [], [])


def test_documents_come_first_by_digest_then_layers_by_item(place: Place) -> None:
    place.gather()
    other = place.forge.image("cni/flannel", "v1", {"b": b"y"}, ("amd64",))
    place.forge.sign_bundle("cni/flannel", other, place.signing.bundle(other.digest))
    place.sources().obtain_reference(place.forge.reference("cni/flannel", "v1"), ("amd64",))
    second = ImageRoot(f"{REGISTRY}/cni/flannel:v1", other, ("amd64",))
    layout = place.store.layout
    for roots in ([root(place), second], [second, root(place)]):
        contents = compose(layout, roots, [], [])
        documents = [blob for blob in contents.blobs if blob.document]
        assert list(contents.blobs[: len(documents)]) == documents
        assert documents == sorted(documents, key=lambda blob: blob.digest)
        layers = [b.purpose for b in contents.blobs if b.purpose.startswith("layer")]
        assert [name.split()[5] for name in layers] == [one.name for one in roots]
        assert [item.name for item in contents.items] == [one.name for one in roots]


def test_the_same_comes_from_stores_with_another_past(place: Place, tmp_path: Path) -> None:
    place.gather()
    first = contents_of(place)
    other = place._replace(store=Store.open(tmp_path / "other"))
    signatures = place.forge.layout.resolve(f"{REGISTRY}/{NAME}:sha256-{place.top.digest.hex}")
    assert signatures is not None
    # This store met the image when only its older signature was there, and the other architecture.
    place.forge.layout.remove_ref(signatures.ref_name)
    put(other.store)
    other.gather("arm64")
    place.forge.layout.set_ref(signatures.ref_name, signatures)
    other.gather()
    second = contents_of(other)
    assert render_bundle(first.bundle({})) == render_bundle(second.bundle({}))
    assert (first.index, first.made) == (second.index, second.made)


def test_a_look_at_manifests_alone_says_the_same(place: Place, tmp_path: Path) -> None:
    scratch = Layout.create(tmp_path / "scratch")
    place.gather(scratch=scratch)
    look = contents_of(place, scratch, whole=False)
    place.gather()
    assert look == contents_of(place)


def test_signatures_stand_first_in_a_list_as_a_gate_reads_only_so_many(place: Place) -> None:
    for number in range(8):
        attach(place.forge, place.top, SBOM, b"%d" % number)
        attach(place.forge, place.top, MEDIA_BUNDLE, b"%d" % number)
    place.gather()
    contents = contents_of(place)
    entry = index_of(contents)[f"{REGISTRY}/{NAME}:sha256-{place.top.digest.hex}"]
    listed = json.loads(contents.made[Digest.parse(entry["digest"])])["manifests"]
    kinds = [one["artifactType"] for one in listed]
    assert kinds == [MEDIA_BUNDLE] * 9 + [SBOM] * 9
    for kind in (MEDIA_BUNDLE, SBOM):
        digests = [one["digest"] for one in listed if one["artifactType"] == kind]
        assert digests == sorted(digests)


def test_an_attachment_that_is_not_all_there_is_left_out_with_a_sentence(place: Place) -> None:
    place.gather()
    layout = place.store.layout
    manifest = layout.read_manifest(place.expected["sbom"])
    layout.blob_path(manifest.layers[0].digest).unlink()  # type: ignore[union-attr]
    layout.blob_path(place.expected["att"].digest).unlink()
    contents = contents_of(place)
    digests = {blob.digest for blob in contents.blobs}
    assert place.expected["sbom"].digest not in digests
    assert place.expected["of the sbom"].digest not in digests
    assert len(contents.left_out) == 2
    assert f"SBOM of {IMAGE} does not travel: its blob" in contents.left_out[0]
    assert f"attestation of {IMAGE} does not travel" in contents.left_out[1]
    name = f"{REGISTRY}/{NAME}:sha256-{place.top.digest.hex}.att"
    assert name not in index_of(contents)


def test_what_names_a_private_file_of_the_store_stays_at_home(place: Place) -> None:
    place.gather()
    layout = place.store.layout
    manifest = layout.read_manifest(place.expected["sbom"])
    layout.blob_path(manifest.layers[0].digest).chmod(0o400)  # type: ignore[union-attr]
    contents = contents_of(place)
    digests = {blob.digest for blob in contents.blobs}
    assert place.expected["sbom"].digest not in digests
    assert manifest.layers[0].digest not in digests  # type: ignore[union-attr]
    assert any("private in this store" in sentence for sentence in contents.left_out)


def test_what_belongs_to_a_private_asset_travels_with_it(place: Place) -> None:
    asset = put(place.store)
    record = place.store.add_referrer(asset, "application/x-record", b"{}x", "application/json")
    manifest = place.store.layout.read_manifest(record)
    place.store.layout.blob_path(manifest.layers[0].digest).chmod(0o400)  # type: ignore[union-attr]
    entry = place.store.layout.resolve(asset.name)
    assert entry is not None
    contents = compose(place.store.layout, [], [AssetRoot(entry, "the ISO", ("amd64",))], [])
    assert record.digest in contents.items[0].blobs and contents.left_out == ()


def test_a_large_sbom_travels_once_like_a_layer_and_signatures_in_every_part(place: Place) -> None:
    large = attach(place.forge, place.top, SBOM, bytes(5 * 1024**2))
    tagged(place.forge, place.top, "att", bytes(4 * 1024**2 + 1))
    place.gather()
    contents = contents_of(place)
    blobs = {blob.digest: blob for blob in contents.blobs}
    manifest = place.store.layout.read_manifest(large)
    assert not blobs[manifest.layers[0].digest].document  # type: ignore[union-attr]
    assert blobs[large.digest].document
    assert by_purpose(contents)[f"signature of {IMAGE}"].document
    assert by_purpose(contents)[f"manifest of {IMAGE} (linux/amd64)"].document


def test_an_asset_travels_with_its_name_build_key_and_referrers(place: Place) -> None:
    asset = put(place.store)
    record = place.store.add_referrer(asset, "application/x-record", b"{}", "application/json")
    entry = place.store.layout.resolve(asset.name)
    assert entry is not None
    contents = compose(place.store.layout, [], [AssetRoot(entry, "the ISO", ("amd64",))], [])
    (item,) = contents.items
    assert (item.kind, item.name, item.arches) == ("asset", asset.name, ("amd64",))
    assert {asset.digest, asset.manifest_digest, record.digest} <= set(item.blobs)
    listed = index_of(contents)
    assert listed[asset.name]["annotations"][ANNOTATION_BUILD_KEY] == asset.build_key
    assert listed[f"sha256-{asset.manifest_digest.hex}"]["size"] > 0
    (file,) = [blob for blob in contents.blobs if not blob.document and blob.purpose == "the ISO"]
    assert file.digest == asset.digest


def test_a_document_is_an_artifact_of_one_layer(place: Place) -> None:
    private = replace(LOCK, name="secret.yaml", private=True)
    contents = compose(place.store.layout, [], [], [LOCK, private])
    plain, secret = contents.items
    assert (plain.name, plain.roles) == ("local-imager.lock", (ROLE_LOCK,))
    assert set(index_of(contents)) == {DOCUMENT_PREFIX + item.name for item in contents.items}
    manifest = json.loads(contents.made[plain.descriptor.digest])
    (layer,) = manifest["layers"]
    assert contents.made[Digest.parse(layer["digest"])] == LOCK.data
    assert "annotations" not in manifest
    marked = json.loads(contents.made[secret.descriptor.digest])["annotations"]
    assert marked == {"io.local-imager.private": "true"}


def test_a_single_manifest_has_no_architecture(place: Place) -> None:
    single = place.forge.manifest({"x": b"1"})
    plain = Descriptor(single.media_type, single.digest, single.size_bytes)
    name = f"{REGISTRY}/cni/single@{single.digest}"
    contents = compose(place.forge.layout, [ImageRoot(name, plain, ())], [], [])
    assert [item.arches for item in contents.items] == [()]
    assert f"manifest of {name}" in by_purpose(contents)
    assert f"layer 1 of 1 of {name}" in by_purpose(contents)


def test_manifests_that_differ_about_a_size_are_refused(place: Place) -> None:
    layout = place.forge.layout
    layer = layout.put_bytes(b"layer", MEDIA_LAYER_GZIP)
    roots = []
    for number, size in enumerate((5, 6)):
        config = layout.put_bytes(b'{"n":%d}' % number, "application/x-config")
        told = replace(layer, size_bytes=size)
        body = {"schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": config.as_dict()}
        raw = canonical_json({**body, "layers": [told.as_dict()]})
        entry = layout.put_bytes(raw, MEDIA_MANIFEST)
        roots.append(ImageRoot(f"{REGISTRY}/x:{number}", entry, ()))
    with pytest.raises(SourceError, match="5 bytes in one manifest and 6 in another"):
        compose(layout, roots, [], [])


def test_a_blob_that_one_item_reads_as_a_document_is_one_for_all(place: Place) -> None:
    layout = place.forge.layout
    empty = layout.put_bytes(b"{}", MEDIA_LAYER_GZIP)
    config = layout.put_bytes(b'{"os":"linux"}', "application/x-config")
    body = {"schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": config.as_dict()}
    entry = layout.put_bytes(canonical_json({**body, "layers": [empty.as_dict()]}), MEDIA_MANIFEST)
    name = f"{REGISTRY}/x:1"
    contents = compose(layout, [ImageRoot(name, entry, ())], [], [LOCK])
    (blob,) = [blob for blob in contents.blobs if blob.digest == empty.digest]
    assert blob.purpose == f"layer 1 of 1 of {name}"
    assert blob.document
