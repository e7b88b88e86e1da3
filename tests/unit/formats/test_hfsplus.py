"""Where files lie by the catalogue of HFS+: one made by hand, and damaged ones."""

from __future__ import annotations

import random
import struct
from typing import Final

import pytest

from local_imager.formats.hfsplus import file_places
from local_imager.formats.source import BytesSource, FormatError
from tests.diskfiles import patched

NODE: Final = 4096
BLOCK: Final = 2048


def record(kind: int, name: str, places: list[tuple[int, int]]) -> bytes:
    """Return a record of the catalogue: its key, then what it is; a file has its extents."""
    encoded = name.encode("utf-16-be")
    key = struct.pack(">HIH", 6 + len(encoded), 2, len(name)) + encoded
    extents = b"".join(struct.pack(">II", *place) for place in places).ljust(64, b"\0")
    return key + struct.pack(">H", kind).ljust(88, b"\0") + bytes(16) + extents + bytes(80)


def node(kind: int, records: list[bytes]) -> bytes:
    data = bytearray(NODE)
    data[8:12] = struct.pack(">BBH", kind, 1, len(records))
    at = 14
    for number, one in enumerate(records):
        data[at : at + len(one)] = one
        struct.pack_into(">H", data, NODE - 2 - 2 * number, at)
        at += len(one)
    return bytes(data)


def volume(*nodes: bytes) -> bytes:
    catalog = patched(bytes(NODE), 32, struct.pack(">H", NODE)) + b"".join(nodes)
    header = bytearray(512)
    header[:2] = b"H+"
    struct.pack_into(">I", header, 40, BLOCK)
    struct.pack_into(">Q", header, 272, len(catalog))
    struct.pack_into(">II", header, 288, 4, len(catalog) // BLOCK)
    return (bytes(1024) + bytes(header)).ljust(4 * BLOCK, b"\0") + catalog


FILES: Final = node(0xFF, [record(1, "folder", []), record(2, "a", [(9, 2), (20, 1)])])


def test_files_and_no_folders_have_places() -> None:
    data = bytes(512) + volume(node(0, []), FILES)
    found = list(file_places(BytesSource(data), 512))
    assert [(place, length) for _, place, length in found] == [
        (512 + 9 * BLOCK, 2 * BLOCK),
        (512 + 20 * BLOCK, BLOCK),
    ]
    for at, place, _ in found:
        assert int.from_bytes(data[at : at + 4], "big") * BLOCK + 512 == place


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1024, b"HD"),
        (1024 + 40, b"\0\0\0\x03"),
        (1024 + 272, b"\xff" * 8),
        (1024 + 288, b"\xff" * 8),
        (4 * BLOCK + 32, b"\0\x01"),
        (4 * BLOCK + NODE + 10, b"\xff\xff"),
    ],
)
def test_damage_is_refused(at: int, value: bytes) -> None:
    with pytest.raises(FormatError):
        list(file_places(BytesSource(patched(volume(FILES), at, value)), 0))


def test_no_damage_does_anything_else() -> None:
    rng, data = random.Random(5), volume(FILES)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(4):
            changed[rng.randrange(1024, len(data))] = rng.choice((0, 255, rng.randrange(256)))
        try:
            list(file_places(BytesSource(bytes(changed)), 0))
        except FormatError:
            continue
