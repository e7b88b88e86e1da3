"""The profile document of an overlay: what counts of it, and hostile ones."""

from __future__ import annotations

import pytest

from local_imager.errors import PlanError
from local_imager.profile.overlay import OverlayProfile, parse_overlay_profile
from tests.unit.profile.vectors import golden

DOCUMENTS = golden("catalog")["overlay_profiles"]


def test_what_counts_of_the_known_documents() -> None:
    found = {name: parse_overlay_profile(text, name) for name, text in DOCUMENTS.items()}
    assert found == {
        "jetson_orin": OverlayProfile(
            disk=True,
            bootloader="sd-boot",
            sector_size=4096,
            iso=True,
            iso_enroll_keys="force",
        ),
        "rockpi4": OverlayProfile(kernel_args=("console=ttyS2,1500000n8",), disk=True),
        "rpi_generic": OverlayProfile(disk=True, bootloader="grub"),
    }


def test_words_of_the_imager_are_no_booleans() -> None:
    found = parse_overlay_profile("output: {isoOptions: {sdBootEnrollKeys: off}}", "x")
    assert found.iso_enroll_keys == "off"


def test_the_boot_loader_none_is_none() -> None:
    found = parse_overlay_profile("output: {imageOptions: {bootloader: none}}", "x")
    assert found == OverlayProfile(disk=True)


@pytest.mark.parametrize(
    "document",
    [
        "",
        " \n",
        "- a list",
        "a: [",
        "a: &a [*a",
        "customization: 5",
        "customization: {extraKernelArgs: console=ttyS0}",
        "customization: {extraKernelArgs: [{a: b}]}",
        "output: {imageOptions: {bootloader: lilo}}",
        "output: {imageOptions: {bootloader: [grub]}}",
        "output: {imageOptions: {diskSectorSize: many}}",
        "output: {imageOptions: {diskSectorSize: -1}}",
        "output: {isoOptions: [force]}",
        "[" * 10_000,
        "a: " + "x" * 70_000,
    ],
)
def test_a_document_that_is_no_profile_is_refused(document: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_overlay_profile(document, "some_board")
    assert caught.value.code == "overlay-profile"
    assert "some_board" in caught.value.message


def test_aliases_do_not_grow() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert parse_overlay_profile(bomb, "x") == OverlayProfile()
