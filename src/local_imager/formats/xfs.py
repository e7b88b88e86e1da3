"""XFS volumes: versions 4 and 5, as mkfs.xfs makes them since 2013, read for boot partitions.

After "XFS Algorithms & Data Structures", 3rd edition. The log is not replayed: imagers write
volumes with mkfs or unmount them cleanly.
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from local_imager.formats.entries import Entry, EntryBudget, EntryKind
from local_imager.formats.source import FormatError, Source
from local_imager.formats.xfsinodes import (
    LOCAL,
    Geometry,
    Inode,
    content,
    extents_of,
    read_inode,
)

_MAX_DEPTH: Final = 64
_MAX_DIRECTORY_BYTES: Final = 32 << 20
_MAX_LINK_BYTES: Final = 1024
# Behind this offset a directory keeps its index, which is not needed to list it.
_DIRECTORY_DATA_BYTES: Final = 1 << 35
_FREE: Final = 0xFFFF

# Names as mkfs.xfs and xfs_info spell them.
_VERSION_BITS: Final = (
    (0x0010, "attr"),
    (0x0040, "quota"),
    (0x0080, "align"),
    (0x0400, "log-v2"),
    (0x4000, "ascii-ci"),
)
_FEATURES_2: Final = (
    (0x002, "lazy-count"),
    (0x008, "attr2"),
    (0x080, "projid32bit"),
    (0x100, "crc"),
    (0x200, "ftype"),
)
_COMPATIBLE_TO_READ: Final = ((1, "finobt"), (2, "rmapbt"), (4, "reflink"), (8, "inobtcount"))
_INCOMPATIBLE: Final = (
    (0x001, "ftype"),
    (0x002, "sparse"),
    (0x004, "meta-uuid"),
    (0x008, "bigtime"),
    (0x010, "needs-repair"),
    (0x020, "nrext64"),
    (0x040, "exchange"),
    (0x080, "parent"),
    (0x100, "metadir"),
    (0x200, "zoned"),
    (0x400, "zone-gaps"),
)


@dataclass(frozen=True)
class XfsVolume:
    """A volume; ``features`` are the names of its feature bits, unknown ones as ``incompat-0x…``.

    ``version`` is 4 or 5, ``uuid`` lower case.
    """

    version: int
    label: str
    uuid: str
    block_bytes: int
    size_bytes: int
    sector_bytes: int
    inode_bytes: int
    group_count: int
    log_blocks: int
    features: tuple[str, ...]
    entries: tuple[Entry, ...]
    _source: Source = field(repr=False, compare=False)
    _geometry: Geometry = field(repr=False, compare=False)

    def open(self, entry: Entry) -> Source:
        """Return the content of a file; see :class:`~local_imager.formats.entries.Volume`."""
        if entry.kind != "file":
            raise FormatError("only files have content")
        inode = read_inode(self._source, self._geometry, entry.number)
        return _file_content(self._source, self._geometry, inode)


def read_xfs(source: Source) -> XfsVolume:
    """Return an XFS volume with all its entries.

    Raises :class:`FormatError` when it is none, is cut off, or has directories that loop.
    """
    raw = source.read(0, 512)
    geometry = _geometry(raw, source.size_bytes)
    return XfsVolume(
        version=geometry.version,
        label=raw[108:120].rstrip(b"\0").decode("utf-8", "replace"),
        uuid=str(uuid.UUID(bytes=raw[32:48])),
        block_bytes=geometry.block_bytes,
        size_bytes=geometry.blocks * geometry.block_bytes,
        sector_bytes=struct.unpack_from(">H", raw, 102)[0],
        inode_bytes=geometry.inode_bytes,
        group_count=geometry.groups,
        log_blocks=struct.unpack_from(">I", raw, 96)[0],
        features=tuple(_features(raw, geometry.version)),
        entries=tuple(_Tree(source, geometry).walk()),
        _source=source,
        _geometry=geometry,
    )


def _geometry(raw: bytes, size_bytes: int) -> Geometry:
    magic, block_bytes, blocks = struct.unpack_from(">4sIQ", raw)
    group_blocks, groups = struct.unpack_from(">II", raw, 84)
    version_bits, _, inode_bytes = struct.unpack_from(">HHH", raw, 100)
    block_log, _, inode_log, per_block_log, group_log = raw[120:125]
    directory_log = raw[192]
    version = version_bits & 0xF
    if magic != b"XFSB" or version not in (4, 5):
        raise FormatError("the volume is not XFS of version 4 or 5")
    fits = (
        9 <= block_log <= 16
        and block_bytes == 1 << block_log
        and 8 <= inode_log <= 11
        and inode_bytes == 1 << inode_log
        and per_block_log == block_log - inode_log
        and block_log + directory_log <= 16
        and 0 < group_blocks <= 1 << group_log <= 1 << 31
        and 0 < blocks <= groups * group_blocks
    )
    if not fits or (version == 5 and inode_bytes < 512):
        raise FormatError("the superblock of XFS contradicts itself")
    if blocks * block_bytes > size_bytes:
        raise FormatError(
            f"the XFS volume has {blocks * block_bytes} bytes, of which {size_bytes} are there"
        )
    features_2, incompatible = (struct.unpack_from(">I", raw, at)[0] for at in (200, 216))
    return Geometry(
        version=version,
        block_bytes=block_bytes,
        blocks=blocks,
        groups=groups,
        group_blocks=group_blocks,
        group_bits=group_log,
        inode_bytes=inode_bytes,
        inodes_in_block_bits=per_block_log,
        directory_block_bytes=block_bytes << directory_log,
        root_inode=struct.unpack_from(">Q", raw, 56)[0],
        has_file_types=bool(incompatible & 1 if version == 5 else features_2 & 0x200),
    )


def _features(raw: bytes, version: int) -> Iterator[str]:
    version_bits, features_2 = (
        struct.unpack_from(form, raw, at)[0] for form, at in ((">H", 100), (">I", 200))
    )
    words: list[tuple[int, tuple[tuple[int, str], ...], str]] = [
        (version_bits & 0x4FF0, _VERSION_BITS, ""),
        (features_2 if version_bits & 0x8000 else 0, _FEATURES_2, ""),
    ]
    if version == 5:
        to_read, incompatible = struct.unpack_from(">II", raw, 212)
        words += [
            (to_read, _COMPATIBLE_TO_READ, "ro-compat"),
            (incompatible, _INCOMPATIBLE, "incompat"),
        ]
    told: set[str] = set()
    for value, names, kind in words:
        for bit in (1 << number for number in range(32)):
            name = dict(names).get(bit) or (f"{kind}-{bit:#x}" if kind else "")
            if value & bit and name and name not in told:
                told.add(name)
                yield name


def _file_content(source: Source, geometry: Geometry, inode: Inode) -> Source:
    if inode.size_bytes > geometry.blocks * geometry.block_bytes:
        raise FormatError(f"inode {inode.number} claims {inode.size_bytes} bytes")
    return content(source, geometry, extents_of(source, geometry, inode), inode.size_bytes)


class _Tree:
    """Walks the directories."""

    def __init__(self, source: Source, geometry: Geometry) -> None:
        self._source = source
        self._geometry = geometry
        self._seen: set[int] = set()
        self._budget = EntryBudget()
        self._directory_bytes = 0

    def walk(self) -> Iterator[Entry]:
        """Yield every entry, parents first."""
        root = read_inode(self._source, self._geometry, self._geometry.root_inode)
        if not stat.S_ISDIR(root.mode):
            raise FormatError("the root of the XFS volume is not a directory")
        yield from self._directory(root, "", 0)

    def _directory(self, inode: Inode, path: str, depth: int) -> Iterator[Entry]:
        if depth > _MAX_DEPTH or inode.number in self._seen:
            raise FormatError("directories loop or are nested too deeply")
        self._seen.add(inode.number)
        self._directory_bytes += inode.size_bytes
        if self._directory_bytes > _MAX_DIRECTORY_BYTES:
            raise FormatError("the directories of the XFS volume are too large")
        local = inode.form == LOCAL
        names: set[bytes] = set()
        for name, number in self._short(inode) if local else self._blocks(inode):
            if name in (b".", b".."):
                continue
            if not name or b"/" in name or b"\0" in name or name in names:
                raise FormatError("a directory has a name twice, or one that is not a name")
            names.add(name)
            text = name.decode("utf-8", "surrogateescape")
            yield from self._entry(number, f"{path}/{text}" if path else text, depth)

    def _entry(self, number: int, path: str, depth: int) -> Iterator[Entry]:
        self._budget.spend(path)
        inode = read_inode(self._source, self._geometry, number)
        kind = _kind(inode.mode)
        yield Entry(
            path=path,
            kind=kind,
            size_bytes=inode.size_bytes if kind == "file" else 0,
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            mtime=inode.mtime,
            link_target=self._target(inode) if kind == "link" else None,
            number=number,
        )
        if kind == "directory":
            yield from self._directory(inode, path, depth + 1)

    def _short(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield the names of a directory that lies in its inode."""
        data = inode.fork[: inode.size_bytes]
        if len(data) < 6:
            raise FormatError(f"the directory of inode {inode.number} is damaged")
        wide = 8 if data[1] else 4
        at = 2 + wide
        for _ in range(data[0]):
            name = data[at + 3 : at + 3 + data[at]] if at < len(data) else b""
            at += 3 + len(name) + self._geometry.has_file_types
            if not name or at + wide > len(data):
                raise FormatError(f"the directory of inode {inode.number} is damaged")
            yield name, int.from_bytes(data[at : at + wide], "big")
            at += wide

    def _blocks(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Yield the names of a directory that has blocks of its own."""
        unit = self._geometry.directory_block_bytes
        extents = extents_of(self._source, self._geometry, inode)
        limit = _DIRECTORY_DATA_BYTES // self._geometry.block_bytes
        data = content(
            self._source,
            self._geometry,
            [extent for extent in extents if extent[0] < limit],
            inode.size_bytes,
        )
        for at in range(0, inode.size_bytes - unit + 1, unit):
            yield from self._block(data.read(at, unit), inode.number)

    def _block(self, raw: bytes, number: int) -> Iterator[tuple[bytes, int]]:
        """Yield the names in one block of directory data."""
        is_new = self._geometry.version == 5
        single, one_of_many = (b"XDB3", b"XDD3") if is_new else (b"XD2B", b"XD2D")
        end = len(raw)
        if raw[:4] == single:
            count = struct.unpack_from(">I", raw, end - 8)[0]
            end -= 8 + 8 * count
        elif raw[:4] == bytes(4):  # a hole
            return
        elif raw[:4] != one_of_many:
            raise FormatError(f"a block of the directory of inode {number} is damaged")
        at = 64 if is_new else 16
        if at > end:
            raise FormatError(f"a block of the directory of inode {number} is damaged")
        while at < end:
            free, length = struct.unpack_from(">HH", raw, at)
            if free == _FREE:
                if length < 8 or length % 8 or at + length > end:
                    raise FormatError(f"a block of the directory of inode {number} is damaged")
                at += length
                continue
            size = raw[at + 8] if at + 16 <= end else end
            name = raw[at + 9 : at + 9 + size]
            found = struct.unpack_from(">Q", raw, at)[0]
            at += (9 + size + self._geometry.has_file_types + 2 + 7) & ~7
            if at > end:
                raise FormatError(f"a block of the directory of inode {number} is damaged")
            yield name, found

    def _target(self, inode: Inode) -> str:
        """Return the text of a symbolic link."""
        if not 0 < inode.size_bytes <= _MAX_LINK_BYTES:
            raise FormatError(f"a symbolic link claims {inode.size_bytes} bytes")
        if inode.form == LOCAL:
            raw = inode.fork[: inode.size_bytes]
        else:
            raw = b"".join(self._linked(inode))
        if len(raw) != inode.size_bytes or b"\0" in raw:
            raise FormatError("a symbolic link is damaged")
        return raw.decode("utf-8", "surrogateescape")

    def _linked(self, inode: Inode) -> Iterator[bytes]:
        """Yield what the blocks of a long symbolic link hold of its text."""
        header = 56 if self._geometry.version == 5 else 0
        left = inode.size_bytes
        for _, block, count, _ in extents_of(self._source, self._geometry, inode):
            for number in range(block, block + count):
                offset = self._geometry.block_offset(number)
                raw = self._source.read(offset, self._geometry.block_bytes)
                if left <= 0:
                    return
                if header and raw[:4] != b"XSLM":
                    raise FormatError("a block of a symbolic link is damaged")
                text = raw[header : header + left]
                left -= len(text)
                yield text


def _kind(mode: int) -> EntryKind:
    kinds: dict[int, EntryKind] = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
    }
    return kinds.get(stat.S_IFMT(mode), "special")
