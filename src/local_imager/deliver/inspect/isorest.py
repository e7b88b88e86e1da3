"""The fact ``rest`` of an ISO: all that neither its tree nor another fact of it shows.

What lies behind files, in the system area and between; descriptors and the boot catalogue without
the places of what they name; a second tree (Joliet), by the names that it gives the same files.

GRUB marks an ISO by a file named after the time of the run: its name counts as if it were another.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from local_imager.deliver.inspect.rest import gpt_places, rest_digest
from local_imager.formats.gpt import PartitionTable
from local_imager.formats.source import FormatError, Slice, Source

if TYPE_CHECKING:
    from local_imager.formats.iso import IsoVolume

MARKER: Final = re.compile(rb"(?:\d\d){2}(?:-\d\d){6}\.uuid")
_WIDE_MARKER: Final = re.compile(rb"(?:\0\d){4}(?:\0-(?:\0\d){2}){6}\0\.\0u\0u\0i\0d")
_MARKED: Final = b"0000-00-00-00-00-00-00.uuid"
_WIDE_MARKED: Final = _MARKED.decode().encode("utf-16-be")
_HFS_PLUS: Final = "48465300-0000-11aa-aa11-00306543ecac"
_MAX_INNER: Final = 4
_BOOT_CODE_BYTES: Final = 440
_SECTOR_BYTES: Final = 512
# Of a volume descriptor: what follows from the tree (sizes, places), and the four dates.
_FOLLOWING: Final = ((80, 8), (132, 24), (156, 34), (813, 68))
# Of the boot record: where the catalogue is.
_CATALOG: Final = (71, 4)
_CATALOG_BYTES: Final = 2048
_ENTRY_LENGTH, _ENTRY_PLACE = (6, 2), (8, 4)
_CHECKSUM: Final = (28, 2)


def without_marker(data: bytes) -> bytes:
    """Return bytes with the name of GRUB's marker replaced by one of no time."""
    return _WIDE_MARKER.sub(_WIDE_MARKED, MARKER.sub(_MARKED, data))


def iso_rest(
    source: Source,
    volume: IsoVolume,
    table: PartitionTable | None,
    opened: Iterable[tuple[int, int]],
    whole: Iterable[int],
) -> str:
    """Return the digest of the rest.

    ``opened`` are the pieces (offset, length) that are parts beside the tree. ``whole`` says at
    which bytes those entries of the catalogue stand whose length is just that of their image.
    """
    hasher = hashlib.sha256(_catalog(source, volume, set(whole)))
    covered = [place for pieces in volume.extents for place in pieces]
    covered += [*volume.records, *opened, *_tables(source, table)]
    for inner, offset in ((volume, 0), *_inner(source, volume, table)):
        for one in inner.descriptors:
            places = _FOLLOWING if one[0] else [_CATALOG] if inner.boot.offset else []
            hasher.update(_blank(one, places if one[0] < 3 else ()))
        rows = [ascii(row) for row in inner.second]
        if offset:
            covered += [(offset + at, length) for at, length in inner.records]
            rows += _rows(inner, offset, volume)
        hasher.update(without_marker("\n".join(sorted(rows)).encode()))
    masked = _Masked(source, dict(_hfs_names(source, volume, table)))
    hasher.update(rest_digest(masked, covered, numbered=False).encode())
    return f"sha256:{hasher.hexdigest()}"


def _inner(
    source: Source, volume: IsoVolume, table: PartitionTable | None
) -> Iterator[tuple[IsoVolume, int]]:
    """Yield the volumes that begin with a partition inside of this one, and where they do.

    xorriso writes descriptors and directories a second time, for who mounts the first partition.
    """
    from local_imager.formats.iso import is_iso, read_iso

    offsets = {one.offset for one in (table.partitions if table is not None else ())}
    for offset in sorted(offsets)[:_MAX_INNER]:
        if 0 < offset < min(volume.size_bytes, source.size_bytes):
            piece = Slice(source, offset, source.size_bytes - offset)
            try:
                inner = read_iso(piece) if is_iso(piece) else None
            except FormatError:  # its bytes are like any other then
                continue
            if inner is not None and not inner.boot.fault:
                yield inner, offset


def _rows(inner: IsoVolume, offset: int, volume: IsoVolume) -> Iterator[str]:
    """Yield what an inner tree says of each entry, with the path in the outer one of its bytes."""
    known = {
        volume.extents[one.number]: one.path
        for one in reversed(volume.entries)
        if one.kind == "file"
    }
    # As with the tree itself: one owner of all is the user that made the ISO.
    is_one_owner = len({(one.uid, one.gid) for one in inner.entries}) == 1
    for entry in inner.entries:
        what: object = entry.kind
        if entry.kind == "file" and entry.size_bytes:
            pieces = tuple((offset + at, length) for at, length in inner.extents[entry.number])
            what = known.get(pieces, pieces)
        owner = None if is_one_owner else (entry.uid, entry.gid)
        row = (entry.path, entry.mode, owner, entry.link_target, what)
        yield ascii(row)


def _blank(data: bytes, places: Iterable[tuple[int, int]]) -> bytes:
    kept = bytearray(data)
    for at, length in places:
        kept[at : at + length] = bytes(length)
    return bytes(kept)


def _catalog(source: Source, volume: IsoVolume, whole: set[int]) -> bytes:
    boot = volume.boot
    if not boot.offset:
        return b""
    size = min(_CATALOG_BYTES, source.size_bytes - boot.offset)
    if boot.fault:  # entries of it may be told by nothing else
        return source.read(boot.offset, size)
    places = [_CHECKSUM]
    for entry in boot.entries:
        fields = [_ENTRY_PLACE, *([_ENTRY_LENGTH] if entry.at in whole else [])]
        places += [(entry.at - boot.offset + at, length) for at, length in fields]
    inside = [(at, length) for at, length in places if at + length <= size]
    return _blank(source.read(boot.offset, size), inside)


def _tables(source: Source, table: PartitionTable | None) -> Iterator[tuple[int, int]]:
    """Yield where the tables of a hybrid lie, without the boot code in front."""
    if table is None:
        return
    yield _BOOT_CODE_BYTES, _SECTOR_BYTES - _BOOT_CODE_BYTES
    if table.kind != "mbr":
        (_, reserved), copy = gpt_places(source, table)
        yield _BOOT_CODE_BYTES, reserved - _BOOT_CODE_BYTES
        yield copy


def _hfs_names(
    source: Source, volume: IsoVolume, table: PartitionTable | None
) -> Iterator[tuple[int, bytes]]:
    """Yield for the tree as HFS+ where the place of a file stands, and the file's name for it."""
    from local_imager.formats.hfsplus import file_places

    known = {
        volume.extents[one.number][0][0]: one
        for one in volume.entries
        if one.kind == "file" and one.size_bytes
    }
    for partition in table.partitions if table is not None else ():
        if partition.type_guid != _HFS_PLUS:
            continue
        try:
            for at, place, _ in file_places(source, partition.offset):
                if place in known:
                    path = without_marker(ascii(known[place].path).encode())
                    yield at, hashlib.sha256(path).digest()[:4]
        except FormatError:
            return


class _Masked:
    """A source with other bytes at some places, and without the marker's name."""

    def __init__(self, source: Source, others: dict[int, bytes]) -> None:
        self._source, self._others, self._places = source, others, sorted(others)
        self.size_bytes = source.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        begin = max(offset - len(_WIDE_MARKED), 0)
        end = min(offset + length + len(_WIDE_MARKED), self.size_bytes)
        data = bytearray(self._source.read(begin, max(end, offset + length) - begin))
        first = bisect_left(self._places, begin)
        for at in self._places[first : bisect_left(self._places, end - 3)]:
            data[at - begin : at - begin + 4] = self._others[at]
        return without_marker(bytes(data))[offset - begin : offset - begin + length]

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        return self._source.data_runs(offset, length)
