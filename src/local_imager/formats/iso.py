"""ISO 9660 images: volume, directory tree, boot catalogue.

An own small reader: pycdlib was tried and needs seven minutes of processor time for one directory
of 100,000 records (an image of 4 MB), takes in UDF and partition tables before it answers, and
refuses images that every system mounts. This one reads what Linux would show: names and modes of
Rock Ridge if there is it, else of Joliet, else the plain ones.

ECMA-119 (the volume), SUSP and RRIP 1.12 (Rock Ridge), the Joliet specification of 1995.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.events import printable
from local_imager.formats.eltorito import BootCatalog, BootEntry, read_boot_catalog
from local_imager.formats.entries import Entry, EntryBudget
from local_imager.formats.gpt import read_partitions
from local_imager.formats.isorecord import (
    Record,
    SystemUse,
    parse_record,
    parse_system_use,
    path_tables,
)
from local_imager.formats.source import FormatError, Joined, Slice, Source

SECTOR: Final = 2048
# Debian's largest image has 60,000 files on 25 GB; a boot image has a few hundred.
MAX_RECORDS: Final = 100_000
MAX_DEPTH: Final = 64
# Of directories and continuation areas together.
MAX_TABLE_BYTES: Final = 16 << 20
_FIRST_DESCRIPTOR: Final = 16
_MAX_DESCRIPTORS: Final = 64
_BOOT, _PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 0, 1, 2, 255
_JOLIET: Final = (b"%/@", b"%/C", b"%/E")
_EL_TORITO: Final = b"EL TORITO SPECIFICATION"


@dataclass(frozen=True, slots=True)
class IsoVolume:
    """An image: what it says of itself, and its tree (a :class:`Volume`).

    ``names`` says where names and properties are from. ``size_bytes`` is what the volume claims;
    a file that has fewer is cut off. Dates are ``YYYY-MM-DD hh:mm:ss.cc±hhmm`` or empty.
    ``records`` is where descriptors, directories, path tables and boot catalogue lie. ``second``
    are the rows of a tree that Linux does not show: path, and the path here of the same bytes.
    """

    source: Source
    volume_id: str
    system_id: str
    volume_set_id: str
    publisher: str
    preparer: str
    application: str
    created: str
    modified: str
    block_bytes: int
    size_bytes: int
    joliet_id: str
    names: str
    boot: BootCatalog
    entries: tuple[Entry, ...]
    extents: tuple[tuple[tuple[int, int], ...], ...]
    descriptors: tuple[bytes, ...] = ()
    records: tuple[tuple[int, int], ...] = ()
    second: tuple[tuple[str, str], ...] = ()

    def open(self, entry: Entry) -> Source:
        """See :meth:`Volume.open`."""
        if entry.kind != "file" or not 0 <= entry.number < len(self.extents):
            raise FormatError(f"the image has no content for {printable(entry.path)}")
        return Joined((self.source, at, size) for at, size in self.extents[entry.number])

    def file_at(self, offset: int) -> Entry | None:
        """Return the file whose content begins at this byte of the image, or None."""
        for entry in self.entries:
            if entry.kind == "file" and entry.size_bytes:
                if self.extents[entry.number][0][0] == offset:
                    return entry
        return None

    def open_boot_image(self, entry: BootEntry) -> Source:
        """Return what an entry of the boot catalogue starts, as far as its end is known.

        That is the file that begins there, else the length of the catalogue, else the partition
        that begins there (an appended ESP), else all up to the end of the image.
        """
        file = self.file_at(entry.offset)
        if file is not None:
            return self.open(file)
        return Slice(self.source, entry.offset, entry.stated_bytes or self._length_at(entry.offset))

    def _length_at(self, offset: int) -> int:
        try:
            partitions = read_partitions(self.source).partitions
        except FormatError:
            partitions = ()
        lengths = [one.size_bytes for one in partitions if one.offset == offset]
        return lengths[0] if lengths else self.source.size_bytes - offset


def is_iso(source: Source) -> bool:
    """Tell whether there is a volume descriptor where an ISO 9660 image has the first."""
    at = _FIRST_DESCRIPTOR * SECTOR
    return source.size_bytes >= at + SECTOR and source.read(at + 1, 5) == b"CD001"


def read_iso(source: Source) -> IsoVolume:
    """Read the volume with its whole tree and its boot catalogue.

    Raises :class:`FormatError` for damaged descriptors and records, loops, and trees beyond the
    limits. That a file's content is cut off is told by :meth:`IsoVolume.open` for that file; what
    is damaged in the boot catalogue by its ``fault``.
    """
    descriptors = list(_descriptors(source))
    primary, joliet, catalog = _used(descriptors)
    block = _le16(primary, 128)
    if block not in (512, 1024, 2048):
        raise FormatError(f"the image has blocks of {block} bytes")
    tree = _Tree(source, block)
    rock_ridge = tree.look_for_rock_ridge(primary[156:190])
    names = "rock-ridge" if rock_ridge else "joliet" if joliet else "iso9660"
    root = joliet if joliet and not rock_ridge else primary
    entries = tuple(tree.walk(root[156:190], names))
    boot = read_boot_catalog(source, catalog * SECTOR) if catalog else BootCatalog()
    second, places = _second_tree(source, block, primary, joliet, names, entries, tree.extents)
    places += [*tree.places, (_FIRST_DESCRIPTOR * SECTOR, len(descriptors) * SECTOR)]
    places += [place for one in (primary, joliet) for place in path_tables(one, block)]
    places += [(boot.offset, SECTOR)] if boot.offset else []
    return IsoVolume(
        source=source,
        volume_id=_text(primary[40:72]),
        system_id=_text(primary[8:40]),
        volume_set_id=_text(primary[190:318]),
        publisher=_text(primary[318:446]),
        preparer=_text(primary[446:574]),
        application=_text(primary[574:702]),
        created=_date(primary[813:830]),
        modified=_date(primary[830:847]),
        block_bytes=block,
        size_bytes=_le32(primary, 80) * block,
        joliet_id=printable(joliet[40:72].decode("utf-16-be", "replace").strip(" \0")),
        names=names,
        boot=boot,
        entries=entries,
        extents=tuple(tree.extents),
        descriptors=tuple(descriptors),
        records=tuple(places),
        second=second,
    )


def _second_tree(
    source: Source,
    block: int,
    primary: bytes,
    joliet: bytes,
    names: str,
    entries: tuple[Entry, ...],
    extents: list[tuple[tuple[int, int], ...]],
) -> tuple[tuple[tuple[str, str], ...], list[tuple[int, int]]]:
    """Return the rows of the tree that is not shown, and where its records lie; none of both where
    it cannot be read."""
    if not joliet:
        return (), []
    known = {extents[one.number]: one.path for one in reversed(entries) if one.kind == "file"}
    other, rows = _Tree(source, block), []
    root, spelling = (joliet, "joliet") if names != "joliet" else (primary, "iso9660")
    try:
        for entry in other.walk(root[156:190], spelling):
            what: str = entry.kind
            if entry.kind == "file":
                own = other.extents[entry.number]
                what = known.get(own) or str(own) if entry.size_bytes else "empty"
            rows.append((entry.path, what))
    except FormatError:
        return (), []
    return tuple(rows), other.places


def _descriptors(source: Source) -> Iterator[bytes]:
    """Yield all volume descriptors, the last one included."""
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
        data = source.read(number * SECTOR, SECTOR)
        if data[1:6] != b"CD001":
            return
        yield data
        if data[0] == _TERMINATOR:
            return


def _used(descriptors: list[bytes]) -> tuple[bytes, bytes, int]:
    """Return the primary descriptor, Joliet's (or nothing), and the boot catalogue's sector."""
    primary = joliet = b""
    catalog = 0
    for data in descriptors:
        kind = data[0]
        if kind == _PRIMARY and not primary:
            primary = data
        elif kind == _SUPPLEMENTARY and data[88:91] in _JOLIET and not joliet:
            joliet = data
        elif kind == _BOOT and data[7:30] == _EL_TORITO and not catalog:
            catalog = _le32(data, 71)
    if not primary:
        raise FormatError("this is no ISO 9660 image (it has no primary volume descriptor)")
    return primary, joliet, catalog


def _le16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _le32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _text(field: bytes) -> str:
    return printable(field.decode("utf-8", "replace").rstrip(" \0"))


def _date(field: bytes) -> str:
    """Return a date of a descriptor (16 digits and a zone in quarters of an hour)."""
    digits = field[:16].decode("ascii", "replace")
    if not (digits.isascii() and digits.isdigit()) or digits == "0" * 16:
        return ""
    zone = int.from_bytes(field[16:17], "little", signed=True) * 15
    sign = "-" if zone < 0 else "+"
    day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}"
    clock = f"{digits[8:10]}:{digits[10:12]}:{digits[12:14]}.{digits[14:]}"
    return f"{day} {clock}{sign}{abs(zone) // 60:02}{abs(zone) % 60:02}"


class _Tree:
    """Walks directories within a budget of bytes, entries and depth."""

    def __init__(self, source: Source, block: int) -> None:
        self._source = source
        self._block = block
        self._bytes_left = MAX_TABLE_BYTES
        self._budget = EntryBudget()
        self._records_left = MAX_RECORDS
        self._skip = 0
        self.extents: list[tuple[tuple[int, int], ...]] = []
        self.places: list[tuple[int, int]] = []

    def look_for_rock_ridge(self, root: bytes) -> bool:
        """Tell by the first record of the root whether Rock Ridge is in use (SUSP 5.3, RRIP 4)."""
        record = parse_record(root)
        first = next(self._records(record.extent, min(record.size, self._block)), None)
        if first is None or first.name != b"\0":
            return False
        use = first.system_use
        # The same bytes at the begin of the area say that the protocol is followed at all.
        if use[:2] != b"SP" or use[4:6] != b"\xbe\xef" or len(use) < 7:
            return False
        self._skip = use[6]
        found = self._system_use(use)
        return any(name.startswith(("RRIP_", "IEEE_P1282", "IEEE_1282")) for name in found.known)

    def walk(self, root: bytes, names: str) -> Iterator[Entry]:
        """Yield every entry, a directory before what it holds."""
        first = parse_record(root)
        visited = {first.extent}
        paths: set[str] = set()
        waiting = [self._listing(first.extent, first.size, "", names)]
        while waiting:
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                continue
            entry, (extent, size) = found
            if entry.path in paths:
                raise FormatError(f"the image has two entries {printable(entry.path)}")
            paths.add(entry.path)
            yield entry
            if entry.kind == "directory" and size:
                if extent in visited:
                    raise FormatError("the directories of the image form a loop")
                if len(waiting) >= MAX_DEPTH:
                    raise FormatError(f"the image has directories more than {MAX_DEPTH} deep")
                visited.add(extent)
                waiting.append(self._listing(extent, size, entry.path + "/", names))

    def _listing(
        self, extent: int, size: int, prefix: str, names: str
    ) -> Iterator[tuple[Entry, tuple[int, int]]]:
        """Yield the entries of one directory, each with the place of its records."""
        pieces: list[tuple[int, int]] = []
        for record in self._records(extent, size):
            if record.name in (b"\0", b"\1") or record.is_associated:
                continue
            found = SystemUse()
            if names == "rock-ridge":
                found = self._system_use(record.system_use[self._skip :])
            if found.is_moved:  # shown where its link is
                continue
            pieces.append((record.extent * self._block, record.size))
            if record.has_more:
                continue
            place = (record.extent, record.size)
            if found.child is not None:
                place = self._moved(found.child)
            entry = self._entry(record, found, prefix, names, tuple(pieces))
            pieces = []
            yield entry, place

    def _entry(
        self,
        record: Record,
        use: SystemUse,
        prefix: str,
        names: str,
        pieces: tuple[tuple[int, int], ...],
    ) -> Entry:
        path = prefix + _name(record, use, names)
        self._budget.spend(path)
        if use.link_target:
            self._budget.spend(use.link_target)
        kind = use.kind or ("directory" if record.is_directory else "file")
        if use.child is not None:
            kind = "directory"
        elif record.is_directory != (kind == "directory"):
            raise FormatError(f"the image does not agree with itself what {printable(path)} is")
        number = size = 0
        if kind == "file":
            self.extents.append(pieces)
            number = len(self.extents) - 1
            size = sum(length for _, length in pieces)
        return Entry(
            path=path,
            kind=kind,
            size_bytes=size,
            mode=use.mode,
            uid=use.uid,
            gid=use.gid,
            mtime=record.mtime if use.mtime is None else use.mtime,
            link_target=use.link_target,
            number=number,
        )

    def _moved(self, extent: int) -> tuple[int, int]:
        """Return the place of a directory that lies elsewhere; its own record has the size."""
        first = next(self._records(extent, self._block), None)
        if first is None or first.name != b"\0":
            raise FormatError("a moved directory of the image is not where its link points")
        return extent, first.size

    def _records(self, extent: int, size: int) -> Iterator[Record]:
        """Yield the records of a directory; none crosses a sector (ECMA-119 6.8.1.1)."""
        for begin in range(0, size, SECTOR):
            data = self._read(extent * self._block + begin, min(SECTOR, size - begin))
            at = 0
            while at < len(data) and data[at]:
                self._records_left -= 1
                if self._records_left < 0:
                    raise FormatError(f"the image has more than {MAX_RECORDS} directory records")
                yield parse_record(data[at : at + data[at]])
                at += data[at]

    def _read(self, offset: int, length: int) -> bytes:
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise FormatError("the directories of the image are too large")
        self.places.append((offset, length))
        return self._source.read(offset, length)

    def _system_use(self, area: bytes) -> SystemUse:
        """Read a system use area with what it is continued by."""
        found = SystemUse()
        for _ in range(32):
            next_area = parse_system_use(area, found)
            if next_area is None:
                return found
            block, offset, length = next_area
            area = self._read(block * self._block + offset, min(length, SECTOR))
        raise FormatError("a record of the image is continued too often")


def _name(record: Record, use: SystemUse, names: str) -> str:
    if names == "rock-ridge" and use.name:
        name = use.name.decode("utf-8", "surrogateescape")
    elif names == "joliet":
        name = _without_version(record.name.decode("utf-16-be", "replace"))
    else:
        name = _without_version(record.name.decode("utf-8", "surrogateescape"))
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise FormatError(f"the image has an entry with the name {printable(name)!r}")
    return name


def _without_version(name: str) -> str:
    """Return a plain name without the version that nobody shows, and without an empty suffix."""
    stem = name.removesuffix(";1")
    return stem.removesuffix(".") or stem
