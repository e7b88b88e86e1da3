"""The evidence document: what showed that an image may be used, kept with it in the store.

It is a referrer of the image, so it goes where the image goes and is collected with it. It is a
record, not a proof: nothing is ever accepted because of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from local_imager import __version__
from local_imager.errors import SourceError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Index, Manifest, Reference, canonical_json
from local_imager.oci.names import fallback_tag, find_referrers_list
from local_imager.sources.verify import VerifiedImage

ARTIFACT_EVIDENCE: Final = "application/vnd.local-imager.verification.v1+json"
# Some KiB; a store that was tampered with may hold anything.
MAX_EVIDENCE_BYTES: Final = 1024 * 1024
# What differs between two verifications that say the same.
_PASSING: Final = frozenset({"verified_at", "rollback"})


def evidence_document(image: VerifiedImage) -> dict[str, Any]:
    """Return who signed, when by which clock, log index, policy and root digest, as JSON values."""
    return {
        **image.evidence,
        "policy": image.policy,
        "signer": image.signer,
        "unverified": image.unverified,
        "tool": f"local-imager {__version__}",
    }


def keep_evidence(layout: Layout, image: VerifiedImage, subject: Descriptor) -> None:
    """Attach the image's evidence unless the newest that is kept says the same.

    Raises :class:`StoreError` when it cannot be written.
    """
    document = evidence_document(image)
    kept = read_evidence(layout, image.reference, subject)
    if kept is not None and _lasting(kept) == _lasting(document):
        return
    layout.attach(
        subject,
        ARTIFACT_EVIDENCE,
        canonical_json(document),
        "application/json",
        list_name=_list_name(image.reference, subject),
    )


def read_evidence(
    layout: Layout, reference: Reference, subject: Descriptor
) -> Mapping[str, Any] | None:
    """Return the newest evidence that is kept of an image; None when none can be read."""
    try:
        named = layout.index().holding(fallback_tag(subject.digest))
        listed = find_referrers_list(named, subject.digest, reference.name)
        if listed is None:
            return None
        index = layout.read_manifest(listed)
        for entry in reversed(index.manifests if isinstance(index, Index) else ()):
            if entry.artifact_type == ARTIFACT_EVIDENCE:
                return _document(layout, entry)
    except (SourceError, StoreError, ValueError, RecursionError):
        return None
    return None


def _document(layout: Layout, entry: Descriptor) -> Mapping[str, Any] | None:
    manifest = layout.read_manifest(entry)
    if not isinstance(manifest, Manifest) or not manifest.layers:
        return None
    data = layout.read_blob(manifest.layers[0].digest, max_bytes=MAX_EVIDENCE_BYTES)
    document = json.loads(data)
    return document if isinstance(document, dict) else None


def _lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in document.items() if name not in _PASSING}
    loaded: dict[str, Any] = json.loads(canonical_json(kept))
    return loaded


def _list_name(reference: Reference, subject: Descriptor) -> str:
    """Name the list that the image's signatures are in, so that none hides the other."""
    return f"{reference.name}:{fallback_tag(subject.digest)}"
