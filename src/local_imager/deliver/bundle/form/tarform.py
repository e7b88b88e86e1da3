"""How a bundle lies in a tar: which members, in which order, and each header to the byte.

Nothing in a header is free: one name and one size have one spelling. So the same manifest gives
the same file, a reader compares whole headers, and nothing can be hidden in an owner or a time.
Format: POSIX.1-1988 ustar; a size of 8 GiB and more is in base 256, as GNU tar writes it and
every reader at hand takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from local_imager.deliver.bundle.form.manifest import render_bundle, render_label
from local_imager.deliver.bundle.form.model import (
    MANIFEST_NAME,
    PART_NAME,
    Bundle,
    PartLabel,
    Piece,
)
from local_imager.oci.model import Digest, canonical_json

BLOCK: Final = 512
END_MARK: Final = bytes(2 * BLOCK)
LAYOUT_NAME: Final = "oci-layout"
INDEX_NAME: Final = "index.json"
LAYOUT_MARKER: Final = canonical_json({"imageLayoutVersion": "1.0.0"})

_MAX_NAME: Final = 100
_MAX_PREFIX: Final = 155
_MAX_OCTAL_SIZE: Final = 8**11
# Mode 0444, no owner, the time 0. After these: the checksum, the type and an empty link name.
_MODE_AND_OWNER: Final = b"0000444\0" + b"0000000\0" * 2
_TIME: Final = b"00000000000\0"
# Magic and version, no names of owner and group, no device.
_MAGIC: Final = b"ustar\x0000" + bytes(32) + bytes(32) + bytes(8) + bytes(8)


def member_header(name: str, size_bytes: int) -> bytes:
    """Return the one header (512 bytes) of a regular file with this name and size.

    The name is ASCII and fits ustar: 100 characters, or a folder of at most 155 before them.
    """
    prefix, short = _split(name)
    number = size_bytes.to_bytes(12, "big") if size_bytes >= _MAX_OCTAL_SIZE else b""
    size = b"\x80" + number[1:] if number else b"%011o\0" % size_bytes
    front = short.encode("ascii").ljust(_MAX_NAME, b"\0") + _MODE_AND_OWNER + size + _TIME
    back = b"0" + bytes(100) + _MAGIC + prefix.encode("ascii").ljust(_MAX_PREFIX, b"\0") + bytes(12)
    checksum = sum(front) + 8 * 0x20 + sum(back)
    return front + b"%06o\0 " % checksum + back


def _split(name: str) -> tuple[str, str]:
    if len(name) <= _MAX_NAME:
        return "", name
    prefix, _, short = name.rpartition("/")
    if len(prefix) > _MAX_PREFIX or not 0 < len(short) <= _MAX_NAME:
        raise ValueError(f"{name!r} does not fit a ustar header")
    return prefix, short


def padding(size_bytes: int) -> int:
    """Return how many zeros follow a content of this size: members begin at whole blocks."""
    return -size_bytes % BLOCK


def pieces_of(bundle: Bundle, number: int) -> Iterator[Piece]:
    """Yield what a part carries as pieces, in the order of the file: documents, then its own."""
    for blob in bundle.documents():
        yield Piece(blob.digest, 0, blob.size_bytes, blob.digest, True)
    yield from bundle.parts[number - 1]


def part_members(
    bundle: Bundle, number: int, *, manifest_size_bytes: int | None = None
) -> Iterator[tuple[str, int]]:
    """Yield name and size of every member of a part (numbered from 1), in the order of the file.

    ``manifest_size_bytes`` is the length of ``bundle.json`` where it is known; finding it out
    means to write the manifest once.
    """
    if manifest_size_bytes is None:
        manifest_size_bytes = len(render_bundle(bundle))
    yield MANIFEST_NAME, manifest_size_bytes
    yield PART_NAME, _label_size_bytes(number, len(bundle.parts))
    yield LAYOUT_NAME, len(LAYOUT_MARKER)
    yield INDEX_NAME, bundle.index.size_bytes
    for piece in pieces_of(bundle, number):
        yield piece.member, piece.size_bytes


def part_size(bundle: Bundle, number: int, *, manifest_size_bytes: int | None = None) -> int:
    """Return how many bytes a part (numbered from 1) has as a tar that is not compressed."""
    members = part_members(bundle, number, manifest_size_bytes=manifest_size_bytes)
    return sum(member_size(size) for _, size in members) + len(END_MARK)


def member_size(size_bytes: int) -> int:
    """Return how many bytes of a tar a member takes: header, content and padding."""
    return BLOCK + size_bytes + padding(size_bytes)


def _label_size_bytes(number: int, count: int) -> int:
    return len(render_label(PartLabel(Digest("0" * 64), number, count)))
