"""Where bytes begin to differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local_imager.deliver.compare.bytesdiff import first_difference, locator
from local_imager.deliver.compare.gaps import Place
from local_imager.deliver.compare.trees import find_differences
from local_imager.deliver.inspect.parts import Part
from local_imager.formats.source import CHUNK_BYTES, BytesSource
from tests.comparetrees import box, leaf

LONG = bytes(CHUNK_BYTES)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (b"abc", b"abc", None),
        (b"abc", b"abd", (2, 1)),
        (b"xbcx", b"ybcy", (0, 4)),
        (b"abc", b"abcde", (3, 2)),
        (b"abc", b"axcde", (1, 4)),
        (LONG + b"a" + LONG, LONG + b"b" + LONG, (CHUNK_BYTES, 1)),
        (b"\1" + LONG + LONG, b"\2" + LONG + LONG[:-1] + b"\3", (0, 2 * CHUNK_BYTES + 1)),
    ],
)
def test_first_difference(left: bytes, right: bytes, expected: tuple[int, int] | None) -> None:
    assert first_difference(BytesSource(left), BytesSource(right)) == expected
    assert first_difference(BytesSource(right), BytesSource(left)) == expected


def disk(data: bytes, *, packed: bool = False, offset: int | None = 8) -> tuple[Part, bytes]:
    inner = replace(leaf("a", data), offset=offset, text=None)
    outer = box("d", "compressed" if packed else "disk", replace(inner, name="content"))
    return outer, b"\0" * 8 + data


def test_a_part_counts_from_its_own_begin() -> None:
    (left, here), (right, there) = disk(b"abcd"), disk(b"abxd")
    (finding,) = find_differences(left, right)
    assert locator(BytesSource(here), BytesSource(there))(finding) == Place(2, 1)


@pytest.mark.parametrize(("packed", "offset"), [(True, 8), (False, None), (False, 10**9)])
def test_what_lies_nowhere_in_one_piece_has_no_place(packed: bool, offset: int | None) -> None:
    left, here = disk(b"abcd", packed=packed, offset=offset)
    right, there = disk(b"abxd", packed=packed, offset=offset)
    found = [one for one in find_differences(left, right) if one.fact == "content"]
    assert [locator(BytesSource(here), BytesSource(there))(one) for one in found] == [None]
