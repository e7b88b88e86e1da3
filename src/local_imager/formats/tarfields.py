"""Fields of tar headers: numbers, names, the records of pax, and a digest of what they say."""

from __future__ import annotations

import hashlib
from typing import Final

from local_imager.events import printable
from local_imager.formats.source import FormatError

_MAX_SIZE: Final = 1 << 50
# Of a pax header: what an entry says of itself.
_TOLD: Final = frozenset({b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid"})
_USTAR: Final = b"ustar\x0000"


def member_path(name: str) -> str:
    """Return a name without what says nothing (``./``, slashes at both ends)."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise FormatError(f"the tar archive has the member {printable(name, limit=200)}")
    return "/".join(parts)


class MemberDigest:
    """Collects what the headers of an archive say beside times, sizes and contents.

    That is the order, names and kinds as they are written, owners by name, device numbers,
    extended attributes and other records of pax, and what is no zero where only padding has to be.
    """

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, header: bytes, records: list[bytes]) -> None:
        """Take the next member: its header, and what extended headers say of it."""
        known = header[257:262] == _USTAR[:5]
        device = (number(header[329:337]), number(header[337:345])) if known else header[329:345]
        name, target = header_name(header), header[157:257].rstrip(b"\0")
        owners = [header[at : at + 32].rstrip(b"\0") for at in (265, 297)]
        # Other forms than ustar have times in the place of the name's first part.
        last = header[500:512] if header[257:265] == _USTAR else header[345:512]
        row = (header[156:157], name, target, header[257:265], owners, device, last, records)
        self._hasher.update(repr(row).encode())

    def stray(self, data: bytes) -> None:
        """Take what lies where nothing has to be; zeros are nothing."""
        if data.strip(b"\0"):
            self._hasher.update(b"stray" + data)

    @property
    def digest(self) -> str:
        """The digest of all that was taken."""
        return f"sha256:{self._hasher.hexdigest()}"


def pax_records(data: bytes, kept: list[bytes]) -> dict[str, str]:
    """Read ``<length> <key>=<value>\\n`` records (POSIX.1-2001, pax) with a meaning here.

    All others go to ``kept`` as they are written, and so do fractions of a second.
    """
    records: dict[str, str] = {}
    begin = 0
    while begin < len(data):
        digits, space, _ = data[begin : begin + 20].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        if not len(digits) + 1 < length <= len(data) - begin:
            raise FormatError("an extended header of the tar archive is broken")
        key, equals, value = data[begin + len(digits) + 1 : begin + length].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise FormatError("an extended header of the tar archive is broken")
        begin += length
        if key.startswith(b"GNU.sparse"):
            raise FormatError("the tar archive has a sparse file in a form that is not read")
        if key in _TOLD:
            records[key.decode()] = text(value[:-1])
        if key not in _TOLD or (b"." in value and key == b"mtime"):
            kept.append(key + b"=" + (value if key not in _TOLD else value.partition(b".")[2]))
    return records


def header_name(header: bytes) -> str:
    """Return the name that a header gives, joined from both of its fields in a ustar one."""
    name = text(header[:100].split(b"\0")[0])
    prefix = text(header[345:500].split(b"\0")[0]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def text(data: bytes) -> str:
    """Return a name; bytes that are not UTF-8 survive and differ (surrogate escapes)."""
    return data.decode("utf-8", "surrogateescape")


def number(data: bytes) -> int:
    """Read an octal field, or GNU's base-256 form (first bit set)."""
    if data[0] & 0x80:
        value = int.from_bytes(bytes([data[0] & 0x7F]) + data[1:], "big")
        if data[0] & 0x40:  # negative: a time before 1970
            value -= 1 << (8 * len(data) - 1)
    else:
        text = data.strip(b" \0")
        if not all(digit in b"01234567" for digit in text):
            raise FormatError("a number in the tar archive is none")
        value = int(text, 8) if text else 0
    if abs(value) >= _MAX_SIZE:
        raise FormatError("a number in the tar archive is out of range")
    return value


def decimal(text: str) -> int:
    """Read a number of up to 15 decimal digits; raises :class:`FormatError`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise FormatError("a number in the tar archive is none")
    return int(text)


def pax_time(text: str) -> int:
    """Return the whole seconds of a pax time, which may be negative and have a fraction."""
    sign = -1 if text.startswith("-") else 1
    return sign * decimal(text.removeprefix("-").partition(".")[0])
