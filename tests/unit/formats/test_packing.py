"""Compressed streams: one after the other, padded, inside other bytes, damaged and boundless."""

import bz2
import gzip
import hashlib
import lzma
import struct
from collections.abc import Callable

import pytest
import zstandard

from local_imager.formats.packing import (
    Packing,
    after_zeros,
    packing_of,
    unpack,
    unpack_one,
    xz_check_of,
)
from local_imager.formats.source import BytesSource, FormatError

_MANY = 1 << 40
_TEXT = b"".join(hashlib.sha256(b"%d" % n).digest() + b"word " * 9 for n in range(4000))


def _zstd(data: bytes, *, checksum: bool = False, sized: bool = True) -> bytes:
    engine = zstandard.ZstdCompressor(3, write_checksum=checksum, write_content_size=sized)
    return engine.compress(data)


def _zstd_streamed(data: bytes) -> bytes:
    engine = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return engine.compress(data) + engine.flush()


def _lz4_legacy(data: bytes) -> bytes:
    """The form that `lz4 -l` writes, its one block of literals only."""
    rest = len(data) - 15
    lengths = b"\xff" * (rest // 255) + bytes([rest % 255])
    block = b"\xf0" + lengths + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


_PACKERS: dict[str, tuple[Packing, Callable[[bytes], bytes]]] = {
    "xz": ("xz", lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)),
    "gzip": ("gzip", gzip.compress),
    "zstd": ("zstd", lambda data: _zstd(data, checksum=True)),
    "zstd of unknown length": ("zstd", _zstd_streamed),
    "zstd without any extras": ("zstd", lambda data: _zstd(data, sized=False)),
    "bzip2": ("bzip2", bz2.compress),
    "lz4": ("lz4", _lz4_legacy),
}
each_packer = pytest.mark.parametrize(("packing", "pack"), _PACKERS.values(), ids=_PACKERS)


@each_packer
def test_a_stream_comes_out_as_it_went_in(packing: Packing, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(_TEXT)
    assert packing_of(packed[:16]) == packing
    assert b"".join(unpack(BytesSource(packed), packing, max_bytes=_MANY)) == _TEXT


@each_packer
def test_several_streams_and_padding_are_one_file(
    packing: Packing, pack: Callable[[bytes], bytes]
) -> None:
    whole = BytesSource(pack(_TEXT) + bytes(8) + pack(b"behind it, and longer than 15") + bytes(4))
    unpacked = b"".join(unpack(whole, packing, max_bytes=_MANY))
    assert unpacked == _TEXT + b"behind it, and longer than 15"


@each_packer
def test_one_stream_inside_other_bytes_says_where_it_ends(
    packing: Packing, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack(_TEXT)
    source = BytesSource(b"before it" + packed + b"\xff\xff\xff\xffbehind it")
    stream = unpack_one(source, 9, max_bytes=_MANY)
    with pytest.raises(ValueError, match="not unpacked"):
        assert stream.end
    assert b"".join(stream) == _TEXT
    assert stream.packing == packing
    assert stream.end == 9 + len(packed)


@each_packer
def test_what_unpacks_to_too_much_is_refused(
    packing: Packing, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(FormatError, match="unpacks to more than 100000 bytes"):
        for _ in unpack(BytesSource(pack(_TEXT)), packing, max_bytes=100_000):
            pass


@each_packer
def test_a_cut_stream_is_refused(packing: Packing, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(_TEXT)
    for length in (6, 20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(FormatError):
            for _ in unpack(BytesSource(packed[:length]), packing, max_bytes=_MANY):
                pass


@pytest.mark.parametrize("name", ["xz", "gzip", "zstd", "bzip2"])
def test_a_changed_byte_is_found(name: str) -> None:
    packing, pack = _PACKERS[name]
    packed = bytearray(pack(_TEXT))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(FormatError):
        for _ in unpack(BytesSource(bytes(packed)), packing, max_bytes=_MANY):
            pass


def test_other_bytes_behind_a_stream_are_refused() -> None:
    source = BytesSource(gzip.compress(b"text") + b"\0\0something")
    with pytest.raises(FormatError, match="something else follows the gzip stream at byte 26"):
        for _ in unpack(source, "gzip", max_bytes=_MANY):
            pass


def test_skippable_zstd_frames_hold_nothing() -> None:
    skipped = b"\x52\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"
    packed = skipped + _zstd(b"text") + skipped
    assert packing_of(packed) == "zstd"
    assert b"".join(unpack(BytesSource(packed), "zstd", max_bytes=_MANY)) == b"text"
    with pytest.raises(FormatError, match="ends inside"):
        list(unpack(BytesSource(skipped[:-1]), "zstd", max_bytes=_MANY))


def test_zeros_pack_as_well_as_they_may() -> None:
    zeros = bytes(16 << 20)
    for packing, pack in (_PACKERS["zstd"], _PACKERS["gzip"]):
        pieces = unpack(BytesSource(pack(zeros)), packing, max_bytes=len(zeros))
        sizes = [len(piece) for piece in pieces]
        assert sum(sizes) == len(zeros)
        assert max(sizes) <= 1 << 20


def test_a_decoder_does_not_take_the_memory_that_a_header_asks_for() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    packed = lzma.compress(b"small", filters=filters)
    with pytest.raises(FormatError, match="xz stream is damaged: Memory usage limit"):
        list(unpack(BytesSource(packed), "xz", max_bytes=_MANY))
    # A window of 256 MiB, and an empty last block.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, (28 - 10) << 3]) + b"\x01\0\0"
    with pytest.raises(FormatError, match="zstd stream is damaged"):
        list(unpack(BytesSource(frame), "zstd", max_bytes=_MANY))


def test_an_lz4_frame_refers_back_over_its_blocks() -> None:
    # Two linked blocks: "abcdefgh" as literals; then 8 bytes from 8 back, and a literal.
    blocks = [b"\x80abcdefgh", b"\x04\x08\x00\x10!"]
    sized = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    frame = b"\x04\x22\x4d\x18\x40\x40\x00" + sized + bytes(4)
    stream = unpack_one(BytesSource(frame + b"more"), 0, max_bytes=_MANY)
    assert b"".join(stream) == b"abcdefghabcdefgh!"
    assert stream.end == len(frame)
    wild = frame.replace(b"\x04\x08\x00", b"\x04\x09\x00")
    with pytest.raises(FormatError, match="before its begin"):
        list(unpack_one(BytesSource(wild), 0, max_bytes=_MANY))


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (lzma.CHECK_NONE, "none"),
        (lzma.CHECK_CRC32, "crc32"),
        (lzma.CHECK_CRC64, "crc64"),
        (lzma.CHECK_SHA256, "sha256"),
    ],
)
def test_the_check_of_an_xz_stream_is_named(check: int, name: str) -> None:
    assert xz_check_of(lzma.compress(b"", check=check)[:12]) == name


@pytest.mark.parametrize(
    "head", [b"", b"\x1f", b"\x1f\x8b\x07", b"BZh0", b"BZh9 text", b"070701", b"\xfd7zXY\0", b"P*M"]
)
def test_other_bytes_are_not_taken_for_a_stream(head: bytes) -> None:
    assert packing_of(head) == ""
    with pytest.raises(FormatError, match="no compressed stream begins"):
        unpack_one(BytesSource(head), 0, max_bytes=1)


def test_the_end_of_zeros_is_found_over_pieces() -> None:
    data = bytes((1 << 20) + 7) + b"x" + bytes(3)
    assert after_zeros(BytesSource(data), 0) == (1 << 20) + 7
    assert after_zeros(BytesSource(data), (1 << 20) + 8) == len(data)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_many_short_streams_have_a_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_imager.formats.packing._MAX_STREAMS", 100)
    packing, pack = _PACKERS[name]
    short = pack(b"x")
    assert b"".join(unpack(BytesSource(short * 100), packing, max_bytes=_MANY)) == b"x" * 100
    with pytest.raises(FormatError, match=f"more than 100 {packing} streams"):
        list(unpack(BytesSource(short * 101), packing, max_bytes=_MANY))


def test_a_frame_of_nothing_but_blocks_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_imager.formats.zstdframe._MAX_BLOCKS", 1000)
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + b"\0\0\0" * 1000 + b"\x01\0\0"
    with pytest.raises(FormatError, match="more than 1000 blocks"):
        list(unpack(BytesSource(frame), "zstd", max_bytes=_MANY))
