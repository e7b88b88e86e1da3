"""Where the catalogue of an HFS+ volume says that files lie (Apple's Technical Note TN1150).

xorriso writes the tree of an ISO a second time like that, over the same bytes of files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from local_imager.formats.source import FormatError, Source

_HEADER_AT: Final = 1024
_SIGNATURES: Final = (b"H+", b"HX")
_BLOCK_SIZE_AT: Final = 40
_CATALOG_AT: Final = 272
_FORK: Final = struct.Struct(">QII")
_LEAF: Final = 0xFF
_FILE: Final = 2
# In the record of a file: the fork of its data.
_DATA_FORK: Final = 88
_MAX_CATALOG_BYTES: Final = 16 << 20


def file_places(source: Source, offset: int) -> Iterator[tuple[int, int, int]]:
    """Yield for every piece of a file (where the catalogue has its first block, where it lies,
    its blocks' length), all offsets in ``source``; the volume begins at ``offset``.

    Raises :class:`FormatError` where there is no such volume, or its catalogue is damaged.
    """
    header = source.read(offset + _HEADER_AT, 512)
    block = int.from_bytes(header[_BLOCK_SIZE_AT : _BLOCK_SIZE_AT + 4], "big")
    if header[:2] not in _SIGNATURES or block not in (512, 1024, 2048, 4096):
        raise FormatError("there is no HFS+ volume")
    size = _FORK.unpack_from(header, _CATALOG_AT)[0]
    start, count = struct.unpack_from(">II", header, _CATALOG_AT + _FORK.size)
    if not 0 < size <= min(count * block, _MAX_CATALOG_BYTES):
        raise FormatError("the catalogue of an HFS+ volume lies in pieces, or has no size")
    begin = offset + start * block
    catalog = source.read(begin, size)
    node_bytes = int.from_bytes(catalog[32:34], "big")
    if node_bytes < 512 or node_bytes.bit_count() != 1:
        raise FormatError("the catalogue of an HFS+ volume is damaged")
    for at in range(0, size - node_bytes + 1, node_bytes):
        node = catalog[at : at + node_bytes]
        if node[8] == _LEAF:
            for place in _records(node):
                first, blocks = struct.unpack_from(">II", node, place)
                if blocks:
                    yield begin + at + place, offset + first * block, blocks * block


def _records(node: bytes) -> Iterator[int]:
    """Yield where in a leaf the pieces of files' data forks stand."""
    count = int.from_bytes(node[10:12], "big")
    if 2 * count > len(node) - 14:
        raise FormatError("the catalogue of an HFS+ volume is damaged")
    for number in range(count):
        end = len(node) - 2 * number
        at = int.from_bytes(node[end - 2 : end], "big")
        at += 2 + int.from_bytes(node[at : at + 2], "big")
        if at + _DATA_FORK + _FORK.size + 64 > len(node):
            continue
        if int.from_bytes(node[at : at + 2], "big") == _FILE:
            yield from range(at + _DATA_FORK + _FORK.size, at + _DATA_FORK + _FORK.size + 64, 8)
