"""The fact ``rest``: a digest of what no part and no other fact of a container shows.

Boot code between partitions, fields of headers, the order and device numbers in an archive, bytes
behind the last section: a comparison has to see that they differ, though nobody wants to read them.
What two runs write differently by nature (times, GUIDs, checksums) is left out; it is told apart.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from local_imager.deliver.inspect.limits import charge_rest
from local_imager.formats.cpio import CpioHeader
from local_imager.formats.gpt import PartitionTable
from local_imager.formats.meta import META_BYTES, read_meta_order, write_meta
from local_imager.formats.pe import PeFile
from local_imager.formats.source import CHUNK_BYTES, FormatError, Source

_SECTOR_BYTES: Final = 512
# What is read and hashed at once; smaller ones take their time in this loop, larger ones in holes.
_BLOCK_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(_BLOCK_BYTES)
_MBR_ENTRIES_AT: Final = 446
_SECTION_BYTES: Final = 40
# In a GPT header: the sector of the other copy's header, which is the last one of that copy.
_OTHER_COPY_AT: Final = 32
# Of a PE optional header: sizes that follow the sections, and the checksum.
_COMPUTED_AT: Final = (4, 8, 12, 56, 64)


def rest_digest(
    source: Source, covered: Iterable[tuple[int, int]], *, numbered: bool = True
) -> str:
    """Return the SHA-256 of all blocks outside of ``covered`` (offset, length) that hold anything.

    Empty when there are only zeros. Blocks count from the begin of the gap that they lie in, so
    moving what is around a gap does not change it, nor do zeros at its end; the number of a gap
    counts where they are ``numbered``. What is read is charged to the running inspection, which
    :class:`OutOfBudget` ends.
    """
    hasher, found = hashlib.sha256(), False
    for number, (offset, length) in enumerate(_gaps(source.size_bytes, covered)):
        for start, data in _blocks(source, offset, length):
            found = True
            hasher.update(struct.pack("<QQQ", number if numbered else 0, start, len(data)))
            hasher.update(data)
    return f"sha256:{hasher.hexdigest()}" if found else ""


def disk_rest(source: Source, table: PartitionTable) -> str:
    """Return the digest of what lies outside of the partitions and of the table itself."""
    covered = [(part.offset, part.size_bytes) for part in table.partitions or table.mbr]
    hasher = hashlib.sha256(source.read(_MBR_ENTRIES_AT, _SECTOR_BYTES - _MBR_ENTRIES_AT))
    if table.kind == "mbr":
        covered.append((0, _SECTOR_BYTES))
    else:
        covered += gpt_places(source, table)
    hasher.update(rest_digest(source, covered).encode() + _entries_of(table.unused))
    return f"sha256:{hasher.hexdigest()}"


def _entries_of(copies: Iterable[bytes]) -> bytes:
    """Return what stands in a GPT beside its partitions: in entries that are none, behind names,
    in a backup that says something else; without GUIDs of partitions."""
    return b"".join(hashlib.sha256(copy).digest() for copy in copies)


def gpt_places(source: Source, table: PartitionTable) -> list[tuple[int, int]]:
    """Return where both copies of a GPT lie, as (offset, length).

    The second one ends where the first says: a container that is larger than the disk has it
    before the end.
    """
    reserved, sector = table_bytes(table), table.sector_bytes
    copy = reserved - sector
    other = int.from_bytes(source.read(sector + _OTHER_COPY_AT, 8), "little") * sector + sector
    end = other if copy <= other <= source.size_bytes else source.size_bytes
    return [(0, reserved), (max(end - copy, 0), copy)]


def table_bytes(table: PartitionTable) -> int:
    """Return how much of a disk's begin a GPT takes; its copy at the end has one sector less."""
    entries = max(table.entry_count * 128, 16 * 1024)
    return 2 * table.sector_bytes + -(-entries // table.sector_bytes) * table.sector_bytes


def program_rest(source: Source, pe: PeFile) -> str:
    """Return the digest of a PE file's header fields that no fact shows, and of what lies between
    and behind its sections and signatures."""
    covered = [(0, pe.headers_bytes), (pe.table_offset, pe.table_bytes)]
    covered += [(section.offset, section.size_bytes) for section in pe.sections]
    head = bytearray(source.read(0, min(pe.headers_bytes, source.size_bytes, CHUNK_BYTES)))
    optional_at = pe.checksum_offset - _COMPUTED_AT[-1]
    table_at = optional_at + int.from_bytes(head[optional_at - 4 : optional_at - 2], "little")
    fields = [(optional_at - 16, 4), *((optional_at + at, 4) for at in _COMPUTED_AT)]
    fields += [(pe.security_offset, 8)] if pe.security_offset else []
    # Of sections: sizes and places, in memory and in the file, which facts and contents tell.
    fields += [(table_at + _SECTION_BYTES * n + 8, 16) for n in range(len(pe.sections))]
    for at, length in fields:
        head[at : at + length] = bytes(max(min(length, len(head) - at), 0))
    hasher = hashlib.sha256(head)
    hasher.update(rest_digest(source, covered).encode())
    return f"sha256:{hasher.hexdigest()}"


def meta_rest(source: Source) -> str:
    """Return the digest of what a META partition holds beside its values, which come in any order.

    Where a copy is not laid out as Talos does it, all of its bytes count.
    """
    raw = source.read(0, min(META_BYTES, source.size_bytes))
    try:
        values = read_meta_order(raw)
        laid_out = write_meta(values) == raw
    except FormatError:
        laid_out = False
    hasher = hashlib.sha256(repr(sorted(values)).encode() if laid_out else raw)
    hasher.update(rest_digest(source, [(0, len(raw))]).encode())
    return f"sha256:{hasher.hexdigest()}"


class ArchiveRest:
    """Collects what a cpio archive holds beside times, sizes and contents of its entries."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, header: CpioHeader, name_field: bytes, padding: bytes) -> None:
        """Take the next entry: the order counts, and what is no zero behind name and content."""
        numbers = (header.ino, header.mode, header.uid, header.gid, header.nlink, header.check)
        row = (header.raw[:6], *numbers, *header.device, *header.special_device)
        self._hasher.update(repr((*row, name_field, padding.strip(b"\0"))).encode())

    @property
    def digest(self) -> str:
        """The digest of all entries taken."""
        return f"sha256:{self._hasher.hexdigest()}"


def _gaps(size_bytes: int, covered: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    position = 0
    for offset, length in sorted(covered):
        if length > 0 and offset > position:
            yield position, min(offset, size_bytes) - position
        position = max(position, offset + length)
    if position < size_bytes:
        yield position, size_bytes - position


def _blocks(source: Source, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in the gap, bytes without the zeros at their end) of each block with any bytes.

    Where holes begin and end makes no difference: a file system and a qcow2 have other ones.
    """
    done, end = offset, offset + max(length, 0)
    for start, count in source.data_runs(offset, end - offset):
        first = max(done, start - (start - offset) % _BLOCK_BYTES)
        done = min(start + count + -(start + count - offset) % _BLOCK_BYTES, end)
        for position in range(first, done, _BLOCK_BYTES):
            size = min(_BLOCK_BYTES, done - position)
            charge_rest(size)
            block = source.read(position, size)
            if block != _ZEROS[:size]:
                yield position - offset, block.rstrip(b"\0")
