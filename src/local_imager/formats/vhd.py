"""VHD disks, fixed and dynamic (Microsoft's "Virtual Hard Disk Image Format Specification").

As in QEMU, the bitmaps of a dynamic disk's blocks are not asked: what was not written is zeros
there.
"""

from __future__ import annotations

import struct
import sys
import uuid
from array import array
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from local_imager.formats.mapped import MAX_DISK_BYTES, DiskView, Fact, MappedDisk, Unit
from local_imager.formats.source import FormatError, Slice, Source

COOKIE: Final = b"conectix"
_SECTOR_BYTES: Final = 512
_FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQIII16sB")
_DYNAMIC: Final = struct.Struct(">8sQQIII")
_CHECKSUM_AT: Final = {COOKIE: 64, b"cxsparse": 36}
_FIXED, _SPARSE, _DIFFERENCING = 2, 3, 4
_UNUSED: Final = 0xFFFFFFFF
_MAX_TABLE_BYTES: Final = 16 << 20
# Times count from 2000-01-01.
_EPOCH: Final = 946_684_800


def open_vhd(source: Source) -> DiskView:
    """Return the disk of a VHD file.

    Raises :class:`FormatError` when it is none, when a checksum is wrong, and for a disk that
    holds only the difference to another one.
    """
    if source.size_bytes < _SECTOR_BYTES:
        raise FormatError("the file is not a VHD disk")
    raw = source.read(source.size_bytes - _SECTOR_BYTES, _SECTOR_BYTES)
    _check(raw, COOKIE)
    (
        _,
        _,
        _,
        header_at,
        made,
        application,
        application_version,
        system,
        _,
        size_bytes,
        geometry,
        kind,
        _,
        identifier,
        _,
    ) = _FOOTER.unpack_from(raw)
    facts: dict[str, Fact] = {
        "kind": {_FIXED: "fixed", _SPARSE: "dynamic"}.get(kind, "unknown"),
        "uuid": str(uuid.UUID(bytes=identifier)),
        "made": made + _EPOCH,
        "creator": application.decode("latin-1").rstrip(" \0"),
        "creator_version": f"{application_version >> 16}.{application_version & 0xFFFF}",
        "creator_system": system.decode("latin-1").rstrip(" \0"),
        "geometry": f"{geometry >> 16}/{geometry >> 8 & 0xFF}/{geometry & 0xFF}",
    }
    if not 0 < size_bytes <= MAX_DISK_BYTES:
        raise FormatError(f"the VHD disk claims {size_bytes} bytes")
    if kind == _FIXED:
        if size_bytes > source.size_bytes - _SECTOR_BYTES:
            raise FormatError(f"the VHD disk claims {size_bytes} bytes, which are not there")
        return DiskView(Slice(source, 0, size_bytes), MappingProxyType(facts))
    if kind != _SPARSE:
        reason = "holds a difference to another one" if kind == _DIFFERENCING else "is of no kind"
        raise FormatError(f"the VHD disk {reason}")
    blocks = _blocks(source, header_at, size_bytes)
    facts["block_bytes"] = blocks.unit_bytes
    return DiskView(MappedDisk(source, blocks, size_bytes), MappingProxyType(facts))


def _check(raw: bytes, cookie: bytes) -> None:
    """Refuse a footer or header with another cookie, or whose checksum is wrong."""
    if raw[: len(cookie)] != cookie:
        raise FormatError("the file is not a VHD disk")
    at = _CHECKSUM_AT[cookie]
    wanted = struct.unpack_from(">I", raw, at)[0]
    if ~sum(raw[:at] + raw[at + 4 :]) & 0xFFFFFFFF != wanted:
        raise FormatError("the checksum of the VHD disk is wrong")


def _blocks(source: Source, header_at: int, size_bytes: int) -> _Blocks:
    raw = source.read(header_at, 1024)
    _check(raw, b"cxsparse")
    _, _, table_at, _, entries, block_bytes = _DYNAMIC.unpack_from(raw)
    if block_bytes.bit_count() != 1 or not 4096 <= block_bytes <= 256 << 20:
        raise FormatError(f"the VHD disk claims blocks of {block_bytes} bytes")
    needed = -(-size_bytes // block_bytes)
    if needed > entries or needed * 4 > _MAX_TABLE_BYTES:
        raise FormatError(f"the VHD disk has {entries} blocks and claims {size_bytes} bytes")
    table = array("I", source.read(table_at, needed * 4))
    if sys.byteorder == "little":
        table.byteswap()
    return _Blocks(block_bytes, table)


class _Blocks:
    """The table of blocks, each with a bitmap in front of it."""

    def __init__(self, block_bytes: int, table: array[int]) -> None:
        self.unit_bytes = block_bytes
        self._table = table
        bitmap_bytes = block_bytes // _SECTOR_BYTES // 8
        self._front_bytes = -(-bitmap_bytes // _SECTOR_BYTES) * _SECTOR_BYTES

    def units(self, first: int, stop: int) -> Iterator[Unit]:
        """See :meth:`~local_imager.formats.mapped.UnitMap.units`."""
        for number in range(first, stop):
            sector = self._table[number]
            if sector != _UNUSED:
                yield number, sector * _SECTOR_BYTES + self._front_bytes, 0

    def unpack(self, raw: bytes) -> bytes:
        """Blocks are never packed."""
        raise FormatError("the VHD disk has a packed block")
