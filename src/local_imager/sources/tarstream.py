"""A bounded reader of tar streams: headers one by one, contents in pieces, nothing written.

Formats: POSIX ustar and pax, and the GNU extensions for long names, link names and large numbers.
Anything else (sparse files, multi-volume archives, a broken checksum) is refused, not guessed.
The standard library's reader is not used here because it reads extended headers of any size into
memory and takes much on trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.errors import SourceError
from local_imager.formats.tarfields import header_name, text

BLOCK: Final = 512
# The longest path that Linux takes is 4 KiB; extended attributes of one file stay below 64 KiB.
MAX_EXTENDED_HEADER_BYTES: Final = 256 * 1024
MAX_NAME_CHARACTERS: Final = 4096
CHUNK_BYTES: Final = 1024 * 1024

_REGULAR: Final = frozenset({b"0", b"\0", b"7"})
_KINDS: Final = {b"1": "hardlink", b"2": "symlink", b"5": "directory"}
_SPECIAL: Final = frozenset({b"3", b"4", b"6"})

Read = Callable[[int], bytes]
"""Returns exactly this many bytes, fewer only at the end of the stream."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One entry: ``kind`` is file, directory, symlink, hardlink or special (device, FIFO).

    ``untrusted_name`` and ``untrusted_link`` are as the archive spells them.
    """

    untrusted_name: str
    kind: str
    size_bytes: int
    untrusted_link: str = ""


def malformed_tar(problem: str) -> SourceError:
    """Make the error of an archive that cannot be read."""
    return SourceError(f"a layer is not a readable tar archive: {problem}", code="malformed")


class TarStream:
    """Iterates over the members of a stream; each one's content may be read or passed over."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarMember]:
        """Yield members in archive order; raises :class:`SourceError` (malformed)."""
        overrides: dict[str, str] = {}
        extended = False
        while (header := self._header()) is not None:
            type_flag = header[156:157]
            size = _number(header[124:136], "size")
            if type_flag in (b"x", b"g", b"L", b"K"):
                self._extended(type_flag, size, overrides)
                extended = extended or type_flag != b"g"
                continue
            yield self._member(header, type_flag, size, overrides)
            overrides, extended = {}, False
            self._skip_rest()
        if extended:
            raise malformed_tar("it ends after an extended header")

    def content(self) -> Iterator[bytes]:
        """Yield the current member's bytes in pieces."""
        while self._left:
            piece = self._exactly(min(self._left, CHUNK_BYTES))
            self._left -= len(piece)
            yield piece

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) != count:
            raise malformed_tar("it is cut off")
        return data

    def _header(self) -> bytes | None:
        """Return the next header, or None at the end mark or a clean end of the stream."""
        header = self._read(BLOCK)
        if not header or header == bytes(BLOCK):
            return None
        if len(header) != BLOCK:
            raise malformed_tar("it is cut off")
        stated = _number(header[148:156], "checksum")
        if stated != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
            raise malformed_tar("a header has the wrong checksum")
        return header

    def _extended(self, type_flag: bytes, size: int, overrides: dict[str, str]) -> None:
        if size > MAX_EXTENDED_HEADER_BYTES:
            raise malformed_tar("an extended header is too large")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        if type_flag == b"x":
            overrides.update(_pax_records(data))
        elif type_flag in (b"L", b"K"):
            key = "path" if type_flag == b"L" else "linkpath"
            overrides.setdefault(key, text(data.rstrip(b"\0")))

    def _member(
        self, header: bytes, type_flag: bytes, size: int, overrides: dict[str, str]
    ) -> TarMember:
        if any(key.startswith("GNU.sparse") for key in overrides):
            raise malformed_tar("sparse files are not supported")
        name = overrides.get("path") or header_name(header)
        link = overrides.get("linkpath") or text(header[157:257].split(b"\0")[0])
        if "size" in overrides:
            size = _decimal(overrides["size"])
        if len(name) > MAX_NAME_CHARACTERS or len(link) > MAX_NAME_CHARACTERS:
            raise malformed_tar("a name is too long")
        if type_flag in _REGULAR:
            # Archives of before 1988 mark a directory by a slash alone.
            kind = "directory" if name.endswith("/") else "file"
        elif type_flag in _KINDS:
            kind = _KINDS[type_flag]
        elif type_flag in _SPECIAL:
            kind = "special"
        else:
            raise malformed_tar(f"member type {type_flag!r} is not supported")
        # Only regular files have content; some writers state a link's size all the same.
        content = size if kind == "file" else 0
        self._left, self._padding = content, -content % BLOCK
        return TarMember(name, kind, content, link)

    def _skip_rest(self) -> None:
        for _ in self.content():
            pass
        self._exactly(self._padding)
        self._padding = 0


def _number(field: bytes, what: str) -> int:
    """Read an octal field, or GNU's base-256 form (first bit set)."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.rstrip(b" \0").lstrip(b" ")
        if not all(digit in b"01234567" for digit in digits):
            raise malformed_tar(f"a {what} is not a number")
        value = int(digits, 8) if digits else 0
    if value >= 1 << 50:
        raise malformed_tar(f"a {what} is out of range")
    return value


def _decimal(digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 15):
        raise malformed_tar("a size is not a number")
    return int(digits)


def _pax_records(data: bytes) -> dict[str, str]:
    """Read ``<length> <key>=<value>\\n`` records (POSIX.1-2001, pax); only keys that matter stay.

    An archive may hold any number of extended headers before a member: what is kept of them must
    not grow.
    """
    records: dict[str, str] = {}
    begin = 0
    while begin < len(data):
        head, space, _ = data[begin : begin + 20].partition(b" ")
        length = int(head) if space and head.isdigit() else 0
        if not len(head) + 1 < length <= len(data) - begin:
            raise malformed_tar("an extended header is broken")
        key, equals, value = data[begin + len(head) + 1 : begin + length].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise malformed_tar("an extended header is broken")
        begin += length
        if key in (b"path", b"linkpath", b"size"):
            records[key.decode()] = text(value[:-1])
        elif key.startswith(b"GNU.sparse"):
            records["GNU.sparse"] = ""
    return records
