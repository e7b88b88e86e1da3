"""What an inspection may cost: read, unpacked, kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.limits import Limits, OutOfBudget, Spent, charging
from local_imager.deliver.inspect.rest import rest_digest
from local_imager.formats.source import BytesSource
from tests.diskfiles import gpt_disk, gpt_entry, patched
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
