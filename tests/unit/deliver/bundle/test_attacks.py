"""Attacks on the side that reads: files, signatures and lists that somebody hostile wrote."""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.deltas.delta import plan_delta
from local_imager.deliver.bundle.deltas.rebuild import rebuild_blob
from local_imager.deliver.bundle.far.importing import Handout, import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.deliver.bundle.far.report import ImportReport
from local_imager.deliver.bundle.far.segments import drop_segments, join_segments, segment_path
from local_imager.deliver.bundle.form.inventory import make_inventory
from local_imager.deliver.bundle.form.model import Blob, Item, Piece, Rebuild
from local_imager.deliver.bundle.form.signing import read_signature
from local_imager.deliver.bundle.near.contents import AssetRoot, ImageRoot, compose
from local_imager.errors import InputError, LocalImagerError
from local_imager.events import RecordingSink
from local_imager.oci.durable import FileLock
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import (
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Reference,
)
from local_imager.oci.names import fallback_tag
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.held import held_descriptor
from local_imager.sources.verify import verify_image
from local_imager.store.records import AssetRecord
from local_imager.store.store import Store
from tests.unit.deliver.bundle import samples
from tests.unit.deliver.bundle.nearside import SCHEMATIC, NearSide
from tests.unit.sources.forge import MEDIA_BUNDLE, REGISTRY, as_json

REPOSITORY = f"{REGISTRY}/siderolabs/imager"


class Attacker(NearSide):
    """Has images that somebody else signed, and no key: all its bundles are unsigned."""

    def single(self, tag: str) -> ImageRoot:
        """Add a signed image that is one manifest, without an index."""
        top = self.forge.manifest({"noise": os.urandom(3000)})
        plain = Descriptor(top.media_type, top.digest, top.size_bytes)
        self.store.layout.set_ref(f"{REPOSITORY}:{tag}", plain)
        self.forge.sign_legacy("siderolabs/imager", plain, self.signing)
        self.forge.sign_bundle("siderolabs/imager", plain, self.signing.bundle(plain.digest))
        root = ImageRoot(f"{REPOSITORY}:{tag}", plain, ())
        self.images.append(root)
        return root

    def artifact(self, number: int, subject: Descriptor, kind: str = MEDIA_BUNDLE) -> Descriptor:
        """Something worthless that says it is attached to a manifest."""
        return self.attached(self.store.layout.put_bytes(b"junk %d" % number, kind), subject, kind)

    def attached(self, layer: Descriptor, subject: Descriptor, kind: str) -> Descriptor:
        """An artifact of one layer that is attached to a manifest."""
        config = self.store.layout.put_bytes(b"{}", MEDIA_EMPTY)
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "artifactType": kind,
            "config": config.as_dict(),
            "layers": [layer.as_dict()],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size_bytes).as_dict(),
        }
        return self.store.layout.put_bytes(as_json(body), MEDIA_MANIFEST, artifact_type=kind)

    def listed(self, subject: Digest) -> list[Descriptor]:
        """What is listed as attached."""
        return [*LayoutSource.open(self.store.path).referrers(Reference.parse(REPOSITORY), subject)]

    def write_without(self, digest: Digest, data: bytes) -> Path:
        """Write the bundle with a blob named and not carried."""
        self.store.layout.put_bytes(data, "application/octet-stream")
        contents = self.contents()
        bundle = self.bundle(contents)
        blobs = (replace(b, carried=False) if b.digest == digest else b for b in bundle.blobs)
        pieces = tuple(piece for piece in bundle.parts[0] if piece.blob != digest)
        changed = replace(bundle, blobs=tuple(blobs), parts=(pieces,))
        (path,) = self.write_bundle(contents, changed, signed=False)
        return path

    def enlist(self, subject: Digest, entries: Sequence[Descriptor]) -> None:
        """Write a list of what is attached."""
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX}
        data = as_json({**body, "manifests": [one.as_dict() for one in entries]})
        self.store.layout.set_ref(
            f"{REPOSITORY}:{fallback_tag(subject)}", self.store.layout.put_bytes(data, MEDIA_INDEX)
        )


@pytest.fixture
def near(tmp_path: Path) -> Attacker:
    return Attacker(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def take(near: Attacker, store: Store, files: Sequence[Path], **more: Any) -> ImportReport:
    """Import under a policy that knows the images' key and has no rule for bundles."""
    policy = more.pop("policy", None) or near.signing.policy()
    wishes, handout = Wishes(policy, **more), Handout()
    names = [str(path) for path in files]
    (report,) = import_files(names, store, wishes, RecordingSink(), handout=handout).reports
    return report


def refusal(near: Attacker, store: Store, name: str) -> str:
    """Why the store alone does not verify an image; empty when it does."""
    held = held_descriptor(store.layout, Reference.parse(name))
    assert held is not None
    try:
        source = LayoutSource.open(store.path)
        verify_image(source, Reference.parse(name), held, near.signing.policy())
    except LocalImagerError as error:
        return error.message
    return ""


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".sig", ".att"])
def test_a_signed_image_under_the_tag_of_signatures_does_not_replace_them(
    near: Attacker, store: Store, suffix: str
) -> None:
    victim, other = near.image("siderolabs/imager"), near.image("siderolabs/tools")
    take(near, store, near.write(signed=False))
    before = {entry.ref_name: entry.digest for entry in store.layout.entries()}
    victims, tools = near.store.layout.resolve(victim), near.store.layout.resolve(other)
    assert victims is not None and tools is not None
    near.forge.sign_legacy("siderolabs/imager", tools, near.signing)
    near.forge.sign_bundle("siderolabs/imager", tools, near.signing.bundle(tools.digest))
    shadow = f"{REPOSITORY}:{fallback_tag(victims.digest)}{suffix}"
    near.images = [ImageRoot(shadow, Descriptor(*_plain(tools)), ("amd64",))]
    report = take(near, store, near.write("shadow.tar", signed=False))
    assert [(one.state, one.code) for one in report.outcomes] == [("refused", "malformed")]
    assert before.items() <= {e.ref_name: e.digest for e in store.layout.entries()}.items()
    assert refusal(near, store, victim) == ""


def _plain(entry: Descriptor) -> tuple[str, Digest, int]:
    return entry.media_type, entry.digest, entry.size_bytes


# -- the signature file ------------------------------------------------------------------------


def test_a_fifo_where_the_signature_is_looked_for_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.tar.sigstore.json")
    found: list[object] = []

    def read() -> None:
        try:
            found.append(read_signature([tmp_path / "site.tar"]))
        except InputError as error:
            found.append(error.message)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert len(found) == 1 and "not a regular file" in str(found[0])


def test_a_signature_that_a_person_names_may_be_a_fifo(tmp_path: Path) -> None:
    place = tmp_path / "fifo"
    os.mkfifo(place)
    writer = threading.Thread(target=lambda: place.write_bytes(b"{}"), daemon=True)
    writer.start()
    assert read_signature((), place) == b"{}"
    writer.join()


def test_a_signature_that_has_no_end_is_read_to_its_ceiling(tmp_path: Path) -> None:
    (tmp_path / "site.tar.sigstore.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file"):
        read_signature([tmp_path / "site.tar"])


# -- what is attached --------------------------------------------------------------------------


def test_a_list_of_referrers_that_names_another_image_harms_that_one_in_nothing(
    near: Attacker, store: Store
) -> None:
    victim = near.single("v1")
    take(near, store, near.write(signed=False))
    name = f"{REPOSITORY}:{fallback_tag(victim.descriptor.digest)}"
    signatures = store.layout.resolve(f"{name}.sig")
    assert signatures is not None and refusal(near, store, victim.name) == ""
    (right,) = near.listed(victim.descriptor.digest)
    near.images = []
    other = near.single("v2")
    foreign = replace(victim.descriptor, artifact_type="application/x")
    near.enlist(other.descriptor.digest, [*near.listed(other.descriptor.digest), foreign])
    near.enlist(victim.descriptor.digest, [near.artifact(n, victim.descriptor) for n in range(70)])
    near.forge.sign_legacy("siderolabs/imager", victim.descriptor)  # a list of no signatures
    report = take(near, store, near.write("evil.tar", signed=False))
    assert [one.state for one in report.outcomes] == ["imported"]
    assert store.layout.resolve(f"{name}.sig") == signatures
    assert refusal(near, store, victim.name) == refusal(near, store, other.name) == ""
    listed = LayoutSource.open(store.path).referrers(
        Reference.parse(REPOSITORY), victim.descriptor.digest
    )
    assert listed[0].digest == right.digest  # a gate looks at the first ones only


def test_a_list_of_referrers_never_grows_past_what_can_be_read(
    near: Attacker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_imager.sources.keep._MAX_LISTED", 8)
    root = near.single("v1")
    right = near.listed(root.descriptor.digest)
    digests: list[set[Digest]] = []
    for number in range(3):
        junk = [near.artifact(n, root.descriptor) for n in range(number * 5, number * 5 + 5)]
        near.enlist(root.descriptor.digest, [*right, *junk])
        report = take(near, store, near.write(f"{number}.tar", signed=False))
        assert [one.state for one in report.outcomes] == ["imported"]
        source = LayoutSource.open(store.path)
        listed = source.referrers(Reference.parse(REPOSITORY), root.descriptor.digest)
        digests.append({one.digest for one in listed})
        assert {one.digest for one in (*right, *junk)} <= digests[-1]
    assert len(digests[2]) == 9  # and the evidence of this side
    assert refusal(near, store, root.name) == ""


def test_no_evidence_comes_in_a_bundle(near: Attacker, store: Store) -> None:
    root = near.single("v1")
    forged = near.artifact(1, root.descriptor, ARTIFACT_EVIDENCE)
    hidden = replace(forged, artifact_type="")  # the list need not say what it is
    near.enlist(root.descriptor.digest, [*near.listed(root.descriptor.digest), hidden])
    take(near, store, near.write(signed=False))
    source = LayoutSource.open(store.path)
    listed = source.referrers(Reference.parse(REPOSITORY), root.descriptor.digest)
    assert forged.digest not in {one.digest for one in listed}
    assert ARTIFACT_EVIDENCE in {one.artifact_type for one in listed}  # the far side's own


def test_a_private_file_of_the_far_side_is_not_named_by_what_is_attached(
    near: Attacker, store: Store, tmp_path: Path
) -> None:
    """Whoever knows its digest (an inventory says it) would get it with the next bundle."""
    (tmp_path / "iso").write_bytes(b"machine configuration" * 100)
    record = AssetRecord(
        SCHEMATIC, "v1.13.0", "metal-amd64.iso", "c" * 64, tmp_path / "iso", private=True
    )
    secret = store.put_asset(record)
    root = near.single("v1")
    layer = Descriptor("application/octet-stream", secret.digest, secret.size_bytes)
    naming = near.attached(layer, root.descriptor, "application/x")
    near.enlist(root.descriptor.digest, [*near.listed(root.descriptor.digest), naming])
    report = take(near, store, [near.write_without(secret.digest, secret.path.read_bytes())])
    assert [one.state for one in report.outcomes] == ["imported"]
    assert stat.S_IMODE(secret.path.stat().st_mode) == 0o400
    carried = compose(store.layout, [root], [], [])
    assert secret.digest not in {blob.digest for blob in carried.blobs}


def test_a_delta_of_private_files_is_private(near: Attacker, store: Store) -> None:
    noise = random.Random(1).randbytes(2_000_000)
    near.asset(noise, private=True, key="a" * 64)
    inventory = make_inventory(near.store)
    changed = noise[:1_000_000] + b"secret of the machine" + noise[1_000_000:]
    path = near.folder / "new"
    path.write_bytes(changed)
    record = AssetRecord(SCHEMATIC, "v1.13.1", "metal-amd64.iso", "b" * 64, path, private=True)
    entry = near.store.layout.resolve(near.store.put_asset(record).name)
    assert entry is not None
    near.assets = [AssetRoot(entry, "iso", ("amd64",))]
    bundle = near.bundle(near.contents())
    plan = plan_delta(bundle.blobs, bundle.items, near.store.layout, inventory)
    (delta,) = plan.deltas
    payload = near.store.layout.blob_path(delta.payload)
    assert b"secret of the machine" in payload.read_bytes()
    assert stat.S_IMODE(payload.stat().st_mode) == 0o400
    (blob,) = (one for one in plan.blobs if one.digest == delta.blob)
    for digest in (delta.base, delta.payload):
        data = near.store.layout.blob_path(digest).read_bytes()
        store.layout.put_bytes(data, "application/octet-stream", private=True)
    rebuild_blob(blob, store.layout, private=True)
    assert stat.S_IMODE(store.layout.blob_path(blob.digest).stat().st_mode) == 0o400


# -- manifests that are made to cost -----------------------------------------------------------


def test_a_delta_that_very_many_images_share_costs_no_comparisons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    top, payload = samples.blob("manifest", 10, document=True), samples.blob("delta", 100)
    way = Rebuild(samples.digest("base"), payload.digest, "zstd-window")
    rebuilt = [replace(samples.blob(f"l{n}", 9, carried=False), rebuild=way) for n in range(3)]
    items = tuple(samples.item("image", f"r.example/x:{n}", top, *rebuilt) for n in range(50))
    bundle = replace(samples.sample(), items=items, blobs=(top, *rebuilt, payload), parts=((),))

    def compared(_self: object, _other: object) -> bool:
        raise AssertionError("each with each")

    monkeypatch.setattr(Item, "__eq__", compared)
    assert len(bundle.items_with(payload.digest)) == len(items)
    assert [item.name for item in items] == list(bundle.names_with(payload.digest))


def test_the_names_that_need_a_blob_are_one_value_however_often_asked() -> None:
    """Faults hold them: ten megabytes of manifest would else fill half a gigabyte of memory."""
    bundle = samples.in_two_parts()
    layer = samples.digest("imager layer")
    cut = tuple(Piece(layer, n * 7_000, 7_000, samples.digest("wrong"), False) for n in range(10))
    bundle = replace(bundle, parts=(cut,))
    assert len({id(bundle.names_with(piece.blob)) for piece in cut}) == 1
    assert bundle.names_in(1) == bundle.names_with(layer) == (samples.IMAGER,)


# -- two imports at once -----------------------------------------------------------------------


def test_a_blob_that_another_import_has_just_joined_is_not_missed(store: Store) -> None:
    layout, data = store.layout, b"first half second half"
    digest = Digest.of(data)
    pieces = [
        Piece(digest, at, 11, Digest.of(data[at : at + 11]), False) for at in range(0, 22, 11)
    ]
    layout.unverified_dir.mkdir()
    for piece in pieces:
        segment_path(layout, piece).write_bytes(data[piece.offset : piece.offset + 11])
    blob = Blob(digest, len(data), "a layer")
    faults: list[Exception] = []

    def join() -> None:
        try:
            join_segments(layout, blob, pieces)
        except LocalImagerError as error:
            faults.append(error)

    with FileLock(layout.locks_dir / f"blob-{digest.hex}").acquire():
        waiting = threading.Thread(target=join)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()  # one at a time
        layout.put_bytes(data, "application/octet-stream")
        drop_segments(layout, pieces)
    waiting.join()
    assert faults == [] and layout.intact(digest)
