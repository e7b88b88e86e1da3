"""Tar archives: read with random access where they lie in a file, or member by member as they pass.

POSIX ustar and pax, and GNU's extensions for long names, large numbers and sparse files in the old
form (cloud images are such archives). Sparse files in pax headers and archives in several volumes
are refused. Nothing is written anywhere, whatever a name says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from local_imager.events import printable
from local_imager.formats.entries import Entry, EntryBudget, EntryKind
from local_imager.formats.source import CHUNK_BYTES, FormatError, Joined, Source

BLOCK: Final = 512
# Paths and links are below 4 KiB; a pax header with extended attributes stays below this.
MAX_EXTENDED_BYTES: Final = 256 * 1024
# One after the other before a member: two of GNU's, or one of pax and a global one.
_MAX_EXTENDED_HEADERS: Final = 8
# Of all sparse files together; a disk of several gigabytes has hundreds.
_MAX_SPARSE_PIECES: Final = 100_000
_MAX_SIZE: Final = 1 << 50
_CHECKSUM_AT: Final = 148

_KINDS: Final[dict[bytes, EntryKind]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "link",
    b"2": "link",
    b"3": "special",
    b"4": "special",
    b"5": "directory",
    b"6": "special",
}

# (offset in the file, length) of what is stored; the rest is zeros.
Pieces = tuple[tuple[int, int], ...]


class _Input(Protocol):
    """Where an archive is read from; only forwards."""

    position: int
    pieces_left: int

    def read(self, count: int) -> bytes:
        """Return this many bytes, fewer only at the end."""

    def skip(self, count: int) -> None:
        """Pass over this many bytes; raises :class:`FormatError` at the end."""


class _SourceInput:
    def __init__(self, source: Source) -> None:
        self._source = source
        self.position = 0
        self.pieces_left = _MAX_SPARSE_PIECES

    def read(self, count: int) -> bytes:
        data = self._source.read(self.position, min(count, self._source.size_bytes - self.position))
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        if self.position + count > self._source.size_bytes:
            raise FormatError("the tar archive is cut off")
        self.position += count


class _StreamInput:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self.position = 0
        self.pieces_left = _MAX_SPARSE_PIECES

    def piece(self, at_most: int) -> bytes:
        """Return some bytes; none only at the end."""
        while not self._rest:
            following = next(self._chunks, None)
            if following is None:
                return b""
            self._rest = memoryview(following)
        data = bytes(self._rest[:at_most])
        self._rest = self._rest[at_most:]
        self.position += len(data)
        return data

    def read(self, count: int) -> bytes:
        parts, left = [], count
        while left and (data := self.piece(left)):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while count:
            data = self.piece(min(count, CHUNK_BYTES))
            if not data:
                raise FormatError("the tar archive is cut off")
            count -= len(data)


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next member."""

    values: dict[str, str] = field(default_factory=dict)
    count: int = 0


@dataclass(frozen=True, slots=True)
class _Head:
    entry: Entry
    stored_bytes: int
    pieces: Pieces | None


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a stream. ``pieces`` is None but for a sparse file.

    :meth:`chunks` yields what is stored: the whole content, or of a sparse file its pieces one
    after the other. It ends when the next member was asked for.
    """

    entry: Entry
    pieces: Pieces | None
    _input: _StreamInput
    _end: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the stored bytes; raises :class:`FormatError` when the archive is cut off."""
        while (left := self._end - self._input.position) > 0:
            data = self._input.piece(min(left, CHUNK_BYTES))
            if not data:
                raise FormatError("the tar archive is cut off")
            yield data


@dataclass(frozen=True, slots=True)
class TarVolume:
    """An archive with random access (a :class:`Volume`).

    Of several members with one path the last counts, as when it is unpacked. A directory that the
    archive does not list is no entry.
    """

    entries: tuple[Entry, ...]
    _source: Source
    _places: tuple[tuple[int, Pieces | None], ...]

    def open(self, entry: Entry) -> Source:
        """See :meth:`Volume.open`."""
        if entry.kind != "file" or not 0 <= entry.number < len(self._places):
            raise FormatError(f"the archive has no content for {printable(entry.path)}")
        at, pieces = self._places[entry.number]
        if pieces is None:
            return Joined([(self._source, at, entry.size_bytes)])
        return Joined(_with_holes(self._source, at, pieces, entry.size_bytes))


def _with_holes(
    source: Source, at: int, pieces: Pieces, size_bytes: int
) -> Iterator[tuple[Source | None, int, int]]:
    position = 0
    for offset, length in pieces:
        yield None, 0, offset - position
        yield source, at, length
        at, position = at + length, offset + length
    yield None, 0, size_bytes - position


def is_tar(head: bytes) -> bool:
    """Tell from the first 512 bytes whether this is a tar archive, by the header's checksum."""
    if len(head) < BLOCK or head[:BLOCK] == bytes(BLOCK):
        return False
    try:
        return _number(head[_CHECKSUM_AT : _CHECKSUM_AT + 8]) == _checksum(head[:BLOCK])
    except FormatError:
        return False


def read_tar(source: Source) -> TarVolume:
    """Read all headers of an archive; raises :class:`FormatError`."""
    entries: dict[str, Entry] = {}
    places: list[tuple[int, Pieces | None]] = []
    budget = EntryBudget()
    reader = _SourceInput(source)
    for head in _heads(reader):
        entry = head.entry
        _spend(budget, entry)
        if entry.kind == "file":
            entry = _numbered(entry, len(places))
            places.append((reader.position, head.pieces))
        entries.pop(entry.path, None)
        entries[entry.path] = entry
        reader.skip(head.stored_bytes + -head.stored_bytes % BLOCK)
    return TarVolume(tuple(entries.values()), source, tuple(places))


def stream_tar(chunks: Iterable[bytes]) -> Iterator[TarMember]:
    """Yield the members of an archive as it passes; raises :class:`FormatError`."""
    budget = EntryBudget()
    reader = _StreamInput(chunks)
    for head in _heads(reader):
        _spend(budget, head.entry)
        end = reader.position + head.stored_bytes
        yield TarMember(head.entry, head.pieces, reader, end)
        reader.skip(end - reader.position + -head.stored_bytes % BLOCK)


def _spend(budget: EntryBudget, entry: Entry) -> None:
    budget.spend(entry.path)
    if entry.link_target:
        budget.spend(entry.link_target)


def _numbered(entry: Entry, number: int) -> Entry:
    from dataclasses import replace

    return replace(entry, number=number)


def _heads(reader: _Input) -> Iterator[_Head]:
    """Yield the header of every member; the caller then passes over its content."""
    extended = _Extended()
    while True:
        header = reader.read(BLOCK)
        if not header or header == bytes(BLOCK):
            return
        if len(header) != BLOCK:
            raise FormatError("the tar archive is cut off")
        if _number(header[_CHECKSUM_AT : _CHECKSUM_AT + 8]) != _checksum(header):
            raise FormatError("a header of the tar archive has the wrong checksum")
        if header[156:157] in (b"x", b"g", b"L", b"K"):
            _read_extended(reader, header, extended)
            continue
        head = _head(reader, header, extended.values)
        extended = _Extended()
        if head is not None:
            yield head


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[_CHECKSUM_AT : _CHECKSUM_AT + 8]) + 8 * 0x20


def _read_extended(reader: _Input, header: bytes, extended: _Extended) -> None:
    kind, size = header[156:157], _number(header[124:136])
    extended.count += 1
    if size > MAX_EXTENDED_BYTES or extended.count > _MAX_EXTENDED_HEADERS:
        raise FormatError("the tar archive has extended headers that are too large or too many")
    data = reader.read(size)
    if len(data) != size:
        raise FormatError("the tar archive is cut off")
    reader.skip(-size % BLOCK)
    if kind == b"x":
        extended.values.update(_pax_records(data))
    elif kind != b"g":  # global ones name the commit that `git archive` was made of
        key = "path" if kind == b"L" else "linkpath"
        extended.values.setdefault(key, _text(data.rstrip(b"\0")))


def _pax_records(data: bytes) -> dict[str, str]:
    """Read ``<length> <key>=<value>\\n`` records (POSIX.1-2001, pax) with a meaning here."""
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
        if key in (b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid"):
            records[key.decode()] = _text(value[:-1])
    return records


def _head(reader: _Input, header: bytes, extended: dict[str, str]) -> _Head | None:
    """Return a member; None for the archive's root."""
    flag = header[156:157]
    name = extended.get("path") or _header_name(header)
    kind = _KINDS.get(flag)
    if kind is None:
        raise FormatError(f"the tar archive has a member of a kind that is not read ({flag!r})")
    # Archives of before 1988 mark a directory by a slash alone.
    if kind == "file" and name.endswith("/"):
        kind = "directory"
    stored = _decimal(extended["size"]) if "size" in extended else _number(header[124:136])
    stored = stored if kind == "file" else 0
    size, pieces = stored, None
    if flag == b"S":
        size, pieces = _sparse(reader, header, stored)
    path = _path(name)
    target = None
    if kind == "link":
        target = extended.get("linkpath") or _text(header[157:257].split(b"\0")[0])
    if not path:
        if kind == "directory":
            return None
        raise FormatError("the tar archive has a member without a name")
    entry = Entry(
        path=path,
        kind=kind,
        size_bytes=size,
        mode=_number(header[100:108]) & 0o7777,
        uid=_decimal(extended["uid"]) if "uid" in extended else _number(header[108:116]),
        gid=_decimal(extended["gid"]) if "gid" in extended else _number(header[116:124]),
        mtime=_time(extended["mtime"]) if "mtime" in extended else _number(header[136:148]),
        link_target=target,
        attributes=("hard-link",) if flag == b"1" else (),
    )
    return _Head(entry, stored, pieces)


def _header_name(header: bytes) -> str:
    name = _text(header[:100].split(b"\0")[0])
    prefix = _text(header[345:500].split(b"\0")[0]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _path(name: str) -> str:
    """Return a name without what says nothing (``./``, slashes at both ends)."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise FormatError(f"the tar archive has the member {printable(name, limit=200)}")
    return "/".join(parts)


def _sparse(reader: _Input, header: bytes, stored: int) -> tuple[int, Pieces]:
    """Return the size and the stored pieces of a sparse file (GNU tar, "Old GNU Format")."""
    size = _number(header[483:495])
    fields, more = header[386:482], header[482]
    pieces: list[tuple[int, int]] = []
    position = total = 0
    while True:
        for at in range(0, len(fields) - 23, 24):
            if not fields[at]:
                break
            offset, length = _number(fields[at : at + 12]), _number(fields[at + 12 : at + 24])
            reader.pieces_left -= 1
            if offset < position or offset + length > size or reader.pieces_left < 0:
                raise FormatError("a sparse file in the tar archive has pieces that cannot be")
            position, total = offset + length, total + length
            if length:
                pieces.append((offset, length))
        if not more:
            break
        reader.pieces_left -= 1  # blocks without pieces could follow each other for ever
        block = reader.read(BLOCK)
        if len(block) != BLOCK or reader.pieces_left < 0:
            raise FormatError("the tar archive is cut off, or has too many sparse pieces")
        fields, more = block[:504], block[504]
    if total != stored:
        raise FormatError("a sparse file in the tar archive has another size than its pieces")
    return size, tuple(pieces)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
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


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise FormatError("a number in the tar archive is none")
    return int(text)


def _time(text: str) -> int:
    """Return the whole seconds of a pax time, which may be negative and have a fraction."""
    sign = -1 if text.startswith("-") else 1
    return sign * _decimal(text.removeprefix("-").partition(".")[0])
