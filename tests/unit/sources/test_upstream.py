"""The facade: versions, catalogues, builder, boot files, the store alone, and its errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import NotFound, PlanError, SourceError, VerificationRefused
from local_imager.events import Message, RecordingSink, StepFinished
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.layoutfiles import DirectoryFiles
from local_imager.oci.model import Reference
from local_imager.oci.source import ImageSource
from local_imager.profile.model import Requirement
from local_imager.profile.version import TalosVersion
from local_imager.sources.closure import schematic_images, version_images
from local_imager.sources.inventory import find_held, held_images, verify_held
from local_imager.sources.upstream import Sources
from local_imager.store.store import Store
from tests.unit.sources.forge import REGISTRY, Files, Forge, Signing

V190, V1121, V1130 = (TalosVersion.parse(text) for text in ("v1.9.0", "v1.12.1", "v1.13.0"))
BOOT: Files = {
    f"usr/install/{arch}/{name}": f"{arch} {name}".encode()
    for arch in ("amd64", "arm64")
    for name in ("vmlinuz", "initramfs.xz", "systemd-boot.efi", "systemd-stub.efi")
}


class World:
    """A signed upstream in miniature, and stores over it."""

    def __init__(self, path: Path, registry: str = REGISTRY) -> None:
        self.path, self.registry = path, registry
        self.signing, self.forge = Signing(), Forge(path / "upstream", registry)
        self.sink = RecordingSink()
        for tag in ("v1.9.0", "v1.12.1", "v1.13.0"):
            self.add("siderolabs/imager", tag, BOOT)
        gvisor = self.add("siderolabs/gvisor", "1.0", {"manifest.yaml": b"x"})
        profile = {"profiles/board.yaml": b"arch: arm64\n", "installers/board": b"#!"}
        board = self.add("siderolabs/sbc", "v0.1", profile)
        line = f"ghcr.io/siderolabs/gvisor:1.0@{gvisor}"
        described = f"{line}:\n  author: Somebody\n  description: |\n    Sandbox.\n"
        extensions = {
            "image-digests": f"{line}\n".encode(),
            "descriptions.yaml": described.encode(),
        }
        overlays = (
            "overlays:\n"
            + "".join(
                f"- {{name: {name}, image: ghcr.io/siderolabs/sbc:v0.1, digest: {board}}}\n"
                for name in ("board", "bare")
            )
        ).encode()
        for tag in ("v1.9.0", "v1.13.0"):
            self.add("siderolabs/extensions", tag, extensions)
            self.add("siderolabs/overlays", tag, {"overlays.yaml": overlays})

    def add(self, name: str, tag: str, files: Files) -> str:
        """Add a signed image for both architectures; return its digest."""
        top = self.forge.image(name, tag, files, ("amd64", "arm64"))
        self.forge.sign_bundle(name, top, self.signing.bundle(top.digest))
        return str(top.digest)

    def sources(self, *, offline: bool = False, source: ImageSource | None = None) -> Sources:
        """Open the sources over the one store."""
        if source is None and not offline:
            source = LayoutSource.open(self.forge.layout.path)
        policy = self.signing.policy(f"{self.registry}/**")
        return Sources(self.store, self.registry, source, policy, self.sink, 4)

    @property
    def store(self) -> Store:
        """The store."""
        return Store.open(self.path / "store")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Unreachable(LayoutSource):
    """A registry that cannot be reached."""

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Fail."""
        raise SourceError("no route to host", hint="is the network up?")

    def resolve(self, reference: Reference) -> Any:
        """Fail."""
        raise SourceError("no route to host")


def unreachable(world: World) -> Unreachable:
    return Unreachable(DirectoryFiles(world.forge.layout.path))


def base(version: TalosVersion) -> Requirement:
    return Requirement("base", "siderolabs/imager", str(version))


def test_versions_come_from_upstream_and_store(world: World) -> None:
    world.add("siderolabs/imager", "latest", {})
    world.add("siderolabs/imager", "v1.14.0-pre", {})
    assert world.sources().versions() == (V190, V1121, V1130)
    assert world.sources(offline=True).versions() == ()
    world.sources().obtain(base(V1121))
    assert world.sources(offline=True).versions() == (V1121,)


def test_an_unreachable_registry_is_an_error_with_a_way_out(world: World) -> None:
    with pytest.raises(SourceError, match="no route") as caught:
        world.sources(source=unreachable(world)).versions()
    assert "--from" in caught.value.hint
    assert "lab" in caught.value.hint
    world.sources().obtain(base(V1121))
    assert world.sources(source=unreachable(world)).versions() == (V1121,)
    assert any(isinstance(e, Message) and e.level == "warning" for e in world.sink.events)


def test_a_catalogue_keeps_names_and_maps_the_registry(world: World) -> None:
    catalogue = world.sources().catalogue(V190)
    (extension,) = catalogue.extensions
    assert extension.name == "siderolabs/gvisor"
    assert str(extension.reference).startswith(f"{REGISTRY}/siderolabs/gvisor:1.0@sha256:")
    assert (extension.author, extension.description) == ("Somebody", "Sandbox.\n")
    assert [entry.name for entry in catalogue.overlays] == ["board", "bare"]
    assert catalogue.overlays[0].image == "siderolabs/sbc"
    assert catalogue.overlays[0].profile_document is None


def test_a_registry_with_a_path_keeps_names_too(tmp_path: Path) -> None:
    world = World(tmp_path, "mirror.test/some/path")
    (extension,) = world.sources().catalogue(V190).extensions
    assert extension.name == "siderolabs/gvisor"
    assert extension.reference.name == "mirror.test/some/path/siderolabs/gvisor"
    requirement = Requirement(
        "extension", extension.name, extension.reference.tag, extension.digest, "arm64"
    )
    assert world.sources().obtain(requirement).reference == extension.reference


def test_overlay_profiles_are_read_from_the_verified_image(world: World) -> None:
    sources = world.sources()
    catalogue = sources.with_overlay_profile(sources.catalogue(V190), "board")
    assert catalogue.overlays[0].profile_document == "arch: arm64\n"
    assert catalogue.overlays[1].profile_document is None
    catalogue = sources.with_overlay_profile(catalogue, "bare")
    assert catalogue.overlays[1].profile_document == ""
    with pytest.raises(PlanError, match="borad"):
        sources.with_overlay_profile(catalogue, "borad")


def test_before_overlays_existed_there_is_no_overlay_catalogue(world: World) -> None:
    extensions = {"image-digests": b"", "descriptions.yaml": b""}
    world.add("siderolabs/imager", "v1.6.0", BOOT)
    world.add("siderolabs/extensions", "v1.6.0", extensions)
    assert world.sources().catalogue(TalosVersion.parse("v1.6.0")).overlays == ()


def test_an_unknown_version_names_the_nearest(world: World) -> None:
    for requirement in (base(TalosVersion.parse("v1.12.7")),):
        with pytest.raises(NotFound, match=r"no Talos v1\.12\.7") as caught:
            world.sources().obtain(requirement)
        assert caught.value.code == "unknown-version"
        assert caught.value.hint.startswith("nearest versions at hand: v1.12.1, v1.13.0")
        assert caught.value.exit_code == 2
    with pytest.raises(NotFound, match=r"v1\.99\.0"):
        world.sources().catalogue(TalosVersion.parse("v1.99.0"))


def test_the_builder_is_the_newest_that_needs_no_privilege(world: World) -> None:
    image, version = world.sources().builder("newest", V190)
    assert version == V1130
    assert image.reference.tag == "v1.13.0"


def test_a_builder_in_the_store_needs_no_network(world: World) -> None:
    world.sources().obtain(Requirement("builder", "siderolabs/imager", "v1.13.0"))
    world.add("siderolabs/imager", "v1.13.5", BOOT)
    _, version = world.sources(source=unreachable(world)).builder("newest", V190)
    assert version == V1130
    newer = TalosVersion.parse("v1.13.2")
    assert world.sources().builder_version("newest", newer) == TalosVersion.parse("v1.13.5")


def test_a_prerelease_builds_only_what_no_release_can(world: World) -> None:
    world.add("siderolabs/imager", "v1.14.0-beta.1", BOOT)
    assert world.sources().builder_version("newest", V1130) == V1130
    beta = TalosVersion.parse("v1.14.0-beta.1")
    assert world.sources().builder_version("newest", beta) == beta


def test_no_builder_is_a_clear_error(world: World) -> None:
    with pytest.raises(NotFound, match=r"no imager of v1\.13\.0 or later") as caught:
        world.sources(offline=True).builder("newest", V190)
    assert caught.value.code == "no-builder"
    assert "--builder same" in caught.value.hint


def test_a_version_that_nobody_has_is_told_with_the_nearest(world: World) -> None:
    unknown = TalosVersion.parse("v1.99.0")
    with pytest.raises(NotFound, match=r"there is no Talos v1\.99\.0") as caught:
        world.sources().builder_version("newest", unknown)
    assert caught.value.code == "unknown-version"
    assert str(V1130) in caught.value.hint


def test_an_explicit_builder_is_taken_as_it_is(world: World) -> None:
    image, version = world.sources().builder(V190, V190)
    assert (image.reference.tag, version) == ("v1.9.0", V190)


def test_boot_files_are_taken_out_once(world: World) -> None:
    sources = world.sources()
    image = sources.obtain(base(V190))
    for arch in ("amd64", "arm64"):
        files = sources.boot_files(image, arch)
        assert set(files) == {
            "vmlinuz",
            "initramfs.xz",
            "systemd-boot.efi",
            "systemd-stub.efi",
        }
        assert files["vmlinuz"].read_bytes() == f"{arch} vmlinuz".encode()
    again = world.sources(offline=True)
    assert again.boot_files(again.obtain(base(V190)), "amd64")["vmlinuz"].is_file()


def test_boot_files_that_several_want_at_once_are_taken_out_once(world: World) -> None:
    sources = world.sources()
    image = sources.obtain(base(V190))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sources.boot_files(image, "amd64"), range(4)))
    assert all(files == found[0] for files in found)
    steps = [e for e in world.sink.events if isinstance(e, StepFinished) and e.step == "unpack"]
    assert len(steps) == 1


def test_damaged_boot_files_are_taken_out_again(world: World) -> None:
    sources = world.sources()
    image = sources.obtain(base(V190))
    path = sources.boot_files(image, "amd64")["vmlinuz"]
    path.chmod(0o644)
    path.write_bytes(b"evil")
    assert sources.boot_files(image, "amd64")["vmlinuz"].read_bytes() == b"amd64 vmlinuz"


def test_an_old_imager_lacks_systemd_files_and_a_broken_one_the_kernel(world: World) -> None:
    world.add("siderolabs/imager", "v1.4.0", {k: v for k, v in BOOT.items() if "systemd" not in k})
    world.add("siderolabs/imager", "v1.4.1", {k: v for k, v in BOOT.items() if "vmlinuz" not in k})
    sources = world.sources()
    old = sources.obtain(base(TalosVersion.parse("v1.4.0")))
    assert set(sources.boot_files(old, "amd64")) == {"vmlinuz", "initramfs.xz"}
    broken = sources.obtain(base(TalosVersion.parse("v1.4.1")))
    with pytest.raises(SourceError, match="no kernel and initramfs"):
        sources.boot_files(broken, "amd64")


def test_the_store_alone_verifies_again_under_the_policy_of_today(world: World) -> None:
    world.sources().obtain(base(V190))
    offline = Sources(world.store, REGISTRY, None, Signing().policy(), world.sink)
    with pytest.raises(VerificationRefused):
        offline.obtain(base(V190))
    with pytest.raises(NotFound, match="the store has no"):
        world.sources(offline=True).obtain(base(V1130))


def test_refresh_notices_that_a_tag_moved(world: World) -> None:
    first = world.sources().obtain(base(V190))
    world.add("siderolabs/imager", "v1.9.0", {**BOOT, "new": b"1"})
    assert world.sources().obtain(base(V190)).digest == first.digest
    assert world.sources().obtain(base(V190), refresh=True).digest != first.digest
    assert world.sources().obtain(base(V190)).digest != first.digest


def test_many_are_obtained_side_by_side_and_the_first_fault_is_raised(world: World) -> None:
    sources = world.sources()
    wanted = [base(V190), base(V1121), base(V1130), base(V190)]
    images = sources.obtain_all(wanted)
    assert list(images) == wanted[:3]
    with pytest.raises(NotFound):
        sources.obtain_all([base(V190), base(TalosVersion.parse("v1.99.0"))])
    assert sources.obtain_all([]) == {}


def test_what_a_version_and_a_schematic_need(world: World) -> None:
    from local_imager.schematic.parse import parse_schematic

    world.add("siderolabs/installer", "v1.9.0", {"x": b""})
    sources = world.sources()
    wanted = version_images(V190, ("amd64", "arm64"))
    assert [w.name for w in wanted if w.role == "base-installer"] == ["siderolabs/installer"] * 2
    sources.obtain_all(wanted)
    text = (
        b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}\n"
        b"overlay: {name: board, image: siderolabs/sbc}\n"
    )
    more = schematic_images(parse_schematic(text), sources.catalogue(V190), ("arm64",))
    assert [w.role for w in more][:1] == ["extension"]
    assert "overlay" in {w.role for w in more}
    sources.obtain_all(more)


def test_the_inventory_lists_and_verifies_again(world: World) -> None:
    world.sources().obtain(base(V190))
    (held,) = held_images(world.store)
    assert held.arches == ("amd64",) or held.arches == ("arm64",)
    assert held.size_bytes > 0
    for name in (
        f"{REGISTRY}/siderolabs/imager:v1.9.0",
        "siderolabs/imager:v1.9.0",
        str(held.descriptor.digest),
    ):
        assert find_held(world.store, name) == held
    with pytest.raises(NotFound):
        find_held(world.store, "siderolabs/imager:v1.8.0")
    own = LayoutSource.open(world.store.path)
    assert verify_held(own, held, world.signing.policy()).digest == held.descriptor.digest
    with pytest.raises(VerificationRefused):
        verify_held(own, held, Signing().policy())
