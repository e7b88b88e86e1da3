"""Finds where the bytes of two parts begin to differ, for parts that lie in one piece."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from local_imager.deliver.compare.align import WRAPPERS
from local_imager.deliver.compare.finding import Finding
from local_imager.deliver.compare.gaps import Place, outside_place
from local_imager.deliver.compare.noise import REST
from local_imager.deliver.inspect.parts import Part
from local_imager.formats.source import CHUNK_BYTES, FormatError, Slice, Source

# See `locator`.
Locate = Callable[[Finding], Place | None]
# Reading costs time; what differs this late is told by digests and sizes alone.
_MAX_BYTES: Final = 1 << 30


def locator(left: Source, right: Source) -> Locate:
    """Return a function that finds the first differing bytes of a pair of parts.

    It answers where in the part that is, for bytes outside of parts in which gap, and None for
    parts that lie in something packed, or in several pieces.
    """

    def locate(finding: Finding) -> Place | None:
        if finding.left is None or finding.right is None:
            return None
        chains = [[pair[side] for pair in finding.holders] for side in (0, 1)]
        places = [
            place_of(whole, [*chain, part])
            for whole, chain, part in zip(
                (left, right), chains, (finding.left, finding.right), strict=True
            )
        ]
        if places[0] is None or places[1] is None:
            return None
        try:
            if finding.fact == REST:
                return outside_place(places[0], places[1], (finding.left, finding.right))
            found = first_difference(places[0], places[1])
            return None if found is None else Place(*found)
        except FormatError:
            return None

    return locate


def place_of(whole: Source, chain: list[Part]) -> Source | None:
    """Return the bytes of the last part of a chain from the root down, None where it has no place.

    A part counts from its parent, so one link without an offset leaves all below it without one.
    """
    offset = 0
    for holder, part in pairwise(chain):
        if part.offset is None or holder.kind in (*WRAPPERS, "initramfs"):
            return None
        offset += part.offset
    try:
        return Slice(whole, offset, chain[-1].size_bytes)
    except FormatError:
        return None


def first_difference(left: Source, right: Source) -> tuple[int, int] | None:
    """Return (offset of the first differing byte, bytes up to the last one); None when equal.

    Bytes that only the longer one has count as differing.
    """
    shared = min(left.size_bytes, right.size_bytes)
    longest = max(left.size_bytes, right.size_bytes)
    if shared > _MAX_BYTES:
        return None
    first = last = None
    for start in range(0, shared, CHUNK_BYTES):
        size = min(CHUNK_BYTES, shared - start)
        here, there = left.read(start, size), right.read(start, size)
        if here == there:
            continue
        marks = int.from_bytes(here, "big") ^ int.from_bytes(there, "big")
        bits = marks.bit_length()
        if first is None:
            first = start + size - (bits + 7) // 8
        lowest = (marks & -marks).bit_length() - 1
        last = start + size - 1 - lowest // 8
    if left.size_bytes != right.size_bytes:
        return (shared if first is None else first, longest - (shared if first is None else first))
    return None if first is None or last is None else (first, last - first + 1)
