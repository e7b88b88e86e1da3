"""Virtual disks that a file holds in units of equal size, anywhere and in any order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from local_imager.formats.source import FormatError, Source, checked

Fact = str | int | bool | tuple[str, ...]

# The largest disk of a VHD; nothing that an imager makes comes near.
MAX_DISK_BYTES: Final = 2 << 40
# Tables and unpacked units that are kept: a few, since disks are read from front to back.
_KEPT_BYTES: Final = 8 << 20

Unit = tuple[int, int, int]
"""Number of the unit, where it lies in the file, its packed size there (0 where it is plain)."""


@dataclass(frozen=True, slots=True)
class DiskView:
    """A disk in a container: its bytes, and what only the container says (``facts``)."""

    source: Source
    facts: Mapping[str, Fact]


class UnitMap(Protocol):
    """Where a format keeps the units of its disk."""

    @property
    def unit_bytes(self) -> int:
        """How many bytes of the disk a unit has."""

    def units(self, first: int, stop: int) -> Iterator[Unit]:
        """Yield the units from ``first`` on before ``stop`` that are not zeros, in order."""

    def unpack(self, raw: bytes) -> bytes:
        """Return what a packed unit holds, at most ``unit_bytes``; raises :class:`FormatError`.

        The last unit of a disk may hold only as much as the disk has.
        """


class MappedDisk:
    """The disk as a :class:`~local_imager.formats.source.Source`."""

    def __init__(self, source: Source, units: UnitMap, size_bytes: int) -> None:
        if not 0 < size_bytes <= MAX_DISK_BYTES:
            raise FormatError(f"the disk claims {size_bytes} bytes")
        self.size_bytes = size_bytes
        self._source = source
        self._map = units
        self._unpacked = Kept(self._unpack)

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        found = bytearray(length)
        for start, count, at, packed in self._pieces(offset, length):
            if packed:
                unit = self._unpacked.get((at, packed))
                inside = start % self._map.unit_bytes
                data = unit[inside : inside + count]
                if len(data) != count:
                    raise FormatError("a packed part of the disk is too short")
            else:
                data = self._source.read(at, count)
            found[start - offset : start - offset + count] = data
        return bytes(found)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`; holes in the file itself are known as well."""
        begin = end = 0
        for start, count in self._runs(offset, min(length, self.size_bytes - offset)):
            if start != end:
                if begin < end:
                    yield begin, end - begin
                begin = start
            end = start + count
        if begin < end:
            yield begin, end - begin

    def _runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        for start, count, at, packed in self._pieces(offset, length):
            if packed:
                yield start, count
                continue
            if at + count > self._source.size_bytes:
                raise FormatError("the file ends before the data of its disk")
            for found, size in self._source.data_runs(at, count):
                yield start + found - at, size

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (offset on the disk, length, place in the file, packed size) of what has bytes.

        Plain units that follow each other on the disk and in the file come as one piece.
        """
        if length <= 0:
            return
        unit, end = self._map.unit_bytes, offset + length
        start = stop = place = 0
        for number, at, packed in self._map.units(offset // unit, -(-end // unit)):
            begin, behind = max(number * unit, offset), min((number + 1) * unit, end)
            if not packed and begin == stop and at == place + stop - start:
                stop = behind
                continue
            if start < stop:
                yield start, stop - start, place, 0
            start = stop = 0
            if packed:
                yield begin, behind - begin, at, packed
            else:
                start, stop, place = begin, behind, at + begin - number * unit
        if start < stop:
            yield start, stop - start, place, 0

    def _unpack(self, place: tuple[int, int]) -> bytes:
        at, packed = place
        return self._map.unpack(self._source.read(at, packed))


class Kept:
    """Remembers the values made last, up to some megabytes of them."""

    def __init__(self, make: Callable[[tuple[int, int]], bytes]) -> None:
        self._make = make
        self._values: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._size_bytes = 0

    def get(self, key: tuple[int, int]) -> bytes:
        """Return the value for a key, made anew when it is not kept any more."""
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = self._make(key)
            self._size_bytes += len(value)
            while self._size_bytes > _KEPT_BYTES and len(self._values) > 1:
                self._size_bytes -= len(self._values.popitem(last=False)[1])
        return value


def inflated(raw: bytes, window_bits: int, max_bytes: int) -> bytes:
    """Return a deflate stream's content, of at most so many bytes.

    ``window_bits`` as of :func:`zlib.decompressobj`. Raises :class:`FormatError`.
    """
    import zlib

    try:
        return zlib.decompressobj(window_bits).decompress(raw, max_bytes)
    except zlib.error as problem:
        raise FormatError("a packed part of the disk is damaged") from problem
