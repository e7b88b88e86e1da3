"""How disks, ISOs, FAT volumes and EFI programs are laid out: where their parts lie.

This is for finding a place only: what counts as outside of parts is said by inspection's digest of
it (``rest``). Places that follow from other facts, or hold noise by nature, are left out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.compare.noise import kinds_of
from local_imager.deliver.compare.words import clean
from local_imager.deliver.inspect.parts import Part
from local_imager.formats.source import FormatError, Slice, Source

Piece = tuple[int, int]
_SYSTEM_AREA_BYTES: Final = 32 * 1024
_HFS_PLUS: Final = "48465300-0000-11aa-aa11-00306543ecac"
_MBR_CODE_BYTES: Final = 446
_SECTOR_BYTES: Final = 512
# Where GRUB's boot code for a hybrid keeps the sector of its image (xorriso, --grub2-mbr).
_GRUB_NOTE: Final = (432, 8)
_NAME_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class Layout:
    """Pieces are (offset, length) in the part.

    ``named`` are its parts; ``told`` is what facts tell or nobody compares; ``zones`` are places
    with a name of their own, among the rest. ``otherwise`` says where the rest may differ without a
    byte in a gap that does; ``head_bytes`` is the length of a header that names the parts.
    """

    named: tuple[tuple[Piece, str], ...]
    told: tuple[Piece, ...] = ()
    zones: tuple[tuple[Piece, str], ...] = ()
    otherwise: str = ""
    head_bytes: int = 0


def layout_of(source: Source, part: Part) -> Layout | None:
    """Return the layout of a part, None where none is known.

    Raises :class:`FormatError` for bytes that are not what the part says.
    """
    kinds = kinds_of(part)
    if "disk" in kinds:
        return _disk(source, part)
    if "iso" in kinds:
        return _iso(source, part)
    if "fat" in kinds:
        return _fat(source)
    return _program(source) if kinds & {"uki", "pe"} else None


def _disk(source: Source, part: Part) -> Layout:
    from local_imager.deliver.inspect.rest import gpt_places
    from local_imager.formats.gpt import read_partitions

    table = read_partitions(source)
    told = [(0, _MBR_CODE_BYTES)]
    if table.kind != "mbr":
        (_, reserved), copy = gpt_places(source, table)
        told += [(_SECTOR_BYTES, reserved - _SECTOR_BYTES), copy]
    return Layout(
        _partitions(part),
        tuple(told),
        (((0, _SECTOR_BYTES), "in the entries of the MBR"),),
        "in what the partition table holds beside its partitions",
    )


def _partitions(part: Part) -> tuple[tuple[Piece, str], ...]:
    return tuple(
        ((one.offset, one.size_bytes), clean(one.name, _NAME_CHARS))
        for one in part.children
        if one.offset is not None and "view" not in one.facts
    )


def _iso(source: Source, part: Part) -> Layout:
    from local_imager.deliver.inspect.rest import gpt_places
    from local_imager.formats.gpt import read_partitions
    from local_imager.formats.iso import read_iso

    volume = read_iso(source)
    files = {one.number: one.path for one in volume.entries if one.kind == "file"}
    named = [
        (piece, clean(files.get(number, ""), _NAME_CHARS))
        for number, pieces in enumerate(volume.extents)
        for piece in pieces
    ]
    told = [*volume.records, _GRUB_NOTE]
    # A hybrid's tables, without the boot code in front; what lies at its begin is in no partition.
    try:
        table = read_partitions(source)
    except FormatError:
        table = None
    if table is not None:
        told.append((440, _SECTOR_BYTES - 440))
        if table.kind != "mbr":
            (_, reserved), copy = gpt_places(source, table)
            told += [(_SECTOR_BYTES, reserved - _SECTOR_BYTES), copy]
        told += _second_records(source, {one.offset for one in table.partitions})
        if any(one.type_guid == _HFS_PLUS for one in table.partitions):
            told.append((_SYSTEM_AREA_BYTES, max(volume.size_bytes - _SYSTEM_AREA_BYTES, 0)))
    return Layout(
        (*named, *_partitions(part)),
        tuple(told),
        (((0, _SYSTEM_AREA_BYTES), "in the system area, where boot code lies"),),
        "in a volume descriptor, the boot catalogue or a second tree",
    )


def _second_records(source: Source, offsets: set[int]) -> Iterator[Piece]:
    """Yield where descriptors and directories lie that a partition inside of an ISO begins with."""
    from local_imager.formats.iso import is_iso, read_iso

    for offset in sorted(offsets)[:4]:
        if 0 < offset < source.size_bytes:
            piece = Slice(source, offset, source.size_bytes - offset)
            try:
                inner = read_iso(piece).records if is_iso(piece) else ()
            except FormatError:
                continue
            yield from ((offset + at, length) for at, length in inner)


def _fat(source: Source) -> Layout:
    from local_imager.formats.fat import read_fat

    volume = read_fat(source)
    boot = source.read(0, _SECTOR_BYTES)
    at = 64 if volume.kind == "fat32" else 36
    size, info, backup = (int.from_bytes(boot[n : n + 2], "little") for n in (11, 48, 50))
    is_large = volume.kind == "fat32"
    # Names, state and serial number, and hints how many clusters are free.
    told = [
        (start + n, count)
        for start in {0, backup * size if is_large else 0}
        for n, count in ((3, 8), (at + 1, 1), (at + 3, 15))
    ]
    told += [(start + 488, 8) for start in (info * size, (backup + info) * size) if is_large]
    owned = volume.owned()
    data = sum(owned[0])
    end = data + volume.cluster_count * volume.cluster_bytes
    zones = (
        ((0, volume.tables[0][0]), "in the boot sectors"),
        ((data, end - data), "in free clusters or behind the end of a file"),
        ((end, max(source.size_bytes - end, 0)), "behind the file system"),
    )
    return Layout((), (*told, *owned), zones, "in what the table says of clusters that no file has")


def _program(source: Source) -> Layout:
    from local_imager.formats.pe import read_pe

    pe = read_pe(source)
    # The optional header has its checksum at 64; in front of it is the COFF header, with the time
    # at 4 and the length at 16 of its 20 bytes. Sizes are told as those of sections.
    optional = pe.checksum_offset - 64
    table = optional + int.from_bytes(source.read(optional - 4, 2), "little")
    told = [(optional - 16, 4), *((optional + at, 4) for at in (4, 8, 12, 56, 64))]
    told += [(table + 40 * number + 8, 16) for number in range(len(pe.sections))]
    if pe.security_offset:
        told.append((pe.security_offset, 8))
    named = [((one.offset, one.size_bytes), clean(one.name, _NAME_CHARS)) for one in pe.sections]
    if pe.table_bytes:
        named.append(((pe.table_offset, pe.table_bytes), "the signatures"))
    zones = (((0, pe.headers_bytes), "in the header"),)
    return Layout(tuple(named), tuple(told), zones, head_bytes=pe.headers_bytes)
