"""Cutting a bundle into parts that fit a medium: what lies in which part, to the byte.

Every part carries the manifest and all documents, and the manifest lists the pieces of every part:
so more pieces make less room for each. A plan is made for a manifest of some length and counts only
when the real one is not longer; else it is made again for the longer one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from local_imager.deliver.bundle.form.manifest import render_bundle
from local_imager.deliver.bundle.form.model import MAX_PARTS, Blob, Bundle, Piece
from local_imager.deliver.bundle.form.tarform import BLOCK, member_size, part_size
from local_imager.errors import InputError
from local_imager.oci.blobs import BlobDir, open_regular
from local_imager.oci.durable import explained
from local_imager.oci.model import Digest
from local_imager.oci.sparse import Hasher

# ``digest_of_range(blob, offset, size_bytes)`` is the digest of a run of bytes of a blob.
DigestOfRange = Callable[[Digest, int, int], Digest]
Parts = tuple[tuple[Piece, ...], ...]

_CHUNK_BYTES: Final = 1 << 20
# A segment takes a header and at least a block; less room than that carries nothing.
_LEAST_ROOM: Final = 2 * BLOCK
# Each try plans for a longer manifest; a limit that needs more of them is at the very edge.
_TRIES: Final = 100
_MIB: Final = 1 << 20
_ANY: Final = Digest("0" * 64)


def whole_part(blobs: Sequence[Blob]) -> tuple[Piece, ...]:
    """Return the one part of a bundle in one file: every carried blob that is no document."""
    return tuple(_whole(blob) for blob in blobs if blob.carried and not blob.document)


def _whole(blob: Blob) -> Piece:
    return Piece(blob.digest, 0, blob.size_bytes, blob.digest, True)


def split_bundle(bundle: Bundle, limit_bytes: int, digest_of_range: DigestOfRange) -> Bundle:
    """Return the bundle with parts of which none is longer than the limit as a plain tar.

    What ``parts`` held before does not count. ``digest_of_range`` is asked once for each segment of
    a blob that has to be cut, in the order of the parts. Raises :class:`InputError` when the limit
    is too small; it says the smallest that would do.
    """
    plan = _Plan(bundle)
    reserved = plan.reserve(limit_bytes)
    if reserved is None:
        raise _too_small(plan, limit_bytes)
    parts = plan_parts(plan.blobs, plan.fixed_bytes(reserved), limit_bytes, digest_of_range)
    return replace(bundle, parts=parts)


def plan_parts(
    blobs: Sequence[Blob], fixed_bytes: int, limit_bytes: int, digest_of_range: DigestOfRange
) -> Parts:
    """Lay blobs into parts in their order; ``fixed_bytes`` of each part are taken already.

    A blob stays whole where the rest of a part or a part of its own has room for it; a larger one
    is cut, and its first segment fills the part that is open. Documents and blobs that are not
    carried are passed over. Raises :class:`InputError` when nothing fits a part.
    """
    parts = _lay(blobs, limit_bytes - fixed_bytes, digest_of_range)
    if parts is None:
        raise InputError(
            f"parts of {limit_bytes} bytes are too small: {fixed_bytes} are taken in every part, "
            f"and no more than {MAX_PARTS} parts may be made",
            hint="choose larger parts",
            code="split-too-small",
        )
    return parts


def range_digests(blobs: BlobDir) -> DigestOfRange:
    """Return a function that hashes a run of bytes of a blob of this directory.

    It raises :class:`StoreError` when the blob cannot be read or is shorter.
    """

    def digest_of_range(blob: Digest, offset: int, size_bytes: int) -> Digest:
        hasher = Hasher()
        with explained(f"read blob {blob}"):
            with open(open_regular(blobs.blob_path(blob)), "rb", buffering=0) as stream:
                stream.seek(offset)
                while hasher.size_bytes < size_bytes:
                    chunk = stream.read(min(_CHUNK_BYTES, size_bytes - hasher.size_bytes))
                    if not chunk:
                        raise OSError(errno.EIO, "it is shorter than it was")
                    hasher.data(chunk)
        return hasher.digest

    return digest_of_range


def _lay(blobs: Sequence[Blob], room: int, digest_of_range: DigestOfRange) -> Parts | None:
    """Lay blobs into parts of ``room`` bytes; None when that cannot be done."""
    parts: list[list[Piece]] = [[]]
    rest = room
    for blob in blobs:
        if not blob.carried or blob.document:
            continue
        if member_size(blob.size_bytes) <= room:
            pieces: Iterator[Piece] = iter((_whole(blob),))
        elif room < _LEAST_ROOM:
            return None
        else:
            first = rest if rest >= _LEAST_ROOM else room
            pieces = _segments(blob, first, room, digest_of_range)
        for piece in pieces:
            taken = member_size(piece.size_bytes)
            if taken > rest:
                parts.append([])
                rest = room
            if len(parts) > MAX_PARTS:
                return None
            parts[-1].append(piece)
            rest -= taken
    return tuple(map(tuple, parts)) if room >= 0 else None


def _segments(blob: Blob, first: int, room: int, digest_of_range: DigestOfRange) -> Iterator[Piece]:
    """Yield the segments of a blob larger than a part; the open part has ``first`` bytes left."""
    offset = 0
    while offset < blob.size_bytes:
        most = ((room if offset else first) - BLOCK) // BLOCK * BLOCK
        size_bytes = min(most, blob.size_bytes - offset)
        digest = digest_of_range(blob.digest, offset, size_bytes)
        yield Piece(blob.digest, offset, size_bytes, digest, False)
        offset += size_bytes


class _Plan:
    """The sizes of one bundle, however it is cut."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = replace(bundle, parts=((),))
        self.blobs = tuple(b for b in bundle.blobs if b.carried and not b.document)
        self._places = {blob.digest: place for place, blob in enumerate(bundle.blobs)}
        # The manifest with one part that holds nothing is as long as the rest and `[]`.
        self.bare_bytes = len(render_bundle(self._bundle)) - len("[]")
        self._document_bytes = part_size(self._bundle, 1, manifest_size_bytes=0) - member_size(0)

    def fixed_bytes(self, manifest_bytes: int) -> int:
        """Return what every part takes beside its pieces when the manifest has this length.

        The label of a part is shorter than a block, whatever its number.
        """
        return self._document_bytes + member_size(manifest_bytes)

    def reserve(self, limit_bytes: int) -> int | None:
        """Return a length for which the manifest is planned and which it then does not exceed.

        None when no part of this limit can carry what it must.
        """
        reserved = self.bare_bytes
        for _ in range(_TRIES):
            parts = _lay(self.blobs, limit_bytes - self.fixed_bytes(reserved), lambda *_: _ANY)
            if parts is None:
                return None
            needed = self._manifest_bytes(parts)
            if self.fixed_bytes(needed) <= self.fixed_bytes(reserved):
                return reserved
            reserved = needed
        return None

    def _manifest_bytes(self, parts: Parts) -> int:
        lists = sum(len("[]") + sum(map(self._piece_bytes, part)) for part in parts)
        commas = sum(max(len(part) - 1, 0) for part in parts) + len(parts) - 1
        return self.bare_bytes + lists + commas

    def _piece_bytes(self, piece: Piece) -> int:
        """Return the length of what :func:`.manifest.render_bundle` writes for a piece."""
        place = self._places[piece.blob]
        if piece.whole:
            return len(str(place))
        text = f'{{"blob":{place},"digest":"{_ANY}","offset":{piece.offset},"size":'
        return len(text) + len(str(piece.size_bytes)) + len("}")

    def smallest(self) -> int:
        """Return the smallest limit that would do."""
        too_small, enough = 0, self.fixed_bytes(self.bare_bytes)
        while self.reserve(enough) is None:
            too_small, enough = enough, 2 * enough
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            if self.reserve(middle) is None:
                too_small = middle
            else:
                enough = middle
        return enough


def _too_small(plan: _Plan, limit_bytes: int) -> InputError:
    taken, smallest = plan.fixed_bytes(plan.bare_bytes), plan.smallest()
    return InputError(
        f"parts of {limit_bytes} bytes are too small: the manifest and all documents are in every "
        f"part ({taken} bytes and more), and a set has at most {MAX_PARTS} parts; the smallest "
        f"limit that would do is {smallest} bytes",
        hint=f"say --split {-(-smallest // _MIB)}MiB or more",
        code="split-too-small",
    )
