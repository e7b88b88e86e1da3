"""A near side in a folder: real signed images, assets and documents, written as bundle files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from local_imager.deliver.bundle.form.manifest import render_bundle, render_label
from local_imager.deliver.bundle.form.model import Bundle, PartLabel, Piece
from local_imager.deliver.bundle.form.signing import load_private_key, sign_manifest
from local_imager.deliver.bundle.form.tarform import (
    END_MARK,
    INDEX_NAME,
    LAYOUT_MARKER,
    LAYOUT_NAME,
    member_header,
    padding,
    pieces_of,
)
from local_imager.deliver.bundle.near.contents import (
    AssetRoot,
    Contents,
    DocumentRoot,
    ImageRoot,
    compose,
)
from local_imager.deliver.bundle.near.split import split_bundle
from local_imager.oci.model import Digest
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.store.records import AssetRecord, StoredAsset
from local_imager.store.store import Store
from tests.unit.sources.forge import REGISTRY, Forge, Signing

SCHEMATIC = "5" * 64
Change = Callable[[str, bytes], bytes]


class NearSide:
    """Images signed by ``signing``, in a store; bundles of them signed by ``vouching``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "near")
        self.forge = Forge(folder / "near")
        self.signing, self.vouching = Signing(), Signing()
        self.images: list[ImageRoot] = []
        self.assets: list[AssetRoot] = []
        self.documents: list[DocumentRoot] = []

    def image(
        self,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        arches: tuple[str, ...] = ("amd64",),
        signed: bool = True,
        size_bytes: int = 20_000,
        tag: str = "v1",
    ) -> str:
        """Add an image (of noise unless files are given), signed in both forms; return its name."""
        content = files if files is not None else {"noise": os.urandom(size_bytes)}
        top = self.forge.image(name, tag, content, ("amd64", "arm64"))
        if signed:
            self.forge.sign_legacy(name, top, self.signing)
            self.forge.sign_bundle(name, top, self.signing.bundle(top.digest))
        full = f"{REGISTRY}/{name}:{tag}"
        self.images.append(ImageRoot(full, top, arches, ("further",)))
        return full

    def asset(self, data: bytes, *, private: bool = False, key: str = "a" * 64) -> StoredAsset:
        """Add an asset with a build record attached."""
        path = self.folder / "asset"
        path.write_bytes(data)
        name = "metal-amd64.iso"
        record = AssetRecord(SCHEMATIC, "v1.13.0", name, key, path, private=private)
        asset = self.store.put_asset(record)
        record_type = "application/vnd.local-imager.build-record.v1+json"
        self.store.add_referrer(asset, record_type, b'{"built":1}', "application/json")
        entry = self.store.layout.resolve(asset.name)
        assert entry is not None
        self.assets.append(AssetRoot(entry, name, ("amd64",)))
        return asset

    def document(
        self, name: str, data: bytes, role: str = "lock", *, private: bool = False
    ) -> None:
        """Add a document."""
        self.documents.append(DocumentRoot(name, data, "text/plain", role, private))

    def policy(self, *, bundles: bool = True, **more: object) -> TrustPolicy:
        """The far side's policy: the images' key, and the bundle's unless told otherwise."""
        entries: list[dict[str, object]] = [
            {"pattern": f"{REGISTRY}/**", "key": self.signing.pem, **more}
        ]
        if bundles:
            entries.append({"pattern": BUNDLES, "key": self.vouching.pem})
        return policy_from_entries(entries)

    def contents(self) -> Contents:
        """What a bundle of everything added holds."""
        return compose(self.store.layout, self.images, self.assets, self.documents)

    def bundle(self, contents: Contents, *, parts: int = 1) -> Bundle:
        """The manifest, cut into about so many parts."""
        bundle = contents.bundle({"versions": ("v1.13.0",)})
        return bundle if parts == 1 else self.cut(contents, bundle, parts)

    def cut(self, contents: Contents, bundle: Bundle, parts: int) -> Bundle:
        """The bundle in about so many parts."""
        carried = [blob for blob in bundle.blobs if blob.carried]
        data = {blob.digest: self.blob(contents, blob.digest) for blob in carried}
        size = sum(blob.size_bytes for blob in carried if not blob.document)
        fixed = sum(blob.size_bytes + 1024 for blob in bundle.documents()) + 8192

        def digest_of_range(digest: Digest, offset: int, size_bytes: int) -> Digest:
            return Digest.of(data[digest][offset : offset + size_bytes])

        manifest = len(render_bundle(bundle))
        return split_bundle(bundle, fixed + manifest + size // parts, digest_of_range)

    def blob(self, contents: Contents, digest: Digest) -> bytes:
        """The bytes of a blob of the bundle."""
        made = contents.made.get(digest)
        return made if made is not None else self.store.layout.blob_path(digest).read_bytes()

    def write(
        self,
        name: str = "site.tar",
        *,
        parts: int = 1,
        signed: bool = True,
        folder: Path | None = None,
        change: Callable[[Bundle], Bundle] | None = None,
    ) -> list[Path]:
        """Write the bundle (in parts) with its signature beside; returns the files."""
        contents = self.contents()
        bundle = self.bundle(contents, parts=parts)
        bundle = change(bundle) if change is not None else bundle
        return self.write_bundle(contents, bundle, name, signed=signed, folder=folder)

    def write_bundle(
        self,
        contents: Contents,
        bundle: Bundle,
        name: str = "site.tar",
        *,
        signed: bool = True,
        folder: Path | None = None,
        extra: Mapping[Digest, bytes] | None = None,
    ) -> list[Path]:
        """Write a manifest with the blobs that it says; ``extra`` are blobs of no store."""
        place = folder or self.folder
        place.mkdir(exist_ok=True)
        manifest = render_bundle(bundle)
        count = len(bundle.parts)
        stem, suffix = name.removesuffix(".tar"), ".tar"
        paths = []
        for number in range(1, count + 1):
            middle = f".part{number}of{count}" if count > 1 else ""
            path = place / f"{stem}{middle}{suffix}"
            path.write_bytes(self._part(contents, bundle, manifest, number, extra or {}))
            paths.append(path)
        if signed:
            (place / f"{name}.sigstore.json").write_bytes(self.signature(manifest))
        return paths

    def signature(self, manifest: bytes) -> bytes:
        """The detached signature of the bundle's maker."""
        key = self.folder / "vouching.key"
        if not key.exists():
            pem = self.vouching.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            key.write_bytes(pem)
            key.chmod(0o600)
        return sign_manifest(manifest, load_private_key(key))

    def _part(
        self,
        contents: Contents,
        bundle: Bundle,
        manifest: bytes,
        number: int,
        extra: Mapping[Digest, bytes],
    ) -> bytes:
        label = PartLabel(Digest.of(manifest), number, len(bundle.parts))
        members: list[tuple[str, bytes]] = [
            ("bundle.json", manifest),
            ("part.json", render_label(label)),
            (LAYOUT_NAME, LAYOUT_MARKER),
            (INDEX_NAME, contents.index),
        ]
        for piece in pieces_of(bundle, number):
            data = extra.get(piece.blob)
            data = data if data is not None else self.blob(contents, piece.blob)
            end = piece.offset + piece.size_bytes
            members.append((piece.member, data[piece.offset : end]))
        return b"".join(
            member_header(name, len(data)) + data + bytes(padding(len(data)))
            for name, data in members
        ) + bytes(END_MARK)


def flip(path: Path, needle: bytes) -> None:
    """Change one bit in the middle of these bytes of a file."""
    data = bytearray(path.read_bytes())
    at = bytes(data).index(needle) + len(needle) // 2
    data[at] ^= 1
    path.write_bytes(bytes(data))


def with_parts(bundle: Bundle, parts: Sequence[Sequence[Piece]]) -> Bundle:
    """The bundle with its pieces laid otherwise."""
    return replace(bundle, parts=tuple(map(tuple, parts)))
