"""What must come in a part after its label, member by member, and for whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from local_imager.deliver.bundle.form.model import MANIFEST_NAME, PART_NAME, Bundle, Piece
from local_imager.deliver.bundle.form.tarform import (
    INDEX_NAME,
    LAYOUT_MARKER,
    LAYOUT_NAME,
    member_header,
    part_size,
    pieces_of,
)
from local_imager.oci.model import Digest

MARKER_PLACE: Final = 0
INDEX_PLACE: Final = 1
_FRONT: Final = 2
# An extra file is read over and named; a file that has no end is not.
_SLACK_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Expected:
    """One member that must come; ``piece`` is None for the layout's own two files."""

    name: str
    size_bytes: int
    digest: Digest
    piece: Piece | None = None

    @property
    def header(self) -> bytes:
        """Its header, to the byte."""
        return member_header(self.name, self.size_bytes)


class Course:
    """The members of one part, by their place (0 is ``oci-layout``)."""

    def __init__(self, bundle: Bundle, number: int, manifest_size_bytes: int) -> None:
        self.bundle = bundle
        self._pieces = list(pieces_of(bundle, number))
        self.size_bytes = part_size(bundle, number, manifest_size_bytes=manifest_size_bytes)
        self.documents_end = _FRONT + sum(1 for _ in bundle.documents())

    def __len__(self) -> int:
        return _FRONT + len(self._pieces)

    @property
    def limit_bytes(self) -> int:
        """How far a stream is followed."""
        return 2 * self.size_bytes + _SLACK_BYTES

    def at(self, place: int) -> Expected:
        """Return what must come at a place."""
        if place == MARKER_PLACE:
            return Expected(LAYOUT_NAME, len(LAYOUT_MARKER), Digest.of(LAYOUT_MARKER))
        if place == INDEX_PLACE:
            index = self.bundle.index
            return Expected(INDEX_NAME, index.size_bytes, index.digest)
        piece = self._pieces[place - _FRONT]
        return Expected(piece.member, piece.size_bytes, piece.digest, piece)

    def purpose(self, place: int) -> str:
        """Return in brackets what the blob at a place is for; empty for the layout's own files."""
        if place < _FRONT:
            return ""
        return f" ({self.bundle.by_digest[self._pieces[place - _FRONT].blob].purpose})"

    @cached_property
    def _places(self) -> dict[str, int]:
        return {self.at(place).name: place for place in range(len(self))}

    def place_of(self, untrusted_name: str) -> int | None:
        """Return the place of a name, or None when no member is called so."""
        return self._places.get(untrusted_name)

    @staticmethod
    def in_front(untrusted_name: str) -> bool:
        """Say whether a name is of the two members that came before."""
        return untrusted_name in (MANIFEST_NAME, PART_NAME)

    def affects(self, places: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the items that need any of these members."""
        wanted = list(places)
        if INDEX_PLACE in wanted:
            return self.everything
        if len(wanted) == 1:
            return self._affected_by(wanted[0])
        return tuple(dict.fromkeys(name for one in wanted for name in self._affected_by(one)))

    def _affected_by(self, place: int) -> tuple[str, ...]:
        """One value for each blob, however many segments it has and faults hold it."""
        if place < _FRONT:
            return ()
        return self.bundle.names_with(self._pieces[place - _FRONT].blob)

    @cached_property
    def everything(self) -> tuple[str, ...]:
        """The names of all items."""
        return tuple(item.name for item in self.bundle.items)

    def documents(self) -> Iterator[tuple[int, Digest]]:
        """Yield place and digest of the documents."""
        for place in range(_FRONT, self.documents_end):
            yield place, self._pieces[place - _FRONT].blob
