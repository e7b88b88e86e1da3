"""VMDK disks in one file: sparse and stream-optimised (VMware, "Virtual Disk Format 5.0").

A descriptor that names other files is refused.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from local_imager.formats.mapped import DiskView, Fact, Kept, MappedDisk, Unit, inflated
from local_imager.formats.source import FormatError, Source

MAGIC: Final = b"KDMV"
_SECTOR_BYTES: Final = 512
_HEADER: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
_AT_END: Final = 0xFFFFFFFFFFFFFFFF
_ZERO_GRAINS: Final = 1 << 2
_COMPRESSED: Final = 1 << 16
_DEFLATE: Final = 1
_GRAIN_HEADER: Final = struct.Struct("<QI")
_MAX_DIRECTORY_BYTES: Final = 1 << 20
_MAX_DESCRIPTOR_SECTORS: Final = 128
_ZERO_GRAIN: Final = 1
_LINE: Final = re.compile(r'^\s*([A-Za-z][\w.]*)\s*=\s*"?([^"\n]*?)"?\s*$', re.MULTILINE)
_TOLD: Final = {
    "CID": "content_id",
    "createType": "kind",
    "ddb.adapterType": "adapter",
    "ddb.uuid": "uuid",
    "ddb.longContentID": "long_content_id",
    "ddb.virtualHWVersion": "hardware_version",
    "ddb.toolsVersion": "tools_version",
}


def open_vmdk(source: Source) -> DiskView:
    """Return the disk of a VMDK file.

    Raises :class:`FormatError` when it is none, when its data lies in other files, and for tables
    that leave the file.
    """
    head = source.read(0, min(source.size_bytes, _SECTOR_BYTES))
    if head.lstrip().startswith(b"# Disk DescriptorFile"):
        raise FormatError("the VMDK disk keeps its data in other files")
    if len(head) < _SECTOR_BYTES or head[:4] != MAGIC:
        raise FormatError("the file is not a VMDK disk")
    if _HEADER.unpack_from(head)[9] == _AT_END:
        if source.size_bytes < 3 * _SECTOR_BYTES:
            raise FormatError("the VMDK disk is cut off")
        # In front of the marker that ends the stream.
        footer = source.read(source.size_bytes - 2 * _SECTOR_BYTES, _SECTOR_BYTES)
        if footer[:4] != MAGIC:
            raise FormatError("the VMDK disk is cut off: its footer is missing")
        fields = _HEADER.unpack_from(footer)
    else:
        fields = _HEADER.unpack_from(head)
    (_, version, flags, capacity, grain, _, _, per_table, _, directory, _, _, _, packing) = fields
    if version not in (1, 2, 3) or not grain.bit_count() == 1 or not 1 <= grain <= 2048:
        raise FormatError(f"VMDK of version {version} with grains of {grain} sectors is not known")
    if not 1 <= per_table <= 1 << 16:
        raise FormatError(f"the VMDK disk claims tables of {per_table} entries")
    if flags & _COMPRESSED and packing != _DEFLATE:
        raise FormatError(f"the VMDK disk has a compression that is not known ({packing})")
    grains = _Grains(source, flags, grain * _SECTOR_BYTES, per_table)
    grains.load(capacity, directory)
    facts = _facts(source, head)
    facts |= {
        "version": version,
        "grain_bytes": grain * _SECTOR_BYTES,
        "compression": "deflate" if flags & _COMPRESSED else "none",
    }
    disk = MappedDisk(source, grains, capacity * _SECTOR_BYTES)
    return DiskView(disk, MappingProxyType(facts))


def _facts(source: Source, head: bytes) -> dict[str, Fact]:
    """Return what the descriptor inside the file says."""
    _, _, _, _, _, at, sectors, *_ = _HEADER.unpack_from(head)
    if not at or not sectors:
        return {}
    if sectors > _MAX_DESCRIPTOR_SECTORS:
        raise FormatError(f"the VMDK disk claims a descriptor of {sectors} sectors")
    raw = source.read(at * _SECTOR_BYTES, sectors * _SECTOR_BYTES)
    text = raw.partition(b"\0")[0].decode("utf-8", "replace")
    found: dict[str, str] = dict(_LINE.findall(text))
    return {name: found[key] for key, name in _TOLD.items() if key in found}


class _Grains:
    """The two levels of tables; of the second one only what was used last is kept."""

    def __init__(self, source: Source, flags: int, grain_bytes: int, per_table: int) -> None:
        self.unit_bytes = grain_bytes
        self._source = source
        self._flags = flags
        self._per_table = per_table
        self._directory = array("I")
        self._tables = Kept(lambda place: source.read(*place))

    def load(self, capacity: int, at: int) -> None:
        """Read the directory of tables."""
        covered = self._per_table * self.unit_bytes
        needed = -(-capacity * _SECTOR_BYTES // covered)
        if needed * 4 > _MAX_DIRECTORY_BYTES:
            raise FormatError(f"the VMDK disk claims {capacity} sectors")
        self._directory = _numbers(self._source.read(at * _SECTOR_BYTES, needed * 4))
        used = [sector for sector in self._directory if sector]
        if len(set(used)) != len(used):
            raise FormatError("the VMDK disk uses a table twice")

    def units(self, first: int, stop: int) -> Iterator[Unit]:
        """See :meth:`~local_imager.formats.mapped.UnitMap.units`."""
        number = first
        while number < stop:
            index = number // self._per_table
            begin = index * self._per_table
            behind = min(stop, begin + self._per_table)
            sector = self._directory[index]
            if sector:
                table = self._tables.get((sector * _SECTOR_BYTES, self._per_table * 4))
                yield from self._entries(number, table[(number - begin) * 4 : (behind - begin) * 4])
            number = behind

    def _entries(self, number: int, raw: bytes) -> Iterator[Unit]:
        if not raw.strip(b"\0"):
            return
        zero = _ZERO_GRAIN if self._flags & _ZERO_GRAINS else 0
        for at, sector in enumerate(_numbers(raw), number):
            if not sector or sector == zero:
                continue
            offset = sector * _SECTOR_BYTES
            if not self._flags & _COMPRESSED:
                yield at, offset, 0
                continue
            own, packed = self._marked(offset)
            if own != at * self.unit_bytes // _SECTOR_BYTES:
                raise FormatError(f"the VMDK disk's table names the grain of sector {own}")
            yield at, offset + _GRAIN_HEADER.size, packed

    def _marked(self, offset: int) -> tuple[int, int]:
        """Return the sector on the disk and the packed size that stand in front of a grain."""
        own, packed = _GRAIN_HEADER.unpack(self._source.read(offset, _GRAIN_HEADER.size))
        if not 0 < packed <= 2 * self.unit_bytes + 1024:
            raise FormatError(f"the VMDK disk has a grain of {packed} bytes")
        return own, packed

    def unpack(self, raw: bytes) -> bytes:
        """See :meth:`~local_imager.formats.mapped.UnitMap.unpack`."""
        return inflated(raw, 15, self.unit_bytes)


def _numbers(raw: bytes) -> array[int]:
    numbers = array("I", raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
