"""Writing blobs beside the reader: named only when intact and on the disk, in bounded memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far import stager as module
from local_imager.deliver.bundle.far.segments import (
    drop_segments,
    has_segment,
    join_segments,
    segment_path,
)
from local_imager.deliver.bundle.far.stager import StagedPiece, Stager
from local_imager.deliver.bundle.form.model import Blob, Piece
from local_imager.errors import IntegrityError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest

DATA = os.urandom(300_000)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


def blob(data: bytes) -> Blob:
    return Blob(Digest.of(data), len(data), "a layer")


def pour(sink: StagedPiece, data: bytes, *, intact: bool = True) -> None:
    for begin in range(0, len(data), 70_001):
        sink.write(memoryview(data)[begin : begin + 70_001])
    sink.close(intact)


def left_over(layout: Layout) -> list[str]:
    return os.listdir(layout.staging_dir)


def test_intact_blobs_get_their_names_others_leave_nothing(layout: Layout) -> None:
    bad, short = os.urandom(1000), os.urandom(1000)
    with Stager(layout) as stager:
        pour(stager.blob(blob(DATA)), DATA)
        pour(stager.blob(blob(bad)), bad, intact=False)
        pour(stager.blob(blob(short)), short[:-1])
        pour(stager.blob(blob(b"")), b"")
        pour(stager.blob(blob(b"secret"), private=True), b"secret")
    stager.settled()
    assert layout.read_blob(Digest.of(DATA), max_bytes=len(DATA)) == DATA
    assert layout.intact(Digest.of(b""), 0)
    assert layout.blob_path(Digest.of(b"secret")).stat().st_mode & 0o777 == 0o400
    assert not layout.has(Digest.of(bad)) and not layout.has(Digest.of(short))
    assert left_over(layout) == []


def test_zeros_become_holes_and_the_bytes_stay_the_same(layout: Layout) -> None:
    zeros = bytes(4 << 20)
    cases = [zeros, zeros + b"end", b"begin" + zeros, DATA + zeros + DATA, b"\0" * 100, b"x\0y"]
    with Stager(layout) as stager:
        for data in cases:
            pour(stager.blob(blob(data)), data)
    stager.settled()
    for data in cases:
        assert layout.read_blob(Digest.of(data), max_bytes=len(data)) == data
    for data in cases[:4]:
        path = layout.blob_path(Digest.of(data))
        assert path.stat().st_blocks * 512 < len(data) / 2


def test_more_blobs_than_files_may_be_open(layout: Layout) -> None:
    data = [str(number).encode() for number in range(200)]
    with Stager(layout) as stager:
        for one in data:
            pour(stager.blob(blob(one)), one)
    stager.settled()
    assert all(layout.intact(Digest.of(one), len(one)) for one in data)


def test_a_large_blob_is_synced_while_it_comes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    plain = os.fdatasync
    monkeypatch.setattr(module, "_SYNC_EVERY_BYTES", 100_000)

    def fdatasync(handle: int) -> None:
        synced.append(handle)
        plain(handle)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with Stager(layout) as stager:
        pour(stager.blob(blob(DATA)), DATA)
    stager.settled()
    assert synced and layout.intact(Digest.of(DATA), len(DATA))


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_is_told_and_leaves_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Stager(layout) as stager:
        pour(stager.blob(blob(b"before")), b"before")
    stager.settled()
    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError) as caught:
        with Stager(layout) as stager:
            for number in range(200):
                data = DATA + str(number).encode()
                sink = stager.blob(blob(data))
                try:
                    pour(sink, data)
                except StoreError:
                    sink.close(False)
                    raise
        stager.settled()
    monkeypatch.undo()
    assert caught.value.code == "disk-full"
    assert os.listdir(layout.blobs_dir) == [Digest.of(b"before").hex]
    assert left_over(layout) == []


def cut(data: bytes, *offsets: int) -> list[Piece]:
    ends = [*offsets[1:], len(data)]
    return [
        Piece(Digest.of(data), begin, end - begin, Digest.of(data[begin:end]), False)
        for begin, end in zip(offsets, ends, strict=True)
    ]


def stage(layout: Layout, data: bytes, pieces: list[Piece]) -> None:
    with Stager(layout) as stager:
        for piece in pieces:
            pour(stager.segment(piece), data[piece.offset : piece.offset + piece.size_bytes])
    stager.settled()


def test_segments_are_joined_to_the_blob(layout: Layout) -> None:
    data = DATA + bytes(1 << 20) + DATA
    pieces = cut(data, 0, 100_000, 400_000)
    stage(layout, data, pieces[::-1])
    assert all(has_segment(layout, piece) for piece in pieces)
    assert not layout.has(Digest.of(data))
    join_segments(layout, blob(data), pieces, private=True)
    path = layout.blob_path(Digest.of(data))
    assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o400
    assert os.listdir(layout.unverified_dir) == [] and left_over(layout) == []


def test_a_segment_damaged_on_the_disk_is_the_only_one_that_goes(layout: Layout) -> None:
    pieces = cut(DATA, 0, 100_000, 200_000)
    stage(layout, DATA, pieces)
    path = segment_path(layout, pieces[1])
    path.write_bytes(bytes(pieces[1].size_bytes))
    with pytest.raises(IntegrityError, match="1 of 3"):
        join_segments(layout, blob(DATA), pieces)
    assert [has_segment(layout, piece) for piece in pieces] == [True, False, True]
    assert not layout.has(Digest.of(DATA)) and left_over(layout) == []


def test_segments_that_do_not_give_the_blob_go_all(layout: Layout) -> None:
    wanted = blob(b"another blob of the same size as the data".ljust(len(DATA)))
    pieces = cut(DATA, 0, 100_000)
    stage(layout, DATA, pieces)
    with pytest.raises(IntegrityError, match="though each"):
        join_segments(layout, wanted, pieces)
    assert os.listdir(layout.unverified_dir) == [] and not layout.has(wanted.digest)
    drop_segments(layout, pieces)  # those that are gone already do not matter
