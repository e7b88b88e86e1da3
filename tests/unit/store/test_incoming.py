"""Holds: blobs of a set that did not arrive whole stay through collections, and are no fault."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from local_imager.oci.model import MAX_DESCRIPTORS, Descriptor, Digest
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import held_note, hold, incoming_name, is_incoming, release
from local_imager.store.store import Store

AT_ONCE = Rules(grace_s=-1)
SET = Digest.of(b"the set")
ABSENT = Descriptor("", Digest.of(b"not here yet"), 12)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_what_a_hold_lists_stays_and_what_is_not_there_yet_is_no_fault(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    stray = store.layout.put_bytes(b"stray", "x")
    hold(store.layout, SET, [arrived, ABSENT])
    assert check(store).clean
    done = collect(store, AT_ONCE)
    assert (done.blobs, done.held) == ((stray.digest,), (incoming_name(SET),))
    assert store.layout.has(arrived.digest) and check(store).clean


def test_sets_whose_digests_begin_alike_are_held_apart(store: Store) -> None:
    other = Digest(SET.hex[:12] + "0" * 52)
    assert incoming_name(SET) == f"local-imager/incoming/{SET.hex}"
    hold(store.layout, SET, [ABSENT], note=b"one")
    hold(store.layout, other, [ABSENT], note=b"other")
    assert held_note(store.layout, SET) == b"one"
    assert release(store.layout, other) and held_note(store.layout, SET) == b"one"


def test_a_released_set_goes(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    hold(store.layout, SET, [arrived])
    assert release(store.layout, SET) and not release(store.layout, SET)
    collect(store, AT_ONCE)
    assert os.listdir(store.layout.blobs_dir) == []


def test_a_hold_is_no_image_and_can_be_given_up_by_its_name(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    hold(store.layout, SET, [arrived, ABSENT])
    assert store.images() == () and store.assets() == ()
    done = collect(store, Rules(names=[incoming_name(SET)]))
    assert done.names == (incoming_name(SET),) and done.held == ()
    assert arrived.digest in done.blobs and os.listdir(store.layout.blobs_dir) == []


def test_a_hold_is_written_once_and_replaced_by_a_larger_one(store: Store) -> None:
    one, two = (store.layout.put_bytes(data, "x") for data in (b"1", b"2"))
    hold(store.layout, SET, [one])
    before = (store.path / "index.json").read_bytes()
    hold(store.layout, SET, [one, one])
    assert (store.path / "index.json").read_bytes() == before
    hold(store.layout, SET, [one, two])
    assert len([e for e in store.layout.entries() if is_incoming(e)]) == 1
    collect(store, AT_ONCE)
    assert store.layout.has(one.digest) and store.layout.has(two.digest)


def test_a_set_of_more_blobs_than_a_manifest_may_list(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    absent = [
        Descriptor("", Digest.of(str(number).encode()), number)
        for number in range(MAX_DESCRIPTORS + 1)
    ]
    hold(store.layout, SET, [*absent, arrived])
    collect(store, AT_ONCE)
    assert store.layout.has(arrived.digest) and check(store).clean


def test_a_size_that_is_not_the_blobs_own_is_no_fault_of_the_blob(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    hold(store.layout, SET, [Descriptor("x", arrived.digest, 99)])
    assert check(store).clean
    assert collect(store, AT_ONCE).blobs == (arrived.digest,)


def test_a_damaged_blob_is_told_under_the_hold_and_repaired(store: Store) -> None:
    arrived = store.layout.put_bytes(b"arrived", "x")
    hold(store.layout, SET, [arrived])
    path = store.layout.blob_path(arrived.digest)
    path.chmod(0o600)
    path.write_bytes(b"ARRIVED")
    assert [fault.kind for fault in check(store, repair=True).faults] == ["bytes"]
    assert check(store).clean


def test_a_hold_whose_own_document_is_gone_is_taken_out(store: Store) -> None:
    hold(store.layout, SET, [ABSENT])
    entry = store.layout.resolve(incoming_name(SET))
    assert entry is not None
    store.layout.blob_path(entry.digest).unlink()
    assert [fault.kind for fault in check(store, repair=True).faults] == ["missing"]
    assert check(store).clean and store.layout.entries() == ()


def test_segments_of_awaited_blobs_stay_in_the_unverified_folder(store: Store) -> None:
    folder = store.layout.unverified_dir
    folder.mkdir()
    here = store.layout.put_bytes(b"here", "x")
    hold(store.layout, SET, [ABSENT, here])
    names = {digest: f"{digest.hex}.{'0' * 20}" for digest in (ABSENT.digest, here.digest)}
    for name in (*names.values(), "f" * 64):
        (folder / name).write_bytes(b"segment")
        os.utime(folder / name, (time.time() - 9e5, time.time() - 9e5))
    collect(store, AT_ONCE)
    assert os.listdir(folder) == [names[ABSENT.digest]]
    release(store.layout, SET)
    collect(store, AT_ONCE)
    assert os.listdir(folder) == []


def test_a_note_stays_with_the_hold(store: Store) -> None:
    assert held_note(store.layout, SET) is None
    hold(store.layout, SET, [ABSENT], note=b"a signature")
    collect(store, AT_ONCE)
    assert held_note(store.layout, SET) == b"a signature" and check(store).clean
    hold(store.layout, SET, [ABSENT])
    assert held_note(store.layout, SET) is None
