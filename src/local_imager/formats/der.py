"""Reads ASN.1 in its distinguished encoding (DER), one level at a time.

Just what a PKCS#7 structure needs: the ``cryptography`` package reads certificates, but not the
content that a code signature is made over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from local_imager.formats.source import FormatError

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0  # context-specific and constructed
_MAX_ITEMS: Final = 1024
_MAX_OID_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One value: its tag byte, its content, and both with the header between them (``whole``)."""

    tag: int
    content: bytes
    whole: bytes

    def items(self) -> tuple[Item, ...]:
        """Return the values inside; raises :class:`FormatError`."""
        return read_items(self.content)

    def expect(self, tag: int) -> Item:
        """Return this value if it has the tag; raises :class:`FormatError` if not."""
        if self.tag != tag:
            raise FormatError(f"ASN.1: a value with tag {self.tag:#04x} where {tag:#04x} belongs")
        return self

    def oid(self) -> str:
        """Return an object identifier as numbers with dots."""
        data = self.expect(OBJECT_IDENTIFIER).content
        if not data or len(data) > _MAX_OID_BYTES or data[-1] & 0x80:
            raise FormatError("ASN.1: an object identifier is broken")
        numbers, value = [], 0
        for byte in data:
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                numbers.append(value)
                value = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))

    def integer(self) -> int:
        """Return an integer."""
        return int.from_bytes(self.expect(INTEGER).content, "big", signed=True)


def read_item(data: bytes) -> Item:
    """Return the value that the bytes begin with; what follows it is left alone."""
    if len(data) < 2:
        raise FormatError("ASN.1: a value is cut off")
    tag, length, begin = data[0], data[1], 2
    if tag & 0x1F == 0x1F:
        raise FormatError("ASN.1: a tag of more than one byte")
    if length & 0x80:
        count = length & 0x7F
        begin += count
        length = int.from_bytes(data[2:begin], "big")
        if not 1 <= count <= 4:
            raise FormatError("ASN.1: a length is not in the form that DER has")
    if begin + length > len(data):
        raise FormatError("ASN.1: a value is cut off")
    return Item(tag, data[begin : begin + length], data[: begin + length])


def read_items(data: bytes) -> tuple[Item, ...]:
    """Return all values that follow each other in the bytes; raises :class:`FormatError`."""
    found: list[Item] = []
    rest = memoryview(data)
    while rest:
        if len(found) >= _MAX_ITEMS:
            raise FormatError(f"ASN.1: more than {_MAX_ITEMS} values in one")
        # A header has at most six bytes; the value is copied once its length is known.
        item = read_item(bytes(rest[: _length(bytes(rest[:6]))]))
        found.append(item)
        rest = rest[len(item.whole) :]
    return tuple(found)


def _length(head: bytes) -> int:
    """Return how long a value claims to be, with its header; enough to cut it off."""
    if len(head) < 2 or not head[1] & 0x80:
        return 2 + (head[1] if len(head) > 1 else 0)
    count = head[1] & 0x7F
    return 2 + count + int.from_bytes(head[2 : 2 + min(count, 4)], "big")
