"""Making locks over a signed upstream in miniature, and holding builds to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.errors import InputError, NotFound, PlanError, VerificationRefused
from local_imager.oci.model import Digest
from local_imager.pipeline.lockdiff import changes
from local_imager.pipeline.locked import LockDrift, LockGuard
from local_imager.pipeline.lockfile import Lock, LockFile, render_lock
from local_imager.pipeline.locking import LockOrder, file_in_lock, make_lock
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Requirement
from local_imager.profile.quirks import Quirks
from local_imager.profile.version import TalosVersion
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from local_imager.sources.verify import VerifiedImage
from tests.unit.sources.forge import REGISTRY, Signing
from tests.unit.sources.test_upstream import BOOT, V190, V1130, World

PLAIN = parse_schematic(b"customization: {extraKernelArgs: [secret=hunter2]}\n")
RICH = parse_schematic(
    b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}\n"
    b"overlay: {name: board, image: siderolabs/sbc}\n"
)
ORDER = LockOrder((("plain.yaml", PLAIN), ("rich.yaml", RICH)), (V190, V1130), ("amd64", "arm64"))
IMAGER = "siderolabs/imager"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for version in (V190, V1130):
        made.add(Quirks.of(version).base_installer_name, str(version), {"x": b""})
    return made


def settings(world: World, **more: object) -> Settings:
    return replace(Settings(store=world.path / "store", registry=REGISTRY), **more)  # type: ignore[arg-type]


def locked(world: World, order: LockOrder = ORDER, *, offline: bool = False) -> Lock:
    return make_lock(order, settings(world), world.sources(offline=offline))


def lock_file(lock: Lock) -> LockFile:
    return LockFile(Path("x.lock"), lock, Digest.of(render_lock(lock)))


def test_a_lock_has_every_input_once_with_digest_signer_and_sizes(world: World) -> None:
    lock = locked(world)
    entry = lock.find(V190)
    assert entry is not None
    assert entry.builder == V1130
    assert [image.role for image in entry.images] == [
        "base",
        "base-installer",
        "builder",
        "extension",
        "extensions-catalogue",
        "overlay",
        "overlays-catalogue",
    ]
    for image in entry.images:
        top = world.forge.layout.resolve(f"{REGISTRY}/{image.name}:{image.tag}")
        assert top is not None
        assert image.digest == top.digest
        assert image.signer.startswith("sha256:")
        assert set(image.size_bytes) == {"amd64", "arm64"}
        assert min(image.size_bytes.values()) > 100
    (rule,) = lock.policy
    assert rule.startswith(f"{REGISTRY}/** (")
    assert "a signature of the ecdsa-p256 key sha256:" in rule


def test_no_layer_but_the_catalogues_is_fetched(world: World) -> None:
    locked(world)
    names = {entry.ref_name.partition("@")[0] for entry in world.store.images()}
    tags = ("v1.9.0", "v1.13.0")
    catalogues = {
        f"{REGISTRY}/siderolabs/{n}:{t}" for n in ("extensions", "overlays") for t in tags
    }
    assert names == catalogues


def test_nothing_secret_of_a_schematic_is_in_it(world: World) -> None:
    text = render_lock(locked(world)).decode()
    assert "plain.yaml" in text
    assert "hunter2" not in text
    assert "secret" not in text
    assert str(world.path) not in text


def test_the_same_is_locked_from_any_store_and_in_any_order(world: World, tmp_path: Path) -> None:
    first = locked(world)
    world.sources().obtain(Requirement("base", IMAGER, "v1.12.1"))
    swapped = LockOrder(ORDER.schematics[::-1], (V1130, V190, V1130), ("arm64", "amd64"))
    assert render_lock(locked(world, swapped)) == render_lock(first)


def test_a_store_that_has_everything_locks_the_same_without_a_source(world: World) -> None:
    lock = locked(world)
    sources = world.sources()
    for entry in lock.versions:
        for image in entry.images:
            for arch in ("amd64", "arm64"):
                sources.obtain(Requirement(image.role, image.name, image.tag, image.digest, arch))
                sources.obtain(Requirement(image.role, image.name, image.tag, arch=arch))
    assert locked(world, offline=True) == lock


def test_kept_digests_stay_and_an_update_asks_anew(world: World) -> None:
    old = locked(world)
    moved = world.add(IMAGER, "v1.9.0", {**BOOT, "new": b"1"})
    world.add(IMAGER, "v1.13.7", BOOT)
    assert locked(world, replace(ORDER, keep=old)) == old
    new = locked(world)
    found = {change.kind: change for change in changes(old, new)}
    assert {"digest", "builder", "tag"} >= set(found) - {"size"} >= {"digest", "builder"}
    assert moved in {change.new for change in changes(old, new)}


def test_what_is_added_to_a_kept_lock_is_resolved_and_what_is_not_asked_for_goes(
    world: World,
) -> None:
    small = locked(world, LockOrder(ORDER.schematics[:1], (V190,), ("amd64",)))
    moved = world.add(IMAGER, "v1.9.0", {**BOOT, "new": b"1"})
    grown = locked(world, replace(ORDER, keep=small))
    assert {c.kind for c in changes(small, grown)} == {
        "arches",
        "schematic-added",
        "version-added",
        "image-added",
    }
    assert moved not in render_lock(grown).decode()
    assert locked(world, LockOrder(ORDER.schematics[:1], (V190,), ("amd64",), keep=grown)) == small


def test_a_settings_builder_is_locked(world: World) -> None:
    lock = make_lock(ORDER, settings(world, builder="same"), world.sources())
    assert [entry.builder for entry in lock.versions] == [V190, V1130]


def test_what_a_version_lacks_is_told_with_the_schematic(world: World) -> None:
    wrong = parse_schematic(
        b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisr]}}\n"
    )
    with pytest.raises(PlanError, match=r"wrong\.yaml: the extension 'siderolabs/gvisr'") as caught:
        locked(world, replace(ORDER, schematics=(("wrong.yaml", wrong),)))
    assert "siderolabs/gvisor" in caught.value.hint
    with pytest.raises(NotFound, match=r"no Talos v1\.8\.0"):
        locked(world, replace(ORDER, versions=(TalosVersion.parse("v1.8.0"),)))
    with pytest.raises(InputError, match="a lock is of some"):
        locked(world, replace(ORDER, schematics=()))


def test_an_image_that_is_not_signed_is_not_locked(world: World) -> None:
    world.forge.image(IMAGER, "v1.9.0", {"other": b"1"}, ("amd64", "arm64"))
    with pytest.raises(VerificationRefused):
        locked(world)


def test_an_architecture_that_an_image_lacks_is_told(world: World) -> None:
    name = Quirks.of(V190).base_installer_name
    top = world.forge.image(name, "v1.9.0", {"x": b"1"}, ("amd64",))
    world.forge.sign_bundle(name, top, world.signing.bundle(top.digest))
    with pytest.raises(NotFound, match="no image for linux/arm64"):
        locked(world)


def test_files_are_named_as_seen_from_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("a/b.yaml", "./a//b.yaml", str(tmp_path / "a" / "b.yaml")):
        assert file_in_lock(given, Path("x.lock")) == "a/b.yaml"
        assert file_in_lock(given, Path("locks/x.lock")) == "../a/b.yaml"
    assert file_in_lock("-", Path("x.lock")) == "-"
    for bad in ("a\nb.yaml", "\udcff.yaml", "x" * 2000):
        with pytest.raises(InputError, match="cannot stand in a lock"):
            file_in_lock(bad, Path("x.lock"))


# -- holding to a lock ------------------------------------------------------------------------

ISO = (AssetName.parse("metal-amd64.iso"),)


def drift_of(file: LockFile, given: Settings, **more: object) -> tuple[str, ...]:
    values: dict[str, object] = {"schematic": RICH, "version": V190, "assets": ISO, **more}
    with pytest.raises(LockDrift) as caught:
        LockGuard.check(file, given, **values)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert caught.value.as_dict()["drift"] == list(caught.value.drift)
    assert all(line in caught.value.message for line in caught.value.drift)
    return caught.value.drift


def test_all_drift_of_an_order_is_told_at_once(world: World) -> None:
    lock = locked(world, LockOrder(ORDER.schematics, (V190,), ("amd64",)))
    file = lock_file(lock)
    given = settings(world)
    LockGuard.check(file, given, RICH, V190, ISO)
    other = parse_schematic(b"customization: {extraKernelArgs: [b]}\n")
    drift = drift_of(
        file,
        replace(given, registry="ghcr.io", epoch=1, factory_url="https://other/"),
        schematic=other,
        version=V1130,
        assets=(AssetName.parse("metal-arm64.iso"),),
    )
    for text in (
        "registry is ghcr.io, in the lock upstream.test",
        "epoch of builds is 1,",
        "factory URL is https://other/",
        "plain.yaml as",
        "Talos v1.13.0 is not in the lock, which has v1.9.0",
        "architecture arm64 is not in the lock, which has amd64",
    ):
        assert any(text in line for line in drift), text
    assert len(drift) == 6


def test_another_builder_or_recipe_is_drift(world: World) -> None:
    lock = locked(world)
    given = settings(world)
    (line,) = drift_of(lock_file(lock), replace(given, builder="same"))
    assert line == "the builder asked for is v1.9.0, in the lock v1.13.0"
    LockGuard.check(lock_file(lock), replace(given, builder="v1.13.0"), RICH, V190, ISO)
    newer = replace(lock, recipe=replace(lock.recipe, conversion=99))
    (line,) = drift_of(lock_file(newer), given)
    assert "conversion recipe" in line


def test_a_version_that_a_bot_changed_alone_is_drift_until_updated(world: World) -> None:
    lock = locked(world, LockOrder(ORDER.schematics, (V190,), ("amd64",)))
    bumped = replace(lock, versions=(replace(lock.versions[0], version=V1130),))
    (line,) = drift_of(lock_file(bumped), settings(world), version=V1130)
    assert "only its version was changed" in line
    twice = replace(lock, versions=lock.versions * 2)
    (line,) = drift_of(lock_file(twice), settings(world))
    assert "more than once" in line


def guard(world: World, lock: Lock) -> LockGuard:
    return LockGuard.check(lock_file(lock), settings(world), RICH, V190, ISO)


def test_pins_give_the_locked_digest_or_refuse(world: World) -> None:
    lock = locked(world)
    held = guard(world, lock)
    entry = lock.find(V190)
    assert entry is not None
    for image in entry.images:
        requirement = Requirement(image.role, image.name, image.tag, arch="amd64")
        assert held.pin(requirement) == replace(requirement, digest=image.digest)
    with pytest.raises(LockDrift, match=r"base siderolabs/imager:v1\.12\.1 is not .*has v1\.9\.0"):
        held.pin(Requirement("base", IMAGER, "v1.12.1"))
    with pytest.raises(LockDrift, match=r"siderolabs/new:1 is not in the lock$"):
        held.pin(Requirement("extension", "siderolabs/new", "1"))
    with pytest.raises(LockDrift, match="by the catalogue"):
        held.pin(Requirement("extension", "siderolabs/gvisor", "1.0", Digest.of(b"other")))


def obtained(world: World, lock: Lock) -> Mapping[Requirement, VerifiedImage]:
    wanted = Requirement("base", IMAGER, "v1.9.0")
    return world.sources().pinned(guard(world, lock).pin).obtain_all([wanted])


def test_a_moved_tag_does_not_matter(world: World) -> None:
    lock = locked(world)
    before = world.forge.layout.resolve(f"{REGISTRY}/{IMAGER}:v1.9.0")
    assert before is not None
    world.add(IMAGER, "v1.9.0", {**BOOT, "new": b"1"})
    world.sources().obtain(Requirement("base", IMAGER, "v1.9.0"))
    images = obtained(world, lock)
    assert [image.digest for image in images.values()] == [before.digest]
    guard(world, lock).check_images(images, world.store)


def changed(lock: Lock, **more: object) -> Lock:
    versions = tuple(
        replace(
            entry,
            images=tuple(
                replace(i, **more) if i.role == "base" else i  # type: ignore[arg-type]
                for i in entry.images
            ),
        )
        for entry in lock.versions
    )
    return replace(lock, versions=versions)


def test_another_signer_or_size_is_refused(world: World) -> None:
    lock = locked(world)
    images = obtained(world, lock)
    with pytest.raises(VerificationRefused, match="in the lock by sha256:other") as caught:
        guard(world, changed(lock, signer="sha256:other")).check_images(images, world.store)
    assert (caught.value.code, caught.value.exit_code) == ("lock-signer", 3)
    with pytest.raises(VerificationRefused, match=r"in the lock 1$") as caught:
        wrong = changed(lock, size_bytes={"amd64": 1, "arm64": 1})
        guard(world, wrong).check_images(images, world.store)
    assert caught.value.code == "lock-size"
    (wanted,) = images
    two = {wanted: replace(images[wanted], signer="b, a")}
    guard(world, changed(lock, signer="a, b")).check_images(two, world.store)
    guard(world, changed(lock, size_bytes={})).check_images(images, world.store)


def test_a_lock_does_not_widen_trust(world: World) -> None:
    """Digests of a lock pass the policy of today like any other image."""
    lock = locked(world)
    world.signing = Signing()
    with pytest.raises(VerificationRefused):
        obtained(world, lock)


def test_a_digest_that_is_gone_is_told_with_a_way_out(world: World) -> None:
    lock = changed(locked(world), digest=Digest.of(b"gone"))
    held = guard(world, lock)
    with pytest.raises(NotFound, match=r"an image of the lock x\.lock cannot be had") as caught:
        with held.explained():
            obtained(world, lock)
    assert (caught.value.code, caught.value.exit_code) == ("locked-image-gone", 2)
    assert "--from" in caught.value.hint
