"""squashfs 4.0, the form of Talos' system extensions and of its root file system.

Format: Documentation/filesystems/squashfs.rst of the kernel. PySquashfsImage reads tables, inodes
and directories; what it is let to believe is bounded in ``squashimage.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_imager.formats.entries import Entry
from local_imager.formats.source import FormatError, Source, checked

if TYPE_CHECKING:
    from local_imager.formats.squashimage import SquashImage

MAGIC: Final = b"hsqs"
_SUPERBLOCK: Final = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_PACKINGS: Final = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_ABSENT: Final = (1 << 64) - 1
# The reader takes this many inodes and this many shared blocks of files' ends at most.
_MAX_COUNT: Final = 100_000
_CACHED_BLOCKS: Final = 2


@dataclass(frozen=True, slots=True)
class SquashfsFacts:
    """What the superblock says: times in seconds since 1970, sizes in bytes.

    ``image_bytes`` is how much the file system takes; an image file is padded to 4 KiB behind it.
    """

    packing: str
    block_bytes: int
    made: int
    inodes: int
    image_bytes: int
    has_xattrs: bool
    flags: int


class SquashfsVolume:
    """A squashfs that was read; see :class:`~local_imager.formats.entries.Volume`."""

    def __init__(self, facts: SquashfsFacts, image: SquashImage) -> None:
        self.facts = facts
        self.entries = tuple(entry for entry, _ in image.found)
        self._places = {entry.path: place for entry, place in image.found}
        if len(self._places) != len(self.entries):
            raise FormatError("a directory of a squashfs has a name twice")
        self._image = image
        self._blocks: dict[int, bytes] = {}

    def open(self, entry: Entry) -> Source:
        """Return the content of a file; its blocks are unpacked as they are asked for."""
        if entry.kind != "file" or entry.path not in self._places:
            raise FormatError(f"{entry.path!r} is no file of this squashfs")
        try:
            return _Content(self, self._image.inode_at(self._places[entry.path]))
        except FormatError:
            raise
        except Exception as error:
            raise _damaged(error) from error

    def block(self, start: int, size: int) -> bytes:
        """Return a block of content, the last few from memory; raises :class:`FormatError`."""
        if start not in self._blocks:
            try:
                data = self._image.data_block(start, size)
            except FormatError:
                raise
            except Exception as error:
                raise _damaged(error) from error
            while len(self._blocks) >= _CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[start] = data
        return self._blocks[start]

    def pieces_of(self, inode: Any) -> tuple[list[tuple[int, int, int]], int]:
        """Return (start, size word, offset in it) per block of a file, and the blocks' length."""
        pieces, at = [], int(inode.start)
        for word in self._image.blocks_of(inode):
            pieces.append((at, word, 0))
            at += word & 0xFFFFFF
        if inode.frag_bytes:
            pieces.append((*self._image.fragment_of(inode), int(inode.offset)))
        return pieces, self.facts.block_bytes


class _Content:
    """One file: full blocks, zeros for those of size 0, and its end in a shared block."""

    def __init__(self, volume: SquashfsVolume, inode: Any) -> None:
        self._volume = volume
        self.size_bytes = int(inode.file_size)
        self._pieces, self._block_bytes = volume.pieces_of(inode)
        if len(self._pieces) != -(-self.size_bytes // self._block_bytes):
            raise FormatError("a file of a squashfs has more or fewer blocks than its size asks")

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        parts, end = [], offset + length
        while offset < end:
            number, inside = divmod(offset, self._block_bytes)
            count = min(self._block_bytes - inside, end - offset)
            start, word, begin = self._pieces[number]
            if not word & 0xFFFFFF:
                parts.append(bytes(count))
            else:
                block = self._volume.block(start, word)
                part = block[begin + inside : begin + inside + count]
                if len(part) < count:
                    raise FormatError("a block of a squashfs holds less than its file")
                parts.append(part)
            offset += count
        return b"".join(parts)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        end = min(offset + length, self.size_bytes)
        while offset < end:
            number, inside = divmod(offset, self._block_bytes)
            count = min(self._block_bytes - inside, end - offset)
            if self._pieces[number][1] & 0xFFFFFF:
                yield offset, count
            offset += count


def read_squashfs(source: Source) -> SquashfsVolume:
    """Read superblock, inodes and directories; contents when they are asked for.

    Raises :class:`FormatError` for what is no squashfs 4.0 and for every kind of damage.
    """
    facts = _facts(source)
    from local_imager.formats.squashimage import SquashImage

    try:
        image = SquashImage(source)
    except FormatError:
        raise
    except Exception as error:
        raise _damaged(error) from error
    return SquashfsVolume(facts, image)


def _facts(source: Source) -> SquashfsFacts:
    """Check the superblock before anything else believes it."""
    if source.size_bytes < _SUPERBLOCK.size:
        raise FormatError("it is too short for a squashfs")
    values = _SUPERBLOCK.unpack(source.read(0, _SUPERBLOCK.size))
    magic, inodes, made, block_bytes, fragments, packing, block_log, flags, _, *rest = values
    major, minor, _, used, *tables = rest
    if magic != MAGIC or (major, minor) != (4, 0):
        raise FormatError("it is no squashfs of version 4.0")
    if not 12 <= block_log <= 20 or block_bytes != 1 << block_log:
        raise FormatError(f"a squashfs with blocks of {block_bytes} bytes")
    if inodes > _MAX_COUNT or fragments > inodes:
        raise FormatError(
            f"a squashfs with {inodes} inodes and {fragments} fragments, which is not read here"
        )
    if packing not in _PACKINGS:
        raise FormatError(f"the squashfs is packed with compression {packing}, which is not known")
    ids, xattrs, inode_table, directories, fragment_table, _ = tables
    starts = [ids, inode_table, directories]
    starts += [fragment_table] if fragments else []
    if used > source.size_bytes or any(start >= used for start in starts):
        raise FormatError("tables of a squashfs lie outside of it: it was cut off, or is damaged")
    return SquashfsFacts(
        _PACKINGS[packing],
        block_bytes,
        made,
        inodes,
        used,
        xattrs != _ABSENT,
        flags,
    )


def _damaged(error: Exception) -> FormatError:
    """Say in one sentence what the library says in any way that comes to it."""
    return FormatError(f"the squashfs is damaged ({type(error).__name__})")
