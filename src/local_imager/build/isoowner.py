"""Makes an ISO independent of the user that its container ran as.

Where the imager calls xorrisofs itself (secure boot, arm64, the boot loader sd-boot; Talos
pkg/imager/iso/uefi.go) every file gets the owner of the imager's temporary files. The factory runs
as root, and grub-mkrescue writes root too, so that is what is written here: user and group 0 in the
Rock Ridge entries, in place; no length, no other byte and no checksum depends on them.
Formats: ECMA-119 9.1 (directory records); SUSP 1.12 5.1 (CE); Rock Ridge 1.12 4.1.1 (PX).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from local_imager.build.initramfs import NotNormalisable
from local_imager.formats.entries import Entry
from local_imager.formats.iso import read_iso
from local_imager.formats.source import FileSource, FormatError, Slice

_SECTOR: Final = 2048
_PRIMARY: Final = 16 * _SECTOR
_ROOT_AT: Final = 156
_MAGIC: Final = b"\x01CD001"
# With ``-partition_offset 16`` there is a second tree over the same files, for who mounts the
# first partition; its block numbers count from there.
_BASES: Final = (0, 16 * _SECTOR)
_DIRECTORY: Final = 2
_MAX_RECORDS: Final = 200_000
_MAX_AREAS: Final = 32
# libisofs can put sums over the whole image into it; xorrisofs does not unless asked.
_SUMS: Final = b"libisofs_checksum_tag"
# In a PX entry: user and group, each in both byte orders.
_OWNER_AT: Final = 20
_OWNER_BYTES: Final = 16


def fix_iso_owner(path: Path) -> int:
    """Set user and group of every file of an ISO to 0; returns how many entries were changed.

    Raises :class:`NotNormalisable` for an image that is laid out otherwise; then it is as it was.
    """
    try:
        before = _entries(path)
        if all(not entry.uid and not entry.gid for tree in before for entry in tree):
            return 0
        wanted = [[replace(entry, uid=0, gid=0) for entry in tree] for tree in before]
        with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as image:
            if image.find(_SUMS) >= 0:
                raise NotNormalisable("the ISO has sums over its own bytes")
            were = {
                place: image[place : place + _OWNER_BYTES]
                for base in _BASES[: len(before)]
                for place in _owners(image, base)
            }
            for place in were:
                image[place : place + _OWNER_BYTES] = bytes(_OWNER_BYTES)
            image.flush()
            if _entries(path) != wanted:
                for place, data in were.items():
                    image[place : place + _OWNER_BYTES] = data
                raise NotNormalisable("the ISO reads otherwise than with its owners alone changed")
    except (FormatError, struct.error, IndexError) as error:
        raise NotNormalisable(f"the ISO cannot be read: {error}") from error
    return sum(any(data) for data in were.values())


def _entries(path: Path) -> list[list[Entry]]:
    """Return the entries of the tree, and of the second one where there is one."""
    found: list[list[Entry]] = []
    with FileSource(path) as source:
        for base in _BASES:
            at = base + _PRIMARY
            if found and (at + _SECTOR > source.size_bytes or source.read(at, 6) != _MAGIC):
                break
            found.append(list(read_iso(Slice(source, base, source.size_bytes - base)).entries))
    return found


def _owners(image: mmap.mmap, base: int) -> Iterator[int]:
    """Yield where user and group stand, for every entry of the tree that counts from ``base``."""
    if image[base + _PRIMARY : base + _PRIMARY + 6] != _MAGIC:
        raise NotNormalisable("the ISO has no primary volume descriptor")
    waiting = [_extent(image, base + _PRIMARY + _ROOT_AT, base)]
    seen: set[int] = set()
    count = 0
    while waiting:
        begin, length = waiting.pop()
        if begin in seen:
            continue
        seen.add(begin)
        for record in _records(image, begin, length):
            count += 1
            if count > _MAX_RECORDS:
                raise NotNormalisable("the ISO has more entries than any of the imager's")
            if image[record + 25] & _DIRECTORY:
                waiting.append(_extent(image, record, base))
            yield from _rock_ridge(image, record, base)


def _extent(image: mmap.mmap, record: int, base: int) -> tuple[int, int]:
    (block,) = struct.unpack_from("<I", image, record + 2)
    (length,) = struct.unpack_from("<I", image, record + 10)
    begin = base + block * _SECTOR
    if begin + length > len(image):
        raise NotNormalisable("a directory of the ISO lies outside of it")
    return begin, length


def _records(image: mmap.mmap, begin: int, length: int) -> Iterator[int]:
    offset = begin
    while offset < begin + length:
        size = image[offset]
        if size == 0:  # records do not cross sectors
            offset = (offset // _SECTOR + 1) * _SECTOR
            continue
        if size < 34 or offset + size > begin + length:
            raise NotNormalisable("a directory record of the ISO is damaged")
        yield offset
        offset += size


def _rock_ridge(image: mmap.mmap, record: int, base: int) -> Iterator[int]:
    """Yield the owners in the PX entries of a record, in its own area and in continuations."""
    name = image[record + 32]
    begin = record + 33 + name + (1 - name % 2)
    areas = [(begin, record + image[record])]
    for _ in range(_MAX_AREAS):
        if not areas:
            return
        offset, end = areas.pop()
        while offset + 4 <= end:
            kind, size = image[offset : offset + 2], image[offset + 2]
            if size < 4 or offset + size > end:
                break
            if kind == b"PX" and size >= _OWNER_AT + _OWNER_BYTES:
                yield offset + _OWNER_AT
            elif kind == b"CE" and size >= 28:
                block, _, skip, _, more, _ = struct.unpack_from("<IIIIII", image, offset + 4)
                start = base + block * _SECTOR + skip
                areas.append((start, start + more))
            elif kind == b"ST":
                break
            offset += size
    raise NotNormalisable("an entry of the ISO goes on too often")
