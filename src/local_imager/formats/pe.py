"""PE files: UEFI programs, kernels with an EFI stub, unified kernel images.

An own small reader: pefile counts every byte that it is given, and given only the headers it takes
sections for damaged and drops them as soon as the image spans 256 MB of memory, which one with a
large initrd does. Sections are told by position; only :func:`authentihash` reads what is in them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.events import printable
from local_imager.formats.source import FormatError, Joined, Slice, Source, stream

# The loader of Windows takes 96; a unified kernel image with a device tree per board has more.
MAX_SECTIONS: Final = 512
_MAX_HEADER_OFFSET: Final = 64 * 1024
MAX_CERTIFICATES: Final = 16
MAX_CERTIFICATE_TABLE_BYTES: Final = 1 << 20
PKCS7_CERTIFICATE: Final = 2

_FILE_HEADER_BYTES: Final = 24  # "PE\0\0" and the COFF header
_SECTION_BYTES: Final = 40
# Name, virtual size, address, raw size, position, (relocations, line numbers), characteristics.
_SECTION: Final = struct.Struct("<8sIIII12xI")
# Of the optional header, for PE32 and PE32+: where the data directories begin.
_DIRECTORIES_AT: Final = {0x10B: 96, 0x20B: 112}
_CHECKSUM_AT: Final = 64
_SECURITY_DIRECTORY: Final = 4
_ALIGNMENT: Final = 8

# https://uefi.org/specs/PE (machine types), those that a boot file may be for.
_MACHINES: Final = {
    0x8664: "amd64",
    0xAA64: "arm64",
    0x014C: "386",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x5064: "riscv64",
    0x6264: "loong64",
    0x0EBC: "ebc",
}
_SUBSYSTEMS: Final = {
    1: "native",
    2: "windows-gui",
    3: "windows-console",
    10: "efi-application",
    11: "efi-boot-service-driver",
    12: "efi-runtime-driver",
    13: "efi-rom",
}


@dataclass(frozen=True, slots=True)
class PeSection:
    """One section: ``size_bytes`` of content at ``offset``, padded to ``raw_size_bytes`` there.

    ``address`` is where it lies in memory, relative to the image's base.
    """

    name: str
    offset: int
    size_bytes: int
    raw_size_bytes: int
    virtual_size_bytes: int
    address: int
    characteristics: int


@dataclass(frozen=True, slots=True)
class PeCertificate:
    """One entry of the certificate table; ``offset`` and ``size_bytes`` are those of its content.

    ``kind`` is the number of the specification; 2 is a PKCS#7 structure (Authenticode).
    """

    offset: int
    size_bytes: int
    kind: int


@dataclass(frozen=True, slots=True)
class PeFile:
    """What the headers say. ``timestamp`` is seconds since 1970 or any number in its place.

    ``checksum_offset`` and ``security_offset`` are the fields that a signature leaves out;
    ``table_offset`` and ``table_bytes`` are the certificate table (0 when unsigned).
    """

    machine: str
    subsystem: str
    timestamp: int
    checksum: int
    image_base: int
    entry_point: int
    headers_bytes: int
    sections: tuple[PeSection, ...]
    certificates: tuple[PeCertificate, ...]
    checksum_offset: int
    security_offset: int
    table_offset: int
    table_bytes: int

    def section(self, name: str) -> PeSection | None:
        """Return the first section with this name, or None."""
        return next((section for section in self.sections if section.name == name), None)


def read_pe(source: Source) -> PeFile:
    """Read headers, section table and certificate table.

    Layout as in https://learn.microsoft.com/windows/win32/debug/pe-format. Raises
    :class:`FormatError` for what is not a PE image, too many sections, and for sections or
    certificates that lie outside of the file.
    """
    head, optional_at, count = _head(source)
    optional_bytes = _u16(head, optional_at - 4)
    directories = _DIRECTORIES_AT.get(_u16(head, optional_at) if optional_bytes else 0)
    if directories is None:
        raise FormatError("the PE file has an optional header that is neither PE32 nor PE32+")
    if optional_bytes < directories:
        raise FormatError("the PE file's optional header is cut off")
    optional = head[optional_at : optional_at + optional_bytes]
    security_offset, table = 0, (0, 0)
    if _u32(optional, directories - 4) > _SECURITY_DIRECTORY:
        at = directories + 8 * _SECURITY_DIRECTORY
        if at + 8 > optional_bytes:
            raise FormatError("the PE file's optional header is shorter than its directories")
        security_offset, table = optional_at + at, (_u32(optional, at), _u32(optional, at + 4))
    machine, subsystem = _u16(head, optional_at - 20), _u16(optional, 68)
    sections = _sections(head[optional_at + optional_bytes :], count, source.size_bytes)
    return PeFile(
        machine=_MACHINES.get(machine, f"0x{machine:04x}"),
        subsystem=_SUBSYSTEMS.get(subsystem, str(subsystem)),
        timestamp=_u32(head, optional_at - 16),
        checksum=_u32(optional, _CHECKSUM_AT),
        image_base=_image_base(optional),
        entry_point=_u32(optional, 16),
        headers_bytes=_u32(optional, 60),
        sections=tuple(sections),
        certificates=tuple(_certificates(source, *table)),
        checksum_offset=optional_at + _CHECKSUM_AT,
        security_offset=security_offset,
        table_offset=table[0] if table[1] else 0,
        table_bytes=table[1],
    )


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _image_base(optional: bytes) -> int:
    wide = _u16(optional, 0) == 0x20B
    return int.from_bytes(optional[24:32], "little") if wide else _u32(optional, 28)


def _head(source: Source) -> tuple[bytes, int, int]:
    """Return all headers, where the optional one begins in them, and the number of sections."""
    dos = source.read(0, 64)
    at = _u32(dos, 60)
    if dos[:2] != b"MZ" or at > _MAX_HEADER_OFFSET:
        raise FormatError("this is no PE file")
    coff = source.read(at, _FILE_HEADER_BYTES)
    if coff[:4] != b"PE\0\0":
        raise FormatError("this is no PE file")
    count, optional_bytes = _u16(coff, 6), _u16(coff, 20)
    if count > MAX_SECTIONS:
        raise FormatError(f"the PE file claims {count} sections")
    length = at + _FILE_HEADER_BYTES + optional_bytes + count * _SECTION_BYTES
    return source.read(0, length), at + _FILE_HEADER_BYTES, count


def _sections(table: bytes, count: int, size_bytes: int) -> Iterator[PeSection]:
    for number in range(count):
        header = table[number * _SECTION_BYTES : (number + 1) * _SECTION_BYTES]
        fields = _SECTION.unpack_from(header)
        encoded, virtual, address, raw, position, characteristics = fields
        offset = position if raw else 0
        if offset + raw > size_bytes:
            raise FormatError(
                f"a section of the PE file ends at byte {offset + raw}, the file at {size_bytes}"
            )
        # What is padding to the file's alignment, the loader does not see.
        size = min(raw, virtual) if virtual else raw
        name = printable(encoded.rstrip(b"\0").decode("utf-8", "replace"))
        yield PeSection(name, offset, size, raw, virtual, address, characteristics)


def _certificates(source: Source, offset: int, length: int) -> Iterator[PeCertificate]:
    """Yield the entries of the certificate table (``WIN_CERTIFICATE``, 8-byte aligned)."""
    if length == 0:
        return
    end = offset + length
    if end > source.size_bytes or length > MAX_CERTIFICATE_TABLE_BYTES:
        raise FormatError("the certificate table of the PE file lies outside or is too large")
    for _ in range(MAX_CERTIFICATES):
        if offset + 8 > end:
            return
        header = source.read(offset, 8)
        size = _u32(header, 0)
        if not 8 <= size <= end - offset:
            raise FormatError("an entry of the PE file's certificate table has a wrong length")
        yield PeCertificate(offset + 8, size - 8, _u16(header, 6))
        offset += size + -size % _ALIGNMENT
    raise FormatError(f"the PE file has more than {MAX_CERTIFICATES} signatures")


def section_source(source: Source, section: PeSection) -> Source:
    """Return a section's content without the padding behind it."""
    return Slice(source, section.offset, section.size_bytes)


def authentihash(source: Source, pe: PeFile, algorithm: str = "sha256") -> str:
    """Return the hash (hex) that an Authenticode signature carries.

    As in "Windows Authenticode Portable Executable Signature Format" (2008), "Calculating the PE
    image hash": headers without the checksum and the certificate table's entry, sections in the
    order of the file, then what lies behind them without the certificate table. A file without
    signature is hashed as it would be signed: padded with zeros to eight bytes.
    """
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    for piece in _hashed_pieces(source, pe):
        for chunk in stream(piece):
            hasher.update(chunk)
    return hasher.hexdigest()


def _hashed_pieces(source: Source, pe: PeFile) -> Iterator[Source]:
    end = pe.headers_bytes
    if not pe.checksum_offset + 4 <= end <= source.size_bytes:
        raise FormatError("the PE file's headers have a size that cannot be")
    yield Slice(source, 0, pe.checksum_offset)
    at = pe.checksum_offset + 4
    if pe.security_offset:
        if pe.security_offset + 8 > end:
            raise FormatError("the PE file's headers have a size that cannot be")
        yield Slice(source, at, pe.security_offset - at)
        at = pe.security_offset + 8
    yield Slice(source, at, end - at)
    hashed = end
    for section in sorted(pe.sections, key=lambda one: one.offset):
        if section.raw_size_bytes:
            yield Slice(source, section.offset, section.raw_size_bytes)
            hashed += section.raw_size_bytes
    if hashed > source.size_bytes - pe.table_bytes:
        # Sections that overlap could make a small file cost as much time as a large one.
        raise FormatError("the sections of the PE file overlap")
    rest = source.size_bytes - pe.table_bytes - hashed
    yield Slice(source, hashed, rest)
    if not pe.table_bytes:
        yield Joined([(None, 0, -source.size_bytes % _ALIGNMENT)])
