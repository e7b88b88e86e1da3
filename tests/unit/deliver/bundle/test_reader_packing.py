"""Compressed bundles: bounded memory, no bombs, one plain frame and nothing after it."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from local_imager.deliver.bundle.form.manifest import parse_bundle, render_label
from local_imager.deliver.bundle.form.model import PartLabel
from local_imager.deliver.bundle.form.tarform import member_header
from local_imager.deliver.bundle.reading.packing import MAX_RATIO
from local_imager.deliver.bundle.reading.partstream import CHUNK_BYTES
from local_imager.deliver.bundle.reading.reader import LookOnly, open_part, read_part
from local_imager.errors import InputError
from local_imager.events import NULL_SINK
from local_imager.oci.model import Digest
from tests.bundlefiles import IMAGES, make_sample, packed, written
from tests.unit.deliver.bundle.damages import LARGE, SAMPLE, read


def sparse_sample(size_bytes: int) -> tuple[bytes, Iterator[bytes]]:
    """The begin of a bundle whose one large layer is zeros, and its zeros."""
    chunk = bytes(CHUNK_BYTES)
    hasher = hashlib.sha256()
    for _ in range(size_bytes // CHUNK_BYTES):
        hasher.update(chunk)
    small = make_sample({"a1": b"placeholder"})
    old, new = small.layers["a1"], Digest(hasher.hexdigest())
    text = (
        small.manifest.decode()
        .replace(str(old), str(new))
        .replace('"purpose":"layer a1","size":11', f'"purpose":"layer a1","size":{size_bytes}')
    )
    bundle = parse_bundle(text.encode())
    members = small.members()[:-1]
    members[0].content = text.encode()
    members[1].content = render_label(PartLabel(Digest.of(text.encode()), 1, 1))
    begin = written(members, member_header(bundle.parts[0][0].member, size_bytes))
    return begin, (chunk for _ in range(size_bytes // CHUNK_BYTES))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    size = 160 * CHUNK_BYTES
    begin, _ = sparse_sample(size)
    path = tmp_path / "sparse.tar"
    path.write_bytes(begin)
    os.truncate(path, len(begin) + size + 1024)
    tracemalloc.start()
    try:
        with open_part(path) as stream:
            reading = read_part(stream, "sparse.tar", LookOnly(), NULL_SINK)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reading.faults == () and reading.pieces_seen == 3
    assert peak < 12 * CHUNK_BYTES


def zstd_of(begin: bytes, chunks: Iterator[bytes], end: bytes = bytes(1024)) -> bytes:
    engine = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    body = b"".join(engine.compress(chunk) for chunk in (begin, *chunks, end))
    return body + engine.flush()


def test_a_bomb_is_stopped_long_before_its_end() -> None:
    data = zstd_of(*sparse_sample(160 * CHUNK_BYTES))
    assert len(data) * MAX_RATIO < 160 * CHUNK_BYTES
    (fault,) = read(data).faults
    assert fault.kind == "ratio" and fault.affects == (IMAGES[0],)
    assert "decompression bomb" in fault.text


def test_an_empty_disk_that_packs_well_is_no_bomb() -> None:
    begin, zeros = sparse_sample(48 * CHUNK_BYTES)
    assert read(zstd_of(begin, zeros)).faults == ()


def test_damaged_compression_is_a_fault_that_names_what_is_lost() -> None:
    data = bytearray(packed(LARGE.part()))
    data[len(data) // 2 - 3 : len(data) // 2] = b"\xff\xff\xff"
    reading = read(bytes(data))
    assert {fault.kind for fault in reading.faults} <= {"compression", "bit-flip"}
    assert reading.faults


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (b"x", "follow after the compressed content"),
        (packed(b"second frame"), "follow after the compressed content"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0hide", "follow after the compressed content"),
    ],
)
def test_nothing_follows_the_one_frame(more: bytes, why: str) -> None:
    (fault,) = read(packed(SAMPLE.part()) + more).faults
    assert fault.kind == "trailing" and why in fault.text


def frame(descriptor: int, rest: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(0, b"\xa0" + b"\1\0\0"), "window"),
        (frame(0xE0, (1 << 40).to_bytes(8, "little") + b"\1\0\0"), "window"),
        (frame(0x01, b"\0\0" + b"\1\0\0"), "dictionary"),
        (frame(0x08, b"\0" + b"\1\0\0"), "mean nothing"),
        (frame(0x10, b"\0" + b"\1\0\0"), "mean nothing"),
        (frame(0, b"\0" + b"\7\0\0"), "no known kind"),
        (frame(0, b"\0" + b"\0\0\0" * 30_000), "next to nothing"),
        (frame(0, b""), "end in the middle"),
        (packed(b"x" * 999)[:-2], "end in the middle"),
    ],
)
def test_a_frame_that_asks_too_much_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read(data)


def test_levels_and_windows_of_other_writers_are_read() -> None:
    for level in (-5, 1, 19):
        assert read(packed(LARGE.part(), level)).faults == ()
