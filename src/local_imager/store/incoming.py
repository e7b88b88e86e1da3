"""Holding blobs of something that arrives in parts, until all of it is there and has its names.

A hold is an entry of the index that lists every blob the import wants, there or not yet. It is
written once, before the first of them, so whatever a kill leaves behind is held too. A collection
keeps what is there of it, a check does not miss what is not there. Nothing in it is a name of an
image: the entry is an artifact of its own type.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from local_imager.errors import SourceError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_INDEX,
    Descriptor,
    Digest,
    Index,
    Manifest,
    canonical_json,
)

INCOMING_PREFIX: Final = "local-imager/incoming/"
ARTIFACT_INCOMING: Final = "application/vnd.local-imager.incoming.v1"
ARTIFACT_NOTE: Final = "application/vnd.local-imager.incoming.note.v1"
MEDIA_NOTE: Final = "application/vnd.local-imager.incoming.note.v1+octets"
_MAX_NOTE_BYTES: Final = 8 * 1024 * 1024
# What is held is never parsed because of the hold: it may not be trusted yet.
MEDIA_HELD: Final = "application/octet-stream"
# A manifest lists at most 2048 descriptors, and so does an index; far more blobs than a set has.
_PER_MANIFEST: Final = 1000


def incoming_name(set_digest: Digest) -> str:
    """Return the name under which the blobs of a set are held."""
    return INCOMING_PREFIX + set_digest.hex


def is_incoming(entry: Descriptor) -> bool:
    """Return whether an entry of the index is a hold."""
    return entry.artifact_type == ARTIFACT_INCOMING and entry.ref_name.startswith(INCOMING_PREFIX)


def hold(
    layout: Layout, set_digest: Digest, blobs: Iterable[Descriptor], *, note: bytes = b""
) -> None:
    """Keep these blobs of a set through collections; an older hold of the set is replaced.

    ``note`` are bytes that whoever goes on with the set wants to read again. Raises
    :class:`StoreError`.
    """
    wanted = sorted({blob.digest: blob.size_bytes for blob in blobs}.items())
    with layout.writing():
        listed = [Descriptor(MEDIA_HELD, digest, size) for digest, size in wanted]
        lists = [
            layout.put_artifact(ARTIFACT_INCOMING, *listed[begin : begin + _PER_MANIFEST])
            for begin in range(0, len(listed), _PER_MANIFEST)
        ]
        if note:
            layer = layout.put_bytes(note, MEDIA_NOTE)
            lists.append(layout.put_artifact(ARTIFACT_NOTE, layer))
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_INDEX,
            "artifactType": ARTIFACT_INCOMING,
            "manifests": [one.as_dict() for one in lists],
        }
        entry = layout.put_bytes(canonical_json(body), MEDIA_INDEX, artifact_type=ARTIFACT_INCOMING)
        before = layout.resolve(incoming_name(set_digest))
        if before is None or before.digest != entry.digest:
            layout.set_ref(incoming_name(set_digest), entry)


def release(layout: Layout, set_digest: Digest) -> bool:
    """Let a set's blobs go: those without a name are collected after their grace time."""
    return layout.remove_ref(incoming_name(set_digest))


def held_note(layout: Layout, set_digest: Digest) -> bytes | None:
    """Return the note of a set's hold; None when there is none that can be read."""
    entry = layout.resolve(incoming_name(set_digest))
    if entry is None:
        return None
    with contextlib.suppress(SourceError, StoreError):
        for listed in _lists(layout, entry):
            if listed.artifact_type == ARTIFACT_NOTE and listed.layers:
                return layout.read_blob(listed.layers[0].digest, max_bytes=_MAX_NOTE_BYTES)
    return None


def held_blobs(layout: Layout, entry: Descriptor) -> Iterator[Descriptor]:
    """Yield the blobs that a hold lists, there or not.

    Raises :class:`SourceError` or :class:`StoreError` when the hold cannot be read.
    """
    for listed in _lists(layout, entry):
        if listed.artifact_type == ARTIFACT_INCOMING:
            yield from listed.layers


def _lists(layout: Layout, entry: Descriptor) -> Iterator[Manifest]:
    index = layout.read_manifest(entry)
    for child in index.manifests if isinstance(index, Index) else ():
        listed = layout.read_manifest(child)
        if isinstance(listed, Manifest):
            yield listed
