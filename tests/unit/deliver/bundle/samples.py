"""Small manifests whose every number is known, for tests of what is said about bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from local_imager.deliver.bundle.form.manifest import render_bundle, render_label
from local_imager.deliver.bundle.form.model import (
    MANIFEST_NAME,
    PART_NAME,
    Blob,
    Bundle,
    Item,
    Kind,
    PartLabel,
    Piece,
    Rebuild,
)
from local_imager.deliver.bundle.form.tarform import member_header, padding
from local_imager.oci.model import MEDIA_INDEX, MEDIA_MANIFEST, Descriptor, Digest

IMAGER = "registry.example/siderolabs/imager:v1.13.0"
TOOLS = "registry.example/siderolabs/tools:v1.0.0"
SCHEMATIC = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
ASSET = f"local-imager/asset/{SCHEMATIC}/v1.13.0/metal-amd64.iso"
LOCK = "local-imager.lock"
SIGNER = f"sha256:{'0f8c' * 16}"


def digest(name: str) -> Digest:
    """Return the digest that stands for a blob of this name."""
    return Digest.of(name.encode())


def blob(name: str, size_bytes: int, *, document: bool = False, carried: bool = True) -> Blob:
    """Return a blob that is told by its name."""
    return Blob(digest(name), size_bytes, f"the {name}", document, carried)


def item(kind: Kind, name: str, *blobs: Blob, **more: tuple[str, ...]) -> Item:
    """Return an item over blobs; the first is its manifest."""
    top = Descriptor(MEDIA_MANIFEST, blobs[0].digest, blobs[0].size_bytes)
    signer = SIGNER if kind == "image" else ""
    return Item(kind, name, top, tuple(one.digest for one in blobs), signer=signer, **more)


def whole(one: Blob) -> Piece:
    """Return the piece that is all of a blob."""
    return Piece(one.digest, 0, one.size_bytes, one.digest, True)


def sample() -> Bundle:
    """Return a bundle of two images that share a layer, an asset and a lock, in one part."""
    base, tools = blob("imager manifest", 900, document=True), blob("tools", 700, document=True)
    iso, lock = blob("asset manifest", 500, document=True), blob("lock", 300, document=True)
    shared, own = blob("shared layer", 10_000), blob("imager layer", 70_000)
    file = blob("iso", 40_000)
    return Bundle(
        index=Descriptor(MEDIA_INDEX, digest("index"), 2_000),
        items=(
            item("image", IMAGER, base, shared, own, roles=("base", "builder"), arches=("amd64",)),
            item("image", TOOLS, tools, shared, arches=("amd64",)),
            item("asset", ASSET, iso, file),
            item("document", LOCK, lock),
        ),
        blobs=(*sorted((base, tools, iso, lock), key=lambda one: one.digest), shared, own, file),
        parts=((whole(shared), whole(own), whole(file)),),
        facts={"versions": ("v1.13.0",), "arches": ("amd64",), "registry": ("registry.example",)},
    )


def in_two_parts() -> Bundle:
    """Return the sample with its largest layer cut in the middle."""
    bundle = sample()
    shared, layer, file = bundle.parts[0]
    first = Piece(layer.blob, 0, 50_000, digest("first segment"), False)
    second = Piece(layer.blob, 50_000, 20_000, digest("second segment"), False)
    return replace(bundle, parts=((shared, first), (second, file)))


def as_delta() -> Bundle:
    """Return the sample for a far side that has the shared layer, and one like the file."""
    bundle = sample()
    patch = blob("patch", 1_500)
    way = Rebuild(base=digest("file before"), payload=patch.digest, method="zstd-patch")
    changes: Mapping[Digest, Blob] = {
        digest("shared layer"): blob("shared layer", 10_000, carried=False),
        digest("iso"): replace(blob("iso", 40_000, carried=False), rebuild=way),
    }
    blobs = tuple(changes.get(one.digest, one) for one in bundle.blobs)
    layer = bundle.parts[0][1]
    parts = ((layer, whole(patch)),)
    return replace(bundle, blobs=(*blobs, patch), parts=parts, since=digest("far.json"))


def changed(bundle: Bundle, name: str, **fields: object) -> Bundle:
    """Return the bundle with fields of one item replaced."""
    items = tuple(
        replace(one, **fields) if one.name == name else one  # type: ignore[arg-type]
        for one in bundle.items
    )
    return replace(bundle, items=items)


def head_bytes(bundle: Bundle, number: int) -> bytes:
    """Return the first two members of a part as they lie in its file."""
    manifest = render_bundle(bundle)
    label = render_label(PartLabel(Digest.of(manifest), number, len(bundle.parts)))
    members = ((MANIFEST_NAME, manifest), (PART_NAME, label))
    return b"".join(
        member_header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members
    )
