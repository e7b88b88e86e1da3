"""Partition tables: GPT (UEFI specification, chapter 5), MBR, and both on one disk.

What a table says wrongly without hiding its partitions (one damaged copy, a clipped MBR entry) is
told in ``faults``; a :class:`FormatError` is for tables that cannot be read.
"""

from __future__ import annotations

import binascii
import itertools
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.formats.source import FormatError, Source

_SIGNATURE: Final = b"EFI PART"
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_MBR_ENTRY: Final = struct.Struct("<B3sB3sII")
_MBR_BYTES: Final = 512
_BOOT_CODE_BYTES: Final = 440
_SECTOR_SIZES: Final = (512, 4096)
# The specification asks for 16 KiB; tools make at most a few times as much.
_MAX_ENTRIES_BYTES: Final = 1 << 20
_MAX_PARTITIONS: Final = 1024
_MAX_LOGICAL: Final = 128
_PROTECTIVE: Final = 0xEE
# The fault of a disk that became larger.
NOT_AT_THE_END: Final = "the backup GPT is not at the end of the disk"
_EXTENDED: Final = (0x05, 0x0F, 0x85)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    ``number`` counts from 1 as Linux does. ``name``, ``type_guid``, ``guid`` (lower case) and
    ``attributes`` are of GPT alone; ``mbr_type`` is of MBR alone, where ``bootable`` is its flag.
    """

    number: int
    offset: int
    size_bytes: int
    name: str = ""
    type_guid: str = ""
    guid: str = ""
    attributes: int = 0
    mbr_type: int | None = None
    bootable: bool = False


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """The table of a disk.

    ``kind`` is ``hybrid`` where the MBR beside a GPT lists more than the protective entry.
    ``disk_guid`` is lower case; on an MBR it is the disk signature, eight hexadecimal digits.
    ``boot_code`` is the program in the first 440 bytes of the disk. ``mbr`` lists the MBR's own
    entries, also the protective one. ``entry_count`` is the room that a GPT has, 4 for an MBR.
    ``faults`` are sentences about what is damaged or disagrees. ``unused`` are the bytes of a GPT's
    entries that no partition shows, and all of a backup's that disagrees; without GUIDs.
    """

    kind: Literal["gpt", "mbr", "hybrid"]
    disk_guid: str
    sector_bytes: int
    partitions: tuple[Partition, ...]
    boot_code: bytes
    mbr: tuple[Partition, ...]
    entry_count: int
    faults: tuple[str, ...] = ()
    unused: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Header:
    """One copy of a GPT that fits its checksums."""

    own_sector: int
    other_sector: int
    first_usable: int
    last_usable: int
    disk_guid: str
    entry_count: int
    entry_bytes: int
    entries: bytes

    def says_the_same(self, other: _Header) -> bool:
        """Whether both copies describe the same partitions."""
        return (
            self.disk_guid == other.disk_guid
            and self.entries == other.entries
            and (self.first_usable, self.last_usable) == (other.first_usable, other.last_usable)
        )

    def unused(self, *, whole: bool = False) -> bytes:
        """Return the entries without what a partition shows, or ``whole`` but for the GUIDs."""
        kept = []
        for at in range(0, len(self.entries), self.entry_bytes):
            entry = bytearray(self.entries[at : at + self.entry_bytes])
            if any(entry[:16]):
                name = bytes(entry[56:128]).decode("utf-16-le", "replace").partition("\0")[0]
                entry[16:32] = bytes(16)
                shown = 56 + len(name.encode("utf-16-le", "replace"))
                if not whole:
                    entry[: min(shown, 128)] = bytes(min(shown, 128))
            kept.append(bytes(entry))
        return b"".join(kept)


def read_partitions(source: Source) -> PartitionTable:
    """Return the partition table of a disk with sectors of 512 or 4096 bytes.

    Raises :class:`FormatError` when there is none, when both copies of a GPT are damaged, or when
    a partition of a GPT lies outside of the disk.
    """
    if source.size_bytes < 2 * _MBR_BYTES:
        raise FormatError("the file is too short for a partition table")
    first = source.read(0, _MBR_BYTES)
    mbr_faults: list[str] = []
    mbr = tuple(_mbr_entries(source, first, mbr_faults))
    found = _find_gpt(source)
    if found is None:
        real = tuple(entry for entry in mbr if entry.mbr_type != _PROTECTIVE)
        if any(entry.mbr_type == _PROTECTIVE for entry in mbr):
            raise FormatError("the disk had a GPT, of which neither copy is there")
        if not real:
            raise FormatError("the disk has no partition table")
        return PartitionTable(
            kind="mbr",
            disk_guid=first[_BOOT_CODE_BYTES : _BOOT_CODE_BYTES + 4][::-1].hex(),
            sector_bytes=512,
            partitions=(*real, *_logical(source, real, mbr_faults)),
            boot_code=first[:_BOOT_CODE_BYTES],
            mbr=mbr,
            entry_count=4,
            faults=tuple(mbr_faults),
        )
    header, sector_bytes, faults, unused = found
    partitions = tuple(_gpt_partitions(source, header, sector_bytes))
    faults += tuple(_overlaps(partitions))
    if not any(entry.mbr_type == _PROTECTIVE for entry in mbr):
        faults += ("the protective MBR is missing",)
    hybrid = any(entry.mbr_type != _PROTECTIVE for entry in mbr)
    return PartitionTable(
        kind="hybrid" if hybrid else "gpt",
        disk_guid=header.disk_guid,
        sector_bytes=sector_bytes,
        partitions=partitions,
        boot_code=first[:_BOOT_CODE_BYTES],
        mbr=mbr,
        entry_count=header.entry_count,
        faults=faults,
        unused=(header.unused(), *unused),
    )


def _find_gpt(source: Source) -> tuple[_Header, int, tuple[str, ...], tuple[bytes, ...]] | None:
    """Return the copy to trust, the sector size, faults, and the entries of a copy that disagrees;
    None where no copy is."""
    reasons: list[str] = []
    for sector_bytes in _SECTOR_SIZES:
        sectors = source.size_bytes // sector_bytes
        primary = _try_header(source, 1, sector_bytes, "primary", reasons)
        if primary is None:
            backup = _try_header(source, sectors - 1, sector_bytes, "backup", reasons)
            if backup is not None:
                missing = tuple(reasons) or ("the primary GPT is missing",)
                return backup, sector_bytes, missing, ()
            continue
        backup = _try_header(source, primary.other_sector, sector_bytes, "backup", reasons)
        if backup is None:
            missing = tuple(reasons) or ("the backup GPT is missing",)
            return primary, sector_bytes, missing, ()
        other: tuple[bytes, ...] = ()
        if not primary.says_the_same(backup):
            reasons.append("the primary and the backup GPT disagree")
            other = (backup.unused(whole=True),)
        if backup.own_sector != sectors - 1:
            reasons.append(NOT_AT_THE_END)
        return primary, sector_bytes, tuple(reasons), other
    if reasons:
        raise FormatError(reasons[0])
    return None


def _try_header(
    source: Source, sector: int, sector_bytes: int, which: str, reasons: list[str]
) -> _Header | None:
    """Return one copy; None, with a reason where something of it is there, when it is no good."""
    offset = sector * sector_bytes
    if sector < 1 or offset + sector_bytes > source.size_bytes:
        return None
    if source.read(offset, len(_SIGNATURE)) != _SIGNATURE:
        return None
    try:
        return _header(source, offset, sector, sector_bytes)
    except FormatError as problem:
        reasons.append(f"the {which} GPT is damaged: {problem.message}")
        return None


def _header(source: Source, offset: int, sector: int, sector_bytes: int) -> _Header:
    raw = source.read(offset, sector_bytes)
    (
        _,
        _revision,
        header_bytes,
        checksum,
        _reserved,
        own,
        other,
        first_usable,
        last_usable,
        disk_guid,
        entries_sector,
        entry_count,
        entry_bytes,
        entries_checksum,
    ) = _HEADER.unpack_from(raw)
    if not _HEADER.size <= header_bytes <= sector_bytes:
        raise FormatError(f"its header claims {header_bytes} bytes")
    zeroed = raw[:16] + bytes(4) + raw[20:header_bytes]
    if binascii.crc32(zeroed) != checksum:
        raise FormatError("the checksum of its header is wrong")
    if own != sector:
        raise FormatError("its header was made for another place")
    if entry_bytes < _ENTRY.size or entry_bytes % 8 or entry_count > _MAX_PARTITIONS:
        raise FormatError(f"it claims {entry_count} entries of {entry_bytes} bytes")
    total = entry_bytes * entry_count
    if total > _MAX_ENTRIES_BYTES:
        raise FormatError(f"it claims {total} bytes of entries")
    entries = source.read(entries_sector * sector_bytes, total)
    if binascii.crc32(entries) != entries_checksum:
        raise FormatError("the checksum of its entries is wrong")
    return _Header(
        own_sector=own,
        other_sector=other,
        first_usable=first_usable,
        last_usable=last_usable,
        disk_guid=_guid(disk_guid),
        entry_count=entry_count,
        entry_bytes=entry_bytes,
        entries=entries,
    )


def _gpt_partitions(source: Source, header: _Header, sector_bytes: int) -> Iterator[Partition]:
    for number in range(header.entry_count):
        type_guid, guid, first, last, attributes, name = _ENTRY.unpack_from(
            header.entries, number * header.entry_bytes
        )
        if not any(type_guid):
            continue
        if last < first or (last + 1) * sector_bytes > source.size_bytes:
            raise FormatError(f"partition {number + 1} lies outside of the disk")
        yield Partition(
            number=number + 1,
            offset=first * sector_bytes,
            size_bytes=(last - first + 1) * sector_bytes,
            name=name.decode("utf-16-le", "replace").partition("\0")[0],
            type_guid=_guid(type_guid),
            guid=_guid(guid),
            attributes=attributes,
        )


def _overlaps(partitions: tuple[Partition, ...]) -> Iterator[str]:
    ordered = sorted(partitions, key=lambda partition: partition.offset)
    for one, next_one in itertools.pairwise(ordered):
        if one.offset + one.size_bytes > next_one.offset:
            yield f"the partitions {one.number} and {next_one.number} overlap"


def _mbr_entries(source: Source, sector: bytes, faults: list[str]) -> Iterator[Partition]:
    """Yield the entries of one MBR, clipped to the disk; nothing where there is no MBR."""
    if sector[510:512] != b"\x55\xaa":
        return
    for number in range(4):
        flag, _, kind, _, first, count = _MBR_ENTRY.unpack_from(sector, 446 + 16 * number)
        if kind == 0 or count == 0:
            continue
        if flag & 0x7F:  # boot code of a volume, not a table
            return
        offset, size = first * 512, count * 512
        room = max(source.size_bytes - offset, 0)
        if size > room:
            if kind != _PROTECTIVE:
                faults.append(f"MBR entry {number + 1} goes beyond the end of the disk")
            size = room
        yield Partition(number + 1, offset, size, mbr_type=kind, bootable=flag == 0x80)


def _logical(
    source: Source, primary: tuple[Partition, ...], faults: list[str]
) -> Iterator[Partition]:
    """Yield the partitions inside an extended one, numbered from 5."""
    extended = next((entry for entry in primary if entry.mbr_type in _EXTENDED), None)
    if extended is None:
        return
    at, seen, number = extended.offset, {extended.offset}, 5
    while number < 5 + _MAX_LOGICAL and at + 512 <= source.size_bytes:
        sector, chain = source.read(at, 512), None
        for entry in _mbr_entries(source, sector, faults):
            if entry.mbr_type in _EXTENDED:
                chain = extended.offset + entry.offset
                continue
            offset = at + entry.offset
            size = min(entry.size_bytes, max(source.size_bytes - offset, 0))
            yield Partition(number, offset, size, mbr_type=entry.mbr_type)
            number += 1
        if chain is None:
            return
        if chain in seen:
            raise FormatError("the extended partition loops")
        at = chain
        seen.add(at)


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw))
