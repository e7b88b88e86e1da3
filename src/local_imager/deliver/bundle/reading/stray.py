"""Reading a tar header that is not the one that must come, to say what it is instead.

Nothing here is believed: the name and the size are what the archive claims, and what other tar
programs would take them for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.bundle.reading.faults import FaultKind

# A flipped bit changes a byte; a worn sector changes hundreds.
_SLIGHT_BYTES: Final = 32
REGULAR: Final = frozenset({b"0", b"\0", b"7"})
EXTENDED: Final = frozenset({b"x", b"g", b"X", b"L", b"K"})
_SPARSE: Final = b"S"
_KINDS: Final[Mapping[bytes, tuple[FaultKind, str]]] = {
    b"1": ("link", "is a hard link"),
    b"2": ("link", "is a symbolic link"),
    b"3": ("device", "is a character device"),
    b"4": ("device", "is a block device"),
    b"5": ("extra", "is a folder"),
    b"6": ("device", "is a FIFO"),
    _SPARSE: ("sparse", "is a sparse file"),
}
_FIELDS: Final = (
    ("name", 0, 100),
    ("mode", 100, 108),
    ("owner", 108, 124),
    ("size", 124, 136),
    ("time", 136, 148),
    ("checksum", 148, 156),
    ("type", 156, 157),
    ("link name", 157, 257),
    ("format", 257, 265),
    ("owner's name", 265, 329),
    ("device", 329, 345),
    ("folder", 345, 500),
    ("unused bytes", 500, 512),
)


@dataclass(frozen=True, slots=True)
class Stray:
    """A header as it is; ``size_bytes`` is None when it states no number, or one below zero."""

    block: bytes
    readable: bool
    untrusted_name: str
    type_flag: bytes
    size_bytes: int | None
    untrusted_link: str

    @property
    def regular(self) -> bool:
        """Whether it says it is a plain file."""
        return self.type_flag in REGULAR and not self.untrusted_name.endswith("/")

    @property
    def extended(self) -> bool:
        """Whether it says something about the member after it (pax, GNU long names)."""
        return self.type_flag in EXTENDED

    @property
    def old_sparse(self) -> bool:
        """Whether it is a sparse file of old GNU tar, whose map may go on after the header."""
        return self.type_flag == _SPARSE

    @property
    def content_bytes(self) -> int | None:
        """How many bytes follow; links, devices and folders have none whatever they state."""
        if self.type_flag in _KINDS and not self.old_sparse:
            return 0
        return self.size_bytes

    def what(self, *, sparse: bool) -> tuple[FaultKind, str]:
        """Say what it is if it is no plain file; ``sparse`` if an extended header said so."""
        if sparse:
            return _KINDS[_SPARSE]
        if self.type_flag in REGULAR:
            return "extra", "is a folder"
        kind, text = _KINDS.get(
            self.type_flag, ("header", f"is of the unknown type {self.type_flag!r}")
        )
        return kind, f"{text} to {self.untrusted_link!r}" if kind == "link" else text

    def differing(self, wanted: bytes) -> str:
        """Name the fields that differ from the wanted header."""
        names = [name for name, begin, end in _FIELDS if self.block[begin:end] != wanted[begin:end]]
        others = [name for name in names if name != "checksum"] or names
        return ", ".join(others)


def parse_stray(block: bytes) -> Stray:
    """Read a header of 512 bytes; ``readable`` says whether its checksum is right."""
    stated = _octal(block[148:156])
    name = _text(block[0:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return Stray(
        block,
        stated == sum(block[:148]) + 8 * 0x20 + sum(block[156:]),
        f"{prefix}/{name}" if prefix else name,
        block[156:157],
        _size(block[124:136]),
        _text(block[157:257]),
    )


def differing_bytes(one: bytes, other: bytes) -> int:
    """Count the bytes that differ between two headers."""
    return sum(a != b for a, b in zip(one, other, strict=True))


def slightly_damaged(block: bytes, wanted: bytes) -> bool:
    """Say whether a block is the wanted one but for a few bytes."""
    return differing_bytes(block, wanted) <= _SLIGHT_BYTES


def hostile(untrusted_name: str) -> str:
    """Say what is hostile about a member's name, or return an empty text."""
    if untrusted_name.startswith("/"):
        return "begins at the root of the file system"
    if ".." in untrusted_name.split("/"):
        return "climbs out of its folder with .."
    if "\\" in untrusted_name:
        return "has a backslash, which some systems take for a folder"
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in untrusted_name):
        return "has control characters"
    if not untrusted_name.isprintable():
        return "has characters that cannot be shown"
    return ""


def pax_overrides(data: bytes) -> tuple[dict[str, str], bool]:
    """Return path and size that pax records give the next member, and whether it is sparse.

    What is broken is passed over: the extended header is a fault in any case.
    """
    found: dict[str, str] = {}
    sparse, begin = False, 0
    while begin < len(data):
        head, space, _ = data[begin : begin + 20].partition(b" ")
        length = int(head) if space and head.isdigit() else 0
        if not len(head) + 1 < length <= len(data) - begin:
            break
        key, _, value = data[begin + len(head) + 1 : begin + length - 1].partition(b"=")
        begin += length
        if key in (b"path", b"size"):
            found[key.decode()] = _text(value)
        sparse = sparse or key.startswith(b"GNU.sparse")
    return found, sparse


def long_name(data: bytes) -> str:
    """Return the name that GNU's long name header gives the next member."""
    return _text(data)


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _octal(field: bytes) -> int | None:
    text = field.rstrip(b" \0").lstrip(b" ")
    if not text or not all(digit in b"01234567" for digit in text):
        return None
    return int(text, 8)


def _size(field: bytes) -> int | None:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:  # a number below zero
        return None
    return _octal(field) if field.strip(b" \0") else 0
