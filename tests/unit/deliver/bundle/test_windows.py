"""The payload of a delta: its format to the byte, and that a hostile one costs nothing."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.deliver.bundle.deltas import windows
from local_imager.deliver.bundle.deltas.content import Content, unpacked
from local_imager.deliver.bundle.deltas.similar import take_sample
from local_imager.deliver.bundle.deltas.windows import (
    Head,
    delta_windows,
    read_head,
    render_head,
    restored_windows,
)
from local_imager.errors import SourceError
from local_imager.oci.layout import Layout
from local_imager.oci.model import canonical_json
from tests.unit.deliver.bundle.versions import KIB, MIB, content, gzipped, next_version

BASE = content(1, 8 * KIB)
TARGET = next_version(BASE)
WINDOW = 3 * KIB
RECORD = struct.Struct("<QII")


@pytest.fixture(autouse=True)
def _small_windows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW_BYTES", WINDOW)
        patch.setattr(windows, "BASE_BYTES", 2 * WINDOW)
        yield


class Memory(Content):
    """A content without a file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, len(data))
        self._data = data

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self._data[offset : offset + size_bytes]


def payload_of(target: bytes, base: bytes) -> bytes:
    records = delta_windows(Memory(target), Memory(base), take_sample([base]))
    return render_head(Head(len(target), len(base))) + b"".join(record for record, _ in records)


def out_of(payload: bytes, base: bytes = BASE) -> bytes:
    stream = io.BytesIO(payload)
    return b"".join(restored_windows(stream, read_head(stream), Memory(base)))


def payload(*records: bytes, size: int = 10, **head: Any) -> bytes:
    """Return a payload of these records whose head is as it should be, or as ``head`` says."""
    document = canonical_json({"format": 1, "size": size, "base": len(BASE), **head})
    return b"LI-DELTA" + len(document).to_bytes(4, "little") + document + b"".join(records)


def record(data: bytes, offset: int = 0, size: int = 0) -> bytes:
    frame = zstandard.compress(data)
    return RECORD.pack(offset, size, len(frame)) + frame


TEN = record(b"0123456789")


def refused(data: bytes) -> str:
    with pytest.raises(SourceError) as caught:
        out_of(data)
    assert caught.value.code == "malformed"
    return caught.value.message


def test_the_format_is_as_described() -> None:
    assert out_of(payload(TEN)) == b"0123456789"
    two = payload(record(b"a" * WINDOW), TEN, size=WINDOW + 10)
    assert out_of(two) == b"a" * WINDOW + b"0123456789"
    assert out_of(payload(size=0)) == b""


def test_a_range_of_the_base_is_a_raw_dictionary() -> None:
    dictionary = zstandard.ZstdCompressionDict(
        BASE[100:1100], dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(BASE[200:1000])
    assert len(frame) < 100
    made = payload(RECORD.pack(100, 1000, len(frame)) + frame, size=800)
    assert out_of(made) == BASE[200:1000]


@given(st.integers(0, 9), st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=400))))
@settings(deadline=None, max_examples=40)
def test_whatever_changed_comes_back(seed: int, changes: list[tuple[int, bytes]]) -> None:
    target = content(seed, 8 * KIB)
    for place, data in changes:
        target = target[:place] + data + target[place + len(data) // 2 :]
    assert out_of(payload_of(target, BASE)) == target


def test_a_base_that_is_empty_or_shorter_than_a_range() -> None:
    assert out_of(payload_of(TARGET[:WINDOW], b""), b"") == TARGET[:WINDOW]
    assert out_of(payload_of(TARGET[:WINDOW], BASE[:1000]), BASE[:1000]) == TARGET[:WINDOW]


def test_the_head_comes_back() -> None:
    head = Head(5, 6, "zlib 1.3", b"\x1f\x8b\x08")
    assert read_head(io.BytesIO(render_head(head))) == head


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin like one"),
        (b"LI-DELTB" + payload(TEN)[8:], "does not begin like one"),
        (b"LI-DELTA" + (5000).to_bytes(4, "little") + b" " * 5000, "head is too long"),
        (payload(TEN)[:20], "ends too early"),
        (payload(TEN, format=2), "reads the format 1"),
        (payload(TEN, more=1), "'more' is not a field"),
        (payload(TEN, library="a\nb"), "printable"),
        (payload(TEN, gzip="xy"), "not hex"),
        (payload(TEN, size=-1), "'size' wants"),
        (payload(TEN, base=len(BASE) - 1), "a base of another size"),
        (payload(TEN, size=1 << 40), "far larger than its base"),
        (payload(TEN)[:-1], "ends too early"),
        (payload(TEN[:10]), "ends too early"),
        (payload(TEN, TEN), "something follows its end"),
        (payload(TEN, b"\0"), "something follows its end"),
        (payload(TEN, size=9), "not of the size"),
        (payload(TEN, size=11), "not of the size"),
        (payload(RECORD.pack(0, 2 * WINDOW + 1, 5)), "a range that is not in its base"),
        (payload(RECORD.pack(len(BASE) - 5, 6, 5)), "a range that is not in its base"),
        (payload(RECORD.pack(1 << 63, 1, 5)), "a range that is not in its base"),
        (payload(RECORD.pack(1, 0, 5)), "an empty range"),
        (payload(RECORD.pack(0, 0, 1 << 31)), "a window is too long"),
        (payload(RECORD.pack(0, 0, 10) + bytes(10)), "does not unpack"),
        (payload(TEN[:-3] + b"xyz"), ""),
    ],
)
def test_what_is_not_the_format_is_refused(data: bytes, said: str) -> None:
    if said:
        assert said in refused(data)
    else:
        assert out_of(data) != b"0123456789"


def frame_of(size: int, *, told: int | None = None, window_log: int = 10) -> bytes:
    """Return a frame header that tells any size, and nothing behind it."""
    descriptor = 0xC0 if told is not None else 0x00
    window = bytes([(window_log - 10) << 3])
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window + (told or 0).to_bytes(8, "little")


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(10, told=1 << 50),
        frame_of(10, told=10, window_log=41),
        frame_of(10),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"0123456789"),
        zstandard.compress(b"0123456789") * 2,
        b"\x50\x2a\x4d\x18" + (2).to_bytes(4, "little") + b"ab",
    ],
    ids=["huge", "huge-window", "unknown", "no-size", "two-frames", "skippable"],
)
def test_a_frame_decides_nothing_about_memory(frame: bytes) -> None:
    refused(payload(RECORD.pack(0, 0, len(frame)) + frame))


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_a_damaged_payload_is_refused_or_gives_as_many_bytes(place: int, data: bytes) -> None:
    whole = payload_of(TARGET, BASE)
    place %= len(whole)
    damaged = whole[:place] + data + whole[place + len(data) :]
    try:
        found = out_of(damaged)
    except SourceError as error:
        assert error.code == "malformed"
    else:
        assert len(found) == len(TARGET)


def test_a_window_of_zeros_needs_no_base() -> None:
    (made,) = [
        one for one, _ in delta_windows(Memory(bytes(WINDOW)), Memory(BASE), take_sample([]))
    ]
    assert RECORD.unpack(made[: RECORD.size])[:2] == (0, 0)


def test_unpacked_zeros_are_holes_and_are_read_as_zeros(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    plain = bytes(3 * MIB) + b"x" + bytes(2 * MIB)
    blob = layout.put_bytes(gzipped(plain), "")
    with unpacked(layout, blob.digest) as found:
        assert found.size_bytes == len(plain)
        assert b"".join(found.chunks()) == plain
        (spool,) = layout.staging_dir.iterdir()
        assert spool.stat().st_blocks * 512 <= 2 * MIB
    assert not list(layout.staging_dir.iterdir())


def test_a_content_that_ends_too_early_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    handle = os.open(path, os.O_RDONLY)
    try:
        assert Content(handle, 10).read_at(8, 5) == b"89"
        assert list(Content(handle, 10).chunks(4)) == [b"0123", b"4567", b"89"]
    finally:
        os.close(handle)
