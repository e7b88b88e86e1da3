"""Planning equals the factory, row for row, and refuses with a reason."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest

from local_imager.errors import ExitCode, PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import BuildPlan, ImageInput, PlanOptions, Requirement, TarInput
from local_imager.profile.plan import ImagerRefuses, plan
from local_imager.schematic.canonical import schematic_id
from tests.unit.profile.vectors import (
    catalogue,
    factory_path,
    filled,
    golden,
    schematic,
    schematics,
    version,
)

ENHANCED = golden("enhanced")
DEPENDENCIES = golden("installer_dependencies")
# What the original says, and the code under which we refuse the same.
REFUSALS = {
    "embedding configuration is not supported": "embedded-config-unsupported",
    "error merging overlay profile": "overlay-profile",
    "invalid secureboot enrollKeys value": "enroll-keys",
    "official extension": "unknown-extension",
    "official overlay": "unknown-overlay",
    "overlay is not supported": "overlay-unsupported",
}


def by_schematic_and_version(row: dict[str, Any]) -> tuple[str, str]:
    return row["schematic_name"], row["version"]


def grouped(rows: list[dict[str, Any]]) -> list[Any]:
    rows = sorted(rows, key=by_schematic_and_version)
    return [
        pytest.param(list(group), id="-".join(key))
        for key, group in groupby(rows, key=by_schematic_and_version)
    ]


def planned(row: dict[str, Any], asset: AssetName) -> BuildPlan:
    tag = row["version"]
    return plan(schematics()[row["schematic_name"]], version(tag), asset, catalogue(tag))


@pytest.mark.parametrize("rows", grouped(ENHANCED["rows"]))
def test_profiles_equal_the_factorys(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        asset = AssetName.parse(row["path"])
        if "error" in row:
            with pytest.raises(PlanError) as caught:
                planned(row, asset)
            wanted = [code for text, code in REFUSALS.items() if row["error"].startswith(text)]
            assert [caught.value.code] == wanted
            assert caught.value.hint
            continue
        if "ready" in row:
            with pytest.raises(ImagerRefuses) as refused:
                planned(row, asset)
            assert row["ready"] in refused.value.message
            profile = refused.value.profile
        else:
            found = planned(row, asset)
            assert found.resolved
            assert found.output_name == row["output_path"]
            assert found.schematic_id == schematic_id(schematics()[row["schematic_name"]])
            profile = found.profile
        expected = filled(ENHANCED["profiles"][row["profile"]], row["version"])
        assert profile.rendered(factory_path) == expected, row["path"]


@pytest.mark.parametrize("rows", grouped(DEPENDENCIES))
def test_installers_are_made_of_what_the_factory_takes(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        asset = AssetName("installer", "metal", row["arch"], row["secureboot"])
        if "error" in row:
            with pytest.raises(PlanError):
                planned(row, asset)
            continue
        found = [
            (item.role, factory_path(ImageInput(item)), item.arch)
            for item in planned(row, asset).requirements
            if item.role in ("base-installer", "extension", "overlay")
        ]
        wanted = row["dependencies"]
        assert found == [(item["kind"], item["oci_path"], item["arch"]) for item in wanted]


EVERYTHING = "everything"


def test_requirements_come_in_the_order_of_use_and_once() -> None:
    asset = AssetName.parse("installer-arm64.tar")
    tag = "v1.13.0"
    options = PlanOptions(builder=version("v1.14.0"))
    twice = schematic(
        "overlay: {name: rpi_generic, image: x/y}\n"
        "customization: {systemExtensions: {officialExtensions: "
        "[siderolabs/gvisor, siderolabs/gvisor]}}\n"
    )
    found = plan(twice, version(tag), asset, catalogue(tag), options)
    assert [(item.role, item.name, item.tag, item.arch) for item in found.requirements] == [
        ("builder", "siderolabs/imager", "v1.14.0", None),
        ("base", "siderolabs/imager", tag, None),
        ("base-installer", "siderolabs/installer-base", tag, "arm64"),
        ("extensions-catalogue", "siderolabs/extensions", tag, None),
        ("overlays-catalogue", "siderolabs/overlays", tag, None),
        ("extension", "siderolabs/gvisor", "20240212.0", "arm64"),
        ("overlay", "siderolabs/sbc-raspberrypi", "v0.1.0", "amd64"),
        ("overlay", "siderolabs/sbc-raspberrypi", "v0.1.0", "arm64"),
    ]
    # The imager installs what the profile lists, so repetitions stay there.
    assert len(found.profile.document["input"]["systemExtensions"]) == 3


def test_the_hosts_architecture_is_the_one_that_runs_the_overlay() -> None:
    options = PlanOptions(host_arch="arm64")
    asset = AssetName.parse("metal-arm64.raw.xz")
    tag = "v1.13.0"
    found = plan(schematics()["overlay-rpi"], version(tag), asset, catalogue(tag), options)
    overlays = [item for item in found.requirements if item.role == "overlay"]
    assert [item.arch for item in overlays] == ["arm64"]


@pytest.mark.parametrize("name", ["kernel-amd64", "cmdline-metal-amd64"])
def test_kernel_and_command_line_need_no_catalogue(name: str) -> None:
    found = plan(
        schematics()["extensions-unknown"], version("v1.13.0"), AssetName.parse(name), None
    )
    assert found.resolved
    assert [item.role for item in found.requirements] == ["builder", "base"]


def test_without_a_catalogue_names_are_required_without_digests() -> None:
    asset = AssetName.parse("metal-arm64.raw.xz")
    found = plan(schematics()[EVERYTHING], version("v1.13.0"), asset, None)
    assert not found.resolved
    wanted = [item for item in found.requirements if item.role in ("extension", "overlay")]
    assert wanted == [
        Requirement("extension", "siderolabs/amd-ucode", arch="arm64"),
        Requirement("overlay", "siderolabs/sbc-raspberrypi", arch="amd64"),
        Requirement("overlay", "siderolabs/sbc-raspberrypi", arch="arm64"),
    ]


def test_a_schematic_without_extensions_is_resolved_without_a_catalogue() -> None:
    found = plan(schematics()["meta"], version("v1.13.0"), AssetName.parse("metal-amd64.iso"), None)
    assert found.resolved


def test_an_overlay_whose_profile_was_not_read_leaves_the_plan_unresolved() -> None:
    from dataclasses import replace

    tag = "v1.13.0"
    known = catalogue(tag)
    unread = tuple(replace(item, profile_document=None) for item in known.overlays)
    asset = AssetName.parse("metal-arm64.raw.xz")
    partial = replace(known, overlays=unread)
    assert not plan(schematics()["overlay-rpi"], version(tag), asset, partial).resolved
    assert plan(schematics()["meta"], version(tag), asset, partial).resolved


def test_a_catalogue_of_another_version_is_a_mistake_of_the_caller() -> None:
    asset = AssetName.parse("metal-amd64.iso")
    with pytest.raises(ValueError, match=r"v1\.12\.0"):
        plan(schematics()["meta"], version("v1.13.0"), asset, catalogue("v1.12.0"))


def test_versions_before_the_first_are_refused() -> None:
    with pytest.raises(PlanError) as caught:
        plan(schematics()["vanilla"], version("v1.1.2"), AssetName.parse("kernel-amd64"), None)
    assert caught.value.exit_code == ExitCode.INPUT_INVALID
    assert "v1.2.0" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "asset", "secret"),
    [
        ("vanilla", "metal-amd64.iso", False),
        ("extensions-two", "metal-amd64.iso", False),
        ("kernel-args", "metal-amd64.iso", True),
        ("kernel-args", "initramfs-amd64.xz", True),  # the virtual extension tells all
        ("kernel-args", "kernel-amd64", False),
        ("meta", "cmdline-metal-amd64", True),
        ("embedded", "cmdline-metal-amd64", False),
        ("embedded", "metal-amd64-uki.efi", True),
    ],
)
def test_what_may_hold_secrets_says_so(name: str, asset: str, secret: bool) -> None:
    tag = "v1.13.0"
    found = plan(schematics()[name], version(tag), AssetName.parse(asset), catalogue(tag))
    assert found.holds_secrets is secret


def test_the_factory_url_stands_in_the_virtual_extension() -> None:
    options = PlanOptions(factory_url="https://factory.example.org/")
    asset = AssetName.parse("metal-amd64.iso")
    found = plan(schematics()["vanilla"], version("v1.13.0"), asset, None, options)
    (tar,) = (item for item in found.profile.inputs() if isinstance(item, TarInput))
    assert b"Image Factory (https://factory.example.org/)" in tar.content


def test_what_will_not_take_effect_is_a_warning_of_the_plan() -> None:
    tag = "v1.9.0"
    asset = AssetName.parse("installer-amd64.tar")
    found = plan(schematics()["kernel-args"], version(tag), asset, catalogue(tag))
    assert any("kernel arguments" in warning for warning in found.warnings)
    iso = AssetName.parse("metal-amd64.iso")
    assert plan(schematics()["kernel-args"], version(tag), iso, catalogue(tag)).warnings == ()


def test_the_plan_keeps_the_spelling_that_was_asked_for() -> None:
    asset = AssetName.parse("metal-installer-x86_64.tar")
    found = plan(schematics()["vanilla"], version("v1.13.0"), asset, None)
    assert found.asset == "metal-installer-x86_64.tar"
    assert found.output_name == "installer-amd64.tar"
