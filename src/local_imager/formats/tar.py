"""Tar archives, read with random access where they lie in a file.

POSIX ustar and pax, and GNU's extensions for long names, large numbers and sparse files in the old
form (cloud images are such archives). Sparse files in pax headers and archives in several volumes
are refused. Nothing is written anywhere, whatever a name says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from local_imager.events import printable
from local_imager.formats.entries import Entry, EntryBudget, EntryKind
from local_imager.formats.source import FormatError, Joined, Source, sha256_of
from local_imager.formats.tarfields import (
    MemberDigest,
    decimal,
    header_name,
    member_path,
    number,
    pax_records,
    pax_time,
    text,
)

BLOCK: Final = 512
# Paths and links are below 4 KiB; a pax header with extended attributes stays below this.
MAX_EXTENDED_BYTES: Final = 256 * 1024
# One after the other before a member: two of GNU's, or one of pax and a global one.
_MAX_EXTENDED_HEADERS: Final = 8
# Of all sparse files together; a disk of several gigabytes has hundreds.
_MAX_SPARSE_PIECES: Final = 100_000
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


class _Input:
    """Where an archive is read from; only forwards."""

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


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next member."""

    values: dict[str, str] = field(default_factory=dict)
    count: int = 0
    kept: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Head:
    entry: Entry
    stored_bytes: int
    pieces: Pieces | None
    header: bytes
    records: list[bytes]


@dataclass(frozen=True, slots=True)
class TarVolume:
    """An archive with random access (a :class:`Volume`).

    Of several members with one path the last counts, as when it is unpacked. A directory that the
    archive does not list is no entry. ``headers`` is a digest of what headers say beside that (see
    :class:`~local_imager.formats.tarfields.MemberDigest`); the archive ends at ``end_bytes``.
    """

    entries: tuple[Entry, ...]
    _source: Source
    _places: tuple[tuple[int, Pieces | None], ...]
    headers: str = ""
    end_bytes: int = 0

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
        return number(head[_CHECKSUM_AT : _CHECKSUM_AT + 8]) == _checksum(head[:BLOCK])
    except FormatError:
        return False


def read_tar(source: Source) -> TarVolume:
    """Read all headers of an archive; raises :class:`FormatError`."""
    entries: dict[str, Entry] = {}
    places: list[tuple[int, Pieces | None]] = []
    stored: list[int] = []
    budget, digest = EntryBudget(), MemberDigest()
    reader = _Input(source)
    for head in _heads(reader):
        entry, at = head.entry, reader.position
        _spend(budget, entry)
        if entry.kind == "file":
            entry = _numbered(entry, len(places))
            places.append((at, head.pieces))
            stored.append(head.stored_bytes)
        hidden = entries.pop(entry.path, None)
        if hidden is not None and hidden.kind == "file":
            # Nobody sees it any more, but it lies there.
            begin, _ = places[hidden.number]
            digest.stray(sha256_of(Joined([(source, begin, stored[hidden.number])])).encode())
        entries[entry.path] = entry
        digest.add(head.header, head.records)
        reader.skip(head.stored_bytes)
        padding = reader.read(-head.stored_bytes % BLOCK)
        if len(padding) != -head.stored_bytes % BLOCK:
            raise FormatError("the tar archive is cut off")
        digest.stray(padding)
    return TarVolume(tuple(entries.values()), source, tuple(places), digest.digest, reader.position)


def _spend(budget: EntryBudget, entry: Entry) -> None:
    budget.spend(entry.path)
    if entry.link_target:
        budget.spend(entry.link_target)


def _numbered(entry: Entry, number: int) -> Entry:
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
        if number(header[_CHECKSUM_AT : _CHECKSUM_AT + 8]) != _checksum(header):
            raise FormatError("a header of the tar archive has the wrong checksum")
        if header[156:157] in (b"x", b"g", b"L", b"K"):
            _read_extended(reader, header, extended)
            continue
        head = _head(reader, header, extended)
        extended = _Extended()
        if head is not None:
            yield head


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[_CHECKSUM_AT : _CHECKSUM_AT + 8]) + 8 * 0x20


def _read_extended(reader: _Input, header: bytes, extended: _Extended) -> None:
    kind, size = header[156:157], number(header[124:136])
    extended.count += 1
    if size > MAX_EXTENDED_BYTES or extended.count > _MAX_EXTENDED_HEADERS:
        raise FormatError("the tar archive has extended headers that are too large or too many")
    data = reader.read(size)
    if len(data) != size:
        raise FormatError("the tar archive is cut off")
    reader.skip(-size % BLOCK)
    if kind == b"x":
        extended.values.update(pax_records(data, extended.kept))
    elif kind == b"g":  # global ones name the commit that `git archive` was made of
        extended.kept.append(data)
    else:
        key = "path" if kind == b"L" else "linkpath"
        extended.values.setdefault(key, text(data.rstrip(b"\0")))


def _head(reader: _Input, header: bytes, said: _Extended) -> _Head | None:
    """Return a member; None for the archive's root."""
    flag, extended = header[156:157], said.values
    name = extended.get("path") or header_name(header)
    kind = _KINDS.get(flag)
    if kind is None:
        raise FormatError(f"the tar archive has a member of a kind that is not read ({flag!r})")
    # Archives of before 1988 mark a directory by a slash alone.
    if kind == "file" and name.endswith("/"):
        kind = "directory"
    stored = decimal(extended["size"]) if "size" in extended else number(header[124:136])
    stored = stored if kind == "file" else 0
    size, pieces = stored, None
    if flag == b"S":
        size, pieces = _sparse(reader, header, stored)
    path = member_path(name)
    target = None
    if kind == "link":
        target = extended.get("linkpath") or text(header[157:257].split(b"\0")[0])
    if not path:
        if kind == "directory":
            return None
        raise FormatError("the tar archive has a member without a name")
    entry = Entry(
        path=path,
        kind=kind,
        size_bytes=size,
        mode=number(header[100:108]) & 0o7777,
        uid=decimal(extended["uid"]) if "uid" in extended else number(header[108:116]),
        gid=decimal(extended["gid"]) if "gid" in extended else number(header[116:124]),
        mtime=pax_time(extended["mtime"]) if "mtime" in extended else number(header[136:148]),
        link_target=target,
        attributes=("hard-link",) if flag == b"1" else (),
    )
    return _Head(entry, stored, pieces, header, said.kept)


def _sparse(reader: _Input, header: bytes, stored: int) -> tuple[int, Pieces]:
    """Return the size and the stored pieces of a sparse file (GNU tar, "Old GNU Format")."""
    size = number(header[483:495])
    fields, more = header[386:482], header[482]
    pieces: list[tuple[int, int]] = []
    position = total = 0
    while True:
        for at in range(0, len(fields) - 23, 24):
            if not fields[at]:
                break
            offset, length = number(fields[at : at + 12]), number(fields[at + 12 : at + 24])
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
