"""Bundles made by hand, small or large, whole or with any damage; independent of `bundle create`.

The members are a list that a test may change before it is written, so that each fault can be made.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import zstandard

from local_imager.deliver.bundle.form.manifest import render_bundle, render_label
from local_imager.deliver.bundle.form.model import Blob, Bundle, Item, PartLabel, Piece
from local_imager.deliver.bundle.form.tarform import (
    END_MARK,
    LAYOUT_MARKER,
    member_header,
    padding,
    part_members,
)
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    canonical_json,
)

IMAGES: Final = ("registry.example/team/one:v1", "registry.example/team/two:v1")


@dataclass
class Member:
    """A member as it is written; ``header`` None is the right one."""

    name: str
    content: bytes
    header: bytes | None = None
    filling: bytes | None = None

    def render(self) -> bytes:
        """Header, content and padding."""
        header = member_header(self.name, len(self.content)) if self.header is None else self.header
        filling = bytes(padding(len(self.content))) if self.filling is None else self.filling
        return header + self.content + filling


@dataclass(frozen=True)
class Sample:
    """A bundle with the bytes of its blobs; ``layers`` maps a short name to a digest."""

    bundle: Bundle
    contents: dict[Digest, bytes]
    layers: dict[str, Digest] = field(default_factory=dict)

    @property
    def manifest(self) -> bytes:
        """The bytes of ``bundle.json``."""
        return render_bundle(self.bundle)

    def members(self, number: int = 1) -> list[Member]:
        """The members of a part, right as they are."""
        label = PartLabel(Digest.of(self.manifest), number, len(self.bundle.parts))
        front = [self.manifest, render_label(label), LAYOUT_MARKER]
        front.append(self.contents[self.bundle.index.digest])
        pieces = [
            *(Piece(b.digest, 0, b.size_bytes, b.digest, True) for b in self.bundle.documents()),
            *self.bundle.parts[number - 1],
        ]
        bodies = front + [self.contents[p.blob][p.offset : p.offset + p.size_bytes] for p in pieces]
        names = [name for name, _ in part_members(self.bundle, number)]
        return [Member(name, body) for name, body in zip(names, bodies, strict=True)]

    def part(self, number: int = 1) -> bytes:
        """The bytes of a part."""
        return written(self.members(number))

    def member_of(self, layer: str) -> str:
        """The name of the member with a layer."""
        return f"blobs/sha256/{self.layers[layer].hex}"

    def split(self, *parts: Iterable[Piece]) -> Sample:
        """The same content in these parts."""
        return replace(self, bundle=replace(self.bundle, parts=tuple(tuple(p) for p in parts)))

    def segment(self, layer: str, begin: int, end: int) -> Piece:
        """A piece of a layer."""
        digest = self.layers[layer]
        data = self.contents[digest][begin:end]
        return Piece(digest, begin, len(data), Digest.of(data), False)

    def whole(self, layer: str) -> Piece:
        """A layer as one piece."""
        digest = self.layers[layer]
        return Piece(digest, 0, len(self.contents[digest]), digest, True)


def written(members: Iterable[Member], end: bytes = END_MARK) -> bytes:
    """The file of these members."""
    return b"".join(member.render() for member in members) + end


def packed(data: bytes, level: int = 3) -> bytes:
    """The same as one zstd frame, as `bundle create --zstd` packs it."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


def make_sample(layers: dict[str, bytes] | None = None) -> Sample:
    """Two images: one has the layers whose name begins with a, the other those with b.

    A layer whose name begins with s is shared by both. No two layers may be equal.
    """
    layers = layers or {"a1": b"a" * 700, "s1": b"shared" * 20, "b1": bytes(512), "b2": b""}
    contents = {Digest.of(data): data for data in layers.values()}
    assert len(contents) == len(layers)
    digests = {name: Digest.of(data) for name, data in layers.items()}
    items, entries, documents = [], [], []
    for image, letter in zip(IMAGES, "ab", strict=True):
        needed = [digest for name, digest in digests.items() if name[0] in (letter, "s")]
        text = canonical_json({"of": image, "layers": [digest.hex for digest in needed]})
        entry = Descriptor.of(text, MEDIA_MANIFEST, annotations={ANNOTATION_REF_NAME: image})
        contents[entry.digest] = text
        documents.append(Blob(entry.digest, len(text), f"manifest of {image}", document=True))
        entries.append(entry)
        items.append(Item("image", image, replace(entry, annotations={}), (entry.digest, *needed)))
    index = canonical_json(
        {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [e.as_dict() for e in entries]}
    )
    contents[Digest.of(index)] = index
    blobs = [Blob(d, len(contents[d]), f"layer {name}") for name, d in digests.items()]
    documents.sort(key=lambda blob: blob.digest)
    whole = tuple(Piece(b.digest, 0, b.size_bytes, b.digest, True) for b in blobs)
    bundle = Bundle(
        Descriptor.of(index, MEDIA_INDEX),
        tuple(items),
        (*documents, *blobs),
        (whole,),
        facts={"versions": ("v1.13.0",)},
    )
    return Sample(bundle, contents, digests)


def strange_header(name: str, size_bytes: int = 0, **fields: object) -> bytes:
    """A header as the standard library writes it, with fields that no bundle has."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, 0o444
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def with_checksum(header: bytes) -> bytes:
    """The header with the right checksum for its bytes."""
    total = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def pax_header(name: str, records: dict[str, str]) -> bytes:
    """An extended header (pax) with its content, to stand before a member."""
    body = b"".join(_record(key, value) for key, value in records.items())
    return strange_header(name, len(body), type=tarfile.XHDTYPE) + body + bytes(padding(len(body)))


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def stream_of(data: bytes) -> io.BytesIO:
    """The bytes as a stream that cannot be sought in."""
    return _OneWay(data)


class _OneWay(io.BytesIO):
    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation("seek")

    def seekable(self) -> bool:
        return False
