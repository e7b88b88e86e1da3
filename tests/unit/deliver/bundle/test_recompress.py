"""Finding how a blob was packed, and packing it so again; where two contents are alike."""

from __future__ import annotations

import gzip
import io
from random import Random

import pytest
import zstandard

from local_imager.deliver.bundle.deltas import similar
from local_imager.deliver.bundle.deltas.content import Content
from local_imager.deliver.bundle.deltas.recompress import (
    Codec,
    gzip_header,
    is_packed,
    likely_codecs,
    parse_codec,
)
from local_imager.deliver.bundle.deltas.similar import best_range, take_sample
from tests.unit.deliver.bundle.test_windows import Memory
from tests.unit.deliver.bundle.versions import (
    GZIP_HEADER,
    GZIP_HEADER_WITH_NAME,
    KIB,
    content,
    flushed_gzip,
    gzipped,
    next_version,
    zstded,
)

PLAIN = content(1, 150 * KIB)


def likely(packed: bytes, plain: bytes = PLAIN) -> tuple[Codec, ...]:
    source: Content = Memory(packed)
    return likely_codecs(source, lambda count: plain[:count])


@pytest.mark.parametrize("level", range(1, 10))
def test_each_gzip_level_is_told_from_the_others(level: int) -> None:
    packed = gzipped(PLAIN, level)
    found = [codec for codec in likely(packed) if b"".join(codec.pack(iter([PLAIN]), 0)) == packed]
    assert found
    assert found[0].header == GZIP_HEADER


@pytest.mark.parametrize("level", [1, 19])
@pytest.mark.parametrize(("checksum", "size"), [(True, True), (True, False), (False, True)])
def test_zstd_frames_repeat(level: int, checksum: bool, size: bool) -> None:
    plain = content(2, 20 * KIB)
    packed = zstded(plain, level, checksum=checksum, size=size)
    name = f"zstd-{level}" + "-checksum" * checksum + "-size" * size
    codec = parse_codec(name, b"")
    assert codec is not None
    assert b"".join(codec.pack(iter([plain]), len(plain))) == packed


def test_a_zstd_level_is_told_from_the_others() -> None:
    for level in (1, 9, 18):
        assert likely(zstded(PLAIN, level))[0].name == f"zstd-{level}-checksum-size"


def test_how_the_content_is_cut_does_not_matter() -> None:
    cut = [PLAIN[:1], PLAIN[1:100_000], b"", PLAIN[100_000:]]
    for codec in (Codec("gzip-6", GZIP_HEADER), Codec("zstd-3-size")):
        whole = b"".join(codec.pack(iter([PLAIN]), len(PLAIN)))
        assert b"".join(codec.pack(iter(cut), len(PLAIN))) == whole


def test_an_empty_content() -> None:
    assert b"".join(Codec("gzip-6", GZIP_HEADER).pack(iter([]), 0)) == gzipped(b"")
    assert zstandard.decompress(b"".join(Codec("zstd-3-size").pack(iter([]), 0))) == b""


def test_what_python_itself_packs_is_found() -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 9, buffer, mtime=1) as stream:
        stream.write(PLAIN)
    codec = likely(buffer.getvalue())[0]
    assert b"".join(codec.pack(iter([PLAIN]), 0)) == buffer.getvalue()


def test_other_packers_are_not_found() -> None:
    assert likely(flushed_gzip(PLAIN)) == ()
    assert likely(zstandard.compress(PLAIN, 3), PLAIN[::-1]) == ()
    assert likely(b"\x28\xb5\x2f\xfd") == ()
    assert likely(b"\x1f\x8b\x08") == ()
    assert likely(b"neither") == ()


def test_a_frame_that_wants_a_dictionary_is_not_tried() -> None:
    dictionary = zstandard.train_dictionary(2000, [b"sample %d of many" % n for n in range(3000)])
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(PLAIN)
    assert likely(packed) == ()


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (GZIP_HEADER, 10),
        (GZIP_HEADER_WITH_NAME, 20),
        (b"\x1f\x8b\x08\x04" + bytes(6) + b"\x03\x00abc", 15),
        (b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x01\x00a" + b"name\0" + b"comment\0" + b"cc", 28),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 100, 0),
        (b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\xff" + b"n" * 100, 0),
        (b"\x1f\x8b\x08\x00" + bytes(3), 0),
    ],
)
def test_the_header_of_a_gzip_member(head: bytes, length: int) -> None:
    assert gzip_header(head + b"\xff" * (9 if length else 0)) == head[:length]


def test_only_known_codecs_are_taken_from_outside() -> None:
    assert parse_codec("gzip-6", GZIP_HEADER) == Codec("gzip-6", GZIP_HEADER)
    for name, header in (
        ("gzip-6", b""),
        ("zstd-3", GZIP_HEADER),
        ("gzip-6", bytes(600)),
        ("zstd-20", b""),
        ("zstd-3-size-size", b""),
        ("gzip-6\n", GZIP_HEADER),
    ):
        assert parse_codec(name, header) is None


def test_what_is_packed() -> None:
    assert is_packed(gzipped(b"x")[:4])
    assert is_packed(zstded(b"x")[:4])
    assert not is_packed(b"ustar")
    assert not is_packed(b"")


# Resemblance


def test_alike_and_not_alike() -> None:
    old, new, other = (take_sample([c]) for c in (PLAIN, next_version(PLAIN), content(2)))
    assert old.share_in(old) == 1
    assert new.share_in(old) > 0.9
    assert other.share_in(old) < 0.05
    assert take_sample([bytes(100_000)]).share_in(old) == 0


def test_how_a_content_is_cut_does_not_change_its_sample() -> None:
    pieces = [PLAIN[n : n + 7001] for n in range(0, len(PLAIN), 7001)]
    whole, cut = take_sample([PLAIN]), take_sample(pieces)
    assert cut.size_bytes == whole.size_bytes == len(PLAIN)
    assert cut == whole
    assert take_sample([b"short"]).size_bytes == 5


def test_a_sample_is_bounded_and_still_comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    full = take_sample([PLAIN])
    monkeypatch.setattr(similar, "MAX_MARKS", 20)
    few = take_sample([PLAIN])
    assert len(few.places) <= 20 < len(full.places)
    assert few.places.items() <= full.places.items()
    assert full.share_in(few) == few.share_in(full) == 1


def test_the_range_that_has_most_of_a_window() -> None:
    noise = Random(1)
    parts = [noise.randbytes(60 * KIB) for _ in range(5)]
    base = b"".join(parts)
    sample = take_sample([base])
    offset, size = best_range(parts[3], sample, 80 * KIB)
    assert size == 80 * KIB
    assert offset <= 185 * KIB
    assert offset + size >= 235 * KIB
    assert best_range(parts[0][:30_000], sample, 80 * KIB) == (0, 80 * KIB)
    assert best_range(parts[4], sample, len(base) * 2) == (0, len(base))
    two = parts[1][: 20 * KIB] + parts[2][30 * KIB :]
    offset, size = best_range(two, sample, 80 * KIB)
    assert offset <= 150 * KIB
    assert offset + size >= 180 * KIB
    assert best_range(noise.randbytes(60 * KIB), sample, 80 * KIB) == (0, 0)
