"""Parts that fit a medium: nothing lost, nothing twice, never a byte over the limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.deliver.bundle.form.consistency import check_bundle
from local_imager.deliver.bundle.form.manifest import parse_bundle, render_bundle
from local_imager.deliver.bundle.form.model import MAX_PARTS, Blob, Bundle, Item
from local_imager.deliver.bundle.form.tarform import BLOCK, member_size, part_size
from local_imager.deliver.bundle.near.split import (
    plan_parts,
    range_digests,
    split_bundle,
    whole_part,
)
from local_imager.errors import InputError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import MEDIA_INDEX, MEDIA_MANIFEST, Descriptor, Digest

KIB = 1024
MIB = 1024 * KIB


def range_digest(blob: Digest, offset: int, size_bytes: int) -> Digest:
    """Stand for the digest of a run of bytes that do not exist."""
    return Digest.of(f"{blob} {offset} {size_bytes}".encode())


def named(name: str, size_bytes: int, *, document: bool = False, carried: bool = True) -> Blob:
    return Blob(Digest.of(name.encode()), size_bytes, name, document, carried)


def bundle_of(sizes: list[int], documents: list[int], left_out: int = 0) -> Bundle:
    """Return a bundle in one file: the first document is the manifest of its one item."""
    first = [named(f"document {n}", size, document=True) for n, size in enumerate(documents)]
    blobs = [named(f"layer {n}", size) for n, size in enumerate(sizes)]
    blobs[1:1] = [named(f"left out {n}", MIB, carried=False) for n in range(left_out)]
    every = (*sorted(first, key=lambda blob: blob.digest), *blobs)
    top = Descriptor(MEDIA_MANIFEST, first[0].digest, first[0].size_bytes)
    item = Item("image", "registry.example/a/b:v1", top, tuple(blob.digest for blob in every))
    index = Descriptor(MEDIA_INDEX, Digest.of(b"index"), 700)
    return Bundle(index, (item,), every, (whole_part(every),))


SIZES = st.lists(
    st.one_of(st.integers(0, 3 * KIB), st.integers(0, 99 * KIB), st.integers(0, 2 * MIB)),
    max_size=12,
)
DOCUMENTS = st.lists(st.integers(0, 20 * KIB), min_size=1, max_size=4)


@settings(deadline=None)
@given(SIZES, DOCUMENTS, st.integers(0, 2), st.integers(5 * KIB, 3 * MIB))
def test_parts_carry_everything_once_within_the_limit(
    sizes: list[int], documents: list[int], left_out: int, limit: int
) -> None:
    bundle = bundle_of(sizes, documents, left_out)
    try:
        split = split_bundle(bundle, limit, range_digest)
    except InputError as error:
        assert error.code == "split-too-small"
        return
    # That is where coverage without gap or overlap and no empty part are checked.
    check_bundle(split)
    assert parse_bundle(render_bundle(split)) == split
    sizes_of_parts = [part_size(split, number + 1) for number in range(len(split.parts))]
    assert max(sizes_of_parts) <= limit
    assert split_bundle(replace(bundle, parts=()), limit, range_digest) == split
    room = limit - (sizes_of_parts[0] - sum(member_size(p.size_bytes) for p in split.parts[0]))
    for piece in (piece for part in split.parts for piece in part):
        blob = split.by_digest[piece.blob]
        if not piece.whole:
            assert member_size(blob.size_bytes) > room - BLOCK
            assert piece.digest == range_digest(blob.digest, piece.offset, piece.size_bytes)
    assert [p.blob for part in split.parts for p in part if p.offset == 0] == [
        piece.blob for piece in whole_part(bundle.blobs)
    ]


@settings(deadline=None, max_examples=25)
@given(SIZES, DOCUMENTS)
def test_the_smallest_limit_said_is_enough_and_the_next_is_not(
    sizes: list[int], documents: list[int]
) -> None:
    bundle = bundle_of(sizes, documents)
    with pytest.raises(InputError) as caught:
        split_bundle(bundle, 0, range_digest)
    smallest = int(caught.value.message.split()[-2])
    split = split_bundle(bundle, smallest, range_digest)
    assert max(part_size(split, n + 1) for n in range(len(split.parts))) <= smallest
    with pytest.raises(InputError):
        split_bundle(bundle, smallest - 1, range_digest)
    said = int(caught.value.hint.split()[2].removesuffix("MiB"))
    assert (said - 1) * MIB < smallest <= said * MIB


def test_all_of_it_fits_one_part() -> None:
    bundle = bundle_of([MIB, 0, 5], [100])
    size = part_size(bundle, 1)
    assert split_bundle(bundle, size, range_digest) == bundle
    assert len(split_bundle(bundle, size - 1, range_digest).parts) == 2


def test_a_bundle_without_layers_is_one_part() -> None:
    assert split_bundle(bundle_of([], [100]), MIB, range_digest).parts == ((),)


def test_a_blob_that_fits_a_part_is_not_cut() -> None:
    blobs = [named("a", 600 * KIB), named("b", 600 * KIB), named("c", 300 * KIB)]
    parts = plan_parts(blobs, 0, MIB, range_digest)
    assert [[piece.blob for piece in part] for part in parts] == [
        [blobs[0].digest],
        [blobs[1].digest, blobs[2].digest],
    ]
    assert all(piece.whole for part in parts for piece in part)


def test_a_larger_one_fills_the_open_part_and_ends_where_the_next_begins() -> None:
    blobs = [named("a", 100 * KIB), named("b", 2 * MIB), named("c", 100 * KIB)]
    first, second, third = plan_parts(blobs, 10 * KIB, MIB, range_digest)
    room = MIB - 10 * KIB
    begun = room - member_size(100 * KIB) - BLOCK
    assert [(p.offset, p.size_bytes) for p in first[1:]] == [(0, begun)]
    assert [(p.offset, p.size_bytes) for p in second] == [(begun, room - BLOCK)]
    done = begun + room - BLOCK
    assert [(p.offset, p.size_bytes) for p in third] == [(done, 2 * MIB - done), (0, 100 * KIB)]


def test_a_part_too_full_for_a_segment_is_closed() -> None:
    blobs = [named("a", MIB - 2 * BLOCK), named("b", 2 * MIB)]
    parts = plan_parts(blobs, 0, MIB, range_digest)
    assert [len(part) for part in parts] == [1, 1, 1, 1]


def test_ranges_are_asked_for_once_and_only_where_a_blob_is_cut() -> None:
    asked: list[tuple[Digest, int, int]] = []

    def ask(blob: Digest, offset: int, size_bytes: int) -> Digest:
        asked.append((blob, offset, size_bytes))
        return range_digest(blob, offset, size_bytes)

    split = split_bundle(bundle_of([MIB, 9 * MIB, 2 * MIB], [500]), 4 * MIB, ask)
    cut = [piece for part in split.parts for piece in part if not piece.whole]
    assert asked == [(piece.blob, piece.offset, piece.size_bytes) for piece in cut]
    assert len({blob for blob, _, _ in asked}) == 1


def test_never_more_parts_than_a_set_may_have() -> None:
    blob = [named("a", (MAX_PARTS + 1) * BLOCK)]
    with pytest.raises(InputError, match="no more than 10000 parts"):
        plan_parts(blob, 0, 2 * BLOCK, range_digest)
    assert len(plan_parts(blob, 0, 3 * BLOCK, range_digest)) == MAX_PARTS // 2 + 1


def test_the_digest_of_a_range(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    data = bytes(range(256)) * 9000
    blob = layout.put_bytes(data, "text/plain").digest
    digests = range_digests(layout)
    assert digests(blob, 100, 2_000_000) == Digest.of(data[100:2_000_100])
    assert digests(blob, len(data), 0) == Digest.of(b"")
    with pytest.raises(StoreError, match="shorter than it was"):
        digests(blob, 1, len(data))
    with pytest.raises(StoreError, match="could not read blob"):
        digests(Digest.of(b"none"), 0, 1)
