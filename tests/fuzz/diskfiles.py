"""Harnesses for disks: partition tables, volumes, META, and disks in containers.

Disks are large and mostly empty, so an input is a list of pieces: the size in eight bytes, then
for each piece its offset in eight bytes, its length in two, and its bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Final

from local_imager.formats.entries import Volume
from local_imager.formats.fat import read_fat
from local_imager.formats.gpt import read_partitions
from local_imager.formats.mapped import DiskView
from local_imager.formats.meta import read_meta
from local_imager.formats.qcow2 import open_qcow2
from local_imager.formats.source import Slice, Source
from local_imager.formats.vhd import open_vhd
from local_imager.formats.vmdk import open_vmdk
from local_imager.formats.xfs import read_xfs
from tests.diskfiles import Sparse
from tests.fuzz.driver import Fault, Harness

_PIECE: Final = struct.Struct("<QH")
_MAX_PIECES: Final = 1000
# The content of every file is for the tests of reading; here it is asked for at both ends.
_LOOKED_AT_BYTES: Final = 100_000
_LOOKED_AT: Final = 40
_COPY_BYTES: Final = 256 * 1024


def packed(source: Sparse) -> bytes:
    """Return a disk as an input of these harnesses."""
    pieces = [(at, data) for offset, whole in source.pieces for at, data in _split(offset, whole)]
    body = b"".join(_PIECE.pack(at, len(data)) + data for at, data in pieces)
    return struct.pack("<Q", source.size_bytes) + body


def _split(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a piece that are not zeros, in steps of 32 bytes."""
    begin, step = -1, 32
    for at in range(0, len(data) + step, step):
        part = data[at : at + step]
        if part.strip(b"\0") and (begin < 0 or at - begin < 0x8000):
            begin = at if begin < 0 else begin
            continue
        if begin >= 0:
            yield offset + begin, data[begin:at].rstrip(b"\0")
        begin = at if part.strip(b"\0") else -1


def disk_of(data: bytes) -> Sparse:
    """Return the disk that an input means; whatever the bytes, it means one."""
    size = struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0] & ((1 << 42) - 1)
    pieces: list[tuple[int, bytes]] = []
    at = 8
    while at + _PIECE.size <= len(data) and len(pieces) < _MAX_PIECES:
        offset, length = _PIECE.unpack_from(data, at)
        at += _PIECE.size
        pieces.append((offset & ((1 << 42) - 1), data[at : at + length]))
        at += length
    return Sparse(size, pieces)


def with_piece(disk: Sparse, offset: int, data: bytes) -> Sparse:
    """Return the disk with other bytes in one place, which no piece overlaps then."""
    end = offset + len(data)
    kept = [(offset, data)]
    for at, piece in disk.pieces:
        kept.append((at, piece[: max(offset - at, 0)]))
        if at + len(piece) > end:
            kept.append((max(at, end), piece[max(end - at, 0) :]))
    return Sparse(disk.size_bytes, [(at, piece) for at, piece in kept if piece])


def check_source(source: Source) -> None:
    """Check that runs are in order and inside, and that what lies between them is zeros."""
    behind, looked = 0, 0
    for start, count in source.data_runs(0, source.size_bytes):
        if not behind <= start < start + count <= source.size_bytes:
            raise Fault("data runs are out of order or outside")
        gap = min(start - behind, 4096)
        if looked < _LOOKED_AT and source.read(behind, gap).strip(b"\0"):
            raise Fault("a hole has data")
        behind, looked = start + count, looked + 1
    for offset in (0, max(source.size_bytes - _LOOKED_AT_BYTES, 0)):
        length = min(_LOOKED_AT_BYTES, source.size_bytes - offset)
        if len(source.read(offset, length)) != length:
            raise Fault("a read gave too little")


def check_volume(volume: Volume) -> None:
    """Check every path, and read in some files."""
    seen: set[str] = set()
    for entry in volume.entries:
        parent = entry.path.rpartition("/")[0]
        if entry.path in seen or (parent and parent not in seen):
            raise Fault("a path comes twice, or before its parent")
        if any(part in ("", ".", "..") for part in entry.path.split("/")):
            raise Fault("a path leaves its folder")
        seen.add(entry.path)
    for entry in [entry for entry in volume.entries if entry.kind == "file"][:_LOOKED_AT]:
        source = volume.open(entry)
        if source.size_bytes != entry.size_bytes:
            raise Fault("a file has another size than its entry says")
        check_source(source)


def gpt(data: bytes) -> None:
    """A partition table whose checksums are right, as an attacker would make them."""
    disk = disk_of(data)
    for sector_bytes in (512, 4096):
        for sector in (1, disk.size_bytes // sector_bytes - 1):
            disk = _mended_gpt(disk, sector * sector_bytes, sector_bytes)
    table = read_partitions(disk)
    for partition in (*table.partitions, *table.mbr):
        Slice(disk, partition.offset, partition.size_bytes)


def _mended_gpt(disk: Sparse, at: int, sector_bytes: int) -> Sparse:
    if at <= 0 or at + 512 > disk.size_bytes or disk.read(at, 8) != b"EFI PART":
        return disk
    header = bytearray(disk.read(at, 92))
    entries_at, count, size = struct.unpack_from("<QII", header, 72)
    length = count * size
    if length < 1 << 18 and entries_at * sector_bytes + length <= disk.size_bytes:
        entries = disk.read(entries_at * sector_bytes, length)
        struct.pack_into("<I", header, 88, binascii.crc32(entries))
    header[16:20] = bytes(4)
    struct.pack_into("<I", header, 16, binascii.crc32(header))
    return with_piece(disk, at, bytes(header))


def meta(data: bytes) -> None:
    """A META partition whose checksums are right."""
    disk = disk_of(data)
    for at in (0, _COPY_BYTES):
        if at + _COPY_BYTES <= disk.size_bytes:
            raw = disk.read(at, _COPY_BYTES)
            digest = hashlib.sha256(raw[:-36] + bytes(32) + raw[-4:]).digest()
            if raw.strip(b"\0"):
                disk = with_piece(disk, at + _COPY_BYTES - 36, digest)
    values = read_meta(disk)
    if sum(len(value) for value in values.values()) > _COPY_BYTES:
        raise Fault("META holds more than it has room for")


def fat(data: bytes) -> None:
    """A FAT volume."""
    check_volume(read_fat(disk_of(data)))


def xfs(data: bytes) -> None:
    """An XFS volume."""
    check_volume(read_xfs(disk_of(data)))


def container(opened: Callable[[Source], DiskView]) -> Callable[[bytes], None]:
    """Return the harness for a container of a disk."""

    def attack(data: bytes) -> None:
        check_source(opened(_mended_vhd(disk_of(data))).source)

    return attack


def _mended_vhd(disk: Sparse) -> Sparse:
    for at, cookie, length, field in (
        (disk.size_bytes - 512, b"conectix", 512, 64),
        (512, b"cxsparse", 1024, 36),
    ):
        if at >= 0 and at + length <= disk.size_bytes and disk.read(at, 8) == cookie:
            raw = disk.read(at, length)
            total = ~(sum(raw) - sum(raw[field : field + 4])) & 0xFFFFFFFF
            disk = with_piece(disk, at + field, struct.pack(">I", total))
    return disk


HARNESSES: Final = (
    Harness("gpt", gpt),
    Harness("meta", meta, 8192),
    Harness("fat", fat),
    Harness("xfs", xfs),
    Harness("qcow2", container(open_qcow2)),
    Harness("vhd", container(open_vhd), 8192),
    Harness("vmdk", container(open_vmdk)),
)
