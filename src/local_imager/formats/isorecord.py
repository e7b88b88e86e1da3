"""Directory records of ISO 9660, and what Rock Ridge puts into them."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.formats.entries import EntryKind
from local_imager.formats.source import FormatError

_RECORD_BYTES: Final = 33
MAX_NAME_BYTES: Final = 4096
_KINDS: Final[dict[int, EntryKind]] = {
    0o040000: "directory",
    0o100000: "file",
    0o120000: "link",
}
_ENTRY_FLAG_CONTINUES: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One directory record (ECMA-119 9.1); ``name`` is as it is written."""

    name: bytes
    extent: int
    size: int
    mtime: int | None
    is_directory: bool
    is_associated: bool
    has_more: bool
    system_use: bytes


@dataclass(slots=True)
class SystemUse:
    """What the system use entries of one record say together; grows while they are read.

    ``child`` is the block of a directory that lies elsewhere (CL), ``is_moved`` marks that one
    where it lies (RE). ``known`` are the extensions that are announced (ER).
    """

    name: bytes = b""
    name_continues: bool = False
    kind: EntryKind | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    link_target: str | None = None
    link_continues: bool = False
    child: int | None = None
    is_moved: bool = False
    known: tuple[str, ...] = ()


def parse_record(data: bytes) -> Record:
    """Read a record; raises :class:`FormatError` when its parts do not fit into it."""
    if len(data) <= _RECORD_BYTES or len(data) < data[0] or _RECORD_BYTES + data[32] > len(data):
        raise FormatError("a directory record of the image is cut off")
    flags, unit, gap, length = data[25], data[26], data[27], data[32]
    if unit or gap:
        raise FormatError("the image has interleaved files, which nothing writes")
    name_end = _RECORD_BYTES + length
    extended = data[1]  # blocks of an extended attribute record before the content
    return Record(
        name=data[_RECORD_BYTES:name_end],
        extent=int.from_bytes(data[2:6], "little") + extended,
        size=int.from_bytes(data[10:14], "little"),
        mtime=short_time(data[18:25]),
        is_directory=bool(flags & 0x02),
        is_associated=bool(flags & 0x04),
        has_more=bool(flags & 0x80),
        system_use=data[name_end + (1 - length % 2) :],
    )


def path_tables(descriptor: bytes, block: int) -> Iterator[tuple[int, int]]:
    """Yield where the path tables of a tree lie (ECMA-119 8.4.13 to 8.4.17)."""
    if descriptor:
        for at, order in ((140, "little"), (144, "little"), (148, "big"), (152, "big")):
            place = int.from_bytes(descriptor[at : at + 4], order)  # type: ignore[arg-type]
            if place:
                yield place * block, _le32(descriptor, 132)


def short_time(field: bytes) -> int | None:
    """Return a time of seven bytes as seconds since 1970; None when it is empty or no time."""
    year, month, day, hour, minute, second = field[:6]
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    zone = int.from_bytes(field[6:7], "little", signed=True) * 15 * 60
    return calendar.timegm((1900 + year, month, day, hour, minute, second)) - zone


def _long_time(field: bytes) -> int | None:
    """Return a time of 17 bytes (16 digits and the zone); hundredths are left out."""
    if not field[:16].isdigit():
        return None
    numbers = [int(field[at : at + 2]) for at in range(0, 14, 2)]
    year = numbers[0] * 100 + numbers[1]
    if not 1900 <= year < 2156:
        return None
    return short_time(bytes([year - 1900, *numbers[2:]]) + field[16:17])


def parse_system_use(area: bytes, found: SystemUse) -> tuple[int, int, int] | None:
    """Add what an area says to what was found; returns where it is continued, or None.

    A continuation is (block, offset in it, length) (SUSP 5.1).
    """
    more = None
    at = 0
    while at + 4 <= len(area):
        kind, length = area[at : at + 2], area[at + 2]
        if kind == b"ST" or kind == b"\0\0":
            break
        if length < 4 or at + length > len(area):
            raise FormatError("a Rock Ridge entry of the image has a wrong length")
        data = area[at + 4 : at + length]
        if kind == b"CE":
            _need(data, 24)
            more = (_le32(data, 0), _le32(data, 8), _le32(data, 16))
        elif kind in _READERS:
            _READERS[kind](data, found)
        at += length
    return more


def _need(data: bytes, count: int) -> None:
    if len(data) < count:
        raise FormatError("a Rock Ridge entry of the image is cut off")


def _le32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _posix(data: bytes, found: SystemUse) -> None:
    """PX: file mode, links, user, group (RRIP 4.1.1)."""
    _need(data, 32)
    mode = _le32(data, 0)
    found.kind = _KINDS.get(mode & 0o170000, "special")
    found.mode = mode & 0o7777
    found.uid, found.gid = _le32(data, 16), _le32(data, 24)


def _name(data: bytes, found: SystemUse) -> None:
    """NM: the name, in pieces if it is long (RRIP 4.1.4)."""
    _need(data, 1)
    if data[0] & 0x06:  # "this directory" and "its parent", which other entries say already
        return
    name = found.name + data[1:] if found.name_continues else data[1:]
    if len(name) > MAX_NAME_BYTES:
        raise FormatError("a name in the image is too long")
    found.name = name
    found.name_continues = bool(data[0] & _ENTRY_FLAG_CONTINUES)


def _link(data: bytes, found: SystemUse) -> None:
    """SL: the target of a symbolic link, component by component (RRIP 4.1.3)."""
    _need(data, 1)
    target = found.link_target or ""
    continues = found.link_continues
    at = 1
    while at + 2 <= len(data):
        flags, length = data[at], data[at + 1]
        _need(data, at + 2 + length)
        if target and not continues and not target.endswith("/"):
            target += "/"
        if flags & 0x08:
            target = "/"
        elif flags & 0x06:
            target += "." if flags & 0x02 else ".."
        else:
            target += data[at + 2 : at + 2 + length].decode("utf-8", "surrogateescape")
        continues = bool(flags & _ENTRY_FLAG_CONTINUES)
        at += 2 + length
    if len(target) > MAX_NAME_BYTES:
        raise FormatError("a link in the image is too long")
    found.link_target, found.link_continues = target, continues


def _times(data: bytes, found: SystemUse) -> None:
    """TF: those times that the flags name: creation, modification … (RRIP 4.1.6)."""
    _need(data, 1)
    flags = data[0]
    size = 17 if flags & 0x80 else 7
    at = 1 + (size if flags & 0x01 else 0)
    if not flags & 0x02:
        return
    _need(data, at + size)
    field = data[at : at + size]
    found.mtime = _long_time(field) if flags & 0x80 else short_time(field)


def _child(data: bytes, found: SystemUse) -> None:
    """CL: the directory lies elsewhere (RRIP 4.1.5.1)."""
    _need(data, 8)
    found.child = _le32(data, 0)


def _moved(_data: bytes, found: SystemUse) -> None:
    """RE: this directory was moved here from too deep a place (RRIP 4.1.5.3)."""
    found.is_moved = True


def _reference(data: bytes, found: SystemUse) -> None:
    """ER: an extension that is in use (SUSP 5.5)."""
    _need(data, 4)
    name = data[4 : 4 + data[0]].decode("ascii", "replace")
    found.known = (*found.known, name)[:8]


_READERS: Final = {
    b"PX": _posix,
    b"NM": _name,
    b"SL": _link,
    b"TF": _times,
    b"CL": _child,
    b"RE": _moved,
    b"ER": _reference,
}
