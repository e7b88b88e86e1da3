"""What does not travel, what travels as a difference, and what travels whole and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from local_imager.deliver.bundle.deltas import delta, windows
from local_imager.deliver.bundle.deltas.delta import DeltaPlan, leave_out, plan_delta
from local_imager.deliver.bundle.deltas.rebuild import rebuild_blob
from local_imager.deliver.bundle.form.consistency import check_bundle
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.manifest import parse_bundle, render_bundle
from local_imager.deliver.bundle.form.model import Blob, Bundle, Item
from local_imager.deliver.bundle.near.split import whole_part
from local_imager.events import Progress, RecordingSink
from local_imager.oci.model import MEDIA_INDEX, Descriptor, Digest
from local_imager.store.records import AssetRecord
from local_imager.store.store import Store
from tests.unit.deliver.bundle.samples import blob, digest
from tests.unit.deliver.bundle.versions import (
    GZIP_HEADER_WITH_NAME,
    KIB,
    LARGE_BYTES,
    MIB,
    NEW,
    OLD,
    Sides,
    content,
    flushed_gzip,
    gzipped,
    index_of,
    next_version,
    put_layers,
    zstded,
)

RESEMBLES_NOTHING = "nothing that the far side has resembles it"


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides.make(tmp_path)


@pytest.fixture(autouse=True)
def _small_blobs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "LEAST_BYTES", LARGE_BYTES)


def inventory_of(*names: str) -> Inventory:
    return Inventory({digest(name): 10 for name in names})


# Blob by blob


def test_exactly_what_the_far_side_has_is_left_out() -> None:
    blobs = (
        blob("manifest", 10, document=True),
        blob("lock", 10, document=True),
        blob("known layer", 10),
        blob("new layer", 10),
        blob("missing already", 10, carried=False),
    )
    left = leave_out(blobs, inventory_of("manifest", "known layer", "missing already", "other"))
    assert left == (*blobs[:2], replace(blobs[2], carried=False), *blobs[3:])


def test_nothing_is_left_out_of_an_empty_far_side() -> None:
    blobs = (blob("manifest", 10, document=True), blob("layer", 10))
    assert leave_out(blobs, Inventory({})) == blobs


def test_the_same_image_again_carries_no_layer(sides: Sides) -> None:
    layers = [content(1), content(2, 50 * KIB)]
    sides.both_have(layers)
    plan = sides.plan(layers)
    assert [one.carried for one in plan.blobs] == [True, True, False, False]
    assert plan.left_out_bytes == sum(map(len, layers))
    assert not plan.deltas
    assert not plan.whole


# Deltas


def only_delta(plan: DeltaPlan, target: bytes) -> Blob:
    """Return the one blob that is rebuilt, after a look at what the plan says of it."""
    (delta,) = plan.deltas
    place = next(n for n, one in enumerate(plan.blobs) if one.rebuild is not None)
    rebuilt, payload = plan.blobs[place : place + 2]
    assert rebuilt.rebuild is not None
    assert not rebuilt.carried
    assert payload.carried
    assert payload.purpose == f"delta of {rebuilt.purpose}"
    assert (delta.blob, delta.size_bytes) == (Digest.of(target), len(target))
    assert (delta.payload, delta.payload_bytes) == (payload.digest, payload.size_bytes)
    way = rebuilt.rebuild
    assert (way.base, way.payload, way.method) == (delta.base, delta.payload, delta.method)
    return rebuilt


def check_it_comes_back(sides: Sides, rebuilt: Blob, target: bytes) -> None:
    assert rebuilt.rebuild is not None
    sides.carry(rebuilt.rebuild.payload)
    rebuild_blob(rebuilt, sides.far)
    assert sides.far.blob_path(rebuilt.digest).read_bytes() == target


@pytest.mark.parametrize(
    ("pack", "method"),
    [
        (bytes, "zstd-window"),
        (gzipped, "recompress:gzip-6+zstd-window"),
        (lambda plain: gzipped(plain, 1), "recompress:gzip-1+zstd-window"),
        (lambda plain: gzipped(plain, 9, GZIP_HEADER_WITH_NAME), "recompress:gzip-9+zstd-window"),
        (zstded, "recompress:zstd-3-checksum-size+zstd-window"),
        (
            lambda plain: zstded(plain, 7, checksum=False, size=False),
            "recompress:zstd-7+zstd-window",
        ),
    ],
)
def test_a_version_that_resembles_another_travels_as_a_delta(
    sides: Sides, pack: object, method: str
) -> None:
    assert callable(pack)
    old = content(1)
    target = pack(next_version(old))
    sides.both_have([pack(old), b"small"])
    plan = sides.plan([target, b"another small one"])
    rebuilt = only_delta(plan, target)
    assert plan.deltas[0].method == method
    assert plan.deltas[0].payload_bytes < len(target) / 30
    check_it_comes_back(sides, rebuilt, target)


def test_the_bases_may_be_packed_in_another_way(sides: Sides) -> None:
    target = gzipped(next_version(content(1)))
    sides.both_have([zstded(content(1))])
    check_it_comes_back(sides, only_delta(sides.plan([target]), target), target)


def test_contents_of_many_windows_that_moved(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 64 * KIB)
    monkeypatch.setattr(windows, "BASE_BYTES", 128 * KIB)
    parts = [content(seed, 90 * KIB) for seed in range(6)]
    target = b"".join((b"new", parts[3], parts[0], bytes(200 * KIB), *parts[4:], parts[1]))
    sides.both_have([b"".join(parts)])
    plan = sides.plan([target])
    rebuilt = only_delta(plan, target)
    assert plan.deltas[0].payload_bytes < len(target) / 5
    check_it_comes_back(sides, rebuilt, target)


def test_a_disk_that_begins_with_zeros(sides: Sides) -> None:
    old = bytes(MIB + 1) + content(1)
    target = zstded(bytes(MIB + 1) + next_version(content(1)), 18)
    sides.both_have([zstded(old, 18)])
    rebuilt = only_delta(sides.plan([target]), target)
    assert rebuilt.rebuild is not None
    assert "zstd-18" in rebuilt.rebuild.method


def test_the_manifest_of_such_a_bundle_is_valid_and_repeats(sides: Sides) -> None:
    sides.both_have([content(1), content(2)])
    item, blobs = sides.near_has([next_version(content(1)), content(2), content(3)])

    def bundle() -> Bundle:
        plan = plan_delta(blobs, [item], sides.near, sides.inventory())
        index = Descriptor(MEDIA_INDEX, digest("index"), 100)
        since = sides.inventory().digest
        return Bundle(index, (item,), plan.blobs, (whole_part(plan.blobs),), since)

    made = bundle()
    check_bundle(made)
    assert [one.carried for one in made.blobs] == [True, True, False, True, False, True]
    assert parse_bundle(render_bundle(made)) == made
    assert bundle() == made


def test_only_payloads_are_added_to_the_near_store(sides: Sides) -> None:
    sides.both_have([gzipped(content(1)), content(5)])
    item, blobs = sides.near_has([gzipped(next_version(content(1))), content(4)])
    before = set(sides.near.blobs_dir.iterdir())
    plan = plan_delta(blobs, [item], sides.near, sides.inventory())
    added = {Digest(path.name) for path in set(sides.near.blobs_dir.iterdir()) - before}
    assert added == {delta.payload for delta in plan.deltas}
    assert len(added) == 1
    assert not list(sides.near.staging_dir.iterdir())


def test_progress_is_told(sides: Sides) -> None:
    sides.both_have([content(1)])
    item, blobs = sides.near_has([next_version(content(1))])
    sink = RecordingSink()
    plan_delta(blobs, [item], sides.near, sides.inventory(), sink)
    (event,) = sink.events
    size = len(next_version(content(1)))
    assert event == Progress("delta", "layer 0", size, size)


# Which base


def test_the_most_alike_of_the_versions_is_the_base(sides: Sides) -> None:
    newer = next_version(content(1))
    for number, data in enumerate(
        (content(1)[: 100 * KIB] + content(9, 100 * KIB), newer, content(8))
    ):
        sides.both_have([data], f"{OLD}{number}")
    plan = sides.plan([next_version(newer)])
    assert plan.deltas[0].base == Digest.of(newer)


def test_a_layer_that_moved_to_another_place_is_found(sides: Sides) -> None:
    sides.both_have([b"first", content(1)])
    assert len(sides.plan([next_version(content(1)), b"second"]).deltas) == 1


def test_the_same_place_comes_before_a_likelier_size(sides: Sides) -> None:
    target = next_version(content(1))
    others = [content(seed, len(target) + seed) for seed in range(2, 6)]
    sides.both_have([content(1, 150 * KIB), *others])
    target = next_version(content(1, 150 * KIB)) + content(7, 50 * KIB)
    assert sides.plan([target]).deltas[0].base == Digest.of(content(1, 150 * KIB))


@pytest.mark.parametrize(
    ("name", "arch"), [("registry.example/other/imager:v1", "amd64"), (OLD, "arm64")]
)
def test_other_repositories_and_architectures_are_no_versions(
    sides: Sides, name: str, arch: str
) -> None:
    sides.near.set_ref(name, index_of(sides.near, put_layers(sides.near, [content(1)], arch)))
    sides.carry(Digest.of(content(1)))
    entry = index_of(sides.near, put_layers(sides.near, [next_version(content(1))]))
    sides.near.set_ref(NEW, entry)
    target = Blob(Digest.of(next_version(content(1))), 200 * KIB, "layer")
    item = Item("image", NEW, entry, (target.digest,))
    plan = plan_delta([target], [item], sides.near, sides.inventory())
    assert plan.whole == ((target.digest, "the far side has no other version of it"),)
    assert plan.blobs == (target,)


def test_the_same_architecture_of_an_index_is(sides: Sides) -> None:
    for name, data in ((OLD, content(1)), (NEW, next_version(content(1)))):
        children = [put_layers(sides.near, [data]), put_layers(sides.near, [b"arm"], "arm64")]
        sides.near.set_ref(name, index_of(sides.near, *children))
    sides.carry(Digest.of(content(1)))
    target = Blob(Digest.of(next_version(content(1))), len(next_version(content(1))), "layer")
    item = Item("image", NEW, sides.near.entries()[-1], (target.digest,))
    plan = plan_delta([target], [item], sides.near, sides.inventory())
    only_delta(plan, next_version(content(1)))


@pytest.mark.parametrize(("file", "found"), [("metal-amd64.iso", 1), ("cloud-amd64.raw", 0)])
def test_an_asset_resembles_those_of_its_own_kind(tmp_path: Path, file: str, found: int) -> None:
    store = Store.open(tmp_path / "store")
    far: dict[Digest, int] = {}
    entries = []
    for version, name, data in (
        ("v1.12.1", file, content(1)),
        ("v1.13.0", "metal-amd64.iso", next_version(content(1))),
    ):
        path = tmp_path / "made"
        path.write_bytes(data)
        asset = store.put_asset(AssetRecord("5" * 64, version, name, "0" * 64 + version, path))
        far = far or {asset.digest: asset.size_bytes}
        entries.append(asset)
    new = entries[1]
    item = Item("asset", new.name, new.manifest, (new.manifest_digest, new.digest))
    target = Blob(new.digest, new.size_bytes, "iso")
    plan = plan_delta([target], [item], store.layout, Inventory(far))
    assert len(plan.deltas) == found


# What travels whole, and why


def why(plan: DeltaPlan) -> str:
    assert plan.deltas == ()
    assert all(one.rebuild is None for one in plan.blobs)
    ((_, reason),) = plan.whole
    return reason


def test_nothing_else_of_the_repository_is_there(sides: Sides) -> None:
    assert why(sides.plan([content(1)])) == "the far side has no other version of it"


def test_the_near_store_knows_a_version_that_the_far_side_has_not(sides: Sides) -> None:
    sides.near.set_ref(OLD, put_layers(sides.near, [content(1)]))
    reason = why(sides.plan([next_version(content(1))]))
    assert reason == "the far side has no other version of it"


def test_the_far_side_has_a_version_that_the_near_store_has_not(sides: Sides) -> None:
    sides.far.put_bytes(content(1), "")
    reason = why(sides.plan([next_version(content(1))]))
    assert reason == "the far side has no other version of it"


def test_another_content(sides: Sides) -> None:
    sides.both_have([content(1)])
    assert why(sides.plan([content(2)])) == RESEMBLES_NOTHING


def test_a_content_much_larger_than_its_base_is_no_version_of_it(sides: Sides) -> None:
    old = content(1)
    sides.both_have([gzipped(old)])
    assert why(sides.plan([gzipped(old + bytes(4 * len(old)))])) == RESEMBLES_NOTHING


def test_a_damaged_base_is_not_used(sides: Sides) -> None:
    sides.both_have([content(1)])
    path = sides.near.blob_path(Digest.of(content(1)))
    path.chmod(0o644)
    path.write_bytes(content(1)[:-1] + b"x")
    assert why(sides.plan([next_version(content(1))])) == RESEMBLES_NOTHING


def test_a_damaged_blob_is_not_judged_but_never_rebuilt(sides: Sides) -> None:
    sides.both_have([content(1)])
    item, blobs = sides.near_has([next_version(content(1))])
    path = sides.near.blob_path(blobs[-1].digest)
    path.chmod(0o644)
    path.write_bytes(next_version(content(1))[:-1] + b"x")
    plan = plan_delta(blobs, [item], sides.near, sides.inventory())
    assert why(plan) == "its bytes did not come back from a delta"


def test_a_base_of_quite_another_size_is_not_tried(sides: Sides) -> None:
    sides.both_have([content(1) + content(2, 500 * KIB)])
    assert why(sides.plan([content(1)])) == "the far side has no other version of it"


def test_a_delta_that_saves_too_little(sides: Sides) -> None:
    noise = Random(3).randbytes(200 * KIB)
    sides.both_have([noise])
    target = noise[: 50 * KIB] + Random(4).randbytes(150 * KIB)
    assert why(sides.plan([target])) == "a delta would save less than a third"


@pytest.mark.parametrize("pack", [flushed_gzip, lambda plain: zstded(plain) + zstded(b"more")])
def test_a_compression_that_does_not_repeat(sides: Sides, pack: object) -> None:
    assert callable(pack)
    sides.both_have([pack(content(1))])
    reason = why(sides.plan([pack(next_version(content(1)))]))
    assert reason == "its compression does not repeat here"


def test_what_follows_a_gzip_member_does_not_repeat(sides: Sides) -> None:
    sides.both_have([gzipped(content(1))])
    reason = why(sides.plan([gzipped(next_version(content(1))) + gzipped(b"more")]))
    assert reason == "its compression does not repeat here"
    assert not list(sides.near.staging_dir.iterdir())


@pytest.mark.parametrize("head", [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_what_only_looks_packed(sides: Sides, head: bytes) -> None:
    sides.both_have([head + content(1)])
    why(sides.plan([head + next_version(content(1))]))


def test_a_small_blob_is_not_tried(sides: Sides) -> None:
    sides.both_have([content(1, LARGE_BYTES - 1000)])
    plan = sides.plan([next_version(content(1, LARGE_BYTES - 1000))])
    assert not plan.deltas
    assert not plan.whole
