"""What a build works out of the plans that the planner really makes."""

from __future__ import annotations

import pytest
import yaml

from local_imager.build.disks import raw_document
from local_imager.build.privilege import needs_loop_devices
from local_imager.build.record import converts
from local_imager.build.request import MIB
from local_imager.build.resources import output_bytes
from local_imager.build.staging import render_document
from local_imager.profile.assetname import AssetName
from local_imager.profile.handed import build_profile
from local_imager.profile.model import BuildPlan, PlanOptions
from local_imager.profile.plan import plan
from tests.unit.profile.vectors import (
    ALL_KEYS,
    catalogue,
    factory_path,
    schematic,
    schematics,
    version,
)

NEWEST = "v1.13.0"


def planned(asset: str, tag: str = NEWEST, builder: str = "") -> BuildPlan:
    options = PlanOptions(builder=version(builder) if builder else None)
    name = AssetName.parse(asset)
    return plan(schematics()["vanilla"], version(tag), name, catalogue(tag), options)


@pytest.mark.parametrize("ending", ["qcow2", "vhd.gz", "ova", "raw.xz", "raw.tar.gz", "raw"])
def test_all_disk_formats_share_one_raw_disk(ending: str) -> None:
    first, second = (
        raw_document(planned(f"nocloud-amd64.{end}").profile.rendered(factory_path))
        for end in ("raw.zst", ending)
    )
    assert first == second
    assert first["output"]["outFormat"] == "raw"
    assert first["output"]["imageOptions"]["diskFormat"] == "raw"
    assert "diskFormatOptions" not in first["output"]["imageOptions"]


def test_only_disk_images_are_made_from_a_raw_disk() -> None:
    assert converts(planned("nocloud-amd64.qcow2"), exact=False)
    for asset in ("metal-amd64.iso", "metal-amd64-uki.efi", "installer-amd64.tar"):
        assert not converts(planned(asset), exact=False)


@pytest.mark.parametrize(
    ("tag", "disk_bytes"),
    [("v1.13.0", 4_453_302_272), ("v1.9.0", 1_306_525_696)],
)
def test_a_disk_needs_the_size_that_the_imager_gives_it(tag: str, disk_bytes: int) -> None:
    assert output_bytes(planned("nocloud-amd64.raw", tag), 0) == disk_bytes + 64 * MIB


def test_the_text_for_the_imager_reads_back() -> None:
    text = schematic(
        "overlay: {name: rpi_generic, image: a/b, options: {a: 'yes', b: yes, n: null, f: 1.5}}\n"
        "customization: {extraKernelArgs: ['on', 'x: y', '12:30'], meta: [{key: 10, value: 'a\n\n"
        "b'}]}\n"
    )
    options = PlanOptions(key_files=ALL_KEYS)
    asset = AssetName.parse("metal-arm64.raw.xz")
    found = plan(text, version(NEWEST), asset, catalogue(NEWEST), options)
    document = build_profile(found, options).rendered(factory_path)
    assert document["customization"]["extraKernelArgs"][0] == "on"
    assert yaml.safe_load(render_document(document)) == document


@pytest.mark.parametrize(
    ("builder", "asset", "needed"),
    [
        ("v1.12.1", "metal-amd64.raw", True),
        ("v1.9.0", "metal-amd64.qcow2", True),
        ("v1.13.0-alpha.1", "metal-amd64.raw", False),
        ("v1.13.0", "metal-amd64.raw", False),
        ("v1.9.0", "metal-amd64.iso", False),
        ("v1.9.0", "installer-amd64.tar", False),
    ],
)
def test_disk_images_by_old_builders_need_loop_devices(
    builder: str, asset: str, needed: bool
) -> None:
    assert needs_loop_devices(planned(asset, "v1.9.0", builder)) is needed
