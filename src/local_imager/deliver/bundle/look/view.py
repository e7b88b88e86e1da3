"""What a bundle says of itself: the content of its manifest, summed up for people and programs.

Nothing here is verified. A manifest that nobody checked can say anything, so whoever shows a view
has to say that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from local_imager.deliver.bundle.form.model import FORMAT, Blob, Bundle, Item, Kind, Piece
from local_imager.oci.model import Digest

BIGGEST: Final = 5


@dataclass(frozen=True, slots=True)
class Amount:
    """Some blobs: how many, and how many bytes they have together."""

    blobs: int
    size_bytes: int

    @classmethod
    def of(cls, blobs: Iterable[Blob]) -> Amount:
        """Count blobs; each is expected once."""
        sizes = [blob.size_bytes for blob in blobs]
        return cls(len(sizes), sum(sizes))

    def as_dict(self) -> dict[str, int]:
        """Return the JSON object that ``--json`` prints."""
        return {"blobs": self.blobs, "size_bytes": self.size_bytes}


@dataclass(frozen=True, slots=True)
class ItemView:
    """One image, asset or document; ``size_bytes`` is all that it needs, shared blobs included."""

    item: Item
    size_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        item = self.item
        return {
            "name": item.name,
            "digest": str(item.descriptor.digest),
            "roles": list(item.roles),
            "arches": list(item.arches),
            "signer": item.signer,
            "blobs": len(item.blobs),
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class BlobView:
    """One blob and the names of the items that need it."""

    blob: Blob
    needed_by: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "digest": str(self.blob.digest),
            "size_bytes": self.blob.size_bytes,
            "purpose": self.blob.purpose,
            "carried": self.blob.carried,
            "needed_by": list(self.needed_by),
        }


@dataclass(frozen=True, slots=True)
class PartView:
    """One part of a set: its number, the bytes of blobs in it, and the items that need those."""

    number: int
    size_bytes: int
    items: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {"number": self.number, "size_bytes": self.size_bytes, "items": list(self.items)}


@dataclass(frozen=True, slots=True)
class View:
    """A manifest summed up.

    ``needed`` are the blobs that the items need; of those ``carried`` travel, ``rebuilt`` are made
    on the far side and ``presumed`` are expected to be there already. ``patches`` travel for what
    is rebuilt. ``documents`` travel in each part; the parts' sizes leave them out.
    """

    facts: Mapping[str, tuple[str, ...]]
    since: Digest | None
    images: tuple[ItemView, ...]
    assets: tuple[ItemView, ...]
    files: tuple[ItemView, ...]
    needed: Amount
    carried: Amount
    presumed: Amount
    rebuilt: Amount
    patches: Amount
    documents: Amount
    parts: tuple[PartView, ...]
    biggest: tuple[BlobView, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "format": FORMAT,
            "facts": {name: list(values) for name, values in sorted(self.facts.items())},
            "since": str(self.since) if self.since else None,
            "images": [view.as_dict() for view in self.images],
            "assets": [view.as_dict() for view in self.assets],
            "documents": [view.as_dict() for view in self.files],
            "needed": self.needed.as_dict(),
            "carried": self.carried.as_dict(),
            "presumed": self.presumed.as_dict(),
            "rebuilt": self.rebuilt.as_dict(),
            "patches": self.patches.as_dict(),
            "in_each_part": self.documents.as_dict(),
            "contents_of_parts": [part.as_dict() for part in self.parts],
            "biggest": [view.as_dict() for view in self.biggest],
        }


def view_of(bundle: Bundle) -> View:
    """Sum up a manifest; every total counts a blob once, an item's size counts all it needs."""
    wanted = needed_blobs(bundle)
    patches = [blob for blob in bundle.blobs if blob.digest not in wanted and blob.carried]
    blobs = wanted.values()
    views = [ItemView(item, _size_of(bundle, item.blobs)) for item in bundle.items]
    biggest = nsmallest(BIGGEST, blobs, key=lambda blob: (-blob.size_bytes, blob.digest))
    names = _names_by_blob(bundle)
    return View(
        facts=bundle.facts,
        since=bundle.since,
        images=_of_kind(views, "image"),
        assets=_of_kind(views, "asset"),
        files=_of_kind(views, "document"),
        needed=Amount.of(blobs),
        carried=Amount.of(blob for blob in blobs if blob.carried),
        presumed=Amount.of(b for b in blobs if not b.carried and b.rebuild is None),
        rebuilt=Amount.of(blob for blob in blobs if blob.rebuild is not None),
        patches=Amount.of(patches),
        documents=Amount.of(bundle.documents()),
        parts=tuple(_part(n, pieces, names) for n, pieces in enumerate(bundle.parts, 1)),
        biggest=tuple(BlobView(blob, names.get(blob.digest, ())) for blob in biggest),
    )


def needed_blobs(bundle: Bundle) -> dict[Digest, Blob]:
    """Return what the items need, in the manifest's order: what a far side has after an import."""
    named = {digest for item in bundle.items for digest in item.blobs}
    return {blob.digest: blob for blob in bundle.blobs if blob.digest in named}


def _size_of(bundle: Bundle, digests: Iterable[Digest]) -> int:
    return sum(bundle.by_digest[digest].size_bytes for digest in digests)


def _of_kind(views: Iterable[ItemView], kind: Kind) -> tuple[ItemView, ...]:
    return tuple(view for view in views if view.item.kind == kind)


def _names_by_blob(bundle: Bundle) -> Mapping[Digest, tuple[str, ...]]:
    """Return per blob the items that need it; a patch belongs to those that need what it makes."""
    names: dict[Digest, list[str]] = {}
    for item in bundle.items:
        for digest in item.blobs:
            names.setdefault(digest, []).append(item.name)
    for blob in bundle.blobs:
        if blob.rebuild is not None:
            names.setdefault(blob.rebuild.payload, []).extend(names.get(blob.digest, ()))
    return {digest: tuple(dict.fromkeys(found)) for digest, found in names.items()}


def _part(
    number: int, pieces: Iterable[Piece], names: Mapping[Digest, tuple[str, ...]]
) -> PartView:
    size_bytes, items = 0, dict[str, None]()
    for piece in pieces:
        size_bytes += piece.size_bytes
        items.update(dict.fromkeys(names.get(piece.blob, ())))
    return PartView(number, size_bytes, tuple(items))
