"""FAT12, FAT16 and FAT32 with long names (Microsoft's "FAT: General Overview of On-Disk Format").

The type of a volume is told as Linux does: FAT32 where the 16-bit length of a table is zero. The
EFI partitions of imagers are FAT32 with fewer clusters than the specification asks for, which
mtools of some versions refuse.
"""

from __future__ import annotations

import calendar
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from local_imager.formats.entries import Entry, EntryBudget
from local_imager.formats.fatchains import FatChains, FatLayout
from local_imager.formats.source import FormatError, Source

_BPB: Final = struct.Struct("<3s8sHBHBHHBHHHII")
_RECORD: Final = struct.Struct("<11sBBBHHHHHHHI")
_RECORD_BYTES: Final = 32
_MAX_TABLE_BYTES: Final = 32 << 20
# The specification's own limit, and far more than a boot partition has.
_MAX_DIRECTORY_BYTES: Final = 65536 * _RECORD_BYTES
_MAX_DIRECTORIES_BYTES: Final = 64 << 20
_MAX_DEPTH: Final = 64
_LONG_NAME: Final = 0x0F
_VOLUME_LABEL: Final = 0x08
_DIRECTORY: Final = 0x10
_LAST_LONG: Final = 0x40
_MAX_LONG_PARTS: Final = 20
_ATTRIBUTES: Final = ((1, "read-only"), (2, "hidden"), (4, "system"), (0x20, "archive"))


@dataclass(frozen=True)
class FatVolume:
    """A volume: ``kind`` is fat12, fat16 or fat32, ``serial`` like ``1234-ABCD``.

    ``label`` is the one in the root directory, else the one in the boot sector; ``oem_name`` names
    the program that made the volume.
    """

    kind: str
    label: str
    serial: str
    oem_name: str
    cluster_bytes: int
    cluster_count: int
    entries: tuple[Entry, ...]
    _chains: FatChains = field(repr=False, compare=False)
    _directories: tuple[tuple[int, int], ...] = field(repr=False, compare=False)

    @property
    def tables(self) -> tuple[tuple[int, int], ...]:
        """Where the copies of the table lie, as (offset, length); the first one counts."""
        return self._chains.layout.tables

    def owned(self) -> list[tuple[int, int]]:
        """Return where tables, directories and contents lie, as (offset, length).

        Files that share clusters, as in a damaged volume only, own nothing.
        """
        layout = self._chains.layout
        places = [(layout.table, layout.data - layout.table), *self._directories]
        files = [one for one in self.entries if one.kind == "file" and one.size_bytes]
        clusters = sum(-(-one.size_bytes // layout.cluster_bytes) for one in files)
        if clusters <= layout.clusters:
            for one in files:
                places += self._chains.owned(one.number, one.size_bytes)
        return places

    def loose(self) -> bytes:
        """Return what the table says of clusters that nothing owns; nothing where all are free."""
        return self._chains.loose(self.owned()[1:])

    def open(self, entry: Entry) -> Source:
        """Return the content of a file; see :class:`~local_imager.formats.entries.Volume`."""
        if entry.kind != "file":
            raise FormatError("only files have content")
        return self._chains.content(entry.number, entry.size_bytes)


def read_fat(source: Source) -> FatVolume:
    """Return a FAT volume with all its entries.

    Raises :class:`FormatError` when it is none, and for chains or directories that loop or leave
    the volume.
    """
    boot = source.read(0, 512)
    layout = _layout(boot, source.size_bytes)
    chains = FatChains(source, layout)
    tree = _Tree(chains)
    entries = tuple(tree.walk())
    at = 64 if layout.bits == 32 else 36
    signature, serial, label, _ = struct.unpack_from("<BI11s8s", boot, at + 2)
    extended = signature in (0x28, 0x29)
    written = _text(label) if signature == 0x29 else ""
    return FatVolume(
        kind=f"fat{layout.bits}",
        label=tree.label or ("" if written == "NO NAME" else written),
        serial=f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if extended else "",
        oem_name=_text(boot[3:11]),
        cluster_bytes=layout.cluster_bytes,
        cluster_count=layout.clusters,
        entries=entries,
        _chains=chains,
        _directories=tuple(tree.places),
    )


def _layout(boot: bytes, size_bytes: int) -> FatLayout:
    (
        jump,
        _oem,
        sector_bytes,
        cluster_sectors,
        reserved,
        tables,
        root_records,
        sectors_16,
        media,
        table_sectors_16,
        _track,
        _heads,
        _hidden,
        sectors_32,
    ) = _BPB.unpack_from(boot)
    powers = sector_bytes in (512, 1024, 2048, 4096) and cluster_sectors.bit_count() == 1
    if not (powers and jump[:1] in b"\xeb\xe9" and reserved and 0 < tables <= 4 and media >= 0xF0):
        raise FormatError("the boot sector is not one of FAT")
    table_sectors = table_sectors_16 or struct.unpack_from("<I", boot, 36)[0]
    sectors = sectors_16 or sectors_32
    root_sectors = -(-root_records * _RECORD_BYTES // sector_bytes)
    first = reserved + tables * table_sectors + root_sectors
    if sectors * sector_bytes > size_bytes:
        raise FormatError(
            f"the FAT volume has {sectors * sector_bytes} bytes, of which {size_bytes} are there"
        )
    if not table_sectors or first >= sectors:
        raise FormatError("the FAT volume has no room for data")
    clusters = (sectors - first) // cluster_sectors
    bits = 32 if not table_sectors_16 else 12 if clusters < 4085 else 16
    if table_sectors * sector_bytes > _MAX_TABLE_BYTES:
        raise FormatError("the FAT is larger than that of any boot partition")
    # A table that is too short for its clusters has no chains for the ones behind.
    clusters = min(clusters, table_sectors * sector_bytes * 8 // bits - 2)
    return FatLayout(
        bits=bits,
        tables=tuple(
            ((reserved + number * table_sectors) * sector_bytes, table_sectors * sector_bytes)
            for number in range(tables)
        ),
        table=reserved * sector_bytes,
        root=(reserved + tables * table_sectors) * sector_bytes,
        root_bytes=root_records * _RECORD_BYTES,
        root_cluster=struct.unpack_from("<I", boot, 44)[0] if bits == 32 else 0,
        data=first * sector_bytes,
        cluster_bytes=cluster_sectors * sector_bytes,
        clusters=clusters,
    )


class _Tree:
    """Walks the directories."""

    def __init__(self, chains: FatChains) -> None:
        self.label = ""
        self._chains = chains
        self._seen: set[int] = set()
        self._budget = EntryBudget()
        self._left_bytes = _MAX_DIRECTORIES_BYTES
        self.places: list[tuple[int, int]] = []

    def walk(self) -> Iterator[Entry]:
        """Yield every entry, parents first."""
        layout = self._chains.layout
        if layout.bits == 32:
            yield from self._directory(layout.root_cluster, "", 0)
        else:
            root = self._chains.source.read(layout.root, layout.root_bytes)
            yield from self._records(root, "", 0)

    def _directory(self, cluster: int, path: str, depth: int) -> Iterator[Entry]:
        if depth > _MAX_DEPTH:
            raise FormatError("directories are nested too deeply")
        limit = max(_MAX_DIRECTORY_BYTES // self._chains.layout.cluster_bytes, 1)
        for start, count in self._chains.runs(cluster, limit):
            clusters = range(start, start + count)
            if not self._seen.isdisjoint(clusters):
                raise FormatError("two directories share their clusters")
            self._left_bytes -= count * self._chains.layout.cluster_bytes
            if self._left_bytes < 0:
                raise FormatError("the directories of the FAT volume are too large")
            self._seen.update(clusters)
        extents = self._chains.extents(cluster, limit)
        self.places += extents
        data = b"".join(self._chains.source.read(*extent) for extent in extents)
        yield from self._records(data, path, depth)

    def _records(self, data: bytes, path: str, depth: int) -> Iterator[Entry]:
        long_name = _LongName()
        names: set[str] = set()
        for at in range(0, len(data) - _RECORD_BYTES + 1, _RECORD_BYTES):
            record = data[at : at + _RECORD_BYTES]
            if record[0] == 0:
                return
            attributes = record[11]
            if record[0] == 0xE5:
                long_name.forget()
            elif attributes & 0x3F == _LONG_NAME:
                long_name.take(record)
            elif attributes & _VOLUME_LABEL:
                long_name.forget()
                if depth == 0 and not self.label:
                    self.label = _text(record[:11])
            else:
                name = long_name.fitting(record) or _short_name(record)
                if name in (".", "..") and depth:
                    continue
                if name in ("", ".", "..") or "/" in name or "\0" in name or name in names:
                    raise FormatError("a directory has a name twice, or one that is not a name")
                names.add(name)
                yield from self._entry(record, f"{path}/{name}" if path else name, depth)

    def _entry(self, record: bytes, path: str, depth: int) -> Iterator[Entry]:
        self._budget.spend(path)
        (_, attributes, _, _, _, _, _, high, time, date, low, size) = _RECORD.unpack(record)
        cluster = low | (high << 16 if self._chains.layout.bits == 32 else 0)
        is_directory = bool(attributes & _DIRECTORY)
        yield Entry(
            path=path,
            kind="directory" if is_directory else "file",
            size_bytes=0 if is_directory else size,
            mtime=_time(date, time),
            attributes=tuple(name for bit, name in _ATTRIBUTES if attributes & bit),
            number=cluster,
        )
        if is_directory:
            yield from self._directory(cluster, path, depth + 1)


class _LongName:
    """Collects the records of one long name, which stand before the short one, last part first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._expected = 0
        self._checksum = -1

    def forget(self) -> None:
        """Drop what was collected."""
        self._parts, self._expected = [], 0

    def take(self, record: bytes) -> None:
        """Take one record; one that does not follow drops the name."""
        order = record[0]
        if order & _LAST_LONG:
            self._parts, self._expected = [], order & 0x3F
            self._checksum = record[13]
        if not 0 < self._expected <= _MAX_LONG_PARTS or (
            (order & 0x3F, record[13]) != (self._expected, self._checksum)
        ):
            self.forget()
            return
        self._parts.insert(0, record[1:11] + record[14:26] + record[28:32])
        self._expected -= 1

    def fitting(self, record: bytes) -> str:
        """Return the long name of this short record, empty where it has none; then forget it."""
        complete = bool(self._parts) and self._expected == 0
        checksum = 0
        for value in record[:11]:
            checksum = (((checksum & 1) << 7) + (checksum >> 1) + value) & 0xFF
        text = b"".join(self._parts).decode("utf-16-le", "replace").partition("\0")[0]
        self.forget()
        return text if complete and checksum == self._checksum else ""


def _short_name(record: bytes) -> str:
    """Return the 8.3 name, in the case that Windows notes for it."""
    raw, case = record[:11], record[12]
    if raw[0] == 0x05:
        raw = b"\xe5" + raw[1:]
    stem, extension = _text(raw[:8]), _text(raw[8:])
    stem = stem.lower() if case & 0x08 else stem
    extension = extension.lower() if case & 0x10 else extension
    return f"{stem}.{extension}" if extension else stem


def _text(raw: bytes) -> str:
    return raw.decode("cp437").rstrip(" \0")


def _time(date: int, time: int) -> int | None:
    """Return a date and time of DOS in seconds since 1970; None where it is none."""
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    hour, minute, second = time >> 11, time >> 5 & 63, (time & 31) * 2
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        return None
    return calendar.timegm((year, month, day, hour, minute, second))
