"""Finding in a layout what is attached to a manifest, so far as it may travel.

Evidence of our own verifications never does: it holds times, and it is the far side's own gate
that makes its own. Everything else does, in an order that does not depend on when it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.errors import SourceError
from local_imager.events import printable
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_INDEX,
    Descriptor,
    Digest,
    Index,
    Manifest,
    canonical_json,
)
from local_imager.oci.names import attached_to
from local_imager.pipeline.factory import (
    ARTIFACT_BUILD_LOG,
    ARTIFACT_BUILD_RECORD,
    ARTIFACT_SCHEMATIC,
)
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.keep import ATTACHED_SUFFIXES, SIGNATURE_SUFFIX, is_signature

_WORDS: Final = {
    ARTIFACT_BUILD_LOG: "build log",
    ARTIFACT_BUILD_RECORD: "build record",
    ARTIFACT_SCHEMATIC: "schematic",
    "application/spdx+json": "SBOM",
    "application/vnd.cyclonedx+json": "SBOM",
}
_WORD_OF_SUFFIX: Final = {"sig": "signature", "att": "attestation", "sbom": "SBOM"}
# Annotations of a manifest go into a list of referrers; one with more than this could fill it.
_MAX_ANNOTATIONS_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """An artifact attached to something; ``word`` says what it is, ``signature`` what it is for."""

    descriptor: Descriptor
    manifest: Manifest
    word: str
    signature: bool


class Attached:
    """The attachments in a layout's index; ``left_out`` says which cannot travel, and why."""

    def __init__(self, layout: Layout, *, whole: bool) -> None:
        self._layout, self._whole = layout, whole
        self._named: dict[tuple[Digest, str], dict[str, Descriptor]] = {}
        for entry in layout.entries():
            place = attached_to(entry.ref_name)
            if place is not None:
                self._named.setdefault(place, {})[entry.ref_name] = entry
        self.left_out: list[str] = []

    def referrers(self, repository: str, subject: Digest, what: str) -> Sequence[Found]:
        """Return what refers to a manifest, signatures first (a gate looks at so many), by digest.

        The list of the repository counts, else that of any other for the same digest.
        """
        lists = self._named.get((subject, ""), {})
        name = next((n for n in lists if n.rpartition(":")[0] == repository), None)
        if name is None:
            name = min(lists, default=None)
        if name is None:
            return ()
        try:
            index = self._layout.read_manifest(lists[name])
        except SourceError as error:
            self._leave(f"the list of referrers of {what}", error.message)
            return ()
        entries = index.manifests if isinstance(index, Index) else ()
        # What is attached to an asset of the store has no repository: this program attached it.
        own = not repository
        found = {entry.digest: self._read(entry, what, own=own) for entry in entries}
        kept = [one for one in found.values() if one is not None]
        return sorted(kept, key=lambda one: (not one.signature, one.descriptor.digest))

    def tagged(self, repository: str, subject: Digest, what: str) -> Iterator[tuple[str, Found]]:
        """Yield what has one of cosign's older tags in this repository, with its name."""
        for suffix in ATTACHED_SUFFIXES:
            for name, entry in self._named.get((subject, suffix), {}).items():
                if repository and name.rpartition(":")[0] == repository:
                    plain = Descriptor(entry.media_type, entry.digest, entry.size_bytes)
                    found = self._read(plain, what, _WORD_OF_SUFFIX[suffix])
                    if found is not None:
                        yield name, found

    def inside(self, entry: Descriptor, what: str) -> Found | None:
        """Return an attestation that an index lists beside its images, None when it is not here."""
        if not self._layout.has(entry.digest):
            return None
        return self._read(entry, what, "attestation")

    def _read(
        self, entry: Descriptor, what: str, word: str = "", *, own: bool = False
    ) -> Found | None:
        """Return an artifact whose manifest (and blobs, where they have to be) are there.

        ``own``: attached by this program, so private files of the store are rightly in it.
        """
        try:
            manifest = self._layout.read_manifest(entry)
        except SourceError as error:
            self._leave(f"{word or 'a referrer'} of {what}", error.message)
            return None
        if not isinstance(manifest, Manifest):
            self._leave(f"{word or 'a referrer'} of {what}", "it is an index")
            return None
        kind = manifest.artifact_type or entry.artifact_type or manifest.config.media_type
        if kind == ARTIFACT_EVIDENCE:
            return None
        signature = word == _WORD_OF_SUFFIX[SIGNATURE_SUFFIX] or is_signature(kind)
        word = word or _word(kind, signature)
        for blob in (manifest.config, *manifest.layers) if self._whole else ():
            if not self._layout.intact(blob.digest, blob.size_bytes):
                self._leave(f"{word} of {what}", f"its blob {blob.digest.short} is not there")
                return None
        blobs = (manifest.config, *manifest.layers)
        if not own and any(self._layout.is_private(blob.digest) for blob in blobs):
            # Whoever can write to a registry can name it there, and so have it carried to others.
            self._leave(f"{word} of {what}", "it names a file that is private in this store")
            return None
        return Found(_described(entry, manifest, kind), manifest, word, signature)

    def _leave(self, what: str, problem: str) -> None:
        self.left_out.append(f"{what} does not travel: {problem}")


def _word(kind: str, signature: bool) -> str:
    if signature:
        return "signature"
    return _WORDS.get(kind) or printable(f"referrer of the type {kind}", limit=200)


def _described(entry: Descriptor, manifest: Manifest, kind: str) -> Descriptor:
    """Describe an artifact by its own bytes alone, as distribution-spec 1.1 wants it listed."""
    said = dict(manifest.annotations)
    if sum(len(key) + len(value) for key, value in said.items()) > _MAX_ANNOTATIONS_BYTES:
        said = {}
    size_bytes = len(manifest.raw)
    return Descriptor(manifest.media_type, entry.digest, size_bytes, said, artifact_type=kind)


def list_bytes(found: Sequence[Found]) -> bytes:
    """Return the one spelling of a list of referrers."""
    entries = [one.descriptor.as_dict() for one in found]
    return canonical_json({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries})
