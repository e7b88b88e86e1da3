"""erofs, read-only: superblock, inodes, directories and files (fs/erofs/erofs_fs.h of the kernel).

Plain, inline and chunked files are read here; packed ones by ``erofspacked.py``.
"""

from __future__ import annotations

import os
import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from local_imager.formats.entries import Entry, EntryKind
from local_imager.formats.source import FormatError, Joined, Slice, Source

MAGIC: Final = b"\xe2\xe1\xf5\xe0"
MAGIC_OFFSET: Final = 1024
_LAYOUT: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ")
_COMPACT: Final = struct.Struct("<HHHHIIIIHHI")
_EXTENDED: Final = struct.Struct("<HHHHQIIIIQII16s")
_DIRENT: Final = struct.Struct("<QHBB")
_PLAIN, _PACKED_FULL, _INLINE, _PACKED_COMPACT, _CHUNKED = range(5)
_CHUNK_INDEXES: Final = 0x20
_HOLE: Final = 0xFFFFFFFF
_COMPAT: Final = {1: "sb_chksum", 2: "mtime", 4: "xattr_filter", 8: "shared_ea_in_metabox"}
_INCOMPAT: Final = {
    0x1: "zero_padding",
    0x2: "compr_cfgs",
    0x4: "chunked_file",
    0x8: "device_table",
    0x10: "ztailpacking",
    0x20: "fragments",
    0x40: "xattr_prefixes",
    0x80: "48bit",
    0x100: "metabox",
}
# What changes where inodes lie and how long their numbers are is not read here.
_UNREAD: Final = 0x80 | 0x100
_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 128
_MAX_DIRECTORY_BYTES: Final = 8 << 20
_MAX_LINK_BYTES: Final = 4096
_MAX_CHUNKS: Final = 100_000


class _Superblock(NamedTuple):
    """The fields in their order on disk."""

    magic: int
    checksum: int
    compatible: int
    block_log: int
    extension_slots: int
    root: int
    inodes: int
    made: int
    made_ns: int
    blocks: int
    metadata_block: int
    attributes_block: int
    uuid: bytes
    label: bytes
    incompatible: int
    algorithms: int
    devices: int
    device_slot: int
    directory_log: int
    prefixes: int
    prefixes_start: int
    packed_inode: int


@dataclass(frozen=True, slots=True)
class ErofsFacts:
    """What the superblock says: times in seconds since 1970, sizes in bytes, features by name."""

    label: str
    uuid: str
    block_bytes: int
    made: int
    inodes: int
    image_bytes: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inode:
    """One inode; ``end`` is where it and its attributes end in the image."""

    number: int
    layout: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size_bytes: int
    word: int
    end: int

    @property
    def is_packed(self) -> bool:
        """Whether the content is compressed."""
        return self.layout in (_PACKED_FULL, _PACKED_COMPACT)

    @property
    def has_full_index(self) -> bool:
        """Whether the index of the compressed content is the plain one."""
        return self.layout == _PACKED_FULL


class ErofsVolume:
    """An erofs that was read; see :class:`~local_imager.formats.entries.Volume`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        head = _superblock(source)
        self.block_bytes = 1 << head.block_log
        self.features, self._made = head.incompatible, head.made
        self.packed_inode = head.packed_inode
        self._meta = head.metadata_block * self.block_bytes
        self.facts = ErofsFacts(
            label=os.fsdecode(head.label.partition(b"\0")[0]),
            uuid=str(uuid.UUID(bytes=head.uuid)),
            block_bytes=self.block_bytes,
            made=head.made,
            inodes=head.inodes,
            image_bytes=head.blocks * self.block_bytes,
            features=_names(head.compatible, _COMPAT) + _names(head.incompatible, _INCOMPAT),
        )
        self._entries_left = _MAX_ENTRIES
        self._listed_left = 4 * _MAX_DIRECTORY_BYTES
        self.entries = tuple(self._walk(self.inode(head.root)))

    def open(self, entry: Entry) -> Source:
        """Return the content of a file; raises :class:`FormatError` for what cannot be unpacked."""
        if entry.kind != "file":
            raise FormatError(f"{entry.path!r} is no file of this erofs")
        return self.content(self.inode(entry.number))

    def inode(self, number: int) -> Inode:
        """Read the inode of this number (its place in units of 32 bytes)."""
        at = self._meta + number * 32
        head = self.source.read(at, _COMPACT.size)
        if head[0] & 1:
            values = _EXTENDED.unpack(self.source.read(at, _EXTENDED.size))
            form, attributes, mode, _, size, word, _, uid, gid, mtime, _, _, _ = values
        else:
            form, attributes, mode, _, size, _, word, _, uid, gid, _ = _COMPACT.unpack(head)
            mtime = self._made
        end = at + (_EXTENDED.size if form & 1 else _COMPACT.size)
        end += 12 + 4 * (attributes - 1) if attributes else 0
        if form >> 1 & 7 > _CHUNKED:
            raise FormatError("an inode of an erofs has a layout that is not known")
        return Inode(number, form >> 1 & 7, mode, uid, gid, mtime, size, word, end)

    def content(self, inode: Inode) -> Source:
        """Return what an inode holds, whatever its kind."""
        if inode.is_packed:
            from local_imager.formats.erofspacked import PackedContent

            return PackedContent(self, inode)
        if inode.layout == _CHUNKED:
            return self._chunks(inode)
        if inode.layout == _PLAIN:
            return Slice(self.source, inode.word * self.block_bytes, inode.size_bytes)
        inside = max(inode.size_bytes - 1, 0) // self.block_bytes * self.block_bytes
        tail = inode.size_bytes - inside
        if inode.end % self.block_bytes + tail > self.block_bytes:
            raise FormatError("the end of a file of an erofs does not lie in its inode's block")
        pieces = [(self.source, inode.word * self.block_bytes, inside)] if inside else []
        return Joined([*pieces, (self.source, inode.end, tail)])

    def _chunks(self, inode: Inode) -> Source:
        chunk_bytes = self.block_bytes << (inode.word & 0x1F)
        unit = 8 if inode.word & _CHUNK_INDEXES else 4
        count = -(-inode.size_bytes // chunk_bytes)
        if count > _MAX_CHUNKS:
            raise FormatError(f"a file of an erofs in {count} chunks")
        table = self.source.read(inode.end + -inode.end % unit, count * unit)
        pieces: list[tuple[Source | None, int, int]] = []
        left = inode.size_bytes
        for at in range(0, len(table), unit):
            block = int.from_bytes(table[at + unit - 4 : at + unit], "little")
            if unit == 8 and int.from_bytes(table[at + 2 : at + 4], "little"):
                raise FormatError("a file of the erofs lies in another device")
            length = min(left, chunk_bytes)
            hole = block == _HOLE
            pieces.append((None if hole else self.source, block * self.block_bytes, length))
            left -= length
        return Joined(pieces)

    def _walk(self, root: Inode) -> Iterator[Entry]:
        """Yield all entries, each directory once, without recursion."""
        seen = {root.number}
        waiting = [("", self._children(root))]
        while waiting:
            prefix, children = waiting[-1]
            name, inode = next(children, ("", None))
            if inode is None:
                waiting.pop()
                continue
            path = prefix + name
            yield self._entry(path, inode)
            if stat.S_ISDIR(inode.mode):
                if inode.number in seen or len(waiting) >= _MAX_DEPTH:
                    raise FormatError("directories of an erofs lie in each other without end")
                seen.add(inode.number)
                waiting.append((f"{path}/", self._children(inode)))

    def _children(self, inode: Inode) -> Iterator[tuple[str, Inode | None]]:
        if not stat.S_ISDIR(inode.mode):
            raise FormatError("the root of an erofs is no directory")
        self._listed_left -= inode.size_bytes
        if inode.size_bytes > _MAX_DIRECTORY_BYTES or self._listed_left < 0:
            raise FormatError("directories of an erofs are longer than any real ones")
        content = self._listable(inode)
        names = set()
        for at in range(0, inode.size_bytes, self.block_bytes):
            block = content.read(at, min(self.block_bytes, inode.size_bytes - at))
            for name, number in _listed(block):
                if name in (b".", b".."):
                    continue
                self._entries_left -= 1
                if self._entries_left < 0:
                    raise FormatError(
                        f"an erofs with more than the {_MAX_ENTRIES} entries that are read"
                    )
                if name in names:
                    raise FormatError("a directory of an erofs has a name twice")
                names.add(name)
                yield os.fsdecode(name), self.inode(number)

    def _listable(self, inode: Inode) -> Source:
        """Return the content of a directory or link; mkfs.erofs packs neither."""
        if inode.is_packed:
            raise FormatError("a directory or symbolic link of an erofs is compressed")
        return self.content(inode)

    def _entry(self, path: str, inode: Inode) -> Entry:
        kinds: dict[int, EntryKind] = {
            stat.S_IFREG: "file",
            stat.S_IFDIR: "directory",
            stat.S_IFLNK: "link",
        }
        kind = kinds.get(stat.S_IFMT(inode.mode), "special")
        target = None
        if kind == "link":
            if inode.size_bytes > _MAX_LINK_BYTES:
                raise FormatError(f"a symbolic link of {inode.size_bytes} bytes in an erofs")
            target = os.fsdecode(self._listable(inode).read(0, inode.size_bytes))
        return Entry(
            path=path,
            kind=kind,
            size_bytes=inode.size_bytes if kind == "file" else 0,
            mode=stat.S_IMODE(inode.mode),
            uid=inode.uid,
            gid=inode.gid,
            mtime=inode.mtime,
            link_target=target,
            number=inode.number,
        )


def read_erofs(source: Source) -> ErofsVolume:
    """Read superblock and directories; contents when they are asked for.

    Raises :class:`FormatError` for what is no erofs, for damage, and for features (metadata in a
    box, block numbers of 48 bits) that are not read here.
    """
    return ErofsVolume(source)


def _superblock(source: Source) -> _Superblock:
    if source.size_bytes < MAGIC_OFFSET + _LAYOUT.size:
        raise FormatError("it is too short for an erofs")
    values = _LAYOUT.unpack(source.read(MAGIC_OFFSET, _LAYOUT.size))
    head = _Superblock(*values)
    if head.magic != int.from_bytes(MAGIC, "little"):
        raise FormatError("it is no erofs")
    if not 9 <= head.block_log <= 16 or head.directory_log:
        raise FormatError(f"an erofs with blocks of {1 << head.block_log} bytes")
    unread = head.incompatible & ~sum(_INCOMPAT) | head.incompatible & _UNREAD
    if unread:
        raise FormatError(f"the erofs has features that are not read here: {unread:#x}")
    if head.blocks << head.block_log > source.size_bytes:
        raise FormatError("the erofs was cut off, or is damaged")
    return head


def _names(bits: int, known: dict[int, str]) -> tuple[str, ...]:
    found = [name for bit, name in known.items() if bits & bit]
    other = bits & ~sum(known)
    return tuple(found) + ((f"unknown_{other:#x}",) if other else ())


def _listed(block: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and inode number of what one block of a directory lists."""
    first = int.from_bytes(block[8:10], "little")
    if first < _DIRENT.size or first % _DIRENT.size or first > len(block):
        raise FormatError("a directory of an erofs is damaged")
    offsets = [_DIRENT.unpack_from(block, at) for at in range(0, first, _DIRENT.size)]
    ends = [offset for _, offset, _, _ in offsets[1:]] + [len(block)]
    for (number, offset, _, _), end in zip(offsets, ends, strict=True):
        name = block[offset:end]
        if end == len(block):
            name = name.partition(b"\0")[0]
        if not first <= offset < end <= len(block) or not name or b"/" in name or b"\0" in name:
            raise FormatError("a name in an erofs is none that a file can have")
        yield name, number
