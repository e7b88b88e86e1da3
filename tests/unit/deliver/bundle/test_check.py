"""Whether a bundle is enough for builds: real plans over signed images in miniature."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.check import Question, check_files
from local_imager.deliver.bundle.contents import (
    ROLE_LOCK,
    ROLE_SCHEMATIC,
    DocumentRoot,
    ImageRoot,
    compose,
)
from local_imager.deliver.bundle.inventory import Inventory
from local_imager.deliver.bundle.model import Blob, Bundle, Piece, Rebuild
from local_imager.deliver.bundle.proofs import Completeness, Lack
from local_imager.deliver.bundle.signing import load_private_key, sign_manifest
from local_imager.errors import InputError, PlanError, VerificationRefused
from local_imager.events import NULL_SINK
from local_imager.oci.layout import Layout
from local_imager.oci.model import MEDIA_INDEX, Descriptor, Digest, Reference
from local_imager.pipeline.lockfile import Lock, render_lock
from local_imager.pipeline.locking import LockOrder, make_lock
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Arch, Requirement
from local_imager.profile.quirks import Quirks
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from local_imager.sources.closure import schematic_images, version_images
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.store.store import Store
from tests.bundlefiles import Sample, packed
from tests.unit.sources.forge import REGISTRY, Signing
from tests.unit.sources.test_upstream import V190, V1130, World

PLAIN = b"customization: {}\n"
RICH = (
    b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}\n"
    b"overlay: {name: board, image: siderolabs/sbc}\n"
)
IMAGER = f"{REGISTRY}/siderolabs/imager"
ISO, INSTALLER = AssetName.parse("metal-amd64.iso"), AssetName.parse("installer-amd64.tar")


class Near(World):
    """The near side: a signed upstream with installers, and bundles made of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for version in (V190, V1130):
            name = Quirks.of(version).base_installer_name
            self.add(name, str(version), {"x": str(version).encode()})
        self.policy = self.signing.policy(f"{REGISTRY}/**")
        self.catalogue = self.sources().catalogue(V190)
        self.at(path)

    def at(self, path: Path) -> Near:
        """Write bundles here, and have the settings name a store here, which is not there."""
        self.folder = path
        self.settings = Settings(store=path / "settings-store", registry=REGISTRY, jobs=2)
        return self

    def requirements(
        self, schematic: Schematic, arches: Sequence[Arch] = ("amd64",), builder: str = "v1.13.0"
    ) -> list[Requirement]:
        """All images of a build of v1.9.0, and the builder's."""
        found = (
            Requirement("builder", "siderolabs/imager", builder),
            *version_images(V190, arches),
            *schematic_images(schematic, self.catalogue, arches),
        )
        return [one for one in found if one.tag]

    def roots(
        self, requirements: Sequence[Requirement], arches: tuple[str, ...] = ("amd64",)
    ) -> list[ImageRoot]:
        """The images as `bundle create` names them, each once."""
        found: dict[str, ImageRoot] = {}
        for one in requirements:
            reference = one.reference(REGISTRY)
            entry = self.forge.layout.resolve(f"{reference.name}:{reference.tag}")
            assert entry is not None
            before = found.get(str(reference))
            roles = tuple(dict.fromkeys((*(before.roles if before else ()), one.role)))
            plain = replace(entry, annotations={})
            found[str(reference)] = ImageRoot(str(reference), plain, arches, roles)
        return list(found.values())

    def bundle(
        self,
        roots: Sequence[ImageRoot],
        documents: Sequence[DocumentRoot] = (),
        change: Callable[[Bundle], Bundle] | None = None,
    ) -> Sample:
        """A bundle of these roots; ``change`` makes another manifest of it."""
        layout = self.forge.layout
        contents = compose(layout, roots, (), documents)
        bundle = contents.bundle({"versions": ("v1.9.0",), "arches": ("amd64",)})
        bundle = change(bundle) if change else bundle
        data = {Digest.of(contents.index): contents.index, **contents.made}
        for blob in bundle.blobs:
            if blob.digest not in data and layout.has(blob.digest):
                data[blob.digest] = layout.blob_path(blob.digest).read_bytes()
        return Sample(bundle, data)

    def lock(self, schematics: Sequence[tuple[str, bytes]] = (("rich.yaml", RICH),)) -> Lock:
        """A lock of v1.9.0."""
        pairs = tuple((name, parse_schematic(data)) for name, data in schematics)
        return make_lock(LockOrder(pairs, (V190,), ("amd64",)), self.settings, self.sources())

    def check(
        self, bundle: Sample | bytes | Sequence[str], /, *assets: AssetName, **more: Any
    ) -> Completeness:
        """Check a bundle (its parts are written first) for v1.9.0."""
        policy = more.pop("policy", self.policy)
        settings = more.pop("settings", self.settings)
        sink = more.pop("sink", NULL_SINK)
        signature = more.pop("signature", None)
        data: list[str] = []
        if isinstance(bundle, Sample):
            data = [self.write(n, bundle.part(n)) for n in range(1, len(bundle.bundle.parts) + 1)]
        elif isinstance(bundle, bytes):
            data = [self.write(1, bundle)]
        else:
            data = list(bundle)
        question = {"schematics": (("rich.yaml", parse_schematic(RICH)),), **more}
        asked = Question((V190,), assets=assets or (ISO, INSTALLER), **question)
        return check_files(data, asked, settings, policy, sink, signature=signature)

    def write(self, number: int, data: bytes) -> str:
        """Write one part."""
        path = self.folder / f"part{number}.tar"
        path.write_bytes(data)
        return str(path)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Near:
    return Near(tmp_path_factory.mktemp("near"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def near(upstream: Near, tmp_path: Path) -> Near:
    """The near side with the upstream that all tests share: add nothing to it."""
    return copy(upstream).at(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Near:
    """A near side that a test may change."""
    return Near(tmp_path)


def rich(near: Near, **more: Any) -> Sample:
    return near.bundle(near.roots(near.requirements(parse_schematic(RICH))), **more)


def lacks(found: Completeness) -> list[tuple[str, str, str]]:
    return [(one.kind, one.role, one.name) for one in found.lacks()]


def only_lack(found: Completeness) -> Lack:
    (lack,) = found.lacks()
    return lack


def without(roots: Sequence[ImageRoot], name: str) -> list[ImageRoot]:
    kept = [root for root in roots if name not in root.name]
    assert len(kept) < len(roots)
    return kept


# -- complete -----------------------------------------------------------------------------------


def test_a_bundle_with_everything_is_complete_for_an_empty_far_side(near: Near) -> None:
    sample = rich(near)
    found = near.check(sample)
    assert found.complete and not found.refused
    assert found.set_digest == Digest.of(sample.manifest)
    assert [proof.asset for proof in found.assets] == ["metal-amd64.iso", "installer-amd64.tar"]
    assert sorted(path.name for path in near.folder.iterdir()) == ["part1.tar", "tmp"]
    assert list((near.folder / "tmp").iterdir()) == []
    for proof in found.assets:
        assert (proof.version, proof.builder) == ("v1.9.0", "v1.13.0")
        assert proof.schematic == "rich.yaml" and len(proof.schematic_id) == 64
    roles = {image.role: image for image in found.assets[1].images}
    assert set(roles) == {
        "builder",
        "base",
        "base-installer",
        "extensions-catalogue",
        "overlays-catalogue",
        "extension",
        "overlay",
    }
    assert roles["builder"].name == f"{IMAGER}:v1.13.0"
    assert roles["builder"].arches == ("amd64",)
    assert roles["extension"].name.startswith(f"{REGISTRY}/siderolabs/gvisor:1.0@sha256:")
    assert roles["base"].signer.startswith("sha256:")
    assert roles["base"].policy == f"{REGISTRY}/** (user-file)"
    assert roles["base"].size_bytes > 1000
    total = sum(image.size_bytes for image in roles.values())
    assert roles["base"].size_bytes < found.assets[1].size_bytes < total, "shared blobs count once"


def test_what_is_not_named_is_as_the_bundle_was_made_for(near: Near) -> None:
    def made_for(**facts: tuple[str, ...]) -> list[tuple[str, str, str]]:
        told = {name.replace("_", "-"): values for name, values in facts.items()}
        sample = rich(near, change=lambda bundle: replace(bundle, facts=told))
        path = near.write(1, sample.part())
        found = check_files([path], Question(), near.settings, near.policy, NULL_SINK)
        return [(proof.version, proof.asset, proof.host) for proof in found.assets]

    usual = ["metal-amd64.iso", "metal-amd64.raw.zst", "installer-amd64.tar"]
    told = made_for(versions=("v1.9.0",), arches=("amd64",), host_arches=("arm64", "amd64"))
    assert told == [("v1.9.0", asset, host) for host in ("amd64", "arm64") for asset in usual]
    assert len(made_for(versions=("v1.9.0", "v1.13.0"), arches=("amd64", "arm64"))) == 12
    with pytest.raises(InputError, match="not made for a version"):
        made_for(arches=("amd64",))
    with pytest.raises(InputError):
        made_for(versions=("rubbish",))


def test_zstd_and_a_pipe_are_read_as_well(near: Near) -> None:
    assert near.check(packed(rich(near).part())).complete


def test_the_schematics_of_the_bundle_count_where_none_is_named(near: Near) -> None:
    documents = [DocumentRoot("mine.yaml", RICH, "application/yaml", ROLE_SCHEMATIC)]
    found = near.check(rich(near, documents=documents), ISO, schematics=())
    assert found.complete
    assert [proof.schematic for proof in found.assets] == ["mine.yaml"]
    assert any(image.role == "overlay" for image in found.assets[0].images)
    plain = near.check(rich(near), ISO, schematics=())
    assert [proof.schematic for proof in plain.assets] == ["(no schematic)"]


def test_nothing_is_written_to_the_settings_store_and_no_source_is_asked(near: Near) -> None:
    settings = replace(near.settings, store=near.folder / "none", source="https://registry.invalid")
    assert near.check(rich(near), settings=settings).complete
    assert not (near.folder / "none").exists()


# -- what is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "role", "remedy"),
    [
        ("imager:v1.9.0", "image", "base", "--version v1.9.0"),
        ("installer:v1.9.0", "image", "base-installer", "--version v1.9.0 --arch amd64"),
        ("/gvisor:", "image", "extension", "--extensions siderolabs/gvisor"),
        ("/sbc:", "image", "overlay", "--overlays NAME"),
    ],
)
def test_an_image_that_is_not_there_is_named(
    name: str, kind: str, role: str, remedy: str, near: Near
) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), name)
    found = near.check(near.bundle(roots), INSTALLER)
    assert not found.complete and not found.refused
    lack = only_lack(found)
    assert (lack.kind, lack.role, lack.text) == (kind, role, "it is not in the bundle")
    assert name in lack.name
    assert remedy in lack.remedy
    assert not found.assets[0].complete


def test_only_the_asset_that_needs_it_is_incomplete(near: Near) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "installer:v1.9.0")
    found = near.check(near.bundle(roots))
    assert [proof.complete for proof in found.assets] == [True, False]
    assert not found.complete


def test_without_a_catalogue_nobody_knows_which_extension_is_meant(near: Near) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "/extensions:")
    found = near.check(near.bundle(roots), ISO)
    assert set(lacks(found)) == {
        ("image", "extensions-catalogue", f"{REGISTRY}/siderolabs/extensions:v1.9.0"),
        ("catalogue", "extension", "siderolabs/gvisor"),
        ("catalogue", "overlay", "siderolabs/sbc"),
    }
    assert {one.remedy for one in found.lacks()} == {"make the bundle with --version v1.9.0"}


def test_the_planner_reads_both_catalogues_for_any_asset(near: Near) -> None:
    """As on the far side, where a kernel of a schematic with extensions needs them too."""
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "/overlays:")
    found = near.check(near.bundle(roots), AssetName.parse("kernel-amd64"))
    assert ("image", "overlays-catalogue") in {one[:2] for one in lacks(found)}


def test_another_architecture(near: Near) -> None:
    arm = AssetName.parse("installer-arm64.tar")
    found = near.check(rich(near), arm)
    assert {one.kind for one in found.lacks()} == {"architecture"}
    by_role = {one.role: one for one in found.lacks()}
    assert set(by_role) == {"base-installer", "extension", "overlay"}
    assert by_role["extension"].text == "it is in the bundle for amd64, and arm64 is needed"
    assert by_role["extension"].remedy == "make the bundle with --arch arm64"


def test_a_far_side_of_another_architecture(near: Near) -> None:
    found = near.check(rich(near), ISO, hosts=("arm64",))
    assert {(one.role, one.remedy) for one in found.lacks()} == {
        ("builder", "make the bundle with --host-arch arm64"),
        ("base", "make the bundle with --host-arch arm64"),
        ("overlay", "make the bundle with --host-arch arm64"),
    }
    roots = near.roots(near.requirements(parse_schematic(RICH)), arches=("amd64", "arm64"))
    assert near.check(near.bundle(roots), ISO, hosts=("arm64",)).complete


def test_the_newest_builder_that_is_whole_runs(own: Near) -> None:
    own.add("siderolabs/imager", "v1.13.5", {"x": b"newer"})
    requirements = own.requirements(parse_schematic(RICH))
    newer = own.roots(own.requirements(parse_schematic(RICH), builder="v1.13.5"))[:1]
    half = [replace(newer[0], arches=("arm64",))]
    found = own.check(own.bundle([*own.roots(requirements), *half]), ISO)
    assert found.complete and found.assets[0].builder == "v1.13.0"
    found = own.check(own.bundle([*own.roots(requirements), *newer]), ISO)
    assert found.complete and found.assets[0].builder == "v1.13.5"
    only_half = own.bundle([*without(own.roots(requirements), "imager:v1.13.0"), *half])
    lack = only_lack(own.check(only_half, ISO))
    assert (lack.kind, lack.role) == ("architecture", "builder")


def test_no_builder_at_all(near: Near) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "imager:v1.13.0")
    lack = only_lack(near.check(near.bundle(roots), ISO))
    assert (lack.kind, lack.text) == (
        "builder",
        "the bundle has no imager of v1.13.0 or later to run",
    )
    same = replace(near.settings, builder="same")
    found = near.check(near.bundle(roots), AssetName.parse("kernel-amd64"), settings=same)
    assert found.complete and found.assets[0].builder == "v1.9.0"


def test_a_builder_that_cannot_do_it(near: Near) -> None:
    settings = replace(near.settings, builder="v1.12.1")
    plain = parse_schematic(PLAIN)
    bundle = near.bundle(near.roots(near.requirements(plain, builder="v1.12.1")))
    uki = AssetName.parse("metal-amd64-uki.efi")
    sectors = parse_schematic(b"customization: {diskImage: {sectorSize: 4096}}\n")
    disk = AssetName.parse("metal-amd64.raw.zst")
    asked = {"settings": settings, "schematics": (("s.yaml", sectors),)}
    lack = only_lack(near.check(bundle, disk, **asked))
    assert (lack.kind, lack.name) == ("builder", "siderolabs/imager:v1.12.1")
    assert "sector size" in lack.text and "--builder newest" in lack.remedy
    assert near.check(bundle, uki, settings=settings, schematics=(("p.yaml", plain),)).complete


def test_what_cannot_be_built_at_all_is_a_fault_of_the_question(near: Near) -> None:
    unknown = parse_schematic(
        b"customization: {systemExtensions: {officialExtensions: [siderolabs/nope]}}\n"
    )
    with pytest.raises(PlanError, match=r"siderolabs/nope.* does not exist"):
        near.check(rich(near), schematics=(("x.yaml", unknown),))


def test_secure_boot_needs_keys_that_do_not_travel(near: Near) -> None:
    found = near.check(rich(near), AssetName.parse("metal-amd64-secureboot.iso"))
    assert found.complete
    assert any("keys are not in a bundle" in note for note in found.assets[0].notes)


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


def key_file(near: Near) -> Path:
    from tests.unit.deliver.bundle.test_signing import KEYS, pem

    path = near.folder / "bundle.key"
    path.write_bytes(pem(KEYS["ed25519"]))
    path.chmod(0o600)
    return path


def test_the_bundles_own_signature(near: Near) -> None:
    from tests.unit.deliver.bundle.test_signing import wants

    key = load_private_key(key_file(near))
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


# -- parts --------------------------------------------------------------------------------------


def layer_of(near: Near, name: str, arch: str = "amd64") -> Digest:
    """The one layer of an image."""
    entry = near.forge.layout.resolve(name)
    assert entry is not None
    return layer_below(near.forge.layout, entry, arch)


def layer_below(layout: Layout, entry: Any, arch: str) -> Digest:
    from local_imager.oci.export import select_image

    _, manifest = select_image(layout, entry.digest, arch)
    digest: Digest = manifest.layers[0].digest
    return digest


def in_parts(sample: Sample, cut: Digest) -> Sample:
    """The same in two parts, one blob cut in the middle."""
    (pieces,) = sample.bundle.parts
    at = next(n for n, piece in enumerate(pieces) if piece.blob == cut)
    data = sample.contents[cut]
    middle = len(data) // 2
    first = Piece(cut, 0, middle, Digest.of(data[:middle]), False)
    second = Piece(cut, middle, len(data) - middle, Digest.of(data[middle:]), False)
    return sample.split((*pieces[:at], first), (second, *pieces[at + 1 :]))


@pytest.fixture
def cut(near: Near) -> Sample:
    """Two parts; the catalogue of extensions, which plans are read from, is cut."""
    return in_parts(rich(near), layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0"))


def test_parts_in_any_order(near: Near, cut: Sample) -> None:
    paths = [near.write(n, cut.part(n)) for n in (1, 2)]
    for order in (paths, paths[::-1], [*paths, paths[0]]):
        found = near.check(order)
        assert found.complete and found.parts == 2 and not found.missing_parts


def test_a_part_that_was_not_given(near: Near, cut: Sample) -> None:
    found = near.check([near.write(1, cut.part(1))])
    assert [part.number for part in found.missing_parts] == [2]
    assert f"{REGISTRY}/siderolabs/extensions:v1.9.0" in found.missing_parts[0].items
    assert not found.complete and not found.refused
    assert {"blobs"} <= {one.kind for one in found.lacks()}
    lack = next(one for one in found.lacks() if one.role == "extensions-catalogue")
    assert lack.text == "1 blob of it is in part 2 of 2, not given here"
    assert lack.remedy == "give part 2 too"
    assert lack.size_bytes > 0


def test_what_no_build_needs_must_come_whole_too(near: Near) -> None:
    """Proof of a build is not proof of the bundle: a part or a byte of it may be missing still."""
    sample = rich(near)
    spare = layer_of(near, f"{REGISTRY}/siderolabs/installer:v1.9.0")
    (pieces,) = sample.bundle.parts
    last = [piece for piece in pieces if piece.blob == spare]
    parts = sample.split([piece for piece in pieces if piece.blob != spare], last)
    found = near.check([near.write(1, parts.part(1))], ISO)
    assert [proof.complete for proof in found.assets] == [True]
    assert [part.number for part in found.missing_parts] == [2]
    assert not found.complete and not found.refused
    broken = bytearray(parts.part(2))
    broken[bytes(broken).index(sample.contents[spare])] ^= 1
    found = near.check([near.write(1, parts.part(1)), near.write(2, bytes(broken))], ISO)
    assert [proof.complete for proof in found.assets] == [True]
    assert not found.complete and found.refused


def test_a_part_of_another_bundle(near: Near, cut: Sample) -> None:
    other = near.bundle(near.roots(near.requirements(parse_schematic(PLAIN))))
    with pytest.raises(InputError, match="belongs to another bundle"):
        near.check([near.write(1, cut.part(1)), near.write(2, other.part())])


def test_segments_that_are_right_and_do_not_give_the_blob(near: Near, cut: Sample) -> None:
    """A manifest may be wrong in itself; each segment is what it says, the blob is not."""
    digest = layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0")
    wrong = bytes(len(cut.contents[digest]))
    parts = tuple(
        tuple(
            replace(p, digest=Digest.of(wrong[p.offset : p.offset + p.size_bytes]))
            if p.blob == digest
            else p
            for p in part
        )
        for part in cut.bundle.parts
    )
    sample = Sample(replace(cut.bundle, parts=parts), {**cut.contents, digest: wrong})
    found = near.check(sample)
    assert found.refused
    (file,) = found.damaged
    assert "do not give" in file.faults[0].text
    assert f"{REGISTRY}/siderolabs/extensions:v1.9.0" in file.faults[0].affects


def test_a_cut_blob_that_is_not_kept_is_proven_whole_too(near: Near) -> None:
    sample = in_parts(rich(near), layer_of(near, f"{IMAGER}:v1.13.0"))
    assert near.check(sample).complete
    digest = layer_of(near, f"{IMAGER}:v1.13.0")
    broken = bytearray(sample.part(2))
    at = bytes(broken).index(sample.contents[digest][-40:])
    broken[at] ^= 1
    found = near.check([near.write(1, sample.part(1)), near.write(2, bytes(broken))])
    assert found.refused and [file.faults[0].kind for file in found.damaged] == ["bit-flip"]
    assert all(one.text.endswith("damaged in the bundle") for one in found.lacks())
    again = near.check(
        [near.write(1, sample.part(1)), near.write(2, bytes(broken)), near.write(3, sample.part(2))]
    )
    assert not list(again.lacks()), "a whole copy of the part came too"
    assert again.refused and len(again.damaged) == 1


# -- damage -------------------------------------------------------------------------------------


def test_a_bit_that_flipped(near: Near) -> None:
    sample = rich(near)
    data = bytearray(sample.part())
    layer = sample.contents[layer_of(near, f"{REGISTRY}/siderolabs/installer:v1.9.0")]
    data[bytes(data).index(layer) + 20] ^= 1
    found = near.check(bytes(data))
    assert found.refused and not found.complete
    assert [file.faults[0].kind for file in found.damaged] == ["bit-flip"]
    assert [proof.complete for proof in found.assets] == [True, False]
    lack = only_lack(found)
    assert (lack.role, lack.kind) == ("base-installer", "blobs")
    assert lack.remedy.startswith("copy the bundle once more")


def test_a_document_that_is_damaged(near: Near) -> None:
    sample = rich(near)
    entry = near.forge.layout.resolve(f"{REGISTRY}/siderolabs/gvisor:1.0")
    assert entry is not None
    data = bytearray(sample.part())
    data[bytes(data).index(sample.contents[entry.digest]) + 5] ^= 1
    found = near.check(bytes(data), ISO)
    assert found.refused
    assert only_lack(found).role == "extension"


def test_a_manifest_that_is_damaged_leaves_nothing_to_prove(near: Near) -> None:
    data = bytearray(rich(near).part())
    data[600] ^= 1
    found = near.check(bytes(data))
    assert found.refused and not found.assets and found.set_digest is None


@pytest.mark.parametrize("index", [b"[]", b"no json", b'{"manifests": [{"digest": "x"}]}'])
def test_an_index_that_is_none(index: bytes, near: Near) -> None:
    """Its digest is right, so nothing happened to it on the way: it was made so."""
    descriptor = Descriptor.of(index, MEDIA_INDEX)
    sample = rich(near, change=lambda bundle: replace(bundle, index=descriptor))
    sample.contents[descriptor.digest] = index
    found = near.check(sample)
    assert found.refused and not found.assets
    (file,) = found.damaged
    assert file.faults[0].member == "index.json"


def test_an_index_that_names_another_image(near: Near) -> None:
    """As an import would, the check believes neither the index nor the manifest alone."""
    sample = rich(near)
    index = sample.contents[sample.bundle.index.digest]
    names = [f"{REGISTRY}/siderolabs/{name}:v1.9.0" for name in ("imager", "installer")]
    swapped = index.replace(names[0].encode(), b"?").replace(names[1].encode(), names[0].encode())
    swapped = swapped.replace(b"?", names[1].encode())
    descriptor = Descriptor.of(swapped, MEDIA_INDEX)
    changed = Sample(
        replace(sample.bundle, index=descriptor), {**sample.contents, descriptor.digest: swapped}
    )
    found = near.check(changed, INSTALLER)
    assert found.refused
    assert {one.role for one in found.lacks()} == {"base", "base-installer"}
    assert all("name two images" in one.text for one in found.lacks())


def test_what_is_no_bundle(near: Near) -> None:
    with pytest.raises(InputError):
        near.check(b"no tar at all" * 100)


# -- deltas -------------------------------------------------------------------------------------


def leaving_out(*digests: Digest) -> Callable[[Bundle], Bundle]:
    """Make a delta of a bundle: these blobs are on the far side."""

    def change(bundle: Bundle) -> Bundle:
        blobs = tuple(
            replace(blob, carried=False) if blob.digest in digests else blob
            for blob in bundle.blobs
        )
        parts = tuple(
            tuple(piece for piece in part if piece.blob not in digests) for part in bundle.parts
        )
        return replace(bundle, blobs=blobs, parts=parts, since=Digest.of(b"far.json"))

    return change


def inventory(near: Near, *digests: Digest) -> Inventory:
    sizes = {d: near.forge.layout.blob_path(d).stat().st_size for d in digests}
    return Inventory(dict(sorted(sizes.items())))


def test_a_delta_is_complete_for_the_far_side_that_it_leans_on(near: Near) -> None:
    base = layer_of(near, f"{IMAGER}:v1.9.0")
    sample = rich(near, change=leaving_out(base))
    found = near.check(sample, ISO)
    assert {(one.kind, one.role) for one in found.lacks()} >= {("blobs", "base")}
    lack = next(one for one in found.lacks() if one.role == "base")
    assert "left out of the bundle" in lack.text and "delta" in lack.text
    assert "--have" in lack.remedy and lack.size_bytes == len(
        near.forge.layout.read_blob(base, max_bytes=10**6)
    )
    far = inventory(near, base)
    told = near.check(sample, ISO, have=far)
    assert told.complete and told.far_side == far.digest
    other = near.check(sample, ISO, have=inventory(near))
    assert not other.complete
    assert "the inventory does not list it" in next(iter(other.lacks())).text
    lying = Inventory({base: 1})
    assert not near.check(sample, ISO, have=lying).complete


def test_a_catalogue_on_the_far_side_is_read_from_the_near_sides_store(near: Near) -> None:
    catalogue = layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0")
    sample = rich(near, change=leaving_out(catalogue))
    far = inventory(near, catalogue)
    elsewhere = replace(near.settings, store=near.folder / "other")
    found = near.check(sample, ISO, have=far, settings=elsewhere)
    assert {one.kind for one in found.lacks()} == {"catalogue"}
    assert "--store DIR" in next(iter(found.lacks())).remedy
    layout = Store.open(near.settings.store).layout
    layout.put_file(near.forge.layout.blob_path(catalogue), "", move=False)
    assert near.check(sample, ISO, have=far).complete


def test_a_blob_that_is_rebuilt_needs_its_base(near: Near) -> None:
    layer, base = layer_of(near, f"{IMAGER}:v1.13.0"), Digest.of(b"an older layer")
    patch = b"the way from there"
    blob = Blob(Digest.of(patch), len(patch), "patch")

    def change(bundle: Bundle) -> Bundle:
        bundle = leaving_out(layer)(bundle)
        way = Rebuild(base, blob.digest, "zstd-patch")
        blobs = (replace(b, rebuild=way) if b.digest == layer else b for b in bundle.blobs)
        piece = Piece(blob.digest, 0, len(patch), blob.digest, True)
        return replace(bundle, blobs=(*blobs, blob), parts=((*bundle.parts[0], piece),))

    sample = rich(near, change=change)
    sample.contents[blob.digest] = patch
    have = Inventory({base: 14})
    assert near.check(sample, ISO, have=have).complete
    lack = next(one for one in near.check(sample, ISO, have=Inventory({})).lacks())
    assert "to be rebuilt from a blob expected on the far side" in lack.text


# -- the rest -----------------------------------------------------------------------------------


def test_the_answer_as_json(near: Near) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "/gvisor:")
    document = near.check(near.bundle(roots), ISO).as_dict()
    assert document["complete"] is False
    assert document["parts"] == 1 and document["missing_parts"] == []
    assert document["signature"] is None and document["lock"] is None
    assets: Any = document["assets"]
    (missing,) = assets[0]["missing"]
    assert missing["role"] == "extension" and missing["code"] == ""
    assert set(missing) == {"kind", "role", "name", "text", "remedy", "size_bytes", "code"}


def test_an_image_under_its_tag_alone_is_found_by_its_digest(near: Near) -> None:
    """The catalogue names an extension with its digest; a store finds it by the tag as well."""
    roots = near.roots(near.requirements(parse_schematic(RICH)))
    short = [replace(root, name=root.name.partition("@")[0]) for root in roots]
    assert all(Reference.parse(root.name).digest is None for root in short)
    assert near.check(near.bundle(short), ISO).complete
