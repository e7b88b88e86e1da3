"""What an inspection may cost: read, unpacked, kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.limits import Limits, OutOfBudget, Spent, charging
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.rest import rest_digest
from local_imager.deliver.inspect.volumes import volume_parts
from local_imager.deliver.inspect.walking import Walk
from local_imager.events import NULL_SINK
from local_imager.formats.entries import Entry
from local_imager.formats.lz4 import unpack_block, unpack_frame
from local_imager.formats.source import BytesSource, FormatError
from tests.diskfiles import gpt_disk, gpt_entry, patched
from tests.fuzz.driver import CORPUS
from tests.talosfiles import cpio


class Endless:
    """A disk of any size whose gaps all lead to the same bytes, and what was read of it."""

    size_bytes = 512 << 30

    def __init__(self) -> None:
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.read_bytes += length
        return b"\1" * length

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        yield offset, length


def test_what_is_read_outside_of_parts_has_a_limit() -> None:
    source, spent = Endless(), Spent(Limits(rest_bytes=1 << 20))
    with charging(spent), pytest.raises(OutOfBudget, match="lie outside of its parts"):
        rest_digest(source, [(0, 512)])
    assert source.read_bytes <= 1 << 20


def test_that_limit_holds_for_all_parts_of_an_inspection_together() -> None:
    def hidden(number: int) -> bytes:
        return patched(gpt_disk(400, [gpt_entry(60, 61, "A")]), 50_000, bytes([number]) * 100_000)

    def inspect(*disks: bytes) -> None:
        data = cpio({f"disk {number}": disk for number, disk in enumerate(disks)})
        inspect_source(BytesSource(data), "x", limits=Limits(rest_bytes=250_000))

    inspect(hidden(1))
    with pytest.raises(OutOfBudget, match="lie outside of its parts"):
        inspect(hidden(1), hidden(2))


def test_zeros_at_the_end_of_a_gap_make_no_difference() -> None:
    data = bytes(100_000) + b"x" * 70_000 + bytes(100)
    short, long = (rest_digest(BytesSource(data + bytes(n)), [(0, 512)]) for n in (0, 200_000))
    assert short == long
    assert rest_digest(BytesSource(data + b"\0x"), [(0, 512)]) != short


@pytest.mark.parametrize(("mark", "kept"), [("", 5), ("\N{GRINNING FACE}", 1), ("é", 1)])
def test_texts_count_as_they_lie_in_memory(mark: str, kept: int) -> None:
    files = {f"file {n}": f"{n}{mark}".ljust(1000, "x").encode() for n in range(9)}
    done = inspect_source(BytesSource(cpio(files)), "x", limits=Limits(text_bytes=5000))
    texts = [part for _, part in done.tree.walk() if part.text and len(part.text) > 900]
    assert len(texts) == kept


def corpus(name: str) -> bytes:
    return (CORPUS / name).read_bytes()


@pytest.mark.parametrize("name", ["erofs/packed", "squashfs/lz4", "squashfs/xz", "squashfs/zstd"])
def test_unpacking_files_has_a_limit_and_leaves_the_others(name: str) -> None:
    def files(limit: int) -> list[Part]:
        try:
            limits = Limits(packed_work=limit)
            tree = inspect_source(BytesSource(corpus(name)), "x", limits=limits).tree
        except FormatError:
            return []
        return [part for _, part in tree.walk() if "mode" in part.facts and not part.children]

    assert not [part for part in files(1 << 30) if part.unread]
    # The tables need some; the first limit that they fit in is too small for the files.
    some = next(found for found in (files(4000 * n) for n in range(1, 100)) if found)
    unread = [part for part in some if part.unread]
    assert 0 < len(unread) <= len(some)
    assert [part.name for part in some] == [part.name for part in files(1 << 30)]
    assert all("more work than is allowed" in part.unread for part in unread)
    assert not any(part.digest for part in unread)


def test_lz4_in_small_steps_counts_for_its_work() -> None:
    """Three bytes for four: nothing is slower to unpack in plain Python."""
    spent = Spent(Limits(packed_work=10_000_000))
    block = b"\x10A\x01\x00" + b"\x00\x01\x00" * 50_000 + b"\x50AAAAA"
    with charging(spent), pytest.raises(FormatError, match="more work"):
        unpack_block(block, 1 << 20)
    assert spent.packed_work > 50 * 200_000


def test_lz4_in_small_blocks_counts_for_its_work() -> None:
    spent = Spent(Limits(packed_work=10_000_000))
    large, small = (struct.pack("<I", size | 1 << 31) + b"x" * size for size in (1 << 16, 1))
    frame = b"\x04\x22\x4d\x18\x40\x40\x00" + large + small * 5000
    with charging(spent), pytest.raises(FormatError, match="more work"):
        for _ in unpack_frame(BytesSource(frame), 0):
            pass


class Linked:
    """A packed volume in which every name leads to one of two files, and how often each is read."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.entries = tuple(Entry(f"file {n}", "file", 9, number=n % 2) for n in range(50))

    def open(self, entry: Entry) -> BytesSource:
        self.opened.append(entry.number)
        return BytesSource(b"content %d" % entry.number)


def test_a_file_with_many_names_is_read_once() -> None:
    volume = Linked()
    with Walk({}, Limits(), NULL_SINK) as walk:
        parts = volume_parts(walk, volume, look=False)
    assert volume.opened == [0, 1]
    assert [part.name for part in parts] == sorted(entry.path for entry in volume.entries)
    digests = {part.name: part.digest for part in parts}
    assert digests["file 0"] == digests["file 48"] != digests["file 49"] == digests["file 1"]
