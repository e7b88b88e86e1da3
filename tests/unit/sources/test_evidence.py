"""The evidence document is kept with the image, once, and changes no answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_imager.errors import IntegrityError, NotFound, VerificationRefused
from local_imager.events import NULL_SINK
from local_imager.oci.layout_source import LayoutSource
from local_imager.profile.model import Requirement
from local_imager.sources.evidence import ARTIFACT_EVIDENCE, read_evidence
from local_imager.sources.trust import TrustPolicy, tighten
from local_imager.sources.upstream import Sources
from local_imager.store.gc import Rules, collect
from local_imager.store.store import Store
from tests.unit.sources.forge import REGISTRY, Forge, Signing

NAME = "siderolabs/imager"
WANTED = Requirement("builder", NAME, "v1.9.0")
SIGNING = Signing()


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "upstream")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def sources(forge: Forge, store: Store, policy: TrustPolicy) -> Sources:
    return Sources(store, REGISTRY, LayoutSource.open(forge.layout.path), policy, NULL_SINK)


@pytest.mark.parametrize("form", ["legacy", "bundle"])
def test_what_is_kept(form: str, forge: Forge, store: Store) -> None:
    top = forge.image(NAME, "v1.9.0", {"a": b"b"}, ("amd64", "arm64"))
    if form == "legacy":
        forge.sign_legacy(NAME, top, SIGNING)
    else:
        forge.sign_bundle(NAME, top, SIGNING.bundle(top.digest))
    policy = SIGNING.policy()
    image = sources(forge, store, policy).obtain(WANTED)
    kept = read_evidence(store.layout, image.reference, top)
    assert kept is not None
    assert (kept["digest"], kept["signer"]) == (str(top.digest), image.signer)
    assert kept["policy"] == image.policy
    assert kept["unverified"] is False
    # The store's memory took part, and a key without log entry gave it nothing to compare.
    assert kept["rollback"]["state"] == "no-log-entry"
    assert kept["accepted_by"][0]["checked"]
    assert kept["verified_at"] and kept["tool"].startswith("local-imager ")
    for _ in range(2):
        sources(forge, store, policy).obtain(WANTED, refresh=True)
    assert len(_documents(store, top.digest)) == 1
    # Another policy says something else: that is kept beside.
    other = tighten(policy, policy)
    sources(forge, store, other).obtain(WANTED, refresh=True)
    assert len(_documents(store, top.digest)) == 2
    collect(store, Rules(grace_s=0))
    assert read_evidence(store.layout, image.reference, top) is not None
    assert sources(forge, store, policy).obtain(WANTED).digest == top.digest
    collect(store, Rules(grace_s=0, names=[str(image.reference)], images=True))
    assert read_evidence(store.layout, image.reference, top) is None


def _documents(store: Store, digest: object) -> list[object]:
    names = [e for e in store.layout.entries() if e.ref_name.endswith(f"sha256-{digest.hex}")]  # type: ignore[attr-defined]
    (listed,) = names
    index = store.layout.read_manifest(listed)
    return [e for e in index.manifests if e.artifact_type == ARTIFACT_EVIDENCE]  # type: ignore[union-attr]


def test_evidence_alone_accepts_nothing(forge: Forge, store: Store) -> None:
    top = forge.image(NAME, "v1.9.0", {}, ("amd64",))
    forge.sign_bundle(NAME, top, SIGNING.bundle(top.digest))
    sources(forge, store, SIGNING.policy()).obtain(WANTED)
    alone = Sources(store, REGISTRY, None, Signing().policy(), NULL_SINK)
    with pytest.raises(VerificationRefused):
        alone.obtain(WANTED)


def test_a_tampered_store_is_noticed_right_before_use(forge: Forge, store: Store) -> None:
    top = forge.image(NAME, "v1.9.0", {}, ("amd64",))
    forge.sign_bundle(NAME, top, SIGNING.bundle(top.digest))
    upstream = sources(forge, store, SIGNING.policy())
    image = upstream.obtain(WANTED)
    upstream.confirm([image])
    for blob in store.layout.blobs_dir.rglob("*"):
        if blob.is_file() and b"dsseEnvelope" in blob.read_bytes():
            blob.unlink()
    with pytest.raises(VerificationRefused) as caught:
        upstream.confirm([image])
    assert caught.value.code == "missing-blob"
    path = store.layout.blob_path(top.digest)
    path.chmod(0o644)
    path.write_bytes(json.dumps({"schemaVersion": 2}).encode())
    with pytest.raises((IntegrityError, NotFound)):
        upstream.confirm([image])
