"""What a check refuses: images by the policy, bundles by their signature, builds by the lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.signing import load_private_key, sign_manifest
from local_imager.deliver.bundle.form.words import ROLE_LOCK
from local_imager.deliver.bundle.near.contents import DocumentRoot
from local_imager.errors import InputError, VerificationRefused
from local_imager.pipeline.lockfile import render_lock
from local_imager.profile.assetname import AssetName
from local_imager.schematic.parse import parse_schematic
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from tests.bundlefiles import Sample
from tests.unit.deliver.bundle.nearbundles import (
    ISO,
    PLAIN,
    RICH,
    Near,
    only_lack,
    rich,
)
from tests.unit.deliver.bundle.signkeys import KEYS, key_file, pem, wants
from tests.unit.sources.forge import REGISTRY, Signing


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Near:
    return Near(tmp_path_factory.mktemp("near"))


@pytest.fixture
def near(upstream: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """The near side with the upstream that all tests share: add nothing to it."""
    return upstream.alone(tmp_path, monkeypatch)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """A near side that a test may change."""
    return Near(tmp_path).alone(tmp_path, monkeypatch)


# -- refused ------------------------------------------------------------------------------------


def test_an_image_that_the_policy_refuses(near: Near) -> None:
    strict = policy_from_entries(
        [
            {"pattern": f"{REGISTRY}/**", "key": near.signing.pem},
            {"pattern": f"{REGISTRY}/siderolabs/gvisor", "key": Signing().pem},
        ]
    )
    found = near.check(rich(near), ISO, policy=strict)
    lack = only_lack(found)
    assert (lack.kind, lack.role, lack.code) == ("refused", "extension", "signature-invalid")
    assert found.refused and not found.complete


def test_a_policy_that_covers_nothing(near: Near) -> None:
    found = near.check(rich(near), ISO, policy=TrustPolicy(()))
    assert {one.code for one in found.lacks() if one.kind == "refused"} == {"no-policy"}
    assert found.refused


def test_the_bundles_own_signature(near: Near) -> None:
    key = load_private_key(key_file(near.folder, pem(KEYS["ed25519"])))
    policy = replace(near.policy, rules=(*near.policy.rules, *wants(key).rules))
    sample = rich(near)
    with pytest.raises(VerificationRefused) as caught:
        near.check(sample, policy=policy)
    assert caught.value.code == "no-signature"
    (near.folder / "part1.tar.sigstore.json").write_bytes(sign_manifest(sample.manifest, key))
    found = near.check(sample, policy=policy)
    assert found.complete and found.signed_by is not None and not found.unvouched
    assert found.signed_by.signer == key.public.key_id
    named = near.folder / "elsewhere.json"
    (near.folder / "part1.tar.sigstore.json").rename(named)
    assert near.check(sample, policy=policy, signature=named).signed_by is not None
    assert near.check(sample).unvouched.startswith("nobody vouches")


# -- the lock -----------------------------------------------------------------------------------


def locked(near: Near, data: bytes) -> Sample:
    documents = [DocumentRoot("local-imager.lock", data, "application/toml", ROLE_LOCK)]
    return rich(near, documents=documents)


def test_builds_are_held_to_the_lock_in_the_bundle(near: Near) -> None:
    found = near.check(locked(near, render_lock(near.lock())))
    assert found.complete
    assert found.lock.startswith("local-imager.lock")
    assert not any("lock" in note for note in found.notes)
    assert any("no lock" in note for note in near.check(rich(near)).notes)


def test_a_lock_of_other_schematics_or_settings(near: Near) -> None:
    lock = near.lock((("plain.yaml", PLAIN),))
    found = near.check(locked(near, render_lock(lock)), ISO)
    lack = only_lack(found)
    assert lack.kind == "lock" and "is not in the lock" in lack.text
    other = replace(lock, recipe=replace(lock.recipe, epoch=5))
    texts = [one.text for one in near.check(locked(near, render_lock(other)), ISO).lacks()]
    assert any("epoch" in text for text in texts)


def test_an_architecture_that_the_lock_has_not_concerns_its_own_assets(near: Near) -> None:
    roots = near.roots(near.requirements(parse_schematic(RICH)), arches=("amd64", "arm64"))
    lock = DocumentRoot("x.lock", render_lock(near.lock()), "application/toml", ROLE_LOCK)
    arm = AssetName.parse("metal-arm64.iso")
    found = near.check(near.bundle(roots, [lock]), arm, ISO)
    assert [proof.complete for proof in found.assets] == [False, True]
    assert only_lack(found).text == ("the architecture arm64 is not in the lock, which has amd64")


def test_an_image_that_is_not_the_locked_one(own: Near) -> None:
    lock = own.lock()
    own.add("siderolabs/imager", "v1.9.0", {"x": b"a later push under the same tag"})
    lack = only_lack(own.check(locked(own, render_lock(lock)), ISO))
    assert (lack.kind, lack.role) == ("image", "base")
    assert "the bundle has another image of this tag" in lack.text


def test_another_signer_than_the_lock_names(near: Near) -> None:
    lock = near.lock()
    images = tuple(
        replace(image, signer="sha256:0000") if image.role == "base" else image
        for image in lock.versions[0].images
    )
    changed = replace(lock, versions=(replace(lock.versions[0], images=images),))
    found = near.check(locked(near, render_lock(changed)), ISO)
    lack = only_lack(found)
    assert (lack.kind, lack.code) == ("lock", "lock-signer")
    assert found.refused


def test_a_lock_that_is_none(near: Near) -> None:
    with pytest.raises(InputError, match="the lock is not valid"):
        near.check(locked(near, b"= rubbish"))
