"""What XFS keeps in inodes: properties, and where the content lies.

After "XFS Algorithms & Data Structures", 3rd edition, and for what is newer (bigtime, 64-bit extent
counts) the kernel's ``fs/xfs/libxfs/xfs_format.h``. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.formats.source import FormatError, Joined, Slice, Source

LOCAL, EXTENTS, BTREE = 1, 2, 3
_CORE: Final = struct.Struct(">2sHBBHIII")
_REALTIME: Final = 1
_BIGTIME: Final = 1 << 3
_MANY_EXTENTS: Final = 1 << 4
_BIGTIME_BEGINS: Final = -(1 << 31)
_MAX_LEVELS: Final = 10
# A file of a boot partition has a handful of extents, a hostile one as many as it can claim.
_MAX_EXTENTS: Final = 100_000

Extent = tuple[int, int, int, bool]
"""First block of the file, first block of the volume, number of blocks, whether it was written."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The figures of the superblock that say where things lie."""

    version: int
    block_bytes: int
    blocks: int
    groups: int
    group_blocks: int
    group_bits: int
    inode_bytes: int
    inodes_in_block_bits: int
    directory_block_bytes: int
    root_inode: int
    has_file_types: bool

    def block_offset(self, block: int) -> int:
        """Return where a block of the volume lies, by its number with the group in front."""
        group, inside = block >> self.group_bits, block & ((1 << self.group_bits) - 1)
        if group >= self.groups or inside >= self.group_blocks:
            raise FormatError(f"block {block} is not in the XFS volume")
        return (group * self.group_blocks + inside) * self.block_bytes

    def inode_offset(self, number: int) -> int:
        """Return where an inode lies, by its number."""
        inside = number & ((1 << self.inodes_in_block_bits) - 1)
        start = self.block_offset(number >> self.inodes_in_block_bits)
        return start + inside * self.inode_bytes


@dataclass(frozen=True, slots=True)
class Inode:
    """One inode; ``fork`` is the raw data fork, read as ``form`` says."""

    number: int
    mode: int
    form: int
    uid: int
    gid: int
    size_bytes: int
    mtime: int
    extent_count: int
    realtime: bool
    fork: bytes


def read_inode(source: Source, geometry: Geometry, number: int) -> Inode:
    """Return an inode; raises :class:`FormatError` where none lies with this number."""
    raw = source.read(geometry.inode_offset(number), geometry.inode_bytes)
    magic, mode, version, form, _, uid, gid, _links = _CORE.unpack_from(raw)
    is_new = version == 3
    if magic != b"IN" or version not in (1, 2, 3) or is_new != (geometry.version == 5):
        raise FormatError(f"inode {number} is damaged")
    many, counted, fork_words = struct.unpack_from(">QI", raw, 24)[0], raw[76:80], raw[82]
    flags = struct.unpack_from(">H", raw, 90)[0]
    new_flags = 0
    if is_new:
        new_flags, own = (
            struct.unpack_from(">Q", raw, 120)[0],
            struct.unpack_from(">Q", raw, 152)[0],
        )
        if own != number:
            raise FormatError(f"inode {number} says that it is {own}")
    begin = 176 if is_new else 100
    end = begin + fork_words * 8 if fork_words else geometry.inode_bytes
    if end > geometry.inode_bytes:
        raise FormatError(f"inode {number} claims more than it has")
    return Inode(
        number=number,
        mode=mode,
        form=form,
        uid=uid,
        gid=gid,
        size_bytes=struct.unpack_from(">Q", raw, 56)[0],
        mtime=_seconds(raw[40:48], big=bool(new_flags & _BIGTIME)),
        extent_count=many if new_flags & _MANY_EXTENTS else int.from_bytes(counted, "big"),
        realtime=bool(flags & _REALTIME),
        fork=raw[begin:end],
    )


def _seconds(raw: bytes, *, big: bool) -> int:
    if big:
        return int(struct.unpack(">Q", raw)[0]) // 1_000_000_000 + _BIGTIME_BEGINS
    return int(struct.unpack(">i", raw[:4])[0])


def extents_of(source: Source, geometry: Geometry, inode: Inode) -> list[Extent]:
    """Return where an inode's content lies, in the order of the file.

    Raises :class:`FormatError` for lists that overlap, and trees that loop or are too large.
    """
    if inode.realtime:
        raise FormatError("a file lies on a realtime device")
    if inode.extent_count > _MAX_EXTENTS:
        raise FormatError(f"inode {inode.number} claims {inode.extent_count} extents")
    if inode.form == EXTENTS:
        if inode.extent_count * 16 > len(inode.fork):
            raise FormatError(f"inode {inode.number} claims more extents than it has room for")
        found = list(_records(inode.fork, 0, inode.extent_count))
    elif inode.form == BTREE:
        found = list(_tree_records(source, geometry, inode))
    else:
        raise FormatError(f"inode {inode.number} has no extents")
    behind = 0
    for first, block, count, _ in found:
        if first < behind:
            raise FormatError(f"the extents of inode {inode.number} overlap")
        behind = first + count
        end = geometry.block_offset(block) + count * geometry.block_bytes
        if end > geometry.blocks * geometry.block_bytes:
            raise FormatError(f"an extent of inode {inode.number} leaves the volume")
    return found


def _records(raw: bytes, at: int, count: int) -> Iterator[Extent]:
    for high, low in struct.iter_unpack(">QQ", raw[at : at + 16 * count]):
        yield (
            high >> 9 & ((1 << 54) - 1),
            (high & 0x1FF) << 43 | low >> 21,
            low & ((1 << 21) - 1),
            not high >> 63,
        )


def _tree_records(source: Source, geometry: Geometry, inode: Inode) -> Iterator[Extent]:
    """Yield the records of the B+tree whose root is in the inode."""
    level, count = struct.unpack_from(">HH", inode.fork)
    room = (len(inode.fork) - 4) // 16
    if not 0 < level <= _MAX_LEVELS or count > room:
        raise FormatError(f"the extent tree of inode {inode.number} is damaged")
    children = struct.unpack_from(f">{count}Q", inode.fork, 4 + room * 8)
    left = _MAX_EXTENTS
    for found in _leaves(source, geometry, children, level - 1, set()):
        left -= 1
        if left < 0:
            raise FormatError(f"inode {inode.number} has too many extents")
        yield found


def _leaves(
    source: Source, geometry: Geometry, blocks: tuple[int, ...], level: int, seen: set[int]
) -> Iterator[Extent]:
    is_new = geometry.version == 5
    header = 72 if is_new else 24
    room = (geometry.block_bytes - header) // 16
    for block in blocks:
        if block in seen:
            raise FormatError("an extent tree loops")
        seen.add(block)
        raw = source.read(geometry.block_offset(block), geometry.block_bytes)
        magic, own, count = struct.unpack_from(">4sHH", raw)
        if magic != (b"BMA3" if is_new else b"BMAP") or own != level or count > room:
            raise FormatError("a block of an extent tree is damaged")
        if level == 0:
            yield from _records(raw, header, count)
        else:
            children = struct.unpack_from(f">{count}Q", raw, header + room * 8)
            yield from _leaves(source, geometry, children, level - 1, seen)


def content(source: Source, geometry: Geometry, extents: list[Extent], size_bytes: int) -> Source:
    """Return the first bytes of a file by its extents; what is not mapped or written is zeros."""
    unit = geometry.block_bytes
    pieces: list[tuple[Source | None, int, int]] = []
    at = 0
    for first, block, count, written in extents:
        begin, length = first * unit, count * unit
        if begin >= size_bytes:
            break
        pieces.append((None, 0, begin - at))
        pieces.append((source if written else None, geometry.block_offset(block), length))
        at = begin + length
    pieces.append((None, 0, max(size_bytes - at, 0)))
    if len(pieces) == 3 and pieces[0][2] == 0 and pieces[1][0] is not None and at >= size_bytes:
        return Slice(source, pieces[1][1], size_bytes)
    return Slice(Joined(pieces), 0, size_bytes)
