"""``bundle.json`` and ``part.json``: written one way only, read strictly and within bounds.

Places in the list of blobs stand for the blobs wherever they are named again (items, pieces), so a
manifest of ten thousand images stays small and cannot name a blob that it does not list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from local_imager.deliver.bundle.form.consistency import check_bundle
from local_imager.deliver.bundle.form.fields import Fields, malformed
from local_imager.deliver.bundle.form.model import (
    FORMAT,
    MAX_BLOBS,
    MAX_ITEMS,
    MAX_MANIFEST_BYTES,
    MAX_PARTS,
    MEDIA_BUNDLE,
    Blob,
    Bundle,
    Item,
    Kind,
    PartLabel,
    Piece,
    Rebuild,
)
from local_imager.errors import SourceError
from local_imager.oci.model import (
    Descriptor,
    Digest,
    canonical_json,
    load_json_object,
    parse_descriptor,
)

MEDIA_PART: Final = "application/vnd.local-imager.bundle-part.v1+json"
MAX_LABEL_BYTES: Final = 4096
# Ten thousand images of twenty blobs each make a fifth of it; each costs a list entry.
MAX_REFERENCES: Final = 1_000_000
NEWER_FORMAT: Final = "newer-format"
_WHAT: Final = "bundle.json"
# So many entries are written at a time.
_RUN: Final = 256
_MEDIA_TYPE: Final = re.compile(r"[!-~]{1,255}")
_VERSION: Final = re.compile(r".*\.v([1-9][0-9]{0,3})\+json")
_FACT: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_KINDS: Final[tuple[Kind, ...]] = ("image", "asset", "document")


def render_bundle(bundle: Bundle) -> bytes:
    """Return the bytes of ``bundle.json``; equal bundles give equal bytes."""
    return b"".join(_rendered(bundle))


def _rendered(bundle: Bundle) -> Iterator[bytes]:
    """Yield canonical JSON in runs: a large manifest takes many times its size as one document.

    Keys stand in the order of the alphabet, which a test compares with :func:`canonical_json`.
    """
    places = {blob.digest: place for place, blob in enumerate(bundle.blobs)}
    facts = {name: list(values) for name, values in bundle.facts.items()}
    yield b'{"blobs":'
    yield from _list(_blob_document(blob) for blob in bundle.blobs)
    yield b',"facts":' + canonical_json(facts)
    yield b',"format":%d,"index":' % FORMAT + canonical_json(bundle.index.as_dict())
    yield b',"items":'
    yield from _list(_item_document(item, places) for item in bundle.items)
    yield b',"mediaType":' + canonical_json(MEDIA_BUNDLE) + b',"parts":['
    for number, part in enumerate(bundle.parts):
        yield b"," if number else b""
        yield from _list(_piece_document(piece, places) for piece in part)
    yield b"]"
    if bundle.since is not None:
        yield b',"since":' + canonical_json(str(bundle.since))
    yield b"}"


def _list(documents: Iterator[object]) -> Iterator[bytes]:
    comma = b"["
    while run := list(islice(documents, _RUN)):
        yield comma + canonical_json(run)[1:-1]
        comma = b","
    yield b"]" if comma == b"," else b"[]"


def _blob_document(blob: Blob) -> dict[str, Any]:
    document: dict[str, Any] = {
        "digest": str(blob.digest),
        "size": blob.size_bytes,
        "purpose": blob.purpose,
    }
    if blob.document:
        document["document"] = True
    if not blob.carried:
        document["carried"] = False
    if blob.rebuild is not None:
        document["rebuild"] = {
            "base": str(blob.rebuild.base),
            "payload": str(blob.rebuild.payload),
            "method": blob.rebuild.method,
        }
    return document


def _item_document(item: Item, places: Mapping[Digest, int]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": item.kind,
        "name": item.name,
        "descriptor": item.descriptor.as_dict(),
        "blobs": [places[digest] for digest in item.blobs],
    }
    if item.roles:
        document["roles"] = list(item.roles)
    if item.arches:
        document["arches"] = list(item.arches)
    if item.signer:
        document["signer"] = item.signer
    return document


def _piece_document(piece: Piece, places: Mapping[Digest, int]) -> int | dict[str, Any]:
    """A whole blob is its place alone: size and digest are the blob's."""
    if piece.whole:
        return places[piece.blob]
    return {
        "blob": places[piece.blob],
        "offset": piece.offset,
        "size": piece.size_bytes,
        "digest": str(piece.digest),
    }


def render_label(label: PartLabel) -> bytes:
    """Return the bytes of ``part.json``."""
    return canonical_json(
        {
            "format": FORMAT,
            "mediaType": MEDIA_PART,
            "set": str(label.set_digest),
            "number": label.number,
            "count": label.count,
        }
    )


def parse_label(untrusted_data: bytes) -> PartLabel:
    """Read ``part.json``; raises :class:`SourceError` (malformed)."""
    what = "part.json"
    fields = Fields(load_json_object(untrusted_data, what, max_bytes=MAX_LABEL_BYTES), what)
    _check_format(fields, MEDIA_PART)
    count = fields.number("count", least=1, most=MAX_PARTS)
    label = PartLabel(fields.digest("set"), fields.number("number", least=1, most=count), count)
    fields.end()
    _check_spelling(iter((render_label(label),)), untrusted_data, what)
    return label


def parse_bundle(untrusted_data: bytes) -> Bundle:
    """Read ``bundle.json`` and check that its parts agree with each other.

    Raises :class:`SourceError` (``malformed``): for what is not our own spelling to the byte, for
    names and texts that could not be shown or written to a file, and for items, blobs and pieces
    that do not fit together (see ``form.consistency``); ``newer-format`` for what a later version
    wrote. A manifest at the ceilings (32 MiB, 200,000 blobs, 20,000 items) takes 180 MiB of memory.
    """
    if len(untrusted_data) > MAX_MANIFEST_BYTES:
        raise malformed(_WHAT, f"it is larger than {MAX_MANIFEST_BYTES} bytes")
    # Each value costs many times its text in memory; there is a comma between any two.
    if untrusted_data.count(b",") > 8 * MAX_BLOBS + 20 * MAX_ITEMS + MAX_REFERENCES:
        raise malformed(_WHAT, "it lists far more than a bundle holds")
    bundle = _bundle(load_json_object(untrusted_data, _WHAT, max_bytes=MAX_MANIFEST_BYTES))
    check_bundle(bundle)
    _check_spelling(_rendered(bundle), untrusted_data, _WHAT)
    return bundle


def _check_spelling(rendered: Iterator[bytes], untrusted_data: bytes, what: str) -> None:
    """Two spellings of one content would be two identities of one bundle."""
    end, same = 0, True
    try:
        for run in rendered:
            same = same and untrusted_data.startswith(run, end)
            end += len(run)
    except UnicodeEncodeError:  # half a surrogate pair
        same = False
    if not same or end != len(untrusted_data):
        raise malformed(what, "it is not spelt as local-imager writes it")


def _check_format(fields: Fields, media_type: str) -> None:
    """Tell what is no bundle's from what a later local-imager wrote, which is not damaged."""
    number, told = fields.number("format"), fields.text("mediaType")
    version = _VERSION.fullmatch(told)
    stem = media_type.replace(".v1+", ".v{}+")
    if number > FORMAT:
        raise _newer(fields.what, f"it has the format {number}")
    if version is not None and told == stem.format(version[1]) and int(version[1]) > FORMAT:
        raise _newer(fields.what, f"its mediaType is {told}")
    if number != FORMAT:
        raise malformed(fields.what, f"there is no format {number}")
    if told != media_type:
        raise malformed(fields.what, f"its mediaType is not {media_type}")


def _newer(what: str, problem: str) -> SourceError:
    return SourceError(
        f"{what} is of a newer version: {problem}; this local-imager reads the format {FORMAT}",
        hint="made by a newer local-imager: use that version",
        code=NEWER_FORMAT,
    )


def _bundle(document: dict[str, Any]) -> Bundle:
    fields = Fields(document, _WHAT)
    _check_format(fields, MEDIA_BUNDLE)
    index = _descriptor(fields, "index")
    blobs = tuple(_blob(entry) for entry in fields.objects("blobs", MAX_BLOBS))
    items = tuple(_item(entry, blobs) for entry in fields.objects("items", MAX_ITEMS))
    parts = tuple(_part(part, blobs) for part in fields.list("parts", MAX_PARTS))
    since = fields.digest("since") if fields.has("since") else None
    facts = fields.object("facts")
    found = {_fact_name(name): facts.texts(name) for name in sorted(facts.keys())}
    fields.end()
    return Bundle(index, items, blobs, parts, since, found)


def _fact_name(name: str) -> str:
    if not _FACT.fullmatch(name):
        raise malformed(_WHAT, "a fact has a name that is none")
    return name


def _descriptor(fields: Fields, key: str) -> Descriptor:
    found = parse_descriptor(fields.take(key), fields.what)
    for media_type in (found.media_type, found.artifact_type or found.media_type):
        if not _MEDIA_TYPE.fullmatch(media_type):
            raise malformed(_WHAT, "a media type is not a word of printable ASCII")
    return found


def _blob(entry: Fields) -> Blob:
    rebuild = None
    if entry.has("rebuild"):
        told = entry.object("rebuild")
        rebuild = Rebuild(told.digest("base"), told.digest("payload"), told.text("method"))
        told.end()
    blob = Blob(
        entry.digest("digest"),
        entry.size("size"),
        entry.text("purpose"),
        document=entry.flag("document", default=False),
        carried=entry.flag("carried", default=True),
        rebuild=rebuild,
    )
    entry.end()
    return blob


def _item(entry: Fields, blobs: tuple[Blob, ...]) -> Item:
    kind = entry.text("kind")
    known = next((known for known in _KINDS if known == kind), None)
    if known is None:
        raise malformed(_WHAT, f"an item is of the unknown kind {kind[:40]!r}")
    item = Item(
        known,
        entry.text("name"),
        _descriptor(entry, "descriptor"),
        tuple(_at(blobs, place).digest for place in entry.list("blobs", len(blobs))),
        roles=entry.texts("roles") if entry.has("roles") else (),
        arches=entry.texts("arches") if entry.has("arches") else (),
        signer=entry.text("signer") if entry.has("signer") else "",
    )
    entry.end()
    return item


def _at(blobs: tuple[Blob, ...], place: object) -> Blob:
    if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < len(blobs):
        raise malformed(_WHAT, "a place in the list of blobs is not one")
    return blobs[place]


def _part(part: object, blobs: tuple[Blob, ...]) -> tuple[Piece, ...]:
    if not isinstance(part, list):
        raise malformed(_WHAT, "a part is not a list of pieces")
    return tuple(_piece(entry, blobs) for entry in part)


def _piece(entry: object, blobs: tuple[Blob, ...]) -> Piece:
    if not isinstance(entry, dict):
        blob = _at(blobs, entry)
        return Piece(blob.digest, 0, blob.size_bytes, blob.digest, True)
    fields = Fields(entry, _WHAT)
    blob = _at(blobs, fields.take("blob"))
    piece = Piece(
        blob.digest, fields.size("offset"), fields.size("size"), fields.digest("digest"), False
    )
    fields.end()
    return piece
