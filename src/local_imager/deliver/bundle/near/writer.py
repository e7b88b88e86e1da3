"""Writing one part of a bundle as a stream: headers, documents, blobs that are hashed on the way.

Whatever is written was checked in the same pass, so a store that was damaged gives no file.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from local_imager.deliver.bundle.form.manifest import render_label
from local_imager.deliver.bundle.form.model import (
    MANIFEST_NAME,
    PART_NAME,
    Bundle,
    PartLabel,
    Piece,
)
from local_imager.deliver.bundle.form.tarform import (
    END_MARK,
    INDEX_NAME,
    LAYOUT_MARKER,
    LAYOUT_NAME,
    member_header,
    padding,
    part_size,
    pieces_of,
)
from local_imager.deliver.bundle.near.pump import Pump, Write, pumping
from local_imager.errors import IntegrityError
from local_imager.events import EventSink, Progress
from local_imager.oci.durable import explained
from local_imager.oci.model import Digest

STEP: Final = "export"
_PROGRESS_EVERY_S: Final = 0.1

OpenBlob = Callable[[Digest], int]
"""Opens a blob for reading and returns the handle, which the caller closes; may raise OSError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest with the bytes of all that it names: ``made`` at hand, others opened."""

    bundle: Bundle
    manifest: bytes = field(repr=False)
    index: bytes = field(repr=False)
    made: Mapping[Digest, bytes] = field(repr=False)
    open_blob: OpenBlob

    @property
    def set_digest(self) -> Digest:
        """The identity of the bundle or set."""
        return Digest.of(self.manifest)

    def size_bytes(self, number: int) -> int:
        """Return how long a part (numbered from 1) is as a plain tar."""
        return part_size(self.bundle, number, manifest_size_bytes=len(self.manifest))


def stream_part(source: Source, number: int, write: Write, sink: EventSink, subject: str) -> None:
    """Write a part (numbered from 1) from its first byte to its last.

    ``write`` is called in another thread, one call after the other. Raises
    :class:`IntegrityError` for a blob that does not have the bytes of its digest,
    :class:`StoreError` for one that cannot be read, and what ``write`` raises.
    """
    label = PartLabel(source.set_digest, number, len(source.bundle.parts))
    with pumping(write) as pump:
        told = _Telling(sink, subject, source.size_bytes(number))
        for name, data in (
            (MANIFEST_NAME, source.manifest),
            (PART_NAME, render_label(label)),
            (LAYOUT_NAME, LAYOUT_MARKER),
            (INDEX_NAME, source.index),
        ):
            pump.put(member_header(name, len(data)) + data)
            pump.zeros(padding(len(data)))
        for piece in pieces_of(source.bundle, number):
            pump.put(member_header(piece.member, piece.size_bytes))
            _piece(source, piece, pump, told)
            pump.zeros(padding(piece.size_bytes))
        pump.put(END_MARK)
    told.end()


def _piece(source: Source, piece: Piece, pump: Pump, told: _Telling) -> None:
    made = source.made.get(piece.blob)
    if made is not None:
        if Digest.of(made) != piece.digest:
            raise _damaged(source, piece)
        pump.put(made)
        return
    with explained(f"read blob {piece.blob}"):
        handle = source.open_blob(piece.blob)
    try:
        hasher = hashlib.sha256()
        offset, end = piece.offset, piece.offset + piece.size_bytes
        if piece.whole and os.fstat(handle).st_size != piece.size_bytes:
            raise _damaged(source, piece)
        while offset < end:
            room = pump.room()[: end - offset]
            with explained(f"read blob {piece.blob}"):
                count = os.preadv(handle, [room], offset)
            if count == 0:
                raise _damaged(source, piece)
            hasher.update(room[:count])
            pump.advance(count)
            offset += count
            told.more(count)
        if hasher.hexdigest() != piece.digest.hex:
            raise _damaged(source, piece)
    finally:
        os.close(handle)


def _damaged(source: Source, piece: Piece) -> IntegrityError:
    purpose = source.bundle.by_digest[piece.blob].purpose
    return IntegrityError(
        f"blob {piece.blob} in the store does not have the bytes of its digest: {purpose}",
        hint="`local-imager store fsck --repair` removes bad blobs; then run the command again, "
        "which fetches them anew",
    )


class _Telling:
    """Tells how far a part is, not too often."""

    def __init__(self, sink: EventSink, subject: str, total: int) -> None:
        self._sink, self._subject, self._total = sink, subject, total
        self._done, self._told_s = 0, 0.0

    def more(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            self._sink.emit(Progress(STEP, self._subject, self._done, self._total))

    def end(self) -> None:
        """Tell that all is there."""
        self._sink.emit(Progress(STEP, self._subject, self._total, self._total))
