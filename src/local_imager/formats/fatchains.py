"""The table of a FAT volume: which clusters belong together, and to nothing."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from local_imager.formats.source import BytesSource, FormatError, Joined, Slice, Source

_MAX_PIECES: Final = 100_000


@dataclass(frozen=True, slots=True)
class FatLayout:
    """Where everything lies, in bytes, and how the table is written."""

    bits: int
    tables: tuple[tuple[int, int], ...]
    table: int
    root: int
    root_bytes: int
    root_cluster: int
    data: int
    cluster_bytes: int
    clusters: int

    @property
    def last(self) -> int:
        """The number of the last cluster."""
        return self.clusters + 1


class FatChains:
    """Follows the chains of clusters."""

    def __init__(self, source: Source, layout: FatLayout) -> None:
        self.source = source
        self.layout = layout

    @cached_property
    def _next(self) -> array[int] | bytes:
        """The table, as numbers; packed bytes on FAT12."""
        layout = self.layout
        entries = layout.clusters + 2
        raw = self.source.read(layout.table, -(-entries * layout.bits // 8))
        if layout.bits == 12:
            return raw + b"\0"
        table = array("I" if layout.bits == 32 else "H")
        table.frombytes(raw)
        if sys.byteorder == "big":
            table.byteswap()
        return table

    def _after(self, cluster: int) -> int:
        """Return the cluster that follows, 0 at the end of the chain."""
        bits, table = self.layout.bits, self._next
        if isinstance(table, bytes):
            pair = int.from_bytes(table[cluster * 3 // 2 : cluster * 3 // 2 + 2], "little")
            value = pair >> 4 if cluster & 1 else pair & 0xFFF
        else:
            value = table[cluster] & 0x0FFFFFFF if bits == 32 else table[cluster]
        end = (0x0FFFFFF8 if bits == 32 else 0xFFFF if bits == 16 else 0xFFF) & ~7
        if value >= end:
            return 0
        if not 2 <= value <= self.layout.last:
            raise FormatError(f"a chain of clusters goes on at {value}, which is none")
        return value

    def runs(self, first: int, limit: int) -> Iterator[tuple[int, int]]:
        """Yield (cluster, count) of a chain's pieces, of at most ``limit`` clusters in all."""
        if not 2 <= first <= self.layout.last:
            raise FormatError(f"a chain of clusters begins at {first}, which is none")
        start, count, total, cluster = first, 0, 0, first
        while cluster:
            total += 1
            if total > limit:
                raise FormatError("a chain of clusters loops or is longer than its file")
            if cluster != start + count:
                yield start, count
                start, count = cluster, 0
            count += 1
            cluster = self._after(cluster)
        yield start, count

    def extents(self, first: int, limit: int) -> list[tuple[int, int]]:
        """Return a chain's pieces as (offset, length) in bytes."""
        data, size = self.layout.data, self.layout.cluster_bytes
        found: list[tuple[int, int]] = []
        for start, count in self.runs(first, limit):
            if len(found) == _MAX_PIECES:
                raise FormatError("a file lies in more pieces than any real one")
            found.append((data + (start - 2) * size, count * size))
        return found

    def content(self, first: int, size_bytes: int) -> Source:
        """Return a file's content; the last cluster's rest is left away."""
        if not size_bytes:
            return BytesSource(b"")
        limit = -(-size_bytes // self.layout.cluster_bytes)
        extents = self.extents(first, limit)
        if sum(length for _, length in extents) < size_bytes:
            raise FormatError("a chain of clusters ends before its file")
        if len(extents) == 1:
            return Slice(self.source, extents[0][0], size_bytes)
        return Slice(Joined((self.source, *extent) for extent in extents), 0, size_bytes)

    def owned(self, first: int, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield where a file's bytes lie, as (offset, length); nothing for a broken chain."""
        try:
            extents = self.extents(first, -(-size_bytes // self.layout.cluster_bytes))
        except FormatError:  # told when it is opened
            return
        for offset, length in extents:
            yield offset, min(length, size_bytes)
            size_bytes -= min(length, size_bytes)

    def loose(self, places: Iterable[tuple[int, int]]) -> bytes:
        """Return the table's entries of clusters outside of places, without those that are free."""
        layout, table = self.layout, self._next
        if isinstance(table, bytes):
            pairs = [table[n * 3 // 2 : n * 3 // 2 + 2] for n in range(layout.clusters + 2)]
            numbers = [int.from_bytes(pair, "little") for pair in pairs]
            left = array("H", (v >> 4 if n & 1 else v & 0xFFF for n, v in enumerate(numbers)))
        else:
            left = array(table.typecode, table)
        left[:2] = array(left.typecode, (0, 0))
        for offset, length in places:
            first, count = (offset - layout.data) // layout.cluster_bytes + 2, length
            count = -(-count // layout.cluster_bytes)
            left[first : first + count] = array(left.typecode, bytes(count * left.itemsize))
        return left.tobytes().strip(b"\0")
