"""Whether a bundle is enough for builds: real plans over signed images in miniature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.form.words import ROLE_SCHEMATIC
from local_imager.deliver.bundle.near.contents import DocumentRoot
from local_imager.deliver.bundle.proof.check import Question, check_files
from local_imager.errors import InputError, PlanError
from local_imager.events import NULL_SINK
from local_imager.oci.model import Digest, Reference
from local_imager.profile.assetname import AssetName
from local_imager.schematic.parse import parse_schematic
from tests.bundlefiles import packed
from tests.unit.deliver.bundle.nearbundles import (
    IMAGER,
    INSTALLER,
    ISO,
    PLAIN,
    RICH,
    Near,
    lacks,
    only_lack,
    rich,
    without,
)
from tests.unit.sources.forge import REGISTRY


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
