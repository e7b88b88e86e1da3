"""Gathering: which images travel for which architectures, documents, assets, refusals."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.words import ROLE_KEY, ROLE_LOCK, ROLE_POLICY, ROLE_SCHEMATIC
from local_imager.deliver.bundle.near.gather import gather
from local_imager.deliver.bundle.near.policytext import policy_documents
from local_imager.errors import NotFound, PlanError, VerificationRefused
from local_imager.oci.model import Digest, Reference
from local_imager.pipeline.lockfile import render_lock
from local_imager.pipeline.locking import LockOrder
from local_imager.pipeline.lockread import parse_lock
from local_imager.sources.trust import KeylessSigner, KeySigner, TrustRule
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.store.store import Store
from tests.unit.deliver.bundle.making import (
    FLANNEL,
    PLAIN,
    RICH,
    SECRET,
    Making,
    item_names,
    miniature,
    schematic_file,
)
from tests.unit.sources.forge import REGISTRY, Signing
from tests.unit.sources.test_upstream import V190, V1130

__all__ = ["miniature"]


@pytest.fixture
def making(miniature: Making, tmp_path: Path) -> Making:
    """The upstream with an empty store."""
    return miniature.at(tmp_path)


def test_a_version_takes_imagers_installer_and_catalogues_along(making: Making) -> None:
    gathered = gather(making.factory(), making.order(), making.sink)
    found = {image.name.removeprefix(f"{REGISTRY}/siderolabs/"): image for image in gathered.images}
    assert list(found) == [
        "imager:v1.13.0",
        "imager:v1.9.0",
        "installer:v1.9.0",
        "extensions:v1.9.0",
        "overlays:v1.9.0",
    ]
    assert found["imager:v1.13.0"].roles == ("builder",)
    assert found["imager:v1.9.0"].roles == ("base",)
    assert {image.arches for image in gathered.images} == {("amd64",)}
    assert all(image.signer == making.signing_id for image in gathered.images)
    assert [document.role for document in gathered.documents if document.role != ROLE_KEY][:1] == [
        ROLE_POLICY
    ]
    assert gathered.secrets == ()


def test_hosts_have_imagers_and_overlays_targets_have_installers(making: Making) -> None:
    rich = schematic_file("rich.yaml", RICH)
    order = making.order(rich, arches=("amd64",), host_arches=("arm64",))
    gathered = gather(making.factory(), order, making.sink)
    arches = {image.roles[0]: image.arches for image in gathered.images}
    assert arches == {
        "builder": ("arm64",),
        "base": ("arm64",),
        "base-installer": ("amd64",),
        "extensions-catalogue": ("amd64",),
        "overlays-catalogue": ("amd64",),
        "extension": ("amd64",),
        "overlay": ("amd64", "arm64"),
    }


def test_what_a_catalogue_pins_travels_under_its_digest(making: Making) -> None:
    order = making.order(schematic_file("rich.yaml", RICH))
    gathered = gather(making.factory(), order, making.sink)
    for image in gathered.images:
        pinned = image.roles[0] in ("extension", "overlay")
        assert (f"@{image.descriptor.digest}" in image.name) == pinned


def test_extensions_and_overlays_are_taken_by_name_or_all(making: Making) -> None:
    named = making.order(extensions=("siderolabs/gvisor",), overlays=("board",))
    everything = making.order(all_extensions=True, all_overlays=True)
    for order in (named, everything):
        gathered = gather(making.factory(), order, making.sink)
        names = [image.name.partition("@")[0] for image in gathered.images]
        assert f"{REGISTRY}/siderolabs/gvisor:1.0" in names
        assert f"{REGISTRY}/siderolabs/sbc:v0.1" in names
    with pytest.raises(PlanError, match="gvizor"):
        gather(making.factory(), making.order(extensions=("gvizor",)), making.sink)


def test_the_lock_and_its_schematics_fit_side_by_side(making: Making) -> None:
    files = (schematic_file("rich.yaml", RICH), schematic_file("plain.yaml", PLAIN))
    order = making.order(*files, versions=(V190, V1130))
    gathered = gather(making.factory(), order, making.sink)
    documents = {document.name: document for document in gathered.documents}
    assert documents["rich.yaml"].data == RICH
    assert documents["plain.yaml"].data == PLAIN
    assert documents["plain.yaml"].role == ROLE_SCHEMATIC
    lock = parse_lock(documents["local-imager.lock"].data, "lock")
    assert documents["local-imager.lock"].role == ROLE_LOCK
    assert {entry.file for entry in lock.schematics} == {"rich.yaml", "plain.yaml"}
    given = tuple((file.name, file.schematic) for file in files)
    same = making.factory("other").lock(LockOrder(given, (V190, V1130), ("amd64",)))
    assert render_lock(same) == documents["local-imager.lock"].data
    locked = {image.digest for entry in lock.versions for image in entry.images}
    assert locked == {image.descriptor.digest for image in gathered.images}


def test_the_policy_reads_back_as_what_it_was(making: Making, tmp_path: Path) -> None:
    other = Signing()
    entries: list[dict[str, object]] = [
        {"pattern": f"{REGISTRY}/**", "key": making.signing.pem, "rollback": "refuse"},
        {"pattern": f"{REGISTRY}/**", "key": other.pem, "hash_algorithm": "sha384"},
        {"pattern": "two.test/**", "key": other.pem, "threshold": 2, "require_tlog": True},
        {
            "pattern": "keyless.test/a*",
            "issuer": "https://issuer.test",
            "identity_regexp": r'^a"\\d+@x\.test$',
            "require_sct": False,
            "require_signed_timestamp": True,
        },
        {"pattern": "lax.test/**", "accept_unverified": True},
    ]
    policy = policy_from_entries(entries, base_dir=tmp_path)
    layer = policy_from_entries([{"pattern": "two.test/x", "key": making.signing.pem}])
    policy = replace(policy, layers=(layer.rules,))
    folder = tmp_path / "documents"
    folder.mkdir()
    documents = policy_documents(policy)
    for document in documents:
        (folder / document.name).write_bytes(document.data)
        assert str(tmp_path).encode() not in document.data
    again = policy_from_entries(
        tomllib.loads((folder / "policy.toml").read_text())["trust"], base_dir=folder
    )
    told = [_told(rule) for rule in again.rules]
    assert told == [_told(rule) for rule in policy.in_order()]
    tightened = policy_from_entries(
        tomllib.loads((folder / "tighten-1.toml").read_text())["trust"], base_dir=folder
    )
    assert [_told(rule) for rule in tightened.rules] == [_told(rule) for rule in layer.rules]
    names = {document.name for document in documents}
    assert "trusted-root.json" in names
    assert len([name for name in names if name.startswith("key-")]) == 2


def _told(rule: TrustRule) -> tuple[object, ...]:
    """All of a rule but where it was written, and where its trusted root lies."""
    signer: object = rule.signer
    if isinstance(signer, KeySigner | KeylessSigner):
        signer = replace(signer, trusted_root=None)
    return (rule.pattern, signer, rule.threshold, rule.rollback)


def test_further_images_pass_the_same_gate_for_the_targets(making: Making) -> None:
    order = making.order(versions=(), arches=("arm64",), images=(FLANNEL,))
    (image,) = gather(making.factory(), order, making.sink).images
    assert image.name == str(FLANNEL)
    assert image.descriptor.digest == Digest.parse(making.cni)
    assert (image.roles, image.arches) == ((), ("arm64",))


def test_all_refused_images_are_named_at_once_with_the_way_out(making: Making) -> None:
    making.apart()
    making.forge.image("cni/unsigned", "v1", {"x": b"1"}, ("amd64",))
    images = [
        FLANNEL,
        Reference.parse(f"{REGISTRY}/cni/unsigned:v1"),
        Reference.parse("registry.k8s.test/pause:3.10"),
        Reference.parse("quay.test/cilium/cilium:v1"),
        Reference.parse(f"{REGISTRY}/cni/gone:v1"),
    ]
    with pytest.raises(VerificationRefused) as caught:
        gather(making.factory(), making.order(images=tuple(images)), making.sink)
    error = caught.value
    assert error.code == "images-refused"
    assert "4 of 5 images are refused; nothing was written" in error.message
    for image in images[1:]:
        assert f"- {image}: " in error.message
    assert 'pattern = "registry.k8s.test/**" and one with "quay.test/**"' in error.hint
    assert len(error.tried) == 4
    assert Store.open(making.path / "store").images() == ()
    with pytest.raises(NotFound, match="1 of 1 images cannot be had"):
        gather(making.factory(), making.order(images=(images[4],)), making.sink)


def test_assets_are_built_once_held_to_the_lock_and_found_again(making: Making) -> None:
    secret = schematic_file("secret.yaml", SECRET)
    order = making.order(secret, versions=(V1130,), assets=("kernel-amd64", "cmdline-metal-amd64"))
    gathered = gather(making.factory(), order, making.sink)
    assert [asset.what.partition(" ")[0] for asset in gathered.assets] == [
        "cmdline-metal-amd64",
        "kernel-amd64",
    ]
    assert gathered.secrets == ("secret.yaml",)
    (document,) = [d for d in gathered.documents if d.name == "secret.yaml"]
    assert document.private
    built = len(making.runner.requests)
    again = gather(making.factory(), order, making.sink)
    assert again.assets == gathered.assets
    assert len(making.runner.requests) == built


def test_an_asset_whose_name_went_to_another_build_travels_under_its_name(making: Making) -> None:
    order = making.order(
        schematic_file("plain.yaml", PLAIN), versions=(V1130,), assets=("kernel-amd64",)
    )
    first = gather(making.factory(), order, making.sink).assets
    # Another epoch is another build key: that build takes the name over.
    other = gather(making.factory(epoch=2), order, making.sink).assets
    assert first[0].entry.ref_name == other[0].entry.ref_name
    assert first[0].entry.digest != other[0].entry.digest
    assert gather(making.factory(), order, making.sink).assets == first


def test_a_full_store_is_enough_and_gives_the_same(making: Making) -> None:
    order = making.order(images=(FLANNEL,), all_extensions=True)
    online = gather(making.factory(), order, making.sink)
    offline = gather(making.factory(source="missing"), replace(order, offline=True), making.sink)
    assert replace(offline, layout=online.layout) == online
    rich = replace(order, schematics=(schematic_file("rich.yaml", RICH),))
    gather(making.factory(), rich, making.sink)
    gather(making.factory(source="missing"), replace(rich, offline=True), making.sink)
    with pytest.raises(NotFound, match="the store has no"):
        gather(making.factory("store-2"), replace(order, offline=True), making.sink)


def test_tags_are_looked_up_anew(making: Making) -> None:
    making.apart()
    before = making.create(making.order())
    making.add("siderolabs/imager", "v1.9.0", {"new": b"1"})
    after = making.create(making.order(), force=True)
    assert before.set_digest != after.set_digest
    assert item_names(before) == item_names(after)


def test_messages_say_what_from_where_and_verified_by_whom(making: Making) -> None:
    making.create(making.order(schematic_file("rich.yaml", RICH), images=(FLANNEL,)))
    said = " | ".join(making.said())
    assert "gathering Talos v1.9.0 for amd64 of rich.yaml and 1 further image, from " in said
    assert str(making.forge.layout.path) in said
    assert f"7 images verified, signed by {making.signing_id}" in said
    assert "9 signatures and other referrers come with them" in said
