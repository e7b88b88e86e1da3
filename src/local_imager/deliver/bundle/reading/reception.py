"""What a reader of bundles tells while a part passes by, and what it knows at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from local_imager.deliver.bundle.form.model import Blob, Bundle, PartLabel, Piece
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.oci.model import Digest


class PieceSink(Protocol):
    """Takes the bytes of one piece, in order, from one thread."""

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes; a view is only good until the call returns. Not more than announced come."""

    def close(self, intact: bool) -> None:
        """Called once, also when something raised: all bytes came and the digest matched, or not.

        The digest is checked by the reader; the sink need not hash the bytes again.
        """


class Reception(Protocol):
    """Whoever wants something of a part; the calls come in the order of this class.

    Anything raised here ends the reading and leaves :func:`read_part` as it is.
    """

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        """The manifest could be read and is the one that the label names; may refuse it."""

    def index(self, data: bytes) -> None:
        """Take ``index.json``; its digest is the one of the manifest."""

    def piece(self, blob: Blob, piece: Piece) -> PieceSink | None:
        """A piece comes, a document or of the part's own; None: it is only hashed."""

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        """All documents went by, those ``faulty`` not intact or not at all; layers follow."""


class LookOnly:
    """Wants nothing: everything is hashed, nothing kept."""

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        """Let it pass."""

    def piece(self, blob: Blob, piece: Piece) -> PieceSink | None:
        """Want no bytes."""
        return None

    def index(self, data: bytes) -> None:
        """Let it pass."""

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        """Let it pass."""


@dataclass(frozen=True, slots=True)
class PartReading:
    """What was found in one file.

    ``label`` and ``bundle`` are None when they could not be read. ``manifest_digest`` is that of
    the bytes of ``bundle.json`` that were there: the identity of the set. ``intact`` are the whole
    blobs that came at their place with the right bytes, ``segments`` the names of the members with
    segments that did. ``pieces_seen`` counts all that came, right or not; ``bytes_read`` are those
    of the file (compressed ones, if it is compressed). ``more_faults`` counts faults that were
    found but not kept: the list is bounded, what is intact is not guessed from it.
    """

    label: PartLabel | None
    bundle: Bundle | None
    manifest_digest: Digest | None
    faults: tuple[Fault, ...]
    intact: frozenset[Digest]
    segments: frozenset[str]
    pieces_seen: int
    bytes_read: int
    more_faults: int = 0
