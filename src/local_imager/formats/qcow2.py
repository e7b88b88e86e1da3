"""QEMU's qcow2 disks, versions 2 and 3 (QEMU, ``docs/interop/qcow2.txt``).

A disk that stands on another file or is encrypted is refused; snapshots inside are not looked at.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from local_imager.formats.mapped import DiskView, Fact, Kept, MappedDisk, Unit, inflated
from local_imager.formats.source import FormatError, Source

MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3: Final = struct.Struct(">QQQII")
_SECTOR_BYTES: Final = 512
_OFFSET: Final = 0x00FFFFFFFFFFFE00
_ZERO: Final = 1
_COMPRESSED: Final = 1 << 62
_MAX_TABLE_BYTES: Final = 1 << 20
_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = (1 << bit for bit in range(5))
# Deflate without a header, in a window of 4 KiB.
_WINDOW_BITS: Final = -12


def open_qcow2(source: Source) -> DiskView:
    """Return the disk of a qcow2 file.

    Raises :class:`FormatError` when it is none, is encrypted, needs another file, or uses what no
    imager uses (subclusters).
    """
    header = source.read(0, min(source.size_bytes, 512))
    if len(header) < _HEADER.size or header[:4] != MAGIC:
        raise FormatError("the file is not a qcow2 disk")
    (
        _,
        version,
        _,
        backing_bytes,
        cluster_bits,
        size_bytes,
        encryption,
        table_entries,
        table_at,
        _,
        _,
        snapshots,
        _,
    ) = _HEADER.unpack_from(header)
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise FormatError(f"qcow2 of version {version} with {cluster_bits} bits is not known")
    if backing_bytes:
        raise FormatError("the qcow2 disk stands on another file, which is not looked for")
    if encryption:
        raise FormatError("the qcow2 disk is encrypted")
    incompatible, compression = 0, "zlib"
    if version == 3:
        incompatible, compression = _newer(header)
    clusters = _Clusters(source, cluster_bits, compression, version)
    clusters.load(size_bytes, table_entries, table_at)
    facts: dict[str, Fact] = {
        "version": version,
        "cluster_bytes": 1 << cluster_bits,
        "compression": compression,
        "snapshots": snapshots,
        "dirty": bool(incompatible & _DIRTY),
    }
    return DiskView(MappedDisk(source, clusters, size_bytes), MappingProxyType(facts))


def _newer(header: bytes) -> tuple[int, str]:
    """Return the incompatible features and the compression of a header of version 3."""
    if len(header) < 104:
        raise FormatError("the qcow2 header is cut off")
    incompatible, _, _, _, header_bytes = _HEADER_3.unpack_from(header, 72)
    if incompatible & _EXTERNAL:
        raise FormatError("the qcow2 disk keeps its data in another file")
    if incompatible & _CORRUPT:
        raise FormatError("the qcow2 disk is marked as corrupt")
    unknown = incompatible & ~(_DIRTY | _COMPRESSION)
    if unknown:
        raise FormatError(f"the qcow2 disk has features that are not known ({unknown:#x})")
    kind = (
        header[104] if incompatible & _COMPRESSION and min(header_bytes, len(header)) > 104 else 0
    )
    if kind > 1:
        raise FormatError(f"the qcow2 disk has a compression that is not known ({kind})")
    return incompatible, ("zlib", "zstd")[kind]


class _Clusters:
    """The two levels of tables; of the second one only what was used last is kept."""

    def __init__(self, source: Source, bits: int, compression: str, version: int) -> None:
        self._source = source
        self._bits = bits
        self._compression = compression
        self._version = version
        self._first_level = array("Q")
        self._tables = Kept(lambda place: source.read(*place))

    @property
    def unit_bytes(self) -> int:
        """A cluster."""
        return 1 << self._bits

    def load(self, size_bytes: int, entries: int, at: int) -> None:
        """Read the first level as far as the disk needs it."""
        covered = 1 << (2 * self._bits - 3)
        needed = -(-size_bytes // covered)
        if needed > entries or needed * 8 > _MAX_TABLE_BYTES:
            raise FormatError(f"the qcow2 disk claims {size_bytes} bytes")
        self._first_level = _numbers(self._source.read(at, needed * 8))
        used = [entry & _OFFSET for entry in self._first_level if entry & _OFFSET]
        if len(set(used)) != len(used):
            raise FormatError("the qcow2 disk uses a table twice")

    def units(self, first: int, stop: int) -> Iterator[Unit]:
        """See :meth:`~local_imager.formats.mapped.UnitMap.units`."""
        per_table = 1 << (self._bits - 3)
        number = first
        while number < stop:
            index = number // per_table
            behind = min(stop, (index + 1) * per_table)
            offset = self._first_level[index] & _OFFSET
            if offset:
                inside = number - index * per_table
                table = self._tables.get((offset, self.unit_bytes))
                wanted = table[inside * 8 : (inside + behind - number) * 8]
                yield from self._entries(number, wanted)
            number = behind

    def _entries(self, number: int, raw: bytes) -> Iterator[Unit]:
        if not raw.strip(b"\0"):
            return
        zero = _ZERO if self._version == 3 else 0
        for at, entry in enumerate(_numbers(raw), number):
            if not entry:
                continue
            if entry & _COMPRESSED:
                yield at, *self._packed(entry)
            elif entry & _OFFSET and not entry & zero:
                yield at, entry & _OFFSET, 0

    def _packed(self, entry: int) -> tuple[int, int]:
        """Return where a compressed cluster lies: it is told in sectors, its begin in bytes."""
        bits = 62 - (self._bits - 8)
        at = entry & ((1 << bits) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> bits
        length = (sectors + 1) * _SECTOR_BYTES - at % _SECTOR_BYTES
        # The last sector may be one that the file does not have as a whole.
        return at, max(min(length, self._source.size_bytes - at), 1)

    def unpack(self, raw: bytes) -> bytes:
        """See :meth:`~local_imager.formats.mapped.UnitMap.unpack`."""
        if self._compression == "zlib":
            return inflated(raw, _WINDOW_BITS, self.unit_bytes)
        import zstandard

        try:
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) as stream:
                return stream.read(self.unit_bytes)
        except zstandard.ZstdError as problem:
            raise FormatError("a packed part of the disk is damaged") from problem


def _numbers(raw: bytes) -> array[int]:
    numbers = array("Q", raw)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
