"""What the far side has, as a document that a person carries to the near side.

One content has one spelling (canonical JSON and a line feed), nothing in it is a time or a path, so
the same store gives the same bytes and the digest of the file names what a delta leans on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from local_imager.deliver.bundle.form.fields import Fields, malformed
from local_imager.errors import InputError
from local_imager.events import NULL_SINK, EventSink, Progress, printable
from local_imager.oci.blobs import open_regular
from local_imager.oci.indexlines import MAX_ENTRIES
from local_imager.oci.model import Descriptor, Digest, canonical_json, load_json_object
from local_imager.oci.names import attached_to
from local_imager.store.incoming import is_incoming
from local_imager.store.reach import reach
from local_imager.store.store import Store

FORMAT: Final = 1
MEDIA_INVENTORY: Final = "application/vnd.local-imager.inventory.v1+json"
# Two hundred thousand blobs with their names make about 45 MB.
MAX_INVENTORY_BYTES: Final = 64 * 1024 * 1024
# Two in each entry, one between entries; a value costs many times its text in memory.
_MAX_COMMAS: Final = 5 * MAX_ENTRIES
_WHAT: Final = "the inventory"
_REPORT_EVERY: Final = 256


@dataclass(frozen=True, slots=True, order=True)
class Named:
    """An image or asset of the far side by its name in the store; only for people."""

    name: str
    digest: Digest


@dataclass(frozen=True)
class Inventory:
    """The blobs of a store (digest and size in bytes), and its names where they were asked for."""

    blobs: Mapping[Digest, int]
    names: tuple[Named, ...] = ()

    def holds(self, digest: Digest) -> bool:
        """Say whether the far side had the blob when the inventory was made."""
        return digest in self.blobs

    @cached_property
    def digest(self) -> Digest:
        """Digest of the document as it is written; what ``Bundle.since`` holds."""
        return Digest.of(render_inventory(self))


def make_inventory(store: Store, *, names: bool = False, sink: EventSink = NULL_SINK) -> Inventory:
    """Return every blob that a name of the store reaches and whose bytes are right.

    Quick while the blobs' seals hold; a blob that may have been written to is hashed again. With
    ``names`` the names of images and assets are told too. Raises :class:`StoreError`.
    """
    entries = store.layout.entries()
    needed = reach(store.layout, entries).needed
    blobs: dict[Digest, int] = {}
    for number, (digest, (descriptor, _)) in enumerate(sorted(needed.items()), 1):
        if store.layout.intact(digest, descriptor.size_bytes):
            blobs[digest] = descriptor.size_bytes
        if number % _REPORT_EVERY == 0 or number == len(needed):
            sink.emit(Progress("inventory", str(store.path), number, len(needed)))
    listed = {Named(e.ref_name, e.digest) for e in entries if _is_named(e) and e.digest in blobs}
    return Inventory(blobs, tuple(sorted(listed)) if names else ())


def _is_named(entry: Descriptor) -> bool:
    """Whether an entry is an image or an asset under a name that can be shown."""
    name = entry.ref_name
    shown = bool(name) and name.isprintable() and len(name) <= 1024
    return shown and attached_to(name) is None and not is_incoming(entry)


def render_inventory(inventory: Inventory) -> bytes:
    """Return the bytes of the document; equal inventories give equal bytes."""
    blobs = sorted(inventory.blobs.items())
    document: dict[str, Any] = {
        "format": FORMAT,
        "mediaType": MEDIA_INVENTORY,
        "blobs": [{"digest": str(digest), "size": size} for digest, size in blobs],
    }
    if inventory.names:
        document["names"] = [
            {"digest": str(one.digest), "name": one.name} for one in sorted(inventory.names)
        ]
    return canonical_json(document) + b"\n"


def read_inventory(path: Path) -> Inventory:
    """Read the file that ``store inventory`` wrote on the far side.

    Raises :class:`InputError` when it cannot be read, :class:`SourceError` (malformed) when it is
    not an inventory.
    """
    try:
        with open(open_regular(path), "rb") as stream:
            untrusted_data = stream.read(MAX_INVENTORY_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the inventory {printable(str(path))}: {error.strerror}",
            hint="`local-imager store inventory -o FILE` makes one on the far side",
        ) from error
    return parse_inventory(untrusted_data)


def parse_inventory(untrusted_data: bytes) -> Inventory:
    """Read the document strictly; spaces and line ends are free, for it may travel by mail.

    Raises :class:`SourceError` (malformed).
    """
    if untrusted_data.count(b",") > _MAX_COMMAS:
        raise malformed(_WHAT, "it lists far more than a store holds")
    document = load_json_object(untrusted_data, _WHAT, max_bytes=MAX_INVENTORY_BYTES)
    fields = Fields(document, _WHAT)
    _check_format(fields)
    blobs: dict[Digest, int] = {}
    for entry in fields.objects("blobs", MAX_ENTRIES):
        digest, size_bytes = entry.digest("digest"), entry.size("size")
        entry.end()
        if blobs and digest <= next(reversed(blobs)):
            raise malformed(_WHAT, "its blobs are not each listed once, in order")
        blobs[digest] = size_bytes
    names = _names(fields, blobs) if fields.has("names") else ()
    fields.end()
    return Inventory(blobs, names)


def _check_format(fields: Fields) -> None:
    number = fields.number("format")
    if fields.text("mediaType") != MEDIA_INVENTORY:
        raise malformed(_WHAT, f"its mediaType is not {MEDIA_INVENTORY}")
    if number != FORMAT:
        raise malformed(
            _WHAT,
            f"it has the format {number}; this version of local-imager reads {FORMAT}",
            hint="use the same version of local-imager on both sides",
        )


def _names(fields: Fields, blobs: Mapping[Digest, int]) -> tuple[Named, ...]:
    names: list[Named] = []
    for entry in fields.objects("names", MAX_ENTRIES):
        one = Named(entry.text("name"), entry.digest("digest"))
        entry.end()
        if one.digest not in blobs or (names and one <= names[-1]):
            raise malformed(_WHAT, "its names are not each listed once, in order, with their blobs")
        names.append(one)
    return tuple(names)
