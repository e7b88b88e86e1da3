"""What a bundle holds, worked out from the documents of a layout and the roots that were asked for.

Pure: nothing is fetched or written, and no layer has to be there, since manifests say how large
each is. The same roots and documents give the same items, blobs and index, in the same order,
whatever else the layout holds and however it was filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from local_imager.deliver.bundle.form.model import Blob, Bundle, Item, Kind
from local_imager.deliver.bundle.form.words import LIST_PURPOSE
from local_imager.deliver.bundle.near.attached import Attached, Found, list_bytes
from local_imager.deliver.bundle.near.split import whole_part
from local_imager.errors import NotFound, SourceError
from local_imager.events import printable
from local_imager.oci.layout import EMPTY_CONFIG, Layout, artifact_manifest
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    ANNOTATION_TITLE,
    MAX_MANIFEST_BYTES,
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Reference,
    canonical_json,
)
from local_imager.oci.names import fallback_tag
from local_imager.sources.outline import attestations_of
from local_imager.store.records import ANNOTATION_PRIVATE

ARTIFACT_DOCUMENT: Final = "application/vnd.local-imager.document.v1"
DOCUMENT_PREFIX: Final = "local-imager/document/"
# Documents travel in every part of a set: what is larger travels once, like a layer.
_MAX_DOCUMENT_BYTES: Final = MAX_MANIFEST_BYTES
_MAX_PURPOSE: Final = 1000
# As deep as attachments are copied into a store.
_MAX_DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """An image that travels: ``name`` is its entry's, ``arches`` are taken of its index.

    ``arches`` is empty for an image that is a single manifest.
    """

    name: str
    descriptor: Descriptor
    arches: tuple[str, ...]
    roles: tuple[str, ...] = ()
    signer: str = ""


@dataclass(frozen=True, slots=True)
class AssetRoot:
    """A stored asset: ``entry`` is that of the store's index, ``what`` says in words what it is."""

    entry: Descriptor
    what: str
    arches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentRoot:
    """A file for people and programs of the far side: lock, schematic, policy, key, root.

    A ``private`` one is kept readable by its owner only over there, too.
    """

    name: str
    data: bytes = field(repr=False)
    media_type: str
    role: str
    private: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """Items, blobs (documents first, then layers as items need them) and the index.

    ``made`` are the bytes of what is in no store: rewritten lists of referrers, documents.
    ``left_out`` are sentences about attachments that are listed but not all there.
    """

    items: tuple[Item, ...]
    blobs: tuple[Blob, ...]
    index: bytes
    made: Mapping[Digest, bytes] = field(repr=False)
    left_out: tuple[str, ...] = ()

    def bundle(self, facts: Mapping[str, tuple[str, ...]]) -> Bundle:
        """Return the manifest of a bundle in one file that carries all of it."""
        index = Descriptor.of(self.index, MEDIA_INDEX)
        return Bundle(index, self.items, self.blobs, (whole_part(self.blobs),), facts=facts)


def compose(
    layout: Layout,
    images: Iterable[ImageRoot],
    assets: Iterable[AssetRoot],
    documents: Iterable[DocumentRoot],
    *,
    whole: bool = True,
) -> Contents:
    """Return what a bundle of these roots holds; items stand in the order given.

    ``whole`` leaves out attachments whose blobs are not all there; without it the layout holds
    manifests only. Raises :class:`NotFound` for a manifest that is not there,
    :class:`SourceError` for one that is malformed.
    """
    composer = _Composer(layout, whole=whole)
    for image in images:
        composer.image(image)
    for asset in assets:
        composer.asset(asset)
    for document in documents:
        composer.document(document)
    return composer.result()


@dataclass(slots=True)
class _Noted:
    size_bytes: int
    purpose: str
    document: bool


class _Composer:
    """Walks from the roots to all that they need."""

    def __init__(self, layout: Layout, *, whole: bool) -> None:
        self._layout = layout
        self._attached = Attached(layout, whole=whole)
        self._items: list[Item] = []
        self._entries: dict[str, Descriptor] = {}
        self._noted: dict[Digest, _Noted] = {}
        self._made: dict[Digest, bytes] = {}
        self._needed: dict[Digest, None] = {}

    def image(self, root: ImageRoot) -> None:
        """Take an image with its wanted architectures and what is attached to each of them."""
        reference = Reference.parse(root.name)
        name = f"{reference.name}:{reference.tag}" if reference.tag else root.name
        top = self._layout.read_manifest(root.descriptor)
        if isinstance(top, Manifest):
            self._manifest(root.descriptor, top, name)
            self._attach(reference.name, root.descriptor.digest, name)
        else:
            self._note(root.descriptor, f"index of {name}", document=True)
            self._attach(reference.name, root.descriptor.digest, name)
            for arch in root.arches:
                self._platform(top, arch, reference.name, name)
        self._close("image", root.name, root.descriptor, root.roles, root.arches, root.signer)

    def _platform(self, index: Index, arch: str, repository: str, name: str) -> None:
        entry = index.for_platform("linux", arch)
        if entry is None:
            raise NotFound(f"{name} has no image for linux/{arch}")
        child = self._layout.read_manifest(entry)
        if not isinstance(child, Manifest):
            raise SourceError(f"{name} is an index of indexes", code="malformed")
        what = f"{name} (linux/{arch})"
        self._manifest(entry, child, what)
        self._attach(repository, entry.digest, what)
        for inside in attestations_of(index, [entry.digest]):
            found = self._attached.inside(inside, what)
            if found is not None:
                self._artifact(found, what)

    def _manifest(self, entry: Descriptor, manifest: Manifest, what: str) -> None:
        self._note(entry, f"manifest of {what}", document=True)
        self._configuration(manifest, what)
        for number, layer in enumerate(manifest.layers, 1):
            self._note(layer, f"layer {number} of {len(manifest.layers)} of {what}")

    def _configuration(self, manifest: Manifest, what: str) -> None:
        """Note a configuration; the empty one belongs to every artifact."""
        empty = manifest.config.media_type == MEDIA_EMPTY
        purpose = "empty configuration" if empty else f"configuration of {what}"
        self._note(manifest.config, purpose, document=True)

    def _attach(self, repository: str, subject: Digest, what: str, depth: int = 1) -> None:
        """Take what is attached to a manifest; the list of referrers is written anew."""
        listed = self._attached.referrers(repository, subject, what)
        for found in listed:
            self._artifact(found, what)
            self._deeper(repository, found, what, depth)
        if listed:
            tag = fallback_tag(subject)
            name = f"{repository}:{tag}" if repository else tag
            entry = self._make(list_bytes(listed), MEDIA_INDEX, f"{LIST_PURPOSE}{what}")
            self._enter(name, entry)
        for ref_name, found in self._attached.tagged(repository, subject, what):
            self._artifact(found, what)
            entry = found.descriptor
            self._enter(ref_name, Descriptor(entry.media_type, entry.digest, entry.size_bytes))
            self._deeper(repository, found, what, depth)

    def _deeper(self, repository: str, found: Found, what: str, depth: int) -> None:
        """Take what is attached to an attachment: an SBOM may be signed, a signature is not."""
        if not found.signature and depth < _MAX_DEPTH:
            self._attach(repository, found.descriptor.digest, f"{found.word} of {what}", depth + 1)

    def _artifact(self, found: Found, what: str) -> None:
        purpose = f"{found.word} of {what}"
        self._note(found.descriptor, f"manifest of the {purpose}", document=True)
        self._configuration(found.manifest, f"the {purpose}")
        layers = found.manifest.layers
        for number, layer in enumerate(layers, 1):
            which = f" ({number} of {len(layers)})" if len(layers) > 1 else ""
            self._note(layer, purpose + which, document=found.signature)

    def asset(self, root: AssetRoot) -> None:
        """Take an asset with its file and its referrers (build record, log, schematic)."""
        manifest = self._layout.read_manifest(root.entry)
        if not isinstance(manifest, Manifest):
            raise SourceError(f"the asset {root.what} is an index", code="malformed")
        self._note(root.entry, f"manifest of {root.what}", document=True)
        self._configuration(manifest, root.what)
        for layer in manifest.layers:
            self._note(layer, root.what)
        self._attach("", root.entry.digest, root.what)
        self._close("asset", root.entry.ref_name, root.entry, (), root.arches)

    def document(self, root: DocumentRoot) -> None:
        """Take a file as an artifact of one layer."""
        what = f"the document {root.name}"
        layer = self._make(root.data, root.media_type, what)
        self._make(EMPTY_CONFIG, MEDIA_EMPTY, "empty configuration")
        named = replace(layer, annotations={ANNOTATION_TITLE: root.name})
        said = {ANNOTATION_PRIVATE: "true"} if root.private else None
        manifest = artifact_manifest(ARTIFACT_DOCUMENT, named, annotations=said)
        made = self._make(manifest, MEDIA_MANIFEST, f"manifest of {what}")
        entry = Descriptor(
            made.media_type,
            made.digest,
            made.size_bytes,
            {ANNOTATION_REF_NAME: DOCUMENT_PREFIX + root.name},
            artifact_type=ARTIFACT_DOCUMENT,
        )
        self._close("document", root.name, entry, (root.role,))

    def _make(self, data: bytes, media_type: str, purpose: str) -> Descriptor:
        entry = Descriptor.of(data, media_type)
        self._made[entry.digest] = data
        self._note(entry, purpose, document=True)
        return entry

    def _note(self, blob: Descriptor, purpose: str, *, document: bool = False) -> None:
        """Note a blob for the item under way; the first item that needs it says what it is for."""
        self._needed[blob.digest] = None
        document = document and blob.size_bytes <= _MAX_DOCUMENT_BYTES
        known = self._noted.get(blob.digest)
        if known is None:
            purpose = printable(purpose, limit=_MAX_PURPOSE)
            self._noted[blob.digest] = _Noted(blob.size_bytes, purpose, document)
        elif known.size_bytes != blob.size_bytes:
            raise SourceError(
                f"{blob.digest} has {known.size_bytes} bytes in one manifest "
                f"and {blob.size_bytes} in another: {known.purpose}, {purpose}",
                code="malformed",
            )
        elif document:
            known.document = True

    def _enter(self, name: str, entry: Descriptor) -> None:
        said = {**entry.annotations, ANNOTATION_REF_NAME: name}
        plain = Descriptor(
            entry.media_type,
            entry.digest,
            entry.size_bytes,
            said,
            artifact_type=entry.artifact_type,
        )
        self._entries[name] = plain

    def _close(
        self,
        kind: Kind,
        name: str,
        entry: Descriptor,
        roles: Sequence[str],
        arches: Sequence[str] = (),
        signer: str = "",
    ) -> None:
        """End an item: everything noted since the one before is what it needs."""
        self._enter(entry.ref_name or name, entry)
        plain = Descriptor(
            entry.media_type, entry.digest, entry.size_bytes, artifact_type=entry.artifact_type
        )
        needed, self._needed = tuple(self._needed), {}
        self._items.append(
            Item(kind, name, plain, needed, tuple(roles), tuple(arches), printable(signer))
        )

    def result(self) -> Contents:
        """Return everything in the order of the file."""
        entries = [self._entries[name].as_dict() for name in sorted(self._entries)]
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}
        return Contents(
            tuple(self._items),
            tuple(self._blobs()),
            canonical_json(body),
            self._made,
            tuple(dict.fromkeys(self._attached.left_out)),
        )

    def _blobs(self) -> Iterator[Blob]:
        ordered = [
            Blob(digest, noted.size_bytes, noted.purpose, document=noted.document)
            for digest, noted in self._noted.items()
        ]
        yield from sorted((b for b in ordered if b.document), key=lambda blob: blob.digest)
        yield from (blob for blob in ordered if not blob.document)
