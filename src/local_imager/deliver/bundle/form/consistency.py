"""Whether the parts of a manifest agree: what is promised is carried, once and whole.

A manifest that passes describes exactly one file (or set), so a reader may compare what it finds
with what must come, byte position by byte position.
"""

from __future__ import annotations

from typing import Final

from local_imager.deliver.bundle.form.fields import MAX_SIZE_BYTES, malformed
from local_imager.deliver.bundle.form.model import MAX_MANIFEST_BYTES, Blob, Bundle, Item, Piece
from local_imager.errors import SourceError
from local_imager.oci.model import MEDIA_INDEX, Digest

# What every part carries besides its pieces must not be what fills a memory or a medium.
MAX_INDEX_BYTES: Final = MAX_MANIFEST_BYTES
MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
# They are kept apart before anything is judged; those of ten thousand images have some hundred MiB.
MAX_DOCUMENTS_BYTES: Final = 1024 * 1024 * 1024


def _bad(problem: str) -> SourceError:
    return malformed("bundle.json", problem)


def check_bundle(bundle: Bundle) -> None:
    """Check a manifest in itself; raises :class:`SourceError` (malformed).

    - No blob, item or piece is listed twice; documents stand first, by digest.
    - Every blob is needed by an item or by a blob that is rebuilt, and every item has its entry.
    - The pieces hold every carried blob that is no document, once, whole and in order.
    """
    if bundle.index.media_type != MEDIA_INDEX or bundle.index.size_bytes > MAX_INDEX_BYTES:
        raise _bad("the index is not an OCI index of reasonable size")
    _check_blobs(bundle)
    _check_items(bundle)
    _check_parts(bundle)


def _check_blobs(bundle: Bundle) -> None:
    if len(bundle.by_digest) != len(bundle.blobs):
        raise _bad("a blob is listed twice")
    documents = [blob.digest for blob in bundle.blobs if blob.document]
    first = [blob.digest for blob in bundle.blobs[: len(documents)]]
    if first != sorted(documents):
        raise _bad("the documents do not stand first, in the order of their digests")
    if sum(blob.size_bytes for blob in bundle.blobs) > MAX_SIZE_BYTES:
        raise _bad("the blobs are larger together than any medium")
    if sum(blob.size_bytes for blob in bundle.blobs if blob.document) > MAX_DOCUMENTS_BYTES:
        raise _bad(f"the documents are larger together than {MAX_DOCUMENTS_BYTES} bytes")
    for blob in bundle.blobs:
        if blob.document and blob.size_bytes > MAX_DOCUMENT_BYTES:
            raise _bad(f"the document {blob.digest} is larger than {MAX_DOCUMENT_BYTES} bytes")
        _check_rebuild(bundle, blob)


def _check_rebuild(bundle: Bundle, blob: Blob) -> None:
    if blob.rebuild is None:
        return
    payload = bundle.by_digest.get(blob.rebuild.payload)
    if blob.carried or blob.document:
        raise _bad(f"{blob.digest} is both carried and rebuilt")
    if payload is None or not payload.carried or payload.document:
        raise _bad(f"what {blob.digest} is rebuilt with is not carried")
    if blob.rebuild.base == blob.digest:
        raise _bad(f"{blob.digest} is rebuilt from itself")


def _check_items(bundle: Bundle) -> None:
    seen: set[tuple[str, str]] = set()
    needed = {blob.rebuild.payload for blob in bundle.blobs if blob.rebuild is not None}
    for item in bundle.items:
        if (item.kind, item.name) in seen:
            raise _bad(f"the {item.kind} {item.name[:120]!r} is listed twice")
        seen.add((item.kind, item.name))
        _check_item(bundle, item)
        needed.update(item.blobs)
    if len(needed) != len(bundle.blobs):
        raise _bad("it lists a blob that no item needs")


def _check_item(bundle: Bundle, item: Item) -> None:
    name = item.name
    if len(set(item.blobs)) != len(item.blobs):
        raise _bad(f"{name[:120]!r} names a blob twice")
    entry = bundle.by_digest.get(item.descriptor.digest)
    if entry is None or item.descriptor.digest not in item.blobs:
        raise _bad(f"{name[:120]!r} does not name its own entry among its blobs")
    if entry.size_bytes != item.descriptor.size_bytes or not entry.document:
        raise _bad(f"{name[:120]!r} and the list of blobs differ about its entry")
    # It is written to a file of this name when a person asks for the documents.
    if item.kind == "document" and (set(name) & {"/", "\\"} or name.startswith(".")):
        raise _bad(f"the document {name[:120]!r} has a name that is no plain file name")


def _check_parts(bundle: Bundle) -> None:
    if not bundle.parts:
        raise _bad("it has no parts")
    if len(bundle.parts) > 1 and not all(bundle.parts):
        raise _bad("a part of the set carries nothing")
    reached: dict[Digest, int] = {}
    for part in bundle.parts:
        for piece in part:
            _check_piece(bundle, piece, reached)
    for blob in bundle.blobs:
        wanted = blob.carried and not blob.document
        if wanted != (blob.digest in reached) or reached.get(blob.digest, 0) != (
            blob.size_bytes if wanted else 0
        ):
            raise _bad(f"the parts do not carry {blob.digest} exactly once")


def _check_piece(bundle: Bundle, piece: Piece, reached: dict[Digest, int]) -> None:
    """Segments follow each other without gap; ``reached`` holds how far each blob is."""
    blob = bundle.by_digest[piece.blob]
    if piece.whole:
        fits = piece.blob not in reached
    else:
        # A segment that is the whole blob would be a second spelling of the same content.
        fits = piece.offset == reached.get(piece.blob, 0) and 0 < piece.size_bytes < blob.size_bytes
    end = piece.offset + piece.size_bytes
    if not fits or end > blob.size_bytes:
        raise _bad(f"the pieces of {piece.blob} overlap or leave a gap")
    reached[piece.blob] = end
