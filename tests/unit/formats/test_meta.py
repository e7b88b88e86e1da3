"""META partitions as Talos writes them, and damaged ones."""

from __future__ import annotations

import hashlib
import struct

import pytest

from local_imager.formats.meta import Meta, read_meta
from local_imager.formats.source import BytesSource, FormatError
from tests.diskfiles import meta_copy, meta_syslinux, patched

HALF = 256 * 1024
PARTITION = 1 << 20
VALUES = [(10, b"addresses: []\n"), (17, b"dual-boot"), (9, b""), (6, b"\x00\xff")]
COPY = meta_copy(VALUES)


def meta_of(*parts: bytes) -> Meta:
    return read_meta(BytesSource(b"".join(parts).ljust(PARTITION, b"\0")))


def test_values_of_two_equal_copies() -> None:
    meta = meta_of(COPY, COPY)
    assert dict(meta) == dict(VALUES)
    assert (len(meta), meta.faults, dict(meta.syslinux)) == (4, (), {})


def test_zeros_are_valid_and_empty() -> None:
    assert (dict(meta_of()), meta_of().faults) == ({}, ())


@pytest.mark.parametrize("offset", [0, HALF - 1, HALF - 30, 20, 5000])
def test_a_damaged_copy_is_told_and_the_other_taken(offset: int) -> None:
    damaged = patched(COPY, offset, b"\x77")
    second = meta_of(damaged, COPY)
    assert dict(second) == dict(VALUES)
    assert len(second.faults) == 1 and second.faults[0].startswith("copy 1 of META is damaged: its")
    first = meta_of(COPY, damaged)
    assert dict(first) == dict(VALUES)
    assert len(first.faults) == 1 and first.faults[0].startswith("copy 2 of META is damaged: its")
    with pytest.raises(FormatError, match="copy 1 of META is damaged"):
        meta_of(damaged, damaged)


def test_copies_that_differ_and_copies_that_are_missing() -> None:
    other = meta_of(COPY, meta_copy([(10, b"other")]))
    assert (other[10], other.faults) == (VALUES[0][1], ("the two copies of META differ",))
    half = meta_of(COPY)
    assert (dict(half), half.faults) == (
        dict(VALUES),
        ("one of the two copies of META is empty",),
    )
    with pytest.raises(FormatError, match="copy 2 of META is damaged"):
        meta_of(bytes(HALF), b"something else")


def test_a_value_that_leaves_its_copy_is_refused() -> None:
    whole = meta_copy([])
    for size in (HALF, 0xFFFFFFFF, HALF - 40 - 7):
        front = whole[:4] + struct.pack(">II", 10, size) + whole[12:]
        lying = meta_copy_of(front)
        with pytest.raises(FormatError, match=f"a value claims {size} bytes"):
            meta_of(lying, lying)
    full = meta_copy([(10, b"x" * (HALF - 40 - 8))])
    assert len(meta_of(full, full)[10]) == HALF - 48


def meta_copy_of(raw: bytes) -> bytes:
    """Give a copy the checksum that it needs."""
    end = raw[-4:]
    return raw[:-36] + hashlib.sha256(raw[:-36] + bytes(32) + end).digest() + end


def test_keys_are_cut_to_a_byte_and_the_last_value_of_a_key_counts_as_in_talos() -> None:
    copy = meta_copy([(0x10A, b"first"), (10, b"last"), (0, b""), (11, b"behind the end")])
    assert dict(meta_of(copy, copy)) == {10: b"last"}


def test_the_older_vector_at_the_end() -> None:
    old = meta_syslinux([(6, b"upgrade"), (6, b"not this"), (12, b"x")])
    meta = meta_of(COPY, COPY, bytes(PARTITION - 2 * HALF - 1024), old, old)
    assert dict(meta.syslinux) == {6: b"upgrade", 12: b"x"}
    assert dict(meta) == dict(VALUES)
    damaged = patched(old, 20, b"?")
    meta = meta_of(COPY, COPY, bytes(PARTITION - 2 * HALF - 1024), damaged, damaged)
    assert dict(meta.syslinux) == {}


@pytest.mark.parametrize("size", [0, 511, 2 * HALF - 1])
def test_a_partition_that_was_cut_off_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="the file ends"):
        read_meta(BytesSource((COPY + COPY)[:size]))
