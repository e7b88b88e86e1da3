"""Creating with a key, in parts, and as a delta: what lies beside, and what is left out."""

from __future__ import annotations

import os
import tarfile

import pytest

from local_imager.deliver.bundle.form.inventory import make_inventory
from local_imager.deliver.bundle.form.signing import (
    check_signature,
    load_private_key,
    read_signature,
)
from local_imager.deliver.bundle.near.create import Created
from local_imager.errors import InputError
from local_imager.oci.model import (
    MEDIA_CONFIG,
    MEDIA_LAYER_TAR,
    MEDIA_MANIFEST,
    Reference,
    canonical_json,
)
from local_imager.sources.patterns import BUNDLES
from local_imager.store.store import Store
from tests.unit.deliver.bundle.making import (
    Making,
    faults_of,
    key_file,
    making,
    miniature,
    seeded,
)
from tests.unit.sources.forge import REGISTRY, Signing

__all__ = ["making", "miniature", "seeded"]


def test_it_is_signed_by_the_key_that_was_given(making: Making) -> None:
    signer = Signing()
    key = load_private_key(key_file(making.path / "store" / "k.pem", signer))
    created = making.create(making.further(), key=key)
    assert created.signature == making.path / "site.tar.sigstore.json"
    assert created.signer == key.public.key_id
    with tarfile.open(created.parts[0].path) as archive:
        member = archive.extractfile("bundle.json")
        assert member is not None
        manifest = member.read()
    signature = read_signature([created.parts[0].path])
    accepted = check_signature(manifest, signature, signer.policy(BUNDLES))
    assert accepted is not None
    unsigned = making.create(making.further(), "other.tar")
    assert (unsigned.signature, unsigned.signer) == (None, "")
    assert unsigned.parts[0].path.read_bytes() == created.parts[0].path.read_bytes()


def test_a_signature_that_is_right_stays_and_another_goes_by_force_only(making: Making) -> None:
    first, second = Signing(), Signing()
    folder = making.path / "store"
    key = load_private_key(key_file(folder / "1.pem", first))
    other = load_private_key(key_file(folder / "2.pem", second))
    path = making.path / "site.tar.sigstore.json"
    making.create(making.further(), key=key)
    before = path.read_bytes()
    assert making.create(making.further(), key=key).signature == path
    kept = making.create(making.further())
    assert (kept.signature, kept.signer) == (path, "")
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="is not the signature of this bundle by this key"):
        making.create(making.further(), key=other)
    assert making.create(making.further(), key=other, force=True).signer == other.public.key_id
    with pytest.raises(InputError, match="is not the signature of this bundle"):
        making.create(making.order(), "site.tar")
    making.create(making.order(), "site.tar", force=True)
    assert not path.exists()
    assert any("signed another bundle and is removed" in text for text in making.said("warning"))


def test_parts_have_their_names_their_limit_and_one_signature(making: Making) -> None:
    key = load_private_key(key_file(making.path / "store" / "k.pem", Signing()))
    created = making.create(making.further(), limit_bytes=120_000, key=key)
    count = len(created.parts)
    assert count > 2
    assert [part.path.name for part in created.parts] == [
        f"site.part{number}of{count}.tar" for number in range(1, count + 1)
    ]
    assert all(part.size_bytes <= 120_000 for part in created.parts)
    assert all(faults_of(part.path) == () for part in created.parts)
    assert created.signature == making.path / "site.tar.sigstore.json"
    look = making.look(making.further(), limit_bytes=120_000, force=True)
    assert look.part_bytes == tuple(part.size_bytes for part in created.parts)
    again = making.create(making.further(), limit_bytes=200_000, force=True)
    warned = [text for text in making.said("warning") if "is of another set" in text]
    assert len(warned) == count
    packed = making.create(making.further(), "site.tar.zst", limit_bytes=200_000, packed=True)
    assert [part.path.name for part in packed.parts] == [
        part.path.name + ".zst" for part in again.parts
    ]


def test_a_delta_leaves_out_what_the_far_side_has(making: Making) -> None:
    everything = making.create(making.rich(), "all.tar")
    far = make_inventory(Store.open(making.path / "store"))
    delta = making.create(making.rich(), "delta.tar", since=far)
    layers = [blob for blob in everything.bundle.blobs if not blob.document]
    assert delta.left_out_bytes == sum(blob.size_bytes for blob in layers)
    assert delta.bundle.since == far.digest
    assert [blob for blob in delta.bundle.blobs if blob.carried] == [
        blob for blob in everything.bundle.blobs if blob.document
    ]
    assert faults_of(delta.parts[0].path) == ()
    look = making.look(making.rich(), since=far)
    assert (look.size_bytes, look.bundle) == (delta.size_bytes, delta.bundle)


def test_a_layer_that_resembles_one_over_there_travels_as_a_difference(making: Making) -> None:
    layout = Store.open(making.path / "store").layout
    making.apart()
    noise = os.urandom(3_000_000)
    made: list[Created] = []
    for tag, last in (("v1", b"old"), ("v2", b"new")):
        layer = making.forge.layout.put_bytes(noise + last, MEDIA_LAYER_TAR)
        config = making.forge.layout.put_bytes(
            b'{"architecture":"amd64","os":"linux"}', MEDIA_CONFIG
        )
        body = {"schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": config.as_dict()}
        raw = canonical_json({**body, "layers": [layer.as_dict()]})
        top = making.forge.layout.put_bytes(raw, MEDIA_MANIFEST)
        making.forge.layout.set_ref(f"{REGISTRY}/app/app:{tag}", top)
        making.forge.sign_bundle("app/app", top, making.signing.bundle(top.digest))
        image = Reference.parse(f"{REGISTRY}/app/app:{tag}")
        order = making.order(versions=(), images=(image,))
        since = make_inventory(Store.open(making.path / "store")) if made else None
        made.append(making.create(order, f"{tag}.tar", since=since))
    first, second = made
    (blob,) = second.rebuilt
    assert blob.size_bytes == 3_000_003
    assert blob.rebuild is not None and not blob.carried
    payload = second.bundle.by_digest[blob.rebuild.payload]
    assert second.differences_bytes == payload.size_bytes < 100_000
    assert layout.intact(payload.digest, payload.size_bytes)
    assert faults_of(second.parts[0].path) == ()
    assert second.size_bytes < first.size_bytes / 10
    whole = making.create(order, "whole.tar", since=since, deltas=False)
    assert (whole.rebuilt, whole.differences_bytes) == ((), 0)
    assert whole.bundle.by_digest[blob.digest].carried
    assert whole.left_out_bytes == second.left_out_bytes
