"""Digging holes: zeros become holes, every other byte stays, whatever the lengths."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_imager.build.chunks import (
    CHUNK_BYTES,
    DIG_BYTES,
    dig_holes,
    file_chunks_ahead,
)

LENGTHS = st.sampled_from([1, 4096, DIG_BYTES - 1, DIG_BYTES, DIG_BYTES + 1, CHUNK_BYTES + 7])
PIECES = st.lists(st.tuples(st.sampled_from([b"\0", b"x"]), LENGTHS), max_size=6)


@given(PIECES)
def test_content_stays(pieces: list[tuple[bytes, int]]) -> None:
    data = b"".join(byte * length for byte, length in pieces)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        path.write_bytes(data)
        dig_holes(path)
        assert path.read_bytes() == data


def test_long_zeros_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"boot" + bytes(8 << 20) + b"data" + bytes(5 << 20))
    dig_holes(path)
    assert path.stat().st_size == (13 << 20) + 8
    assert path.stat().st_blocks * 512 <= 4 * DIG_BYTES


def test_reading_once_gives_every_byte_and_the_room_back(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    data = b"begin" + bytes(70 * CHUNK_BYTES) + b"middle" * CHUNK_BYTES + b"end"
    path.write_bytes(data)
    chunks = file_chunks_ahead(path, CHUNK_BYTES, threading.Event(), use_up=True)
    parts = [chunk.data or bytes(chunk.length) for chunk in chunks]
    assert b"".join(parts) == data
    assert path.stat().st_size == len(data)
    assert path.stat().st_blocks * 512 < 20 * CHUNK_BYTES
