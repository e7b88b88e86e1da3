"""Keeping what is attached to an image with it: signatures always, for a bundle everything.

What a verification looks at are bundle referrers and the older ``.sig`` tag; with these the store
alone can verify the image again. What else there may be (attestations, SBOMs, whatever refers to
the image) is copied for a bundle. Names are those of a registry: ``<name>:sha256-<hex>`` lists the
referrers, ``….sig``, ``….att`` and ``….sbom`` are the older forms; the store's collector keeps
them exactly as long as the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.events import EventSink, Message, printable
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MAX_DESCRIPTORS,
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
from local_imager.oci.source import ImageSource
from local_imager.sources.bundle import MAX_BUNDLE_BYTES
from local_imager.sources.candidates import (
    ARTIFACT_LEGACY_SIGNATURE,
    BUNDLE_PREFIX,
    MAX_LEGACY_LAYERS,
    MAX_REFERRERS,
    read_blob,
)
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.reasons import Rejected

SIGNATURE_SUFFIX: Final = "sig"
# A list that grows over MAX_DESCRIPTORS cannot be read any more; what is attached here comes yet.
_MAX_LISTED: Final = MAX_DESCRIPTORS // 2
# cosign's older forms: signatures, attestations, and SBOMs that are not signed themselves.
ATTACHED_SUFFIXES: Final = (SIGNATURE_SUFFIX, "att", "sbom")


@dataclass(frozen=True, slots=True)
class _Extent:
    """What is kept, and how much of it at most: whoever can write to a registry can add any number.

    ``depth``: 1 stops at what is attached to the image, 2 takes what is attached to that, too.
    """

    everything: bool
    suffixes: tuple[str, ...]
    referrers: int
    layers: int
    total_bytes: int
    depth: int
    level: Literal["debug", "warning"]


# Signatures of one image are a few KiB; attestations may add some MiB.
_SIGNATURES: Final = _Extent(
    False, (SIGNATURE_SUFFIX,), MAX_REFERRERS, MAX_LEGACY_LAYERS, 64 * 1024**2, 1, "debug"
)
# An SBOM of a large image has some ten MiB, and each architecture has its own.
_EVERYTHING: Final = _Extent(True, ATTACHED_SUFFIXES, 512, MAX_DESCRIPTORS, 1024**3, 3, "warning")


def keep_signatures(
    source: ImageSource, layout: Layout, reference: Reference, digest: Digest, sink: EventSink
) -> None:
    """Copy the image's signatures into the layout; what is broken there is left out with a word.

    Raises :class:`SourceError` only when the source as a whole cannot be read.
    """
    _Keeper(source, layout, reference, sink, _SIGNATURES).subject(digest)


def keep_attached(
    source: ImageSource,
    layout: Layout,
    reference: Reference,
    subjects: Iterable[Digest],
    sink: EventSink,
    *,
    inside: Iterable[Digest] = (),
    blobs: bool = True,
) -> int:
    """Copy all that is attached to the subjects (an index, its manifests); return how many.

    ``inside`` are attestations that the index itself lists. What is broken is left out with a
    warning. Without ``blobs`` only manifests are copied, which say how large the rest is. Raises
    as :func:`keep_signatures` does.
    """
    keeper = _Keeper(source, layout, reference, sink, _EVERYTHING, blobs=blobs)
    with layout.writing():
        for digest in subjects:
            keeper.subject(digest)
        for digest in inside:
            keeper.attestation(digest)
    return keeper.count


def is_signature(artifact_type: str) -> bool:
    """Say whether a referrer of this type is one that a verification looks at."""
    return artifact_type.startswith(BUNDLE_PREFIX) or artifact_type == ARTIFACT_LEGACY_SIGNATURE


class _Keeper:
    """Copies what is attached, manifests with their blobs, within a budget of bytes."""

    def __init__(
        self,
        source: ImageSource,
        layout: Layout,
        reference: Reference,
        sink: EventSink,
        extent: _Extent,
        *,
        blobs: bool = True,
    ) -> None:
        self._source, self._layout = source, layout
        self._reference, self._sink = reference, sink
        self._extent, self._blobs = extent, blobs
        self._budget = extent.total_bytes
        self.count = 0

    def subject(self, digest: Digest, depth: int = 1) -> None:
        """Copy what is attached to a digest, and list it under the names of a registry.

        Only the image itself (depth 1) was verified. What else is listed may name any manifest, so
        there nothing takes the place of what is attached already.
        """
        kept = self._referrers(digest)
        if kept:
            self._list(digest, kept, newest_first=depth == 1)
        found = [one.digest for one in kept if not is_signature(one.artifact_type)]
        for suffix in self._extent.suffixes:
            manifest = self._tagged(f"{fallback_tag(digest)}.{suffix}", replace=depth == 1)
            if manifest is not None and suffix == "sbom":
                found.append(manifest)
        if depth < self._extent.depth:
            for one in found:
                self.subject(one, depth + 1)

    def attestation(self, digest: Digest) -> None:
        """Copy a manifest that the index lists beside the image which it tells of."""
        self._copied(digest, "attestation")

    def _referrers(self, digest: Digest) -> list[Descriptor]:
        """Copy the referrers; return their descriptors."""
        kept = []
        listed = self._source.referrers(self._reference, digest)
        for entry in listed[: self._extent.referrers]:
            if not self._wanted(entry.artifact_type):
                continue
            manifest = self._copied(entry.digest, entry.artifact_type or "referrer")
            if manifest is not None:
                kind = entry.artifact_type or manifest.artifact_type or manifest.config.media_type
                if kind == ARTIFACT_EVIDENCE:
                    continue
                size_bytes = len(manifest.raw)
                kept.append(
                    Descriptor(manifest.media_type, entry.digest, size_bytes, artifact_type=kind)
                )
        if len(listed) > self._extent.referrers:
            self._tell(f"only the first {self._extent.referrers} of {len(listed)} referrers")
        return kept

    def _wanted(self, artifact_type: str) -> bool:
        """A type that the source does not tell may be a signature; our evidence stays at home."""
        if self._extent.everything:
            return artifact_type != ARTIFACT_EVIDENCE
        return not artifact_type or is_signature(artifact_type)

    def _list(self, digest: Digest, kept: list[Descriptor], *, newest_first: bool) -> None:
        """Write the list of referrers; what was kept before stays in it, as far as it has room.

        Whoever verifies looks at the first ones only.
        """
        name = f"{self._reference.name}:{fallback_tag(digest)}"
        old = self._layout.resolve(name)
        if old is not None:
            listed = self._layout.read_manifest(old)
            if isinstance(listed, Index):
                known = {entry.digest for entry in kept}
                if known <= {entry.digest for entry in listed.manifests}:
                    return
                before = [e for e in listed.manifests if self._layout.has(e.digest)]
                both = [*kept, *before] if newest_first else [*before, *kept]
                # A dict keeps the first place; its value is what was told last.
                kept = list({entry.digest: entry for entry in both}.values())
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX}
        body["manifests"] = [entry.as_dict() for entry in kept[:_MAX_LISTED]]
        self._layout.set_ref(name, self._layout.put_bytes(canonical_json(body), MEDIA_INDEX))

    def _tagged(self, tag: str, *, replace: bool) -> Digest | None:
        """Copy what the older form keeps under its tag; None when there is no such tag."""
        reference = self._reference.with_tag(tag)
        try:
            found = self._source.resolve(reference)
        except NotFound:
            return None
        manifest = self._copied(found.digest, f".{tag.rpartition('.')[2]}")
        if manifest is None:
            return None
        name = f"{reference.name}:{tag}"
        old = self._layout.resolve(name)
        if old is None or (replace and old.digest != found.digest):
            entry = Descriptor(manifest.media_type, found.digest, len(manifest.raw))
            self._layout.set_ref(name, entry)
        return found.digest

    def _copied(self, digest: Digest, what: str) -> Manifest | None:
        try:
            manifest = self._copy(digest)
        except (NotFound, IntegrityError, Rejected) as error:
            problem = error.message
        except SourceError as error:
            if error.code != "malformed":
                raise
            problem = error.message
        else:
            self.count += 1
            return manifest
        self._tell(f"{printable(what, limit=80)} {digest.short} is not kept: {problem}")
        return None

    def _tell(self, text: str) -> None:
        self._sink.emit(Message(f"{self._reference}: {text}", self._extent.level))

    def _copy(self, digest: Digest) -> Manifest:
        raw = self._source.manifest(self._reference, digest)
        if Digest.of(raw.untrusted_data) != digest:
            raise IntegrityError("its manifest does not match its digest")
        manifest = parse_manifest(raw.untrusted_data, raw.media_type, "attached manifest")
        if not isinstance(manifest, Manifest):
            raise SourceError("it is an index", code="malformed")
        blobs = (manifest.config, *manifest.layers[: self._extent.layers])
        size = len(raw.untrusted_data) + sum(blob.size_bytes for blob in blobs)
        if size > self._budget:
            raise SourceError("what is attached to one image takes too much room", code="malformed")
        self._budget -= size
        for blob in blobs if self._blobs else ():
            self._take(blob)
        self._layout.put_bytes(raw.untrusted_data, raw.media_type)
        return manifest

    def _take(self, blob: Descriptor) -> None:
        if self._layout.intact(blob.digest, blob.size_bytes):
            if self._layout.is_private(blob.digest):
                # Named here, it would travel with the next bundle and be served to everybody.
                raise SourceError("it names a file that is private in this store", code="malformed")
            return
        if self._extent.everything and blob.size_bytes > MAX_BUNDLE_BYTES:
            stream = partial(self._source.blob, self._reference, blob)
            self._layout.download(blob, stream)
        else:
            data = read_blob(self._source, self._reference, blob, MAX_BUNDLE_BYTES)
            self._layout.put_bytes(data, blob.media_type)
