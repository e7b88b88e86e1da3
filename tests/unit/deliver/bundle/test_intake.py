"""Importing: what becomes visible, what is refused, what is not written."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from local_imager.deliver.bundle.far.importing import Handout, import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.errors import ExitCode, HostError, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.indexlines import Change
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.sources import trial
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.candidates import Candidate
from local_imager.sources.fetch import RESERVE_BYTES
from local_imager.sources.memory import MEMORY_FILE
from local_imager.sources.signers import judge
from local_imager.sources.trust import KeylessSigner, KeySigner
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.images import SIGNATURE_TYPE
from tests.unit.deliver.bundle.imports import assert_whole, one, states, take, visible
from tests.unit.deliver.bundle.nearside import NearSide, flip
from tests.unit.sources.forge import REGISTRY, Signing
from tests.unit.sources.test_memory import entry

SBOM = "application/spdx+json"


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    return NearSide(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


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


def test_an_image_becomes_visible_together_with_all_that_is_attached(
    near: NearSide, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        near.image(f"siderolabs/i{number}")
    near.asset(b"iso")
    seen: list[set[str]] = []
    plain = Layout.rewrite_index

    def rewrite(self: Layout, *changes: Change) -> None:
        plain(self, *changes)
        seen.append(visible(store))

    monkeypatch.setattr(Layout, "rewrite_index", rewrite)
    take(near, store, near.write())
    steps = [after - before for before, after in pairwise(seen) if after != before]
    assert len(steps) == 4  # three images and an asset, each in one step
    for step in steps[:3]:
        tags = sorted(name.rpartition(":")[2].partition(".")[2] for name in step)
        assert len(step) == 3 and tags == ["", "", "sig"]
    assert len(steps[3]) == 2


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
    assert f"local-imager/import/{report.set_digest.hex}" in names
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
    assert entries == [f"local-imager/import/{one(done).set_digest.hex}"]
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


def test_everything_attached_to_an_image_comes_with_it(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/imager")
    top = near.images[0].descriptor
    listed = f"{REGISTRY}/siderolabs/imager:sha256-{top.digest.hex}"
    sbom = near.store.layout.attach(top, SBOM, b'{"spdx":1}', SBOM, list_name=listed)
    attestation = near.store.layout.put_artifact(
        "", near.store.layout.put_bytes(b"attested", "application/vnd.dsse.envelope.v1+json")
    )
    plain = Descriptor(attestation.media_type, attestation.digest, attestation.size_bytes)
    near.store.layout.set_ref(f"{listed}.att", plain)
    report = one(take(near, store, near.write()))
    assert states(report) == {name: "imported"}
    collect(store, Rules(grace_s=-1))
    held = LayoutSource.open(store.path)
    reference = Reference.parse(name)
    found = held.referrers(reference, top.digest)
    assert {sbom.digest} < {entry.digest for entry in found}
    tagged = held.resolve(reference.with_tag(f"sha256-{top.digest.hex}.att"))
    assert tagged.digest == attestation.digest
    assert store.layout.has(Digest.of(b'{"spdx":1}')) and store.layout.has(Digest.of(b"attested"))
    more = near.store.layout.attach(top, SBOM, b'{"spdx":2}', SBOM, list_name=listed)
    assert states(one(take(near, store, near.write()))) == {name: "imported"}  # there is more
    found = LayoutSource.open(store.path).referrers(reference, top.digest)
    assert {sbom.digest, more.digest} < {entry.digest for entry in found}
    assert states(one(take(near, store, near.write()))) == {name: "present"}


@pytest.mark.parametrize("case", ["new", "was public", "kept back"])
def test_private_assets_stay_private(near: NearSide, store: Store, case: str) -> None:
    asset = near.asset(b"secret" * 1000, private=True)
    near.store.add_referrer(asset, SIGNATURE_TYPE, b"signature", SIGNATURE_TYPE)
    image = near.image("siderolabs/imager")
    (path,) = near.write()
    if case == "was public":
        store.layout.put_bytes(b"secret" * 1000, "x")
    if case == "kept back":
        damaged = next(blob for blob in near.contents().blobs if "layer" in blob.purpose)
        flip(path, near.blob(near.contents(), damaged.digest)[100:200])
    report = one(take(near, store, [path]))
    assert stat.S_IMODE(store.layout.blob_path(asset.digest).stat().st_mode) == 0o400
    if case == "kept back":
        assert states(report) == {image: "faulty", asset.name: "kept-back"}
        return
    found = store.find_build(asset.build_key)
    assert found is not None and found.private
    referrers = store.layout.referrers(found.manifest_digest)
    assert len(referrers) == 2
    for attached in referrers:
        manifest = store.layout.read_manifest(attached)
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


def test_a_name_that_moves_is_warned_of(near: NearSide, store: Store) -> None:
    name = near.image("siderolabs/imager")
    take(near, store, near.write())
    old = near.images.pop().descriptor.digest
    near.image("siderolabs/imager", {"x": b"another"})
    sink = RecordingSink()
    names = [str(path) for path in near.write("newer.tar")]
    (report,) = import_files(names, store, Wishes(near.policy()), sink).reports
    warnings = [e.text for e in sink.events if isinstance(e, Message) and e.level == "warning"]
    new = near.images[0].descriptor.digest
    assert warnings == [f"{name} is {new} now; it was {old} before"]
    assert [one.replaces for one in report.outcomes] == [str(old)]


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
    assert states(one(take(near, None, files, dry_run=True))) == {good: "ready", bad: "refused"}
    assert states(one(take(near, None, files[:1], dry_run=True)))[good] in ("ready", "waiting")


def test_an_image_that_was_rolled_back_is_refused(
    near: NearSide, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {"value": 20}

    def judged(candidate: Candidate, signer: KeySigner | KeylessSigner) -> Acceptance:
        return replace(judge(candidate, signer), log=entry(index["value"]).log)

    monkeypatch.setattr(trial, "judge", judged)
    memory = store.path / MEMORY_FILE
    name = near.image("siderolabs/imager")
    policy = near.policy(bundles=False, rollback="refuse")
    newer = near.write("newer.tar")
    take(near, store, newer, policy=policy, dry_run=True)
    assert not memory.exists()  # a dry run remembers nothing
    assert states(one(take(near, store, newer, policy=policy))) == {name: "imported"}
    assert memory.exists()
    near.images.clear()
    near.image("siderolabs/imager", {"x": b"last year's"})
    index["value"] = 10
    before = store.layout.resolve(name)
    report = one(take(near, store, near.write("older.tar"), policy=policy))
    assert states(report) == {name: "refused"} and report.outcomes[0].code == "rollback"
    assert store.layout.resolve(name) == before


@pytest.mark.parametrize(
    ("free", "what"), [(100, "the documents of the bundle need"), (100_000, "more in the store")]
)
def test_a_disk_that_is_too_small_is_told_before_a_layer_is_written(
    near: NearSide, store: Store, monkeypatch: pytest.MonkeyPatch, free: int, what: str
) -> None:
    near.image("siderolabs/imager", size_bytes=300_000)
    files = near.write()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=RESERVE_BYTES + free))
    with pytest.raises(HostError, match=what) as caught:
        take(near, store, files)
    assert caught.value.code == "disk-full" and "MiB" in caught.value.message
    assert os.listdir(store.layout.blobs_dir) == [] and visible(store) == set()
