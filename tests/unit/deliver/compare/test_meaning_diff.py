"""Differences in meaning: arguments, extensions, META, schematics."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.deliver.compare.meaning_diff import differing_meaning
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic


def entry(*arguments: str, title: str = "Talos", path: str = "a.efi") -> dict[str, Any]:
    return {"title": title, "path": path, "kernel_arguments": list(arguments)}


def found(left: dict[str, Any], right: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what stands for itself: what, left, right."""
    return [
        (one.what, one.left, one.right)
        for one in differing_meaning(left, right)
        if one.follows is None
    ]


def arguments(left: tuple[str, ...], right: tuple[str, ...]) -> list[tuple[str, str, str]]:
    return found({"boot_entries": [entry(*left)]}, {"boot_entries": [entry(*right)]})


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (("a=1", "b"), ("a=2", "b"), [("kernel argument a", "a=1", "a=2")]),
        (("a=1",), ("a=1", "quiet"), [("kernel argument quiet", "", "quiet")]),
        (("quiet", "a=1"), ("a=1",), [("kernel argument quiet", "quiet", "")]),
        (
            ("console=tty0", "console=ttyS0"),
            ("console=tty0", "console=ttyS1"),
            [("kernel argument console", "console=ttyS0", "console=ttyS1")],
        ),
        (
            ("console=tty0",),
            ("console=tty0", "console=tty0"),
            [("kernel argument console", "", "console=tty0")],
        ),
        (("a", "b", "c"), ("a", "c", "b"), [("order of the kernel arguments", "a b c", "a c b")]),
        (
            ("a=1", "b", "c"),
            ("c", "b", "a=2"),
            [("kernel argument a", "a=1", "a=2"), ("order of the kernel arguments", "b c", "c b")],
        ),
    ],
)
def test_arguments(
    left: tuple[str, ...], right: tuple[str, ...], expected: list[tuple[str, str, str]]
) -> None:
    assert arguments(left, right) == expected


def test_an_argument_in_every_entry_is_one_difference() -> None:
    left = {"boot_entries": [entry("a=1"), entry("a=1", "wipe", title="Reset", path="b.efi")]}
    right = {"boot_entries": [entry("a=2"), entry("a=2", "wipe", title="Reset", path="b.efi")]}
    assert found(left, right) == [("kernel argument a", "a=1", "a=2")]


def test_an_entry_of_one_side_is_named() -> None:
    left = {"boot_entries": [entry("a")]}
    right = {"boot_entries": [entry("a"), entry("a", "wipe", title="Reset", path="b.efi")]}
    assert found(left, right) == [("boot entry Reset", "", "a wipe")]


def test_meta_explains_the_argument_that_carries_it() -> None:
    carried = "talos.environment=INSTALLER_META_BASE64="
    left = {"meta": {"0xa": "1"}, "boot_entries": [entry(f"{carried}AA")]}
    right = {"meta": {"0xa": "2"}, "boot_entries": [entry(f"{carried}BB")]}
    assert found(left, right) == [("META key 0xa", "1", "2")]


def test_an_empty_meta_value_is_not_a_missing_one() -> None:
    assert found({"meta": {"0xa": ""}}, {"meta": {}}) == [("META key 0xa", "(empty)", "")]
    assert found({"meta": {"0xa": ""}}, {"meta": {"0xa": "x"}}) == [
        ("META key 0xa", "(empty)", "x")
    ]


def extensions(*rows: tuple[str, str]) -> dict[str, Any]:
    return {"extensions": [{"name": name, "version": version} for name, version in rows]}


def test_extensions() -> None:
    left, right = extensions(("a", "1"), ("b", "1")), extensions(("a", "2"), ("c", "1"))
    assert found(left, right) == [
        ("extension a", "1", "2"),
        ("extension b", "1", ""),
        ("extension c", "", "1"),
    ]
    assert found(extensions(("a", "1"), ("b", "1")), extensions(("b", "1"), ("a", "1"))) == [
        ("order of the extensions", "a, b", "b, a")
    ]


def test_a_platform_explains_its_argument() -> None:
    left = {"platform": "metal", "boot_entries": [entry("talos.platform=metal")]}
    right = {"platform": "aws", "boot_entries": [entry("talos.platform=aws")]}
    assert found(left, right) == [("platform", "metal", "aws")]


def with_schematic(text: str, **more: Any) -> dict[str, Any]:
    value = parse_schematic(text.encode())
    return {"schematic_id": str(schematic_id(value)), "schematic": text} | more


ARGUMENT = "customization:\n  extraKernelArgs: [a={}]\n"


def test_a_schematic_explains_itself_where_the_file_shows_nothing_else() -> None:
    left, right = with_schematic(ARGUMENT.format(1)), with_schematic(ARGUMENT.format(2))
    assert found(left, right) == [("schematic field customization.extraKernelArgs a", "a=1", "a=2")]


def test_a_schematic_is_explained_by_what_the_file_shows() -> None:
    left = with_schematic(ARGUMENT.format(1), boot_entries=[entry("a=1")])
    right = with_schematic(ARGUMENT.format(2), boot_entries=[entry("a=2")])
    assert found(left, right) == [("kernel argument a", "a=1", "a=2")]


def test_a_field_that_nothing_shows_is_named_beside_what_is_shown() -> None:
    more = "  bootloader: grub\n"
    left = with_schematic(ARGUMENT.format(1), boot_entries=[entry("a=1")])
    right = with_schematic(ARGUMENT.format(2) + more, boot_entries=[entry("a=2")])
    assert [what for what, _, _ in found(left, right)] == [
        "kernel argument a",
        "schematic field customization.bootloader",
    ]


def test_a_machine_configuration_in_a_schematic_is_not_shown() -> None:
    text = "customization:\n  embeddedMachineConfiguration: |\n    secret: {}\n"
    left, right = with_schematic(text.format("hunter1")), with_schematic(text.format("hunter2"))
    assert len(differing_meaning(left, right)) == 2
    assert "hunter" not in repr(
        [(one.what, one.left, one.right, one.diff) for one in differing_meaning(left, right)]
    )


def test_texts_that_are_no_schematics_leave_the_id_to_stand_for_itself() -> None:
    left = {"schematic_id": "a" * 64, "schematic": "{"}
    right = {"schematic_id": "b" * 64, "schematic": "\ud800"}
    assert [what for what, _, _ in found(left, right)] == ["schematic ID"]


def test_what_is_not_told_is_no_difference() -> None:
    assert found({"talos_version": "v1.13.0", "arch": None}, {"arch": "amd64"}) == []


TREE, ESP = "EFI/Linux/Talos.efi", "ESP/EFI/Linux/Talos.efi"


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        # One of the two copies in an ISO was altered; the equal ones are one entry.
        (
            [entry("a=1", path=TREE)],
            [entry("a=2", path=ESP), entry("a=1", path=TREE)],
            [("kernel argument a", "a=1", "a=2")],
        ),
        (
            [entry("a=1", path=ESP)],
            [entry("a=2", path=ESP), entry("a=1", path=TREE)],
            [("kernel argument a", "a=1", "a=2")],
        ),
        # The same title in the same volume goes before the same title elsewhere.
        (
            [entry("a=1", path=ESP), entry("b", path="B/EFI/Linux/x.efi")],
            [entry("b", path="B/EFI/Linux/y.efi"), entry("a=2", path=ESP)],
            [("kernel argument a", "a=1", "a=2")],
        ),
        # Of one file, each entry goes with the one of its own title.
        (
            [entry("a", path="grub.cfg"), entry("b", title="Reset", path="grub.cfg")],
            [entry("b", title="Reset", path="grub.cfg"), entry("a", path="grub.cfg")],
            [],
        ),
        (
            [entry("a", path=ESP)],
            [entry("a", path=ESP), entry("b", path="ESP/EFI/Linux/other.efi")],
            [("boot entry Talos", "", "b")],
        ),
    ],
)
def test_entries_are_paired_by_place_then_by_title(
    left: list[dict[str, Any]], right: list[dict[str, Any]], expected: list[tuple[str, str, str]]
) -> None:
    assert found({"boot_entries": left}, {"boot_entries": right}) == expected
    mirrored = [(what, there, here) for what, here, there in expected]
    assert found({"boot_entries": right}, {"boot_entries": left}) == mirrored


def test_entries_of_two_versions_are_paired_by_what_is_left_of_their_names() -> None:
    def side(version: str, *lines: str) -> dict[str, Any]:
        names = [f"Talos ({version})", f"Talos ({version}) (Reset)"]
        rows = [
            entry(line, title=name, path=f"ESP/EFI/Linux/Talos-{version}.efi")
            for name, line in zip(names, lines, strict=True)
        ]
        return {"talos_version": version, "boot_entries": rows[:: 1 if version < "v1.2" else -1]}

    left, right = side("v1.1.0", "a=1", "b=1"), side("v1.2.0", "a=2", "b=2")
    assert found(left, right) == [
        ("Talos version", "v1.1.0", "v1.2.0"),
        ("kernel argument a", "a=1", "a=2"),
        ("kernel argument b", "b=1", "b=2"),
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"content/{ESP}", ESP),
        (f"content/content/{ESP}", ESP),
        (f"disk.vmdk/content/{ESP}", f"disk.vmdk/{ESP}"),
        ("ESP/content/x.efi", "ESP/content/x.efi"),
    ],
)
def test_a_path_names_nothing_that_only_wraps(path: str, shown: str) -> None:
    left, right = ({"boot_entries": [entry(f"a={n}", path=path)]} for n in (1, 2))
    assert [one.path for one in differing_meaning(left, right)] == [shown]
