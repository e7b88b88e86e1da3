"""Makes ISO 9660 images for tests, sector by sector, also ones that no tool would write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

SECTOR: Final = 2048
ROOT: Final = 20
_DATE: Final = b"2026010203040500\0"
_TERMINATOR: Final = b"\xffCD001\x01"
ROCK_RIDGE: Final = b"SP\x07\x01\xbe\xef\x00"
REFERENCE: Final = b"ER\x12\x01\x0a\x00\x00\x01RRIP_1991A"


def both(number: int) -> bytes:
    """Return a number in both byte orders."""
    return struct.pack("<I", number) + struct.pack(">I", number)


def record(
    name: bytes, extent: int = 0, size: int = 0, *, flags: int = 0, use: bytes = b""
) -> bytes:
    """Return a directory record; ``use`` is its system use area."""
    fixed = both(extent) + both(size) + bytes([126, 1, 2, 3, 4, 5, 0, flags, 0, 0, 1, 0, 0, 1])
    body = fixed + bytes([len(name)]) + name + bytes(1 - len(name) % 2) + use
    body += bytes(len(body) % 2)
    return bytes([len(body) + 2, 0]) + body


def posix(mode: int) -> bytes:
    """Return a PX entry."""
    return b"PX\x24\x01" + both(mode) + both(1) + both(5) + both(6)


def continued(block: int, offset: int, length: int) -> bytes:
    """Return a CE entry."""
    return b"CE\x1c\x01" + both(block) + both(offset) + both(length)


def listing(extent: int, records: Sequence[bytes], *, use: bytes = b"") -> bytes:
    """Return the sectors of a directory with its first two records, none across a border."""
    sectors: list[bytes] = []
    size = 0
    for _ in range(2):  # the size is known when it was laid out once
        dots = [record(b"\0", extent, size, flags=2, use=use), record(b"\1", ROOT, 0, flags=2)]
        sectors, current = [], b""
        for one in (*dots, *records):
            if len(current) + len(one) > SECTOR:
                sectors.append(current)
                current = b""
            current += one
        sectors.append(current)
        size = len(sectors) * SECTOR
    return b"".join(sector.ljust(SECTOR, b"\0") for sector in sectors)


def descriptor(kind: int, root: int, size: int, *, blocks: int, name: bytes) -> bytearray:
    """Return a primary or supplementary volume descriptor."""
    data = bytearray(SECTOR)
    data[:7] = bytes([kind]) + b"CD001\x01"
    data[8:72] = b"LINUX".ljust(32) + name.ljust(32)
    data[80:88] = both(blocks)
    data[120:132] = struct.pack("<HHHHHH", 1, 256, 1, 256, SECTOR, 8)
    data[156:190] = record(b"\0", root, size, flags=2)
    data[190:813] = b" " * 623
    data[813:881] = _DATE * 4
    return data


def boot_record(sector: int) -> bytes:
    """Return the descriptor that points to a boot catalogue."""
    head = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(71, b"\0")
    return (head + struct.pack("<I", sector)).ljust(SECTOR, b"\0")


def catalog(*entries: bytes, platform: int = 0) -> bytes:
    """Return a boot catalogue: the validation entry with its checksum, then these entries."""
    head = bytearray(bytes([1, platform]) + bytes(28) + b"\x55\xaa")
    total = sum(struct.unpack("<16H", head))
    head[28:30] = struct.pack("<H", -total & 0xFFFF)
    return bytes(head) + b"".join(entries)


def boot_entry(extent: int, sectors: int, *, media: int = 0, indicator: int = 0x88) -> bytes:
    """Return an initial or section entry."""
    return struct.pack("<BBHBBHI", indicator, media, 0, 0, 0, sectors, extent).ljust(32, b"\0")


def boot_section(platform: int, count: int, *, last: bool = True) -> bytes:
    """Return a section header."""
    return struct.pack("<BBH", 0x91 if last else 0x90, platform, count).ljust(32, b"\0")


def make_iso(
    sectors: Mapping[int, bytes], *, root_bytes: int | None = None, extra: Sequence[bytes] = ()
) -> bytes:
    """Return an image of these sectors (from 20 on, the root at 20).

    ``extra`` are descriptors after the primary one, ``root_bytes`` what that claims of the root.
    """
    blocks = max(at + (len(data) + SECTOR - 1) // SECTOR for at, data in sectors.items())
    size = len(sectors[ROOT]) if root_bytes is None else root_bytes
    primary = descriptor(1, ROOT, size, blocks=blocks, name=b"TEST")
    image = bytearray(blocks * SECTOR)
    for number, data in enumerate((bytes(primary), *extra, _TERMINATOR)):
        image[(16 + number) * SECTOR : (16 + number) * SECTOR + len(data)] = data
    for at, data in sectors.items():
        image[at * SECTOR : at * SECTOR + len(data)] = data
    return bytes(image)
