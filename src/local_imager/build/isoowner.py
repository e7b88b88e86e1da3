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
from local_imager.formats.source import FileSource, FormatError

_SECTOR: Final = 2048
_PRIMARY: Final = 16 * _SECTOR
_ROOT_AT: Final = 156
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
        if all(not entry.uid and not entry.gid for entry in before):
            return 0
        wanted = [replace(entry, uid=0, gid=0) for entry in before]
        with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as image:
            if image.find(_SUMS) >= 0:
                raise NotNormalisable("the ISO has sums over its own bytes")
            were = {place: image[place : place + _OWNER_BYTES] for place in _owners(image)}
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


def _entries(path: Path) -> list[Entry]:
    with FileSource(path) as source:
        return list(read_iso(source).entries)


def _owners(image: mmap.mmap) -> Iterator[int]:
    """Yield where user and group stand, for every entry of the primary tree."""
    if image[_PRIMARY : _PRIMARY + 6] != b"\x01CD001":
        raise NotNormalisable("the ISO has no primary volume descriptor")
    waiting = [_extent(image, _PRIMARY + _ROOT_AT)]
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
                waiting.append(_extent(image, record))
            yield from _rock_ridge(image, record)


def _extent(image: mmap.mmap, record: int) -> tuple[int, int]:
    (block,) = struct.unpack_from("<I", image, record + 2)
    (length,) = struct.unpack_from("<I", image, record + 10)
    if (block * _SECTOR) + length > len(image):
        raise NotNormalisable("a directory of the ISO lies outside of it")
    return block * _SECTOR, length


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


def _rock_ridge(image: mmap.mmap, record: int) -> Iterator[int]:
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
                areas.append((block * _SECTOR + skip, block * _SECTOR + skip + more))
            elif kind == b"ST":
                break
            offset += size
    raise NotNormalisable("an entry of the ISO goes on too often")
