"""Harnesses for what registries and layouts answer: indexes, manifests, lists of referrers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from local_imager.errors import NotFound
from local_imager.oci.export import sniff_media_type
from local_imager.oci.indexlines import IndexLines, parse_index_document
from local_imager.oci.layout import check_layout_marker
from local_imager.oci.model import (
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Index,
    Reference,
    parse_descriptor,
    parse_manifest,
)
from local_imager.oci.names import (
    find_named,
    find_referrers_list,
    find_unnamed,
    is_image,
    names_of,
    tags_of,
)
from local_imager.oci.source import RawManifest
from local_imager.sources.candidates import Candidate, Finder
from local_imager.sources.reasons import Rejected
from local_imager.sources.signers import judge
from tests.fuzz.driver import Fault, Harness
from tests.fuzz.material import GENUINE, KEYED, KEYLESS, LEGACY, SIGNERS, blobs_of

REFERENCE: Final = Reference.parse("registry.example/siderolabs/imager:v1.13.0")
_BLOBS: Final = {
    digest: data
    for layout in (*KEYLESS, *KEYED, *LEGACY)
    for digest, data in blobs_of(layout).items()
}
_SUBJECTS: Final = frozenset(genuine.digest for genuine in GENUINE)


def index(data: bytes) -> None:
    """A layout's ``index.json``, and every question that is asked of its entries."""
    document = parse_index_document(data, "index.json")
    entries = tuple(parse_descriptor(entry, "index.json") for entry in document["manifests"])
    lines = IndexLines.read(data, "index.json")
    assert lines.entries() == entries
    for entry in entries:
        is_image(entry)
        list(names_of(entry))
    find_named(entries, REFERENCE)
    find_unnamed(entries, lambda: tuple(one for one in entries if is_image(one)), REFERENCE)
    tags_of(entries, REFERENCE)
    find_referrers_list(entries, GENUINE[0].digest, REFERENCE.name)


def manifest(data: bytes) -> None:
    """A manifest or index of any declared type, and a layout's marker."""
    kind = MEDIA_MANIFEST if data[:1] == b"m" else MEDIA_INDEX
    if data[:1] == b"o":
        check_layout_marker(data[1:], "layout")
        return
    body = data[1:] if data[:1] in (b"m", b"i") else data
    if body is data:
        kind = sniff_media_type(data, "manifest")
    parsed = parse_manifest(body, kind, "manifest")
    if isinstance(parsed, Index):
        parsed.for_platform("linux", "amd64")


class Hostile:
    """A source whose signature documents are the fuzzer's; other bytes are those of fixtures."""

    location = "a hostile registry"

    def __init__(self, data: bytes) -> None:
        self._data, self._digest = data, Digest.of(data)

    def resolve(self, reference: Reference) -> Descriptor:
        """Offer the bytes as the older form's manifest."""
        return Descriptor(MEDIA_MANIFEST, self._digest, len(self._data))

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Return the bytes, or a fixture's manifest."""
        if digest == self._digest:
            return RawManifest(self._data, MEDIA_MANIFEST)
        return RawManifest(self._find(digest), MEDIA_MANIFEST)

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Return a fixture's blob."""
        yield self._find(descriptor.digest)[offset:]

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Read the bytes as a list of referrers; where they are a manifest, list that."""
        if b'"manifests"' not in self._data:
            return (Descriptor(MEDIA_MANIFEST, self._digest, len(self._data)),)
        parsed = parse_manifest(self._data, MEDIA_INDEX, "referrers")
        return parsed.manifests if isinstance(parsed, Index) else ()

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def _find(self, digest: Digest) -> bytes:
        if digest not in _BLOBS:
            raise NotFound(f"no blob {digest}")
        return _BLOBS[digest]


def referrers(data: bytes) -> None:
    """A list of referrers, a referrer's manifest, or the older form's, with what is inside."""
    source = Hostile(data)
    for genuine in GENUINE[::3]:
        for item in Finder(source, REFERENCE, genuine.digest).found():
            if not isinstance(item, Candidate):
                str(item)
                continue
            for signer in SIGNERS:
                try:
                    judge(item, signer)
                except Rejected:
                    continue
                if genuine.digest not in _SUBJECTS or item.data not in _ACCEPTABLE:
                    raise Fault("a signature over other bytes was accepted")


_ACCEPTABLE: Final = frozenset(
    {genuine.envelope.encoded for genuine in GENUINE} | set(_BLOBS.values())
)

HARNESSES: Final = (
    Harness("index", index),
    Harness("manifest", manifest),
    Harness("referrers", referrers),
)
