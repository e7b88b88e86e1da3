"""Names of extensions and overlays: exact first, then the renames, then the nearest."""

from __future__ import annotations

import pytest

from local_imager.errors import PlanError
from local_imager.profile.resolve import RENAMED, find_extension, find_overlay
from tests.unit.profile.vectors import catalogue, golden

DATA = golden("aliases")


def test_the_renames_are_the_factorys() -> None:
    assert dict(RENAMED) == DATA["aliases"]


@pytest.mark.parametrize("name", sorted(DATA["resolved_per_version"]))
def test_a_name_resolves_in_each_version_as_in_the_factory(name: str) -> None:
    for tag, wanted in DATA["resolved_per_version"][name].items():
        if wanted is None:
            with pytest.raises(PlanError):
                find_extension(catalogue(tag), name)
        else:
            assert find_extension(catalogue(tag), name).name == wanted


@pytest.mark.parametrize(
    ("tag", "name", "hint"),
    [
        ("v1.9.0", "siderolabs/i915", "still called siderolabs/i915-ucode"),
        ("v1.13.0", "gvisor", "write siderolabs/gvisor"),
        ("v1.13.0", "siderolabs/qemu-guestagent", "did you mean siderolabs/qemu-guest-agent"),
        ("v1.13.0", "siderolabs/I915", "did you mean siderolabs/i915"),
        ("v1.13.0", "siderolabs/zzzzzzzz", "local-imager extensions"),
    ],
)
def test_the_hint_for_an_unknown_extension(tag: str, name: str, hint: str) -> None:
    with pytest.raises(PlanError) as caught:
        find_extension(catalogue(tag), name)
    assert tag in caught.value.message
    assert hint in caught.value.hint


def test_the_hint_for_an_unknown_overlay() -> None:
    with pytest.raises(PlanError) as caught:
        find_overlay(catalogue("v1.13.0"), "rpi_generik")
    assert "rpi_generic" in caught.value.hint
    with pytest.raises(PlanError) as caught:
        find_overlay(catalogue("v1.13.0"), "zzzz")
    assert "local-imager overlays" in caught.value.hint


def test_the_first_of_two_equal_entries_counts() -> None:
    from dataclasses import replace

    known = catalogue("v1.13.0")
    first = known.extensions[0]
    again = replace(first, reference=first.reference.with_tag("other"))
    doubled = replace(known, extensions=(*known.extensions, again))
    assert find_extension(doubled, first.name) is first
