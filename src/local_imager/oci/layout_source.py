"""An OCI layout, in a directory or a tar, as a source of images.

Several tools write layouts and each names things in its own way; :mod:`.names` knows them.
Manifests are checked against their digest here, blobs by whoever writes them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.oci.export import sniff_media_type
from local_imager.oci.indexlines import ATTACHED_LINE, LINE_BEGIN, MAX_INDEX_BYTES, IndexLines
from local_imager.oci.layout import check_layout_marker
from local_imager.oci.layoutfiles import DirectoryFiles, LayoutFiles, TarFiles
from local_imager.oci.model import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Reference,
    parse_manifest,
)
from local_imager.oci.names import (
    ANNOTATION_KIND,
    KIND_PREFIX,
    attached_to,
    fallback_tag,
    find_named,
    find_referrers_list,
    find_unnamed,
    is_image,
    names_of,
    spellings,
    tags_of,
)
from local_imager.oci.source import RawManifest

# Signature manifests have a few KB; a scan of all blobs reads none that is larger.
_MAX_SCANNED_BYTES: Final = 256 * 1024
_MAX_SCANNED_BLOBS: Final = 20_000
_MAX_PAYLOAD_BYTES: Final = 64 * 1024
# Most entries of a large store are artifacts of its own and lists of what is attached to them.
_NO_IMAGE: Final = re.compile(
    LINE_BEGIN
    + rb'"artifactType": "(?!application/vnd\.oci\.image\.config\.v1\+json")[^"]|'
    + ATTACHED_LINE
)
_NO_SUBJECT: Final = re.compile(
    LINE_BEGIN + rb'"artifactType": "application/vnd\.local-imager\.|' + ATTACHED_LINE
)


class LayoutSource:
    """An :class:`~local_imager.oci.source.ImageSource` over the files of a layout."""

    def __init__(self, files: LayoutFiles) -> None:
        self._files = files
        check_layout_marker(files.small("oci-layout", 4096), files.location)
        self.index  # noqa: B018  a damaged index is reported when the source is opened

    @classmethod
    def open(cls, path: Path) -> LayoutSource:
        """Open a layout directory or a tar of one.

        Raises :class:`NotFound` when there is nothing, :class:`SourceError` when it is no layout.
        """
        if not os.path.exists(path):
            raise NotFound(f"there is no layout at {path}", hint="check the path and its rights")
        files: LayoutFiles = DirectoryFiles(path) if os.path.isdir(path) else TarFiles(path)
        return cls(files)

    @property
    def location(self) -> str:
        """The directory or archive."""
        return self._files.location

    @cached_property
    def index(self) -> IndexLines:
        """The layout's ``index.json`` as it was when the source was opened."""
        data = self._files.small("index.json", MAX_INDEX_BYTES)
        return IndexLines.read(data, f"{self.location}: index.json")

    @property
    def entries(self) -> tuple[Descriptor, ...]:
        """All entries of the index."""
        return self.index.entries()

    @cached_property
    def _images(self) -> tuple[Descriptor, ...]:
        return tuple(entry for entry in self.index.lacking(_NO_IMAGE) if is_image(entry))

    def resolve(self, reference: Reference) -> Descriptor:
        """Return the descriptor that a tag or digest names; raises :class:`NotFound`."""
        if reference.digest is not None:
            return self._by_digest(reference.digest)
        entry = find_named(self.index.saying(*spellings(reference)), reference)
        if entry is None:
            kinds = self.index.holding(KIND_PREFIX)
            entry = find_unnamed(kinds, lambda: self._images, reference)
        entry = entry or self._signatures_by_payload(reference)
        if entry is None:
            names = sorted({name for e in self._images for name in names_of(e)})
            listed = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
            raise NotFound(
                f"{self.location} has no image {reference}",
                hint=f"it has: {listed}" if names else "its index names no image",
            )
        return entry

    def _by_digest(self, digest: Digest) -> Descriptor:
        for entry in self.index.saying(str(digest)):
            if entry.digest == digest:
                return entry
        return self._read(digest).descriptor

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Return a manifest's bytes, checked against the digest.

        Raises :class:`NotFound` or :class:`IntegrityError`.
        """
        return self._read(digest)

    def _read(self, digest: Digest, max_bytes: int = MAX_MANIFEST_BYTES) -> RawManifest:
        size_bytes = self._files.size(digest)
        if size_bytes is None:
            raise NotFound(f"{self.location} has no manifest {digest}")
        if size_bytes > max_bytes:
            raise SourceError(
                f"{digest} has {size_bytes} bytes, too many for a manifest", code="malformed"
            )
        data = b"".join(self._files.chunks(digest, 0, max_bytes))
        if Digest.of(data) != digest:
            raise IntegrityError(
                f"{self.location}: manifest {digest} does not have the bytes of its digest",
                hint="the layout is damaged or was tampered with; get it again",
            )
        return RawManifest(data, self._media_type(digest, data))

    def _media_type(self, digest: Digest, untrusted_data: bytes) -> str:
        for entry in self.index.saying(str(digest)):
            if entry.digest == digest and entry.media_type:
                return entry.media_type
        return sniff_media_type(untrusted_data, f"manifest {digest}")

    def _parse(self, digest: Digest) -> Manifest | Index:
        raw = self._read(digest)
        return parse_manifest(raw.untrusted_data, raw.media_type, f"manifest {digest}")

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Stream a blob; raises :class:`NotFound`, or :class:`IntegrityError` for another size."""
        size_bytes = self._files.size(descriptor.digest)
        if size_bytes is None:
            raise NotFound(
                f"{self.location} has no blob {descriptor.digest}",
                hint="the layout holds only a part of this image",
            )
        if size_bytes != descriptor.size_bytes:
            raise IntegrityError(
                f"{self.location}: blob {descriptor.digest} has {size_bytes} bytes, "
                f"its manifest says {descriptor.size_bytes}",
                hint="the layout is damaged or was tampered with; get it again",
            )
        return self._files.chunks(descriptor.digest, offset, size_bytes - offset)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return the tags that the index lists for a repository."""
        return tags_of(self.entries, reference)

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what is attached to a digest.

        From the referrers list under the fallback tag, else from the index's entries by their
        ``subject``, else (a layout of cosign save, which lists neither) from all small blobs.
        """
        named = self.index.holding(fallback_tag(digest))
        listed = find_referrers_list(named, digest, reference.name)
        if listed is not None:
            index = self._parse(listed.digest)
            return index.manifests if isinstance(index, Index) else ()
        found = [e for e in self._may_be_attached if self._has_subject(e.digest, digest)]
        if not found and self.index.holding(ANNOTATION_KIND):
            found = list(self._scan_blobs(digest))
        return tuple(found)

    @cached_property
    def _may_be_attached(self) -> tuple[Descriptor, ...]:
        return self.index.lacking(_NO_SUBJECT)

    def _has_subject(self, candidate: Digest, subject: Digest) -> bool:
        size_bytes = self._files.size(candidate)
        if candidate == subject or size_bytes is None or size_bytes > _MAX_SCANNED_BYTES:
            return False
        data = b"".join(self._files.chunks(candidate, 0, _MAX_SCANNED_BYTES))
        # Most entries have no subject: look before the bytes are parsed.
        if subject.hex.encode() not in data or Digest.of(data) != candidate:
            return False
        parsed = self._parse(candidate)
        return parsed.subject is not None and parsed.subject.digest == subject

    def _scan_blobs(self, subject: Digest) -> Iterator[Descriptor]:
        for number, (digest, size_bytes) in enumerate(self._files.blobs()):
            if number >= _MAX_SCANNED_BLOBS:
                raise SourceError(
                    f"{self.location} has too many blobs to look for signatures", code="malformed"
                )
            if size_bytes > _MAX_SCANNED_BYTES:
                continue
            try:
                if not self._has_subject(digest, subject):
                    continue
                manifest = self._parse(digest)
            except SourceError:  # some other JSON blob that mentions the digest
                continue
            yield Descriptor(
                manifest.media_type,
                digest,
                size_bytes,
                manifest.annotations,
                artifact_type=manifest.artifact_type,
            )

    def _signatures_by_payload(self, reference: Reference) -> Descriptor | None:
        """Find the signatures of one of several images in a layout of cosign save.

        Its entries say only that they are signatures; what they sign stands in the payload.
        """
        attached = attached_to(reference.tag)
        if attached is None or attached[1] != "sig":
            return None
        for entry in self.index.saying(KIND_PREFIX + "sigs"):
            if entry.annotations.get(ANNOTATION_KIND) == KIND_PREFIX + "sigs":
                if self._signs(entry, attached[0]):
                    return entry
        return None

    def _signs(self, entry: Descriptor, digest: Digest) -> bool:
        try:
            parsed = self._parse(entry.digest)
            if not isinstance(parsed, Manifest) or not parsed.layers:
                return False
            layer = parsed.layers[0]
            data = b"".join(self._files.chunks(layer.digest, 0, _MAX_PAYLOAD_BYTES))
            payload = json.loads(data)
            return bool(payload["critical"]["image"]["docker-manifest-digest"] == str(digest))
        except (SourceError, ValueError, KeyError, TypeError, RecursionError):
            return False
