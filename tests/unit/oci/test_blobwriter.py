"""Blobs written piece by piece, and downloads that break, lie or are continued."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.errors import IntegrityError, SourceError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor

DATA = os.urandom(300_000)
WANTED = Descriptor.of(DATA, "application/octet-stream")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


class Remote:
    """A source of one blob that breaks off after some bytes, as often as told."""

    def __init__(self, data: bytes = DATA, *, breaks_at: int | None = None) -> None:
        self.data, self.breaks_at = data, breaks_at
        self.offsets: list[int] = []

    def chunks(self, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        end = len(self.data) if self.breaks_at is None else self.breaks_at
        for start in range(offset, end, 10_000):
            yield self.data[start : min(start + 10_000, end)]


def nothing_visible(layout: Layout) -> bool:
    return os.listdir(layout.blobs_dir) == []


def test_a_writer_shows_nothing_before_the_commit(layout: Layout) -> None:
    with layout.blob_writer() as writer:
        writer.write(DATA[:1000])
        writer.write(DATA[1000:])
        assert nothing_visible(layout)
        stored = writer.commit("x/y")
    assert (stored.digest, stored.size_bytes, stored.media_type) == (
        WANTED.digest,
        len(DATA),
        "x/y",
    )
    assert layout.blob_path(stored.digest).read_bytes() == DATA
    with layout.blob_writer() as writer:
        writer.write(b"never committed")
    assert len(os.listdir(layout.blobs_dir)) == 1
    assert os.listdir(layout.staging_dir) == []


def test_a_download_arrives_and_is_not_repeated(layout: Layout) -> None:
    remote, seen = Remote(), list[int]()
    assert layout.download(WANTED, remote.chunks, on_progress=seen.append) == WANTED
    layout.download(WANTED, remote.chunks)
    assert remote.offsets == [0]
    assert seen[0] == 0 and seen[-1] == len(DATA) and seen == sorted(seen)
    assert os.listdir(layout.unverified_dir) == []


def test_a_broken_download_is_continued(layout: Layout) -> None:
    with pytest.raises(SourceError, match="ended after 200000"):
        layout.download(WANTED, Remote(breaks_at=200_000).chunks)
    assert nothing_visible(layout)
    remote = Remote()
    layout.download(WANTED, remote.chunks)
    assert remote.offsets == [200_000]
    assert layout.intact(WANTED.digest, WANTED.size_bytes)


@pytest.mark.parametrize("damage", ["other bytes", "too long", "complete but wrong"])
def test_a_damaged_partial_is_replaced(layout: Layout, damage: str) -> None:
    layout.unverified_dir.mkdir()
    partial = layout.unverified_dir / WANTED.digest.hex
    length = {"other bytes": 100_000, "too long": 400_000, "complete but wrong": len(DATA)}
    partial.write_bytes(b"x" * length[damage])
    layout.download(WANTED, Remote().chunks)
    assert layout.blob_path(WANTED.digest).read_bytes() == DATA
    assert not partial.exists()


@pytest.mark.parametrize(
    "data", [DATA[:-1] + b"?", DATA + b"x", b"\0" * len(DATA)], ids=["flipped", "longer", "zeros"]
)
def test_other_bytes_are_never_visible(layout: Layout, data: bytes) -> None:
    if data == DATA:  # the last byte may have been a question mark
        data = DATA[:-1] + b"!"
    with pytest.raises(IntegrityError):
        layout.download(WANTED, Remote(data).chunks)
    assert nothing_visible(layout)
    assert os.listdir(layout.unverified_dir) == []


def test_an_endless_source_is_cut_at_the_size(layout: Layout) -> None:
    taken = 0

    def endless(_offset: int) -> Iterator[bytes]:
        nonlocal taken
        while taken < 1000:  # enough to show the fault, too little to fill a disk
            taken += 1
            yield b"x" * 10_000

    with pytest.raises(IntegrityError, match="more than the 300000 bytes"):
        layout.download(WANTED, endless)
    assert taken <= 32


def test_two_threads_fetch_one_blob_once(layout: Layout) -> None:
    remote = Remote()
    threads = [
        threading.Thread(target=Layout.open(layout.path).download, args=(WANTED, remote.chunks))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert remote.offsets == [0]
    assert layout.intact(WANTED.digest)


def test_an_empty_blob(layout: Layout) -> None:
    empty = Descriptor.of(b"", "x")
    layout.download(empty, lambda _offset: iter(()))
    assert layout.read_blob(empty.digest, max_bytes=0) == b""
