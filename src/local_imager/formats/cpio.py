"""The newc form of cpio, which the kernel unpacks as initramfs, read and written as it streams.

Rules: "initramfs buffer format" of the kernel's documentation (driver-api/early-userspace) and
``init/initramfs.c``. One stream may hold several archives one after the other, with zeros between.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.formats.entries import Entry, EntryKind
from local_imager.formats.source import CHUNK_BYTES, FormatError, Source, stream

TRAILER: Final = b"TRAILER!!!"
_HEADER_BYTES: Final = 110
_MAGICS: Final = (b"070701", b"070702")
_NUMBERS: Final = re.compile(rb"[0-9A-Fa-f]{104}")
_MTIME: Final = slice(46, 54)
# PATH_MAX: the kernel takes no longer name and no longer link.
_MAX_NAME_BYTES: Final = 4096
# A root file system with everything in it has a tenth of that.
_MAX_ENTRIES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class CpioHeader:
    """The header of one entry: its numbers as they are written, and the 110 bytes themselves."""

    raw: bytes
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    size_bytes: int
    device: tuple[int, int]
    special_device: tuple[int, int]
    name_bytes: int
    check: int

    @classmethod
    def parse(cls, raw: bytes) -> CpioHeader:
        """Read the 110 bytes; raises :class:`FormatError`."""
        if raw[:6] not in _MAGICS:
            raise FormatError("no newc header where one has to be: not a cpio archive, or damaged")
        if not _NUMBERS.fullmatch(raw, 6):
            raise FormatError("a number in a cpio header is not hexadecimal")
        numbers = [int(raw[at : at + 8], 16) for at in range(6, _HEADER_BYTES, 8)]
        ino, mode, uid, gid, nlink, mtime, size, major, minor, rmajor, rminor, name, check = numbers
        if not 0 < name <= _MAX_NAME_BYTES:
            raise FormatError(f"a name of {name} bytes in a cpio header")
        device, special = (major, minor), (rmajor, rminor)
        return cls(raw, ino, mode, uid, gid, nlink, mtime, size, device, special, name, check)

    def with_mtime(self, mtime: int) -> bytes:
        """Return the 110 bytes with another time; the very same when it is the one they have."""
        if mtime == self.mtime:
            return self.raw
        return self.raw[: _MTIME.start] + b"%08X" % mtime + self.raw[_MTIME.stop :]

    @property
    def has_checksum(self) -> bool:
        """Whether ``check`` is the sum of the content's bytes (the crc form)."""
        return self.raw.startswith(_MAGICS[1])


class CpioEntry:
    """One entry as it passes: take the content with :meth:`chunks` before the next entry.

    ``name`` is the name's bytes as they are written, ``offset`` where the header begins in the
    stream. What is not taken is skipped. Of a hard link's names only one has the content, in most
    archives the last.
    """

    def __init__(self, reading: _Stream, offset: int, header: CpioHeader, name: bytes) -> None:
        self.offset, self.header, self.name = offset, header, name
        self._reading, self._left = reading, header.size_bytes
        self.link_target: str | None = None
        if self.kind == "link":
            if header.size_bytes > _MAX_NAME_BYTES:
                raise FormatError(f"a symbolic link of {header.size_bytes} bytes in a cpio archive")
            self.link_target = os.fsdecode(b"".join(self.chunks()))

    @property
    def path(self) -> str:
        """The name as text, without ``./`` or slashes at its begin and end; "" for the root."""
        parts = [part for part in os.fsdecode(self.name).split("/") if part not in ("", ".")]
        return "/".join(parts)

    @property
    def kind(self) -> EntryKind:
        """What the mode says that it is."""
        kind = stat.S_IFMT(self.header.mode)
        known: dict[int, EntryKind] = {
            stat.S_IFREG: "file",
            stat.S_IFDIR: "directory",
            stat.S_IFLNK: "link",
        }
        return known.get(kind, "special")

    @property
    def entry(self) -> Entry:
        """The entry in the shape that all formats share; ``number`` is its inode number."""
        header = self.header
        return Entry(
            path=self.path,
            kind=self.kind,
            size_bytes=header.size_bytes if self.kind == "file" else 0,
            mode=stat.S_IMODE(header.mode),
            uid=header.uid,
            gid=header.gid,
            mtime=header.mtime,
            link_target=self.link_target,
            number=header.ino,
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, or what is left of it; a wrong checksum raises at its end."""
        total = 0
        # cpio sums up files only, and the kernel asks for no other sum.
        whole = self._left == self.header.size_bytes and self.kind == "file"
        summed = self.header.has_checksum and whole and self._left > 0
        while self._left:
            piece = self._reading.some(self._left)
            self._left -= len(piece)
            if summed:
                total += sum(piece)
            yield piece
        if summed and total & 0xFFFFFFFF != self.header.check:
            raise FormatError("the content of a cpio entry does not have the sum in its header")

    def finish(self) -> None:
        """Skip what was not taken, and the padding; the reader calls it."""
        while self._left:
            self._left -= len(self._reading.some(self._left))
        self._reading.exactly(-self.header.size_bytes % 4)


class CpioReading:
    """Entries of one archive (``several=False``) or of all that a stream holds; iterate once.

    The trailer is not an entry. :attr:`end` is the offset in the stream behind what was read.
    Raises :class:`FormatError` when an archive is damaged or ends without its trailer.
    """

    def __init__(self, chunks: Iterable[bytes], *, several: bool = True) -> None:
        self._stream, self._several = _Stream(chunks), several

    @property
    def end(self) -> int:
        """How many bytes were read by now."""
        return self._stream.position

    def __iter__(self) -> Iterator[CpioEntry]:
        reading = self._stream
        for member in _members(reading, several=self._several):
            if member.header is None or member.is_trailer:
                continue
            begin = reading.position - _HEADER_BYTES - len(member.name_field)
            name = member.name_field[: member.header.name_bytes].partition(b"\0")[0]
            entry = CpioEntry(reading, begin, member.header, name)
            yield entry
            entry.finish()


def read_cpio(data: Source | Iterable[bytes]) -> CpioReading:
    """Return the entries of every archive in a source or a stream of bytes, to be iterated once."""
    return CpioReading(_chunks_of(data))


def rewrite_times(data: Source | Iterable[bytes], epoch: int | None) -> Iterator[bytes]:
    """Yield the same archives with the time of every entry set to ``epoch``.

    All else is as it was to the byte: names, inode numbers, trailers and the zeros behind them;
    with ``None`` for the epoch so are the times. Memory is bounded by the pieces of the input.
    Raises :class:`FormatError` as :class:`CpioReading` does, and ValueError for an epoch that eight
    hexadecimal digits cannot write.
    """
    if epoch is not None and not 0 <= epoch < 1 << 32:
        raise ValueError(f"cpio has no place for the time {epoch}")
    return _rewritten(_Stream(_chunks_of(data)), epoch, several=True)


def pass_archive(data: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of the first archive alone, up to the end of its trailer."""
    return _rewritten(_Stream(data), None, several=False)


def _chunks_of(data: Source | Iterable[bytes]) -> Iterable[bytes]:
    return data if isinstance(data, Iterable) else stream(data)


def _rewritten(reading: _Stream, epoch: int | None, *, several: bool) -> Iterator[bytes]:
    for member in _members(reading, several=several):
        yield from _zeros(member.gap_bytes)
        header = member.header
        if header is None:
            return
        keeps_time = epoch is None or member.is_trailer
        head = header.raw if keeps_time else header.with_mtime(epoch or 0)
        yield head + member.name_field
        left = 0 if member.is_trailer else header.size_bytes + -header.size_bytes % 4
        while left:
            piece = reading.some(left)
            left -= len(piece)
            yield piece


def _zeros(count: int) -> Iterator[bytes]:
    while count:
        size = min(count, CHUNK_BYTES)
        yield bytes(size)
        count -= size


@dataclass(frozen=True, slots=True)
class _Member:
    """A header with its name as written (NUL and padding included), after ``gap_bytes`` zeros.

    The last one of a stream has no header, only the zeros at its end.
    """

    gap_bytes: int
    header: CpioHeader | None = None
    name_field: bytes = b""

    @property
    def is_trailer(self) -> bool:
        return self.header is not None and self.name_field.startswith(TRAILER + b"\0")


def _members(reading: _Stream, *, several: bool) -> Iterator[_Member]:
    """Walk over headers; who iterates takes content and padding before going on."""
    inside, count = False, 0
    while True:
        gap = 0 if inside else reading.zeros()
        if not inside and reading.at_end():
            yield _Member(gap)
            return
        if reading.position % 4:
            raise FormatError("a cpio header does not begin at a multiple of 4")
        header = CpioHeader.parse(reading.exactly(_HEADER_BYTES))
        padded = header.name_bytes + -(_HEADER_BYTES + header.name_bytes) % 4
        member = _Member(gap, header, reading.exactly(padded))
        if member.name_field[header.name_bytes - 1] != 0:
            raise FormatError("a name in a cpio archive does not end where its header says")
        yield member
        inside, count = not member.is_trailer, count + 1
        if count > _MAX_ENTRIES:
            raise FormatError(f"a cpio archive has more than {_MAX_ENTRIES} entries")
        if member.is_trailer and not several:
            return


class _Stream:
    """Pieces of bytes, taken in other pieces."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._piece, self._at = b"", 0
        self.position = 0

    def _fill(self) -> bool:
        while self._at == len(self._piece):
            piece = next(self._chunks, None)
            if piece is None:
                return False
            self._piece, self._at = piece, 0
        return True

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return not self._fill()

    def some(self, most: int) -> bytes:
        """Return at least one byte and no more than these; raises at the end."""
        if not self._fill():
            raise FormatError("a cpio archive ends too early")
        piece = self._piece[self._at : self._at + most]
        self._at += len(piece)
        self.position += len(piece)
        return piece

    def exactly(self, count: int) -> bytes:
        """Return so many bytes; only for few."""
        taken = b""
        while len(taken) < count:
            taken += self.some(count - len(taken))
        return taken

    def zeros(self) -> int:
        """Skip zeros and return how many they were."""
        begin = self.position
        while self._fill():
            rest = self._piece[self._at :].lstrip(b"\0")
            skipped = len(self._piece) - self._at - len(rest)
            self._at += skipped
            self.position += skipped
            if rest:
                break
        return self.position - begin
