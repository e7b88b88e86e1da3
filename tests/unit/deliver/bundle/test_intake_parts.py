"""Importing what is damaged, cut into parts, or leans on what is here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.deltas.delta import plan_delta
from local_imager.deliver.bundle.form.inventory import make_inventory
from local_imager.deliver.bundle.near.split import whole_part
from local_imager.errors import ExitCode, InputError, VerificationRefused
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.unit.deliver.bundle.imports import assert_whole, one, states, take, visible
from tests.unit.deliver.bundle.nearside import NearSide, flip


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    return NearSide(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def test_faults_keep_everything_back_and_what_came_is_not_copied_again(
    near: NearSide, store: Store
) -> None:
    data = [os.urandom(50_000) for _ in range(2)]
    imager, tools = (near.image(f"siderolabs/i{n}", {"x": d}) for n, d in enumerate(data))
    (path,) = near.write()
    sound = path.read_bytes()
    layers = [blob for blob in near.contents().blobs if "layer" in blob.purpose]
    flip(path, near.blob(near.contents(), layers[1].digest)[1000:2000])
    report = one(take(near, store, [path]))
    assert states(report) == {imager: "kept-back", tools: "faulty"}
    assert report.exit_code == ExitCode.VERIFICATION_REFUSED and not report.complete
    assert [fault.kind for fault in report.faults] == ["bit-flip"]
    assert visible(store) == set()
    collect(store, Rules(grace_s=-1))
    assert store.layout.has(layers[0].digest) and not store.layout.has(layers[1].digest)
    assert check(store).clean
    inode = store.layout.blob_path(layers[0].digest).stat().st_ino
    path.write_bytes(sound)
    report = one(take(near, store, [path]))
    assert states(report) == {imager: "imported", tools: "imported"}
    assert store.layout.blob_path(layers[0].digest).stat().st_ino == inode
    assert not any(map(is_incoming, store.layout.entries()))


def test_a_partial_import_takes_what_no_fault_touches(near: NearSide, store: Store) -> None:
    names = [near.image(f"siderolabs/i{n}", size_bytes=50_000) for n in range(3)]
    (path,) = near.write()
    layers = [blob for blob in near.contents().blobs if "layer" in blob.purpose]
    flip(path, near.blob(near.contents(), layers[1].digest)[1000:2000])
    report = one(take(near, store, [path], partial=True))
    assert list(states(report).values()) == ["imported", "faulty", "imported"]
    assert_whole(store, near, names[0], ("amd64",))
    assert store.layout.resolve(names[1]) is None
    assert check(store).clean


def test_a_damaged_document_costs_its_image_only(near: NearSide, store: Store) -> None:
    first, second = near.image("siderolabs/first"), near.image("siderolabs/second")
    (path,) = near.write()
    flip(path, near.store.layout.blob_path(near.images[0].descriptor.digest).read_bytes())
    report = one(take(near, store, [path], partial=True))
    assert states(report) == {first: "faulty", second: "imported"}
    assert check(store).clean


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_one_by_one_in_any_order(
    near: NearSide, store: Store, order: tuple[int, ...]
) -> None:
    names = [near.image(f"siderolabs/i{n}", size_bytes=60_000) for n in range(3)]
    files = near.write(parts=3)
    assert len(files) >= 3
    order = (*order, *range(3, len(files)))
    for count, number in enumerate(order, 1):
        report = one(take(near, store, [files[number]]))
        collect(store, Rules(grace_s=-1))
        assert check(store).clean
        missing = [part.number - 1 for part in report.parts if part.state == "missing"]
        assert sorted(missing) == sorted(order[count:])
        assert report.complete == (count == len(files))
        assert report.exit_code == ExitCode.OK
        for outcome in report.outcomes:
            if outcome.state == "waiting":
                assert {n - 1 for n in outcome.parts} <= set(order[count:])
                assert store.layout.resolve(outcome.item.name) is None
            else:
                assert_whole(store, near, outcome.item.name, ("amd64",))
    for name in names:
        assert_whole(store, near, name, ("amd64",))
    assert not any(map(is_incoming, store.layout.entries()))
    assert [*store.layout.unverified_dir.glob("*")] == []


def test_a_blob_that_was_cut_is_joined_after_its_last_part(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/large", size_bytes=300_000)
    files = near.write(parts=3)
    assert any(
        not piece.whole for part in near.bundle(near.contents(), parts=3).parts for piece in part
    )
    for path in files[:-1]:
        report = one(take(near, store, [path]))
        assert states(report) == {name: "waiting"}
        collect(store, Rules(grace_s=-1))
    assert states(one(take(near, store, files[-1:]))) == {name: "imported"}
    assert_whole(store, near, name, ("amd64",))


def test_a_segment_that_was_damaged_on_the_disk_comes_again(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/large", size_bytes=300_000)
    files = near.write(parts=3)
    take(near, store, files[:1])
    (segment,) = store.layout.unverified_dir.iterdir()
    data = bytearray(segment.read_bytes())
    data[7] ^= 1
    segment.write_bytes(bytes(data))
    report = one(take(near, store, files[1:]))
    assert (
        states(report) == {name: "faulty"} and "damaged on this disk" in report.outcomes[0].message
    )
    assert check(store).clean
    assert states(one(take(near, store, files[:1]))) == {name: "imported"}


def test_a_damaged_part_is_named_with_what_it_held(near: NearSide, store: Store) -> None:
    names = [near.image(f"siderolabs/i{n}", size_bytes=60_000) for n in range(3)]
    files = near.write(parts=3)
    files[1].write_bytes(files[1].read_bytes()[:-20_000])
    report = one(take(near, store, files))
    assert {fault.kind for fault in report.faults} == {"truncated"}
    assert "imported" not in states(report).values()
    (missing,) = [part for part in report.parts if part.state == "missing"]
    assert missing.number == 2 and set(missing.items) <= set(names) and missing.items


def test_the_signature_of_one_part_serves_the_others(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/large", size_bytes=300_000)
    files = near.write(parts=2)
    take(near, store, files[:1])
    (near.folder / "site.tar.sigstore.json").unlink()
    report = one(take(near, store, files[1:]))
    assert states(report)[name] in ("imported", "waiting") and report.signed_by is not None
    with pytest.raises(VerificationRefused):
        take(near, Store.open(near.folder / "other"), files[1:])


def test_a_bundle_that_leans_on_blobs_which_are_not_here(near: NearSide, store: Store) -> None:
    shared = os.urandom(40_000)
    old = near.image("siderolabs/old", {"x": shared})
    take(near, store, near.write("old.tar"))
    near.images.clear()
    new = near.image("siderolabs/new", {"x": shared})

    def lean(bundle: Any) -> Any:
        blobs = tuple(
            replace(blob, carried=False) if "layer" in blob.purpose else blob
            for blob in bundle.blobs
        )
        return replace(bundle, blobs=blobs, parts=((),))

    files = near.write("delta.tar", change=lean)
    elsewhere = Store.open(near.folder / "elsewhere")
    report = one(take(near, elsewhere, files))
    assert states(report) == {new: "lacking"} and report.exit_code == ExitCode.FAILED
    assert "inventory" in report.outcomes[0].hint and visible(elsewhere) == set()
    assert states(one(take(near, store, files))) == {new: "imported"}
    assert_whole(store, near, new, ("amd64",))
    assert_whole(store, near, old, ("amd64",))


def test_a_blob_that_travelled_as_a_delta_is_rebuilt(near: NearSide, store: Store) -> None:
    noise = os.urandom(1_200_000)
    near.image("siderolabs/tool", {"x": noise})
    take(near, store, near.write("old.tar"))
    near.images.clear()
    changed = bytearray(noise)
    changed[5000:5020] = bytes(20)
    new = near.image("siderolabs/tool", {"x": bytes(changed), "y": os.urandom(200_000)}, tag="v2")
    inventory = make_inventory(store)
    contents = near.contents()
    plan = plan_delta(contents.blobs, contents.items, near.store.layout, inventory)
    (delta,) = plan.deltas
    bundle = replace(near.bundle(contents), blobs=plan.blobs, parts=(whole_part(plan.blobs),))
    files = near.write_bundle(contents, near.cut(contents, bundle, 3), "delta.tar")
    assert sum(path.stat().st_size for path in files) < 900_000
    assert states(one(take(near, None, files, dry_run=True))) == {new: "lacking"}
    assert states(one(take(near, store, files, dry_run=True))) == {new: "ready"}
    for path in files[:-1]:
        assert states(one(take(near, store, [path]))) == {new: "waiting"}
        collect(store, Rules(grace_s=-1))
    assert states(one(take(near, store, files[-1:]))) == {new: "imported"}
    assert_whole(store, near, new, ("amd64",))
    collect(store, Rules(grace_s=-1))
    assert check(store).clean and not store.layout.has(delta.payload)


def test_two_bundles_in_one_command(near: NearSide, store: Store) -> None:
    first = near.image("siderolabs/first")
    files = near.write("one.tar")
    near.images.clear()
    second = near.image("siderolabs/second")
    files += near.write("two.tar")
    done = take(near, store, files)
    assert [states(report) for report in done.reports] == [
        {first: "imported"},
        {second: "imported"},
    ]


def test_files_that_are_no_bundle_or_not_there(near: NearSide, store: Store) -> None:
    near.image("siderolabs/imager")
    files = near.write()
    with pytest.raises(InputError, match="no file"):
        take(near, store, [*files, near.folder / "typo.tar"])
    assert os.listdir(store.layout.blobs_dir) == []
    signature = near.folder / "site.tar.sigstore.json"
    assert one(take(near, store, [*files, signature])).complete  # `site.tar*` takes that along
    with pytest.raises(InputError):
        take(near, store, [signature])


def test_a_file_that_does_not_say_what_it_is(near: NearSide, store: Store) -> None:
    near.image("siderolabs/imager")
    (path,) = near.write()
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(bytes(data))
    done = take(near, store, [path])
    assert done.reports == () and len(done.unknown) == 1 and done.unknown[0].faults
    assert visible(store) == set()
