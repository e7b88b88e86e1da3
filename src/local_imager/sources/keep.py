"""Keeping an image's signatures with it, so that the store alone can verify it again.

What is kept is what a verification would look at: bundle referrers and the older ``.sig`` tag.
Names are those of a registry: ``<name>:sha256-<hex>`` lists the referrers, ``….sig`` the older
form; the store's collector keeps them exactly as long as the image.
"""

from __future__ import annotations

from typing import Final

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.events import EventSink, Message
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_INDEX,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Reference,
    canonical_json,
    parse_manifest,
)
from local_imager.oci.names import fallback_tag
from local_imager.oci.source import ImageSource, RawManifest
from local_imager.sources.bundle import MAX_BUNDLE_BYTES
from local_imager.sources.candidates import (
    ARTIFACT_LEGACY_SIGNATURE,
    BUNDLE_PREFIX,
    MAX_LEGACY_LAYERS,
    MAX_REFERRERS,
    read_blob,
)
from local_imager.sources.reasons import Rejected

# Signatures of one image are a few KiB; attestations may add some MiB.
MAX_KEPT_BYTES: Final = 64 * 1024**2


def keep_signatures(
    source: ImageSource, layout: Layout, reference: Reference, digest: Digest, sink: EventSink
) -> None:
    """Copy the image's signatures into the layout; what is broken there is left out with a word.

    Raises :class:`SourceError` only when the source as a whole cannot be read.
    """
    keeper = _Keeper(source, layout, reference, sink)
    kept = keeper.referrers(digest)
    name = f"{reference.name}:{fallback_tag(digest)}"
    old = layout.resolve(name)
    if old is not None:
        listed = layout.read_manifest(old)
        if isinstance(listed, Index):
            known = {entry.digest for entry in kept}
            kept += [e for e in listed.manifests if e.digest not in known and layout.has(e.digest)]
    if kept:
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX}
        body["manifests"] = [entry.as_dict() for entry in kept]
        layout.set_ref(name, layout.put_bytes(canonical_json(body), MEDIA_INDEX))
    keeper.legacy(reference.with_tag(f"{fallback_tag(digest)}.sig"))


class _Keeper:
    """Copies signature manifests with their blobs, within a budget of bytes."""

    def __init__(
        self, source: ImageSource, layout: Layout, reference: Reference, sink: EventSink
    ) -> None:
        self._source, self._layout = source, layout
        self._reference, self._sink = reference, sink
        self._budget = MAX_KEPT_BYTES

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """Copy the referrers that are signatures; return their descriptors."""
        kept = []
        for entry in self._source.referrers(self._reference, digest)[:MAX_REFERRERS]:
            if entry.artifact_type and not _is_signature(entry.artifact_type):
                continue
            raw = self._copied(entry.digest)
            if raw is not None:
                kept.append(
                    Descriptor(
                        raw.media_type,
                        entry.digest,
                        len(raw.untrusted_data),
                        artifact_type=entry.artifact_type,
                    )
                )
        return kept

    def legacy(self, tag: Reference) -> None:
        """Copy what the older form keeps under its tag, if there is such a tag."""
        try:
            descriptor = self._source.resolve(tag)
        except NotFound:
            return
        raw = self._copied(descriptor.digest)
        if raw is not None:
            self._layout.set_ref(f"{tag.name}:{tag.tag}", raw.descriptor)

    def _copied(self, digest: Digest) -> RawManifest | None:
        try:
            return self._copy(digest)
        except (NotFound, IntegrityError, Rejected) as error:
            problem = error.message
        except SourceError as error:
            if error.code != "malformed":
                raise
            problem = error.message
        self._sink.emit(
            Message(f"{self._reference}: signature {digest.short} is not kept: {problem}", "debug")
        )
        return None

    def _copy(self, digest: Digest) -> RawManifest:
        raw = self._source.manifest(self._reference, digest)
        if Digest.of(raw.untrusted_data) != digest:
            raise IntegrityError("its manifest does not match its digest")
        manifest = parse_manifest(raw.untrusted_data, raw.media_type, "signature manifest")
        if not isinstance(manifest, Manifest):
            raise SourceError("it is an index", code="malformed")
        blobs = (manifest.config, *manifest.layers[:MAX_LEGACY_LAYERS])
        size = len(raw.untrusted_data) + sum(blob.size_bytes for blob in blobs)
        if size > self._budget:
            raise SourceError("signatures of one image take too much room", code="malformed")
        self._budget -= size
        for blob in blobs:
            data = read_blob(self._source, self._reference, blob, MAX_BUNDLE_BYTES)
            self._layout.put_bytes(data, blob.media_type)
        self._layout.put_bytes(raw.untrusted_data, raw.media_type)
        return raw


def _is_signature(artifact_type: str) -> bool:
    return artifact_type.startswith(BUNDLE_PREFIX) or artifact_type == ARTIFACT_LEGACY_SIGNATURE
