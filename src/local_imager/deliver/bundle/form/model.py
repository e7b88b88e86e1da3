"""The manifest of a bundle (``bundle.json``): what it carries, blob by blob, and for whom.

One content has one spelling (canonical JSON: sorted keys, no spaces), nothing in it is a time or a
place, so the same inputs give the same bytes. The SHA-256 of those bytes is the identity of the
bundle, or of the set when it travels in several parts; the signature is over those bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

from local_imager.oci.model import Descriptor, Digest

FORMAT: Final = 1
MEDIA_BUNDLE: Final = "application/vnd.local-imager.bundle.v1+json"
MANIFEST_NAME: Final = "bundle.json"
PART_NAME: Final = "part.json"
# Ten thousand images of twenty blobs each make about 20 MB of manifest.
MAX_MANIFEST_BYTES: Final = 32 * 1024 * 1024
MAX_BLOBS: Final = 200_000
MAX_ITEMS: Final = 20_000
MAX_PARTS: Final = 10_000

Kind = Literal["image", "asset", "document"]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """How the far side makes a blob that does not travel whole: ``base`` is a blob it has.

    ``method`` names the way back (see ``deltas.rebuild``), ``payload`` the carried blob that it
    needs.
    """

    base: Digest
    payload: Digest
    method: str


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob that the items need; ``purpose`` says in words what it is.

    ``document`` marks what the gate and people read (manifests, configs, signatures, lock): it
    travels first, and in every part. ``carried`` is False for what the far side is known to have
    and for what is rebuilt there.
    """

    digest: Digest
    size_bytes: int
    purpose: str
    document: bool = False
    carried: bool = True
    rebuild: Rebuild | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A thing that becomes visible as a whole or not at all: an image, an asset or a document.

    ``name`` is the entry's name in the layout's index (of a document: its file name), ``blobs``
    are all that it needs, its signatures included. ``signer`` is who had signed an image when the
    bundle was made; it is for people, the far side asks its own policy.
    """

    kind: Kind
    name: str
    descriptor: Descriptor
    blobs: tuple[Digest, ...]
    roles: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes of one blob as it lies in a part; the whole blob, or a segment of it.

    ``digest`` is that of these bytes, so that each part is checked by itself.
    """

    blob: Digest
    offset: int
    size_bytes: int
    digest: Digest
    whole: bool

    @property
    def member(self) -> str:
        """The name of the tar member that holds the bytes."""
        if self.whole:
            return f"blobs/sha256/{self.blob.hex}"
        return f"segments/sha256/{self.blob.hex}/{self.offset:020d}"


@dataclass(frozen=True)
class Bundle:
    """The content of ``bundle.json``.

    ``index`` is the carried ``index.json`` by digest and size. ``parts`` are the pieces of each
    part, documents left out (every part has those); one part for a bundle that is one file.
    ``since`` is the digest of the inventory that a delta leans on. ``facts`` are for people:
    versions, arches, registry.
    """

    index: Descriptor
    items: tuple[Item, ...]
    blobs: tuple[Blob, ...]
    parts: tuple[tuple[Piece, ...], ...]
    since: Digest | None = None
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def by_digest(self) -> Mapping[Digest, Blob]:
        """The blobs by their digest."""
        return {blob.digest: blob for blob in self.blobs}

    def documents(self) -> Iterator[Blob]:
        """Yield what every part begins with, in the order of the file."""
        return (blob for blob in self.blobs if blob.document and blob.carried)

    @cached_property
    def _needed_by(self) -> Mapping[Digest, tuple[Item, ...]]:
        needed: dict[Digest, list[Item]] = {}
        for item in self.items:
            for digest in item.blobs:
                needed.setdefault(digest, []).append(item)
        payloads: dict[Digest, dict[Digest, None]] = {}
        for blob in self.blobs:
            if blob.rebuild is not None:
                payloads.setdefault(blob.rebuild.payload, {})[blob.digest] = None
        for payload, rebuilt in payloads.items():
            # By place and not by value: one payload may be there for very many items.
            both = (item for digest in (payload, *rebuilt) for item in needed.get(digest, ()))
            needed[payload] = list({id(item): item for item in both}.values())
        return {digest: tuple(items) for digest, items in needed.items()}

    @cached_property
    def _names_by_blob(self) -> dict[Digest, tuple[str, ...]]:
        return {}

    def items_with(self, digest: Digest) -> tuple[Item, ...]:
        """Return the items that need a blob, if only to rebuild another from it."""
        return self._needed_by.get(digest, ())

    def names_with(self, digest: Digest) -> tuple[str, ...]:
        """Return the names of the items that need a blob, each once; the same tuple each time."""
        known = self._names_by_blob.get(digest)
        if known is None:
            known = tuple(dict.fromkeys(item.name for item in self.items_with(digest)))
            self._names_by_blob[digest] = known
        return known

    def names_in(self, number: int) -> tuple[str, ...]:
        """Return the names of the items that need something of a part (numbered from 1)."""
        blobs = dict.fromkeys(piece.blob for piece in self.parts[number - 1])
        return tuple(dict.fromkeys(name for blob in blobs for name in self.names_with(blob)))


@dataclass(frozen=True, slots=True)
class PartLabel:
    """``part.json``: which part of which set a file is; parts are numbered from 1."""

    set_digest: Digest
    number: int
    count: int
