"""PySquashfsImage within bounds: what an image claims is checked before the library believes it.

Imported only when a squashfs is read, since it loads the library.
"""

from __future__ import annotations

import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import PySquashfsImage  # type: ignore[import-untyped]
import zstandard

from local_imager.formats import lz4
from local_imager.formats.charges import XZ_WORK, charge
from local_imager.formats.entries import Entry, EntryKind
from local_imager.formats.source import FormatError, Source

_METADATA_BYTES: Final = 8192
# The largest directory tree that is read; extensions (firmware, drivers) have some thousands.
_MAX_ENTRIES: Final = 100_000
_MAX_DEPTH: Final = 128
_MAX_LINK_BYTES: Final = 4096
# Per entry: its name, its inode, and what an inode has behind it, each over a border of blocks.
_STEPS_PER_ENTRY: Final = 12
_MAX_METADATA_BYTES: Final = 64 << 20
# One list of a file's blocks: a file of 128 GiB.
_MAX_TABLE_BYTES: Final = 4 << 20
# A dictionary is as large as a block at most (mksquashfs -Xdict-size).
_MAX_XZ_MEMORY: Final = 16 << 20

# Block of the inode table and offset in it, as directories name an inode.
Place = tuple[int, int]


class SquashImage(PySquashfsImage.SquashFsImage):  # type: ignore[misc]
    """The library's reader with ceilings on counts, depth, lengths and what blocks unpack to.

    ``found`` are the entries, each with the place of its inode. Raises FormatError, and what the
    library raises when it meets nonsense: the caller turns all of it into FormatError.
    """

    def __init__(self, source: Source) -> None:
        self.found: list[tuple[Entry, Place]] = []
        self._entries_left = min(_MAX_ENTRIES, source.size_bytes)
        self._steps_left = _STEPS_PER_ENTRY * self._entries_left + 1000
        self._metadata_left = _MAX_METADATA_BYTES
        super().__init__(_File(source), closefd=False)

    def data_block(self, start: int, size: int) -> bytes:
        """Return a block of file content; ``size`` is its size with the flag for packed ones."""
        stored = size & 0xFFFFFF
        if stored > self._sblk.block_size:
            raise FormatError("a block of a squashfs is longer than its blocks are")
        self._fd.seek(start)
        data = self._fd.read(stored)
        if size & 1 << 24:
            return bytes(data)
        return bytes(self._comp.uncompress(data, stored, self._sblk.block_size))

    def inode_at(self, place: Place) -> Any:
        """Return the inode of an entry that was found."""
        # Reading one inode and its list of blocks takes this much after all were found.
        self._steps_left = max(self._steps_left, 2 * _MAX_TABLE_BYTES // _METADATA_BYTES)
        return self._read_inode(*place)

    def blocks_of(self, inode: Any) -> list[int]:
        """Return the size words of a file's blocks."""
        if not inode.blocks:
            return []
        words = self._read_block_list(inode.block_start, inode.block_offset, inode.blocks)
        return [int(word) for word in words]

    def fragment_of(self, inode: Any) -> tuple[int, int]:
        """Return start and size word of the block that holds a file's end."""
        start, size = self._read_fragment(inode.fragment)
        return int(start), int(size)

    def _get_compressor(self, compression_id: int) -> _Bounded:
        return _Bounded(int(compression_id))

    def _read_xattrs_from_disk(self) -> None:
        """Leave extended attributes unread: a comparison sees them in the bytes of the image."""

    def _dir_scan(self, start_block: int, offset: int) -> Any:
        """Walk over all directories, each once, without recursion."""
        root = self._opendir(start_block, offset)
        seen = {(start_block, offset)}
        waiting = [("", self._children(root))]
        while waiting:
            prefix, children = waiting[-1]
            child = next(children, None)
            if child is None:
                waiting.pop()
                continue
            path, inode = f"{prefix}{child[0]}", child[1]
            self.found.append((_entry(path, inode, child[2]), child[2]))
            if inode.is_dir:
                if child[2] in seen or len(waiting) >= _MAX_DEPTH:
                    raise FormatError("directories of a squashfs lie in each other without end")
                seen.add(child[2])
                waiting.append((f"{path}/", self._children(self._opendir(*child[2]))))
        return root

    def _children(self, directory: Any) -> Iterator[tuple[str, Any, Place]]:
        for entry in directory.entries:
            self._entries_left -= 1
            if self._entries_left < 0:
                raise FormatError(
                    f"a squashfs with more than the {_MAX_ENTRIES} entries that are read"
                )
            name = entry["name"]
            if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
                raise FormatError("a name in a squashfs is none that a file can have")
            place = entry["start_block"], entry["offset"]
            yield os.fsdecode(name), self._read_inode(*place), place

    def _get_metadata(self, hash_table: dict[int, Any], start: int) -> Any:
        self._steps_left -= 1
        if start not in hash_table:
            self._metadata_left -= _METADATA_BYTES
        if self._steps_left < 0 or self._metadata_left < 0:
            raise FormatError("the tables of a squashfs are longer than any real ones")
        return super()._get_metadata(hash_table, start)

    def _read_metadata(
        self, hash_table: dict[int, Any], block: int, offset: int, length: int
    ) -> Any:
        if length > _MAX_TABLE_BYTES:
            raise FormatError(f"a table of {length} bytes in a squashfs")
        return super()._read_metadata(hash_table, block, offset, length)


class _File:
    """What the library reads from: every byte that it asks for is there, or an error."""

    def __init__(self, source: Source) -> None:
        self._source, self._position = source, 0

    def seek(self, offset: int) -> int:
        self._position = offset
        return offset

    def read(self, size: int) -> bytes:
        data = self._source.read(self._position, size)
        self._position += size
        return data


class _Bounded:
    """Unpacks blocks, none to more than it may hold."""

    def __init__(self, compression: int) -> None:
        unpackers: dict[int, Callable[[bytes, int], bytes]] = {
            1: _unzlib,
            4: _unxz,
            5: lz4.unpack_block,
            6: _unzstd,
        }
        if compression not in unpackers:
            name = {2: "lzma", 3: "lzo"}.get(compression, "nothing")
            raise FormatError(f"the squashfs is packed with {name}, which is not read here")
        self._unpack = unpackers[compression]
        self._work = XZ_WORK if self._unpack is _unxz else 1

    def uncompress(self, data: bytes, _size: int, most: int) -> bytes:
        """Return the block's content; the library takes tables' last blocks for shorter."""
        most = max(most, _METADATA_BYTES)
        charge(most * self._work)
        return self._unpack(data, most)


def _unzlib(data: bytes, most: int) -> bytes:
    engine = zlib.decompressobj()
    out = engine.decompress(data, most)
    if not engine.eof and engine.decompress(engine.unconsumed_tail, 1):
        raise FormatError("a block of a squashfs holds more than it may")
    return out


def _unxz(data: bytes, most: int) -> bytes:
    engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
    out = engine.decompress(data, most)
    if not engine.eof and engine.decompress(b"", 1):
        raise FormatError("a block of a squashfs holds more than it may")
    return out


def _unzstd(data: bytes, most: int) -> bytes:
    parameters = zstandard.get_frame_parameters(data)
    if parameters.content_size > most and parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
        raise FormatError("a block of a squashfs holds more than it may")
    engine = zstandard.ZstdDecompressor(max_window_size=max(most, 1 << 20))
    return engine.decompress(data, max_output_size=most)


def _entry(path: str, inode: Any, place: Place) -> Entry:
    mode = int(inode.mode)
    kinds: dict[int, EntryKind] = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
    }
    kind = kinds.get(stat.S_IFMT(mode), "special")
    if kind == "link" and len(inode._symlink) > _MAX_LINK_BYTES:
        raise FormatError(f"a symbolic link of {len(inode._symlink)} bytes in a squashfs")
    return Entry(
        path=path,
        kind=kind,
        size_bytes=int(inode.file_size) if kind == "file" else 0,
        mode=stat.S_IMODE(mode),
        uid=int(inode.uid),
        gid=int(inode.gid),
        mtime=int(inode.time),
        link_target=os.fsdecode(inode._symlink) if kind == "link" else None,
        # What the image calls the inode's number can be any; its place cannot mean two.
        number=place[0] << 16 | place[1],
    )
