"""Segments of an initramfs: plain and packed, in any order, with zeros between them."""

import gzip
import hashlib
import lzma
import tracemalloc

import pytest
import zstandard

from lab.archives import Entry, cpio_newc
from local_imager.formats.initramfs import InitramfsSegment, segments
from local_imager.formats.source import BytesSource, FormatError

_UCODE = cpio_newc([Entry("kernel/x86/microcode/GenuineIntel.bin", b"microcode")])
_BASE = cpio_newc([Entry("init", b"#!/bin/sh\n", mode=0o755)])
_EXTENSIONS = cpio_newc([Entry("0.sqsh", b"hsqs"), Entry("extensions.yaml", b"layers: []\n")])
_XZ = lzma.compress(_BASE, check=lzma.CHECK_CRC32)
_ZSTD = zstandard.ZstdCompressor(level=18).compress(_EXTENSIONS)
_WHOLE = _UCODE + bytes(100) + _XZ + _ZSTD + gzip.compress(_EXTENSIONS, mtime=0) + bytes(7)


def _facts(segment: InitramfsSegment) -> tuple[int, int, int, str, str, int]:
    size, unpacked = segment.size_bytes, segment.unpacked_bytes
    return segment.number, segment.offset, size, segment.packing, segment.xz_check, unpacked


def test_segments_lie_where_they_lie() -> None:
    at_xz = len(_UCODE) + 100
    at_zstd = at_xz + len(_XZ)
    at_gzip = at_zstd + len(_ZSTD)
    assert [_facts(segment) for segment in segments(BytesSource(_WHOLE))] == [
        (1, 0, len(_UCODE), "", "", len(_UCODE)),
        (2, at_xz, len(_XZ), "xz", "crc32", len(_BASE)),
        (3, at_zstd, len(_ZSTD), "zstd", "", len(_EXTENSIONS)),
        (4, at_gzip, len(_WHOLE) - 7 - at_gzip, "gzip", "", len(_EXTENSIONS)),
    ]


def test_entries_of_all_segments_come_in_order() -> None:
    names = [
        (segment.number, entry.path, b"".join(entry.chunks()))
        for segment in segments(BytesSource(_WHOLE))
        for entry in segment.entries()
        if entry.kind == "file"
    ]
    assert names == [
        (1, "kernel/x86/microcode/GenuineIntel.bin", b"microcode"),
        (2, "init", b"#!/bin/sh\n"),
        (3, "0.sqsh", b"hsqs"),
        (3, "extensions.yaml", b"layers: []\n"),
        (4, "0.sqsh", b"hsqs"),
        (4, "extensions.yaml", b"layers: []\n"),
    ]


def test_the_bytes_of_each_archive_come_as_they_are() -> None:
    archives = [b"".join(one.unpacked()) for one in segments(BytesSource(_WHOLE))]
    assert archives == [_UCODE, _BASE, _EXTENSIONS, _EXTENSIONS]


def test_a_packed_segment_keeps_the_zeros_behind_its_trailer() -> None:
    packed = gzip.compress(_BASE + bytes(500))
    segment = next(segments(BytesSource(packed)))
    assert [entry.path for entry in segment.entries()] == ["init"]
    assert segment.unpacked_bytes == len(_BASE) + 500
    again = next(segments(BytesSource(packed)))
    assert b"".join(again.unpacked()) == _BASE + bytes(500)


def test_leaving_a_segment_early_loses_nothing() -> None:
    seen = []
    for segment in segments(BytesSource(_WHOLE)):
        for entry in segment.entries():
            seen.append(entry.path)
            break
    assert seen == ["kernel", "init", "0.sqsh", "0.sqsh"]


def test_a_segment_is_read_once() -> None:
    (segment,) = segments(BytesSource(_BASE))
    assert segment.size_bytes == len(_BASE)
    with pytest.raises(ValueError, match="read once"):
        segment.entries()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no archive in it"),
        (bytes(5000), "no archive in it"),
        (b"text that is no archive", "neither an archive nor"),
        (_BASE + b"junk", "neither an archive nor"),
        (_XZ + bytes(1) + _BASE, "not at a multiple of 4"),
        (_XZ[:-20], "ends inside of a compressed stream"),
        (gzip.compress(b"not an archive" * 20, mtime=0), "no newc header"),
        (gzip.compress(_BASE[:-20], mtime=0), "ends too early"),
        (_BASE[:-20], "ends too early"),
    ],
)
def test_damage_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        for segment in segments(BytesSource(data)):
            for _ in segment.entries():
                pass


def test_what_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(FormatError, match="more than 100 bytes"):
        for segment in segments(BytesSource(_XZ), max_bytes=100):
            assert segment.size_bytes


def test_many_segments_end() -> None:
    packed = gzip.compress(_BASE, mtime=0)
    with pytest.raises(FormatError, match="more than 1000 segments"):
        for _ in segments(BytesSource(packed * 1001)):
            pass


def test_a_large_file_inside_is_not_held() -> None:
    content = hashlib.shake_256(b"seed").digest(1 << 20) * 40
    packed = zstandard.ZstdCompressor(level=1).compress(cpio_newc([Entry("0.sqsh", content)]))
    tracemalloc.start()
    try:
        for segment in segments(BytesSource(packed)):
            for entry in segment.entries():
                assert sum(map(len, entry.chunks())) == len(content)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
