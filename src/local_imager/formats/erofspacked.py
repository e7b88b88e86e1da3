"""Compressed files of an erofs: logical clusters, and the physical ones that hold them.

The index has an entry per logical cluster: a head, where a compressed extent begins, or not. It is
written in full or in packs of two forms (``struct z_erofs_*`` in fs/erofs/erofs_fs.h, and
Documentation/filesystems/erofs.rst of the kernel).
"""

from __future__ import annotations

import lzma
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_imager.formats import lz4
from local_imager.formats.charges import XZ_WORK, charge
from local_imager.formats.source import BytesSource, FormatError, Source, checked
from local_imager.formats.zstdframe import unpack_frame

if TYPE_CHECKING:
    from local_imager.formats.erofs import ErofsVolume, Inode

_PLAIN, _HEAD, _NOT_HEAD, _HEAD2 = range(4)
_COUNT_FLAG: Final = 1 << 11
_ZERO_PADDING: Final = 0x1
# Bits of the map header's advice.
_PACKS_OF_2: Final = 0x1
_BIG: Final = 0x2 | 0x4
_INLINE: Final = 0x8
_INTERLACED: Final = 0x10
_FRAGMENT: Final = 0x20
# The kernel's own ceilings (internal.h, zmap.c), and a file of 1 GiB in clusters of 4 KiB.
_MAX_CLUSTER_LOG: Final = 14
_MAX_STORED_BYTES: Final = 1 << 20
_MAX_EXTENT_BYTES: Final = 12 << 20
_MAX_CLUSTERS: Final = 1 << 18
_MAX_DICTIONARY: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class _Cluster:
    """One entry of the index: ``offset`` in the cluster and ``block`` are those of a head.

    ``blocks`` is how many blocks the extent takes that began just before, 0 where it is not told.
    """

    kind: int
    offset: int
    block: int = 0
    blocks: int = 0


@dataclass(slots=True)
class _Extent:
    """A run of the file that is packed by itself: where it begins, and where it is stored."""

    start: int
    kind: int
    source: Source
    at: int
    stored: int


class PackedContent:
    """The content of a compressed file; extents are unpacked as they are asked for."""

    def __init__(self, volume: ErofsVolume, inode: Inode) -> None:
        self._volume, self._inode = volume, inode
        self.size_bytes = inode.size_bytes
        self._cached: tuple[int, bytes] = (-1, b"")
        self._fragment: tuple[int, int] | None = None  # first byte of the file, offset there
        at = inode.end + -inode.end % 8
        head = volume.source.read(at, 8)
        self._advice = int.from_bytes(head[4:6], "little")
        self._algorithms = head[6] & 15, head[6] >> 4
        self._log = volume.block_bytes.bit_length() - 1 + (head[7] & 7)
        if head[7] >> 7:
            self._fragment = 0, int.from_bytes(head, "little") & (1 << 63) - 1
            self._extents: list[_Extent] = []
            return
        count = -(-self.size_bytes // (1 << self._log))
        if count > _MAX_CLUSTERS or self._log > _MAX_CLUSTER_LOG:
            raise FormatError("a compressed file of an erofs is larger than any real one")
        full = inode.has_full_index
        clusters, index_end = self._full(at + 16, count) if full else self._packs(at + 8, count)
        self._extents = self._joined(clusters)
        if self._advice & _INLINE and self._extents:
            tail = self._extents[-1]
            tail.at, tail.stored = index_end, int.from_bytes(head[2:4], "little")
        elif self._advice & _FRAGMENT and self._extents:
            tail = self._extents.pop()
            self._fragment = tail.start, int.from_bytes(head[:4], "little")

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        parts, end = [], offset + length
        whole = self._fragment[0] if self._fragment else self.size_bytes
        while offset < min(end, whole):
            number = bisect_right(self._extents, offset, key=lambda extent: extent.start) - 1
            if number < 0:
                raise FormatError("a compressed file of an erofs begins in the middle")
            extent = self._extents[number]
            following = number + 1 < len(self._extents)
            until = self._extents[number + 1].start if following else whole
            data = self._unpacked(extent, until - extent.start)
            part = data[offset - extent.start : min(end, until) - extent.start]
            parts.append(part)
            offset += len(part)
        if self._fragment and offset < end:
            begin = self._fragment[1] + offset - self._fragment[0]
            parts.append(self._shared().read(begin, end - offset))
        return b"".join(parts)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        if length:
            yield offset, length

    def _shared(self) -> Source:
        """Return the content of the file that holds the ends of others."""
        inode = self._volume.inode(self._volume.packed_inode)
        if inode.number == self._inode.number or not self._volume.features & _FRAGMENT:
            raise FormatError("the end of a file of an erofs lies nowhere")
        content = self._volume.content(inode)
        if isinstance(content, PackedContent) and content._fragment:
            raise FormatError("the ends of files of an erofs lie in each other without end")
        return content

    def _full(self, at: int, count: int) -> tuple[Iterator[_Cluster], int]:
        table = self._volume.source.read(at, 8 * count)

        def clusters() -> Iterator[_Cluster]:
            for begin in range(0, len(table), 8):
                advice = int.from_bytes(table[begin : begin + 2], "little")
                offset = int.from_bytes(table[begin + 2 : begin + 4], "little")
                word = int.from_bytes(table[begin + 4 : begin + 8], "little")
                kind = advice & 3
                if kind == _NOT_HEAD:
                    told = word & 0xFFFF
                    yield _Cluster(kind, 0, 0, told & ~_COUNT_FLAG if told & _COUNT_FLAG else 0)
                else:
                    yield _Cluster(kind, offset, word)

        return clusters(), at + 8 * count

    def _packs(self, at: int, count: int) -> tuple[Iterator[_Cluster], int]:
        """Read the packed index: some packs of 8 bytes, then of 32 bytes, then of 8 again."""
        first = min((32 - at % 32) // 4 % 8, count)
        dense = (count - first) // 16 * 16 if self._advice & _PACKS_OF_2 else 0
        plan = [(8, 2, first), (32, 16, dense), (8, 2, count - first - dense)]
        packs: list[tuple[int, int, int]] = []
        for size, each, number in plan:
            for begin in range(0, number, each):
                packs.append((at, size, min(each, number - begin)))
                at += size
        if dense and self._log > 12:
            raise FormatError("an index of an erofs has clusters too large for its form")

        def clusters() -> Iterator[_Cluster]:
            for begin, size, number in packs:
                pack = self._volume.source.read(begin, size)
                yield from self._pack(pack, 16 if size == 32 else 2, number)

        return clusters(), at

    def _pack(self, pack: bytes, each: int, number: int) -> Iterator[_Cluster]:
        """Take one pack apart: bit fields of offset and kind, and the block of its first head."""
        field = (len(pack) - 4) * 8 // each
        bits, low = int.from_bytes(pack[:-4], "little"), max(self._log, 12)
        block = int.from_bytes(pack[-4:], "little")
        big = self._advice & _BIG
        words = [bits >> field * place & (1 << low) - 1 for place in range(each)]
        kinds = [bits >> field * place + low & 3 for place in range(each)]
        counted = [
            bool(big) and kind == _NOT_HEAD and bool(word & _COUNT_FLAG)
            for kind, word in zip(kinds, words, strict=True)
        ]
        block += 0 if big else 1
        for place in range(number):
            if counted[place]:
                blocks = words[place] & ~_COUNT_FLAG
                block += blocks
                yield _Cluster(_NOT_HEAD, 0, 0, blocks)
            elif kinds[place] == _NOT_HEAD:
                yield _Cluster(_NOT_HEAD, 0)
            else:
                yield _Cluster(kinds[place], words[place], block)
                block += 0 if place + 1 < each and counted[place + 1] else 1

    def _joined(self, clusters: Iterator[_Cluster]) -> list[_Extent]:
        """Make extents of the index."""
        extents: list[_Extent] = []
        size, source = self._volume.block_bytes, self._volume.source
        for number, cluster in enumerate(clusters):
            if cluster.kind == _NOT_HEAD:
                if cluster.blocks and extents:
                    extents[-1].stored = cluster.blocks * size
                continue
            start = (number << self._log) + cluster.offset
            if cluster.offset >> self._log or (extents and start <= extents[-1].start):
                raise FormatError("the index of a compressed file of an erofs is damaged")
            stored = 1 << self._log
            extents.append(_Extent(start, cluster.kind, source, cluster.block * size, stored))
        return [extent for extent in extents if extent.start < self.size_bytes]

    def _unpacked(self, extent: _Extent, length: int) -> bytes:
        if self._cached[0] != extent.start:
            if length > _MAX_EXTENT_BYTES or extent.stored > _MAX_STORED_BYTES:
                raise FormatError("a compressed extent of an erofs is larger than any real one")
            data = extent.source.read(extent.at, extent.stored)
            try:
                unpacked = self._unpack(extent, data, length)
            except (lzma.LZMAError, zlib.error, ValueError) as error:
                raise FormatError(f"a compressed file of the erofs is damaged: {error}") from error
            if len(unpacked) != length:
                raise FormatError("a compressed extent of an erofs holds less than it should")
            self._cached = extent.start, unpacked
        return self._cached[1]

    def _unpack(self, extent: _Extent, data: bytes, length: int) -> bytes:
        if extent.kind == _PLAIN:
            turned = extent.start % self._volume.block_bytes if self._advice & _INTERLACED else 0
            return (data[turned:] + data[:turned])[:length]
        if self._volume.features & _ZERO_PADDING:
            data = data.lstrip(b"\0")
        unpackers: tuple[Callable[[bytes, int], bytes], ...] = (_unlz4, _unlzma, _inflate, _unzstd)
        algorithm = self._algorithms[extent.kind == _HEAD2]
        if algorithm >= len(unpackers):
            raise FormatError(f"the erofs is packed with algorithm {algorithm}, which is not known")
        charge(length * (XZ_WORK if unpackers[algorithm] is _unlzma else 1))
        return unpackers[algorithm](data, length)


def _unlz4(data: bytes, length: int) -> bytes:
    return lz4.unpack_block(data, length, partial=True)


def _unlzma(data: bytes, length: int) -> bytes:
    """Unpack MicroLZMA: LZMA without a header, its first byte the inverse of its properties."""
    properties = ~data[0] & 0xFF if data else 0xFF
    if properties > 224:
        raise FormatError("a compressed file of the erofs is damaged: wrong LZMA properties")
    options = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": _MAX_DICTIONARY,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
    }
    engine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])
    return engine.decompress(b"\0" + data[1:], length)


def _inflate(data: bytes, length: int) -> bytes:
    return zlib.decompressobj(-15).decompress(data, length) if length else b""


def _unzstd(data: bytes, length: int) -> bytes:
    out = bytearray()
    for piece in unpack_frame(BytesSource(data), 0):
        out += piece
        if len(out) >= length:
            break
    return bytes(out[:length])
