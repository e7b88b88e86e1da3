"""Versions in the order of UAPI.10, by the examples that the specification gives."""

from __future__ import annotations

import itertools

import pytest

from local_imager.deliver.inspect.menu import MenuLine, chosen_first, default_of, version_key


@pytest.mark.parametrize(
    "ascending",
    [
        ("11", "12", "123"),
        ("122.1", "123", "123.1", "123.1.1", "124"),
        ("123~rc1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1", "123^post1"),
        ("123^post1", "123.a-1", "123.1-1", "123a-1", "124-1"),
        ("v1.9.0", "v1.10.0-alpha.1", "v1.10.0-beta.0", "v1.13.0"),
        ("", "0", "1"),
        ("Talos-v1.13.0~1.efi", "Talos-v1.13.0.efi", "Talos-v1.13.1.efi"),
    ],
)
def test_older_before_newer(ascending: tuple[str, ...]) -> None:
    for older, newer in itertools.combinations(ascending, 2):
        assert version_key(older) < version_key(newer), (older, newer)


def test_what_counts_as_the_same() -> None:
    assert version_key("1_2") == version_key("1:2") and version_key("007") == version_key("7")


def test_a_default_that_is_no_pattern_of_this_menu() -> None:
    rows = [(MenuLine("a.efi"), 1), (MenuLine("a.efi", "reset"), 2)]
    assert chosen_first(rows, "a.efi@RESET")[0][0][1] == 2
    assert chosen_first(rows, "[") == (rows, False)
    assert chosen_first(rows, "*" * 256) == (rows, False)
    assert chosen_first(rows, "*a" * 127) == (rows, False)
    assert default_of('default "x y"\n default z \ndefault') == "z"
