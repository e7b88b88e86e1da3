"""The boot catalogue of an ISO image ("El Torito", version 1.0 of 1995; UEFI 2.10, 13.3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.events import printable
from local_imager.formats.source import FormatError, Source

_ENTRY: Final = 32
# A real catalogue has two or three; 64 fill one sector.
MAX_BOOT_ENTRIES: Final = 64
_PLATFORMS: Final = {0x00: "bios", 0x01: "powerpc", 0x02: "mac", 0xEF: "uefi"}
_EMULATIONS: Final = {
    0: ("none", 0),
    1: ("floppy 1.2M", 1200 * 1024),
    2: ("floppy 1.44M", 1440 * 1024),
    3: ("floppy 2.88M", 2880 * 1024),
    4: ("hard disk", 0),
}
_VIRTUAL_SECTOR: Final = 512
_SECTOR: Final = 2048
_BOOTABLE, _HEADER, _LAST_HEADER, _EXTENSION = 0x88, 0x90, 0x91, 0x44


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One way to boot: ``platform`` is ``bios``, ``uefi``, ``powerpc``, ``mac`` or a number.

    The image begins at ``offset``. ``load_sectors`` of 512 bytes are loaded first, which for BIOS
    is only its beginning. ``stated_bytes`` is the length that follows from the catalogue, 0 when
    it says nothing: then the image goes to the end of the partition or volume. ``at`` is where the
    entry itself stands.
    """

    platform: str
    is_bootable: bool
    emulation: str
    load_segment: int
    load_sectors: int
    offset: int
    stated_bytes: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class BootCatalog:
    """All entries in order; ``offset`` is where the catalogue lies (0: there is none to be read).

    ``fault`` says in a sentence what is wrong with it, and so why entries may be missing; empty
    for a sound one.
    """

    offset: int = 0
    maker: str = ""
    entries: tuple[BootEntry, ...] = ()
    fault: str = ""


def read_boot_catalog(source: Source, offset: int) -> BootCatalog:
    """Read the catalogue as far as it goes; never raises for what is damaged in it.

    A wrong checksum keeps no entry from being read, though firmware may refuse the catalogue for
    it, as EDK II does (``PartitionDxe/ElTorito.c``).
    """
    try:
        validation = source.read(offset, _ENTRY)
    except FormatError:
        return BootCatalog(fault=f"the boot catalogue lies at byte {offset}, behind the image")
    if validation[0] != 1 or validation[30:32] != b"\x55\xaa":
        return BootCatalog(offset, fault="the boot catalogue is damaged: it does not begin as one")
    fault = ""
    words = [int.from_bytes(validation[at : at + 2], "little") for at in range(0, _ENTRY, 2)]
    if sum(words) & 0xFFFF:
        fault = (
            "the boot catalogue is damaged: its checksum is wrong, for which firmware may refuse it"
        )
    entries = []
    try:
        for entry in _entries(source, offset, validation[1]):
            entries.append(entry)
    except FormatError as error:
        fault = f"the boot catalogue is damaged: {error.message}"
    maker = printable(validation[4:28].decode("ascii", "replace").rstrip("\0 "))
    return BootCatalog(offset, maker, tuple(entries), fault)


def _entries(source: Source, offset: int, platform: int) -> Iterator[BootEntry]:
    """Yield the initial entry, then those of each section."""
    at = offset + _ENTRY
    yield _entry(source, at, platform)
    found, is_last = 1, False
    while not is_last:
        at += _ENTRY
        if at + _ENTRY > source.size_bytes:
            return
        header = source.read(at, _ENTRY)
        if header[0] not in (_HEADER, _LAST_HEADER):
            return
        is_last = header[0] == _LAST_HEADER
        found += 1  # sections without entries could follow each other for ever
        _check_count(found)
        for _ in range(int.from_bytes(header[2:4], "little")):
            found += 1
            at += _ENTRY
            _check_count(found)
            yield _entry(source, at, header[1])
            at = _skip_extensions(source, at)


def _check_count(found: int) -> None:
    if found > MAX_BOOT_ENTRIES:
        raise FormatError(f"it has more than {MAX_BOOT_ENTRIES} boot entries and sections")


def _skip_extensions(source: Source, at: int) -> int:
    """Return where the last extension record of an entry lies, or the entry itself."""
    for _ in range(MAX_BOOT_ENTRIES):
        if at + 2 * _ENTRY > source.size_bytes or source.read(at + _ENTRY, 1)[0] != _EXTENSION:
            return at
        at += _ENTRY
    raise FormatError("an entry of it is continued too often")


def _entry(source: Source, at: int, platform: int) -> BootEntry:
    data = source.read(at, _ENTRY)
    emulation, floppy_bytes = _EMULATIONS.get(data[1] & 0x0F, (f"0x{data[1]:02x}", 0))
    sectors = int.from_bytes(data[6:8], "little")
    # UEFI 2.10, 13.3.2.1: 0 and 1 mean "to the end"; BIOS entries load a part of their image.
    said = sectors * _VIRTUAL_SECTOR if sectors > 1 else 0
    return BootEntry(
        platform=_PLATFORMS.get(platform, f"0x{platform:02x}"),
        is_bootable=data[0] == _BOOTABLE,
        emulation=emulation,
        load_segment=int.from_bytes(data[2:4], "little"),
        load_sectors=sectors,
        offset=int.from_bytes(data[8:12], "little") * _SECTOR,
        stated_bytes=floppy_bytes or said,
        at=at,
    )
