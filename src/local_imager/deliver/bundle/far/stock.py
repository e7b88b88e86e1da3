"""What of a bundle's blobs is in the store, what is still missing, and in which part it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from local_imager.deliver.bundle.far.segments import has_segment, join_segments
from local_imager.deliver.bundle.form.model import Blob, Bundle, Piece
from local_imager.deliver.bundle.reading.reception import PartReading
from local_imager.events import EventSink
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest


class Stock:
    """The blobs of one bundle, seen from a store; ``layout`` is None when there is no store.

    What :meth:`saw` was told of counts as there although nothing wrote it: a dry run asks what
    would be there.
    """

    def __init__(self, bundle: Bundle, layout: Layout | None) -> None:
        self.bundle, self._layout = bundle, layout
        self._seen: set[Digest] = set()
        self._seen_segments: set[str] = set()

    @cached_property
    def _pieces(self) -> Mapping[Digest, tuple[tuple[int, Piece], ...]]:
        found: dict[Digest, list[tuple[int, Piece]]] = {}
        for number, part in enumerate(self.bundle.parts, 1):
            for piece in part:
                found.setdefault(piece.blob, []).append((number, piece))
        return {digest: tuple(pieces) for digest, pieces in found.items()}

    def pieces(self, digest: Digest) -> tuple[tuple[int, Piece], ...]:
        """Return the pieces of a blob in order, each with the number of its part."""
        return self._pieces.get(digest, ())

    def saw(self, reading: PartReading) -> None:
        """Count what came intact in a file as there."""
        self._seen |= reading.intact
        self._seen_segments |= reading.segments

    def has(self, digest: Digest) -> bool:
        """Return whether a blob is in the store, undamaged."""
        if digest in self._seen:
            return True
        blob = self.bundle.by_digest.get(digest)
        size_bytes = blob.size_bytes if blob is not None else None
        return self._layout is not None and self._layout.intact(digest, size_bytes)

    def has_piece(self, piece: Piece) -> bool:
        """Return whether a piece is there by itself or as part of its blob."""
        if self.has(piece.blob):
            return True
        if piece.whole:
            return False
        if piece.member in self._seen_segments:
            return True
        return self._layout is not None and has_segment(self._layout, piece)

    def can_have(self, digest: Digest) -> bool:
        """Return whether a blob is there or can be made of what is."""
        if self.has(digest):
            return True
        rebuild = self.bundle.by_digest[digest].rebuild
        if rebuild is not None:
            return self.can_have(rebuild.payload) and self.has(rebuild.base)
        pieces = self.pieces(digest)
        return bool(pieces) and all(self.has_piece(piece) for _, piece in pieces)

    def awaited_parts(self, digest: Digest) -> tuple[int, ...]:
        """Return the numbers of the parts that bring what is missing of a blob."""
        if self.has(digest):
            return ()
        rebuild = self.bundle.by_digest[digest].rebuild
        if rebuild is not None:
            return self.awaited_parts(rebuild.payload)
        missing = (n for n, piece in self.pieces(digest) if not self.has_piece(piece))
        return tuple(sorted(set(missing)))

    def unobtainable(self, digest: Digest) -> Digest | None:
        """Return the blob that no part brings and the store lacks; None when there is none."""
        if self.can_have(digest):
            return None
        blob = self.bundle.by_digest[digest]
        if blob.rebuild is not None:
            return blob.rebuild.base if not self.has(blob.rebuild.base) else None
        return None if self.pieces(digest) else digest

    def room_bytes(self, wanted: Iterable[Blob], parts: Iterable[int]) -> int:
        """Return how many bytes these parts bring to the store, and what is made of them takes."""
        wanted = [blob for blob in wanted if not self.has(blob.digest)]
        digests = {blob.digest for blob in wanted}
        coming = (piece for number in parts for piece in self.bundle.parts[number - 1])
        brought = sum(
            piece.size_bytes
            for piece in coming
            if piece.blob in digests and not self.has_piece(piece)
        )
        made = sum(blob.size_bytes for blob in wanted if self._is_made(blob))
        return brought + made

    def _is_made(self, blob: Blob) -> bool:
        return blob.rebuild is not None or any(not p.whole for _, p in self.pieces(blob.digest))

    def make(self, blob: Blob, layout: Layout, sink: EventSink, *, private: bool) -> None:
        """Put a blob together that did not come whole; nothing happens when it is there.

        Raises :class:`IntegrityError` when what came does not give the blob.
        """
        if self.has(blob.digest) or not self.can_have(blob.digest):
            return
        if blob.rebuild is None:
            segments = [piece for _, piece in self.pieces(blob.digest)]
            join_segments(layout, blob, segments, private=private)
            return
        from local_imager.deliver.bundle.deltas.rebuild import rebuild_blob

        self.make(self.bundle.by_digest[blob.rebuild.payload], layout, sink, private=private)
        rebuild_blob(blob, layout, sink, private=private)
