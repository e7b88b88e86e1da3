"""Disks and volumes for tests: made with the real programs, or by hand where these cannot."""

from __future__ import annotations

import binascii
import hashlib
import os
import struct
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from local_imager.formats.source import BytesSource, Joined, Source, checked

_ENV: Final = {
    **os.environ,
    "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
    "TZ": "UTC",
    "MTOOLS_SKIP_CHECK": "1",
}
GPT_ENTRIES: Final = 128
LINUX: Final = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def tool(*argv: str | Path) -> str:
    """Run a program and return what it says; the test fails when the program does."""
    done = subprocess.run(
        [str(part) for part in argv], env=_ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def empty_file(path: Path, size_bytes: int) -> Path:
    """Make a file of one hole."""
    with path.open("wb") as stream:
        stream.truncate(size_bytes)
    return path


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Return bytes with others in their place."""
    return data[:offset] + new + data[offset + len(new) :]


class Sparse:
    """A source of a few pieces with zeros between them, however large."""

    def __init__(self, size_bytes: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        self.pieces = sorted(pieces)
        self.size_bytes = size_bytes
        at, parts = 0, list[tuple[Source | None, int, int]]()
        for offset, data in self.pieces:
            kept = data[max(at - offset, 0) : max(size_bytes - offset, 0)]
            offset = max(offset, at)
            if kept and offset < size_bytes:
                parts += [(None, 0, offset - at), (BytesSource(kept), 0, len(kept))]
                at = offset + len(kept)
        self._joined = Joined([*parts, (None, 0, size_bytes - at)])

    def read(self, offset: int, length: int) -> bytes:
        """See Source.read."""
        checked(self, offset, length)
        return self._joined.read(offset, length)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See Source.data_runs."""
        return self._joined.data_runs(offset, length)


def gpt_header(
    own: int, other: int, entries_at: int, entries: bytes, sectors: int, *, guid: str, count: int
) -> bytes:
    """Return one copy's header with the checksums that it needs."""
    fields = (own, other, 34, sectors - 34, uuid.UUID(guid).bytes_le, entries_at, count)
    tail = struct.pack("<QQQQ16sQII", *fields, 128) + struct.pack("<I", binascii.crc32(entries))
    head = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, 0, 0)
    checksum = binascii.crc32(head + tail)
    return struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, checksum, 0) + tail


def gpt_entry(first: int, last: int, name: str, *, kind: str = LINUX, attributes: int = 0) -> bytes:
    """Return one entry; its GUID comes from its name."""
    own = hashlib.md5(name.encode(), usedforsecurity=False).digest()
    encoded = name.encode("utf-16-le")
    return struct.pack(
        "<16s16sQQQ72s", uuid.UUID(kind).bytes_le, own, first, last, attributes, encoded
    )


def gpt_disk(sectors: int, entries: list[bytes], *, sector_bytes: int = 512) -> bytes:
    """Return a disk with a protective MBR and both copies of a GPT, and no content."""
    table = b"".join(entries).ljust(GPT_ENTRIES * 128, b"\0")
    held = -(-len(table) // sector_bytes)
    guid = "11111111-2222-3333-4444-555555555555"
    disk = bytearray(sectors * sector_bytes)
    disk[446:512] = mbr_entries([(0, 0xEE, 1, min(sectors - 1, 0xFFFFFFFF))])
    for own, other, at in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - held)):
        header = gpt_header(own, other, at, table, sectors, guid=guid, count=GPT_ENTRIES)
        disk[own * sector_bytes : own * sector_bytes + len(header)] = header
        disk[at * sector_bytes : at * sector_bytes + len(table)] = table
    return bytes(disk)


def mbr_entries(entries: list[tuple[int, int, int, int]]) -> bytes:
    """Return the last 66 bytes of an MBR; entries are (flag, type, first sector, sectors)."""
    packed = b"".join(
        struct.pack("<B3sB3sII", flag, b"", kind, b"", first, count)
        for flag, kind, first, count in entries
    )
    return packed.ljust(64, b"\0") + b"\x55\xaa"


def meta_copy(values: Iterable[tuple[int, bytes]]) -> bytes:
    """Return one copy of META; see Talos' internal/pkg/meta/internal/adv/talos/talos.go."""
    body = b"".join(struct.pack(">II", key, len(value)) + value for key, value in values)
    front = (bytes.fromhex("5a4b3c2d") + body).ljust(256 * 1024 - 36, b"\0")
    end = bytes.fromhex("a5b4c3d2")
    return front + hashlib.sha256(front + bytes(32) + end).digest() + end


def meta_syslinux(values: Iterable[tuple[int, bytes]]) -> bytes:
    """Return one copy of the older vector; see adv/syslinux/syslinux.go."""
    body = b"".join(bytes((key, len(value))) + value for key, value in values).ljust(500, b"\0")
    total = (0xA3041767 - sum(struct.unpack("<125I", body))) & 0xFFFFFFFF
    return struct.pack("<II", 0x5A2D2FA5, total) + body + struct.pack("<I", 0xDD28BF64)


def small_fat32(files: Mapping[str, bytes], clusters: int = 2000) -> bytes:
    """Return a FAT32 volume with clusters of 512 bytes, fewer than Debian's mtools accept.

    Names are short and upper case; paths may have directories. Clusters are given out in the
    order of the files.
    """
    table_sectors = -(-(clusters + 2) * 4 // 512)
    data_at = (1 + table_sectors) * 512
    volume = bytearray(data_at + clusters * 512)
    volume[:36] = struct.pack(
        "<3s8sHBHBHHBHHHII", b"\xeb\x58\x90", b"mkfs.fat", 512, 1, 1, 1, 0, 0, 0xF8, 0, 32, 8, 0,
        len(volume) // 512,
    )  # fmt: skip
    volume[36:48] = struct.pack("<IHHI", table_sectors, 0, 0, 2)
    volume[64:90] = struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0x1234ABCD, b"EFI", b"FAT32   ")
    volume[510:512] = b"\x55\xaa"
    free = iter(range(2, clusters + 2))

    def store(data: bytes) -> int:
        chain = [next(free) for _ in range(max(-(-len(data) // 512), 1))]
        for number, (cluster, after) in enumerate(
            zip(chain, [*chain[1:], 0x0FFFFFFF], strict=True)
        ):
            struct.pack_into("<I", volume, 512 + 4 * cluster, after)
            at = data_at + (cluster - 2) * 512
            part = data[number * 512 : number * 512 + 512]
            volume[at : at + len(part)] = part
        return chain[0]

    def record(name: str, attributes: int, cluster: int, size: int) -> bytes:
        stem, _, extension = name.partition(".")
        short = stem.ljust(8).encode() + extension.ljust(3).encode()
        stamp = struct.pack("<BBHHHHHHHI", 0, 0, 0, 0, 0, cluster >> 16, 0, 0x4EC1, cluster, size)
        return short + bytes((attributes,)) + stamp

    root = store(bytes(512))
    folders: dict[str, list[bytes]] = {"": []}
    for path, data in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, [])
        folders[folder].append(record(name, 0x20, store(data) if data else 0, len(data)))
    for folder in sorted(folders, key=lambda name: -name.count("/") - bool(name)):
        if folder:
            above, _, name = folder.rpartition("/")
            held = b"".join(folders[folder])
            folders.setdefault(above, []).append(record(name, 0x10, store(held), 0))
    names = b"".join(folders[""])
    at = data_at + (root - 2) * 512
    volume[at : at + len(names)] = names
    return bytes(volume)
