"""Importing: what becomes visible, what is refused, what stays for the next part or run."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local_imager.deliver.bundle.delta import plan_delta
from local_imager.deliver.bundle.importing import Handout, Imported, import_files
from local_imager.deliver.bundle.intake import Wishes
from local_imager.deliver.bundle.inventory import make_inventory
from local_imager.deliver.bundle.report import ImportReport
from local_imager.deliver.bundle.split import whole_part
from local_imager.errors import ExitCode, HostError, InputError, VerificationRefused
from local_imager.events import RecordingSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Reference
from local_imager.sources.fetch import held_descriptor, is_complete
from local_imager.sources.verify import verify_image
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide, flip
from tests.unit.sources.forge import Signing


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    return NearSide(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def take(near: NearSide, store: Store | None, files: Sequence[Path], **more: Any) -> Imported:
    policy = more.pop("policy", None) or near.policy()
    signature, handout = more.pop("signature", None), more.pop("handout", None)
    wishes = Wishes(policy, **more)
    names = [str(path) for path in files]
    return import_files(names, store, wishes, RecordingSink(), signature=signature, handout=handout)


def one(done: Imported) -> ImportReport:
    (report,) = done.reports
    assert done.unknown == ()
    return report


def states(report: ImportReport) -> dict[str, str]:
    return {outcome.item.name: report.state_of(outcome) for outcome in report.outcomes}


def visible(store: Store) -> set[str]:
    """The names of images, assets and what is attached, holds and reports left out."""
    return {
        entry.ref_name
        for entry in store.layout.entries()
        if not is_incoming(entry) and not entry.ref_name.startswith("local-imager/import/")
    }


def assert_whole(store: Store, near: NearSide, name: str, arches: tuple[str, ...]) -> None:
    """The image is complete, and the store alone verifies it."""
    reference = Reference.parse(name)
    held = held_descriptor(store.layout, reference)
    assert held is not None and is_complete(store.layout, held, arches)
    verify_image(LayoutSource.open(store.path), reference, held, near.policy())


def test_a_bundle_in_one_file(near: NearSide, store: Store) -> None:
    imager, tools = (
        near.image("siderolabs/imager"),
        near.image("siderolabs/tools", arches=("arm64",)),
    )
    asset = near.asset(b"\0" * 200_000 + b"end")
    near.document("site.lock", b"lock")
    report = one(take(near, store, near.write()))
    assert states(report) == {
        imager: "imported",
        tools: "imported",
        asset.name: "imported",
        "site.lock": "carried",
    }
    assert report.exit_code == ExitCode.OK and report.complete and report.faults == ()
    assert report.signed_by is not None and "bundles" in report.signed_by["policy"]
    assert_whole(store, near, imager, ("amd64",))
    assert_whole(store, near, tools, ("arm64",))
    found = store.find_build(asset.build_key)
    assert found is not None and found.name == asset.name and not found.private
    assert found.path.read_bytes() == asset.path.read_bytes()
    assert found.path.stat().st_blocks * 512 < 100_000  # zeros stay holes
    assert store.read_referrers(found, "application/vnd.local-imager.build-record.v1+json") == (
        b'{"built":1}',
    )
    assert not any(map(is_incoming, store.layout.entries()))
    assert check(store).clean
    collect(store, Rules(grace_s=-1))
    assert_whole(store, near, imager, ("amd64",))
    assert os.listdir(store.layout.staging_dir) == []


def test_the_same_bundle_again_is_told_without_reading_it_all(near: NearSide, store: Store) -> None:
    near.image("siderolabs/imager")
    near.asset(b"asset")
    files = near.write()
    take(near, store, files)
    before = (store.path / "index.json").read_bytes()
    report = one(take(near, store, files))
    assert set(states(report).values()) == {"present"}
    assert not report.files[0].whole and report.exit_code == ExitCode.OK
    names = {entry.ref_name for entry in store.layout.entries()}
    assert f"local-imager/import/{report.set_digest.short}" in names
    assert len(before) == len((store.path / "index.json").read_bytes())


def test_an_image_that_policy_refuses_is_listed_and_the_others_come(
    near: NearSide, store: Store
) -> None:
    good, bad = near.image("siderolabs/imager"), near.image("siderolabs/evil", signed=False)
    report = one(take(near, store, near.write()))
    assert states(report) == {good: "imported", bad: "refused"}
    refused = report.outcomes[1]
    assert refused.code == "no-signature" and refused.message and refused.hint
    assert report.exit_code == ExitCode.VERIFICATION_REFUSED and report.complete
    layer = near.contents().items[1].blobs
    assert not any(
        store.layout.has(digest) for digest in set(layer) - set(near.contents().items[0].blobs)
    )
    assert check(store).clean


def test_nothing_of_a_bundle_that_nobody_may_use_is_written(near: NearSide, store: Store) -> None:
    near.image("siderolabs/imager")
    files = near.write()
    before = (store.path / "index.json").read_bytes()
    done = take(near, store, files, policy=Signing().policy("other.test/**"))
    assert set(states(one(done)).values()) == {"refused"}
    entries = [e.ref_name for e in store.layout.entries()]
    assert entries == [f"local-imager/import/{one(done).set_digest.short}"]
    store.layout.remove_ref(entries[0])
    collect(store, Rules(grace_s=-1))
    assert os.listdir(store.layout.blobs_dir) == []
    assert len((store.path / "index.json").read_bytes()) == len(before)


@pytest.mark.parametrize("case", ["unsigned", "other key", "other bundle"])
def test_a_signature_that_policy_demands_and_that_is_not_right(
    near: NearSide, store: Store, case: str
) -> None:
    near.image("siderolabs/imager")
    files = near.write(signed=case != "unsigned")
    place = near.folder / "site.tar.sigstore.json"
    if case == "other key":
        near.vouching = Signing()
    if case == "other bundle":
        place.write_bytes(near.signature(b"another manifest"))
    before = (store.path / "index.json").read_bytes()
    with pytest.raises(VerificationRefused):
        take(near, store, files)
    assert (store.path / "index.json").read_bytes() == before
    assert os.listdir(store.layout.blobs_dir) == []


def test_without_a_vouching_signature_assets_and_documents_are_refused(
    near: NearSide, store: Store, tmp_path: Path
) -> None:
    image, asset = near.image("siderolabs/imager"), near.asset(b"asset")
    near.document("site.lock", b"lock")
    files = near.write(signed=False)
    policy = near.policy(bundles=False)
    handout = Handout(tmp_path / "papers")
    report = one(take(near, store, files, policy=policy, documents=True, handout=handout))
    assert states(report) == {image: "imported", asset.name: "refused", "site.lock": "refused"}
    assert {one.code for one in report.outcomes[1:]} == {"unvouched"}
    assert report.exit_code == ExitCode.VERIFICATION_REFUSED
    assert store.assets() == () and not (tmp_path / "papers" / "site.lock").exists()
    again = take(
        near, store, files, policy=policy, documents=True, handout=handout, unsigned_assets=True
    )
    report = one(again)
    assert states(report) == {image: "present", asset.name: "imported", "site.lock": "written"}
    assert report.outcomes[1].signer == "nobody (--allow-unsigned-assets)"
    assert (tmp_path / "papers" / "site.lock").read_bytes() == b"lock"


def test_private_assets_stay_private(near: NearSide, store: Store) -> None:
    asset = near.asset(b"secret" * 1000, private=True)
    take(near, store, near.write())
    found = store.find_build(asset.build_key)
    assert found is not None and found.private
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o400
    for entry in store.layout.referrers(found.manifest_digest):
        manifest = store.layout.read_manifest(entry)
        layer = manifest.layers[0]  # type: ignore[union-attr]
        assert stat.S_IMODE(store.layout.blob_path(layer.digest).stat().st_mode) == 0o400


def test_a_newer_build_takes_the_name_of_an_asset(near: NearSide, store: Store) -> None:
    asset = near.asset(b"first")
    take(near, store, near.write())
    near.assets.clear()
    newer = near.asset(b"second")
    assert newer.name == asset.name
    take(near, store, near.write())
    (held,) = store.assets()
    assert held.digest == newer.digest


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
    files = near.write(parts=3)[:]
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
    assert os.listdir(store.layout.unverified_dir) == []


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


def test_a_dry_run_verifies_all_and_writes_nothing(
    near: NearSide, store: Store, tmp_path: Path
) -> None:
    good, bad = near.image("siderolabs/imager"), near.image("siderolabs/evil", signed=False)
    files = near.write(parts=2)
    before = (store.path / "index.json").read_bytes()
    report = one(take(near, store, files, dry_run=True))
    assert states(report) == {good: "ready", bad: "refused"}
    assert (store.path / "index.json").read_bytes() == before
    assert os.listdir(store.layout.blobs_dir) == []
    assert not (store.path / "rollback-memory.json").exists()
    assert states(one(take(near, None, files, dry_run=True))) == {good: "ready", bad: "refused"}
    assert states(one(take(near, None, files[:1], dry_run=True)))[good] in ("ready", "waiting")


def test_a_disk_that_is_too_small_is_told_before_a_layer_is_written(
    near: NearSide, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    near.image("siderolabs/imager")
    files = near.write()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(HostError) as caught:
        take(near, store, files)
    assert caught.value.code == "disk-full" and "MiB" in caught.value.message
    assert os.listdir(store.layout.blobs_dir) == [] and visible(store) == set()


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
