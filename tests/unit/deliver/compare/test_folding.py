"""What is put below another difference, and what stays on top of a name or version that differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from local_imager.deliver.compare.report import verdict_text
from local_imager.deliver.compare.verdict import Comparison
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.parts import Part
from tests.comparetrees import (
    Image,
    altered,
    box,
    compared,
    digest_of,
    folder,
    leaf,
    sealed,
    told,
    with_data,
    with_facts,
)

UKI = "EFI/EFI/Linux/Talos.efi"
INITRD = f"{UKI}/.initrd"
Change = tuple[str, Callable[[Part], Part]]


def more(*children: Part) -> Callable[[Part], Part]:
    return lambda part: sealed(replace(part, children=(*part.children, *children)))


def described(name: str, version: str, *changes: Change) -> tuple[Part, dict[str, Any]]:
    """Return an image whose UKI names a system, and the meaning that inspection would give."""
    text = f'NAME=Talos\nVERSION_ID={version}\nPRETTY_NAME="{name} ({version})"\n'
    tree = altered(Image().tree, UKI, more(leaf(".osrel", text, "pe-section")))
    loader = folder("loader", leaf("loader.conf", "timeout 3\n", "document"))
    tree = altered(tree, "EFI", more(loader, leaf("tool.bin", b"\0tool")))
    for path, change in changes:
        tree = altered(tree, path, change)
    said = {"talos_version": version, "system": f"{name} ({version})"}
    return tree, Image().meaning | said


def between(*sides: tuple[Part, dict[str, Any]]) -> Comparison:
    left, right = (replace(Image().subject, tree=tree, meaning=said) for tree, said in sides)
    return compare_trees(left, right)


PLAIN = described("Talos", "v1.13.0")
KERNEL: Change = (f"{UKI}/.linux", with_data(b"\0other kernel"))


def test_a_system_of_another_name_explains_texts_that_hold_it_and_no_kernel() -> None:
    result = between(PLAIN, described("Talox", "v1.13.0", KERNEL))
    assert told(result) == ["operating system", "content of the PE section"]
    assert [one.path for one in result.differences[0].consequences] == [f"{UKI}/.osrel"]
    assert result.differences[1].path == f"{UKI}/.linux"
    assert result.counts["assumed"] == 0


def test_a_system_of_another_name_and_version_is_two_differences() -> None:
    assert told(between(PLAIN, described("Talox", "v1.14.0")))[:2] == [
        "operating system",
        "Talos version",
    ]
    assert told(between(PLAIN, described("Talos", "v1.14.0"))) == ["Talos version"]


def test_programs_of_another_version_are_taken_to_follow_and_counted() -> None:
    init = (f"{INITRD}/segment 1/init", with_data("other program"))
    result = between(PLAIN, described("Talos", "v1.14.0", KERNEL, init))
    assert told(result) == ["Talos version"]
    assert (result.counts["follows"], result.counts["assumed"]) == (4, 2)
    assert "(2 of these only taken to follow, from another" in verdict_text(result)
    # It is seen in the text that names it, not in what is only taken to follow.
    assert result.differences[0].path == f"{UKI}/.osrel"


@pytest.mark.parametrize(
    ("path", "change", "what"),
    [
        (UKI, with_facts(rest=digest_of("appended")), "bytes outside of its parts of the UKI"),
        ("", with_facts(rest=digest_of("a gap")), "bytes outside of its parts of the disk"),
        (UKI, more(leaf(".extra", b"\0x", "pe-section")), "PE section"),
        (UKI, with_facts(subsystem="other"), "subsystem of the UKI"),
        (f"{UKI}/.linux", with_facts(characteristics="0xe0000020"), "characteristics"),
        (f"{UKI}/.cmdline", with_data("init=/evil"), "content of the PE section"),
        ("EFI/loader/loader.conf", with_data("timeout 0\n"), "content of the file"),
        ("EFI/tool.bin", with_data(b"\0evil"), "content of the file"),
        ("EFI", more(leaf("evil.bin", b"\0x")), "file"),
        (f"{INITRD}/segment 1", more(leaf("evil", b"\0x")), "file"),
        (f"{INITRD}/segment 1/init", with_facts(mode="4755"), "file mode"),
        (f"{INITRD}/segment 2/000.sqsh", more(leaf("evil", b"\0x")), "file"),
        ("", more(leaf("boot code", b"\0x", "unpartitioned")), "unpartitioned space"),
    ],
)
def test_a_version_does_not_explain(path: str, change: Callable[[Part], Part], what: str) -> None:
    result = between(PLAIN, described("Talos", "v1.14.0", KERNEL, (path, change)))
    first, *others = told(result)
    assert first == "Talos version"
    assert len(others) == 1 and others[0].startswith(what), others


def test_bytes_behind_a_program_do_not_follow_from_an_argument() -> None:
    changed = Image("console=ttyS0")
    tree = altered(changed.tree, UKI, with_facts(rest=digest_of("appended")))
    result = compare_trees(Image().subject, replace(changed.subject, tree=tree))
    assert told(result) == ["kernel argument console", "bytes outside of its parts of the UKI"]


@pytest.mark.parametrize("change", [{"name": "Other.efi"}, {"facts": {"mode": "4755"}}], ids=str)
def test_bytes_behind_a_program_do_not_follow_from_its_name_or_mode(change: Any) -> None:
    left = box("Talos.efi", "uki", leaf(".linux", b"\0k", "pe-section"), rest=digest_of("1"))
    right = replace(left, facts={**left.facts, "rest": digest_of("2")}, digest=digest_of("r"))
    right = replace(right, name=change.get("name", left.name))
    right = replace(right, facts={**right.facts, **change.get("facts", {})})
    first, second = told(compared(box("d", "fat", left), box("d", "fat", right)))
    assert first in ("name", "file mode")
    assert second == "bytes outside of its parts of the UKI"


def test_bytes_outside_follow_from_parts_that_come_and_files_of_an_iso_that_grow() -> None:
    grown = altered(Image().tree, UKI, more(leaf(".more", b"\0x", "pe-section")))
    grown = altered(grown, UKI, with_facts(rest=digest_of("a header with one section more")))
    assert told(compared(Image().tree, grown)) == ["PE section"]

    def iso(data: str) -> Part:
        return box("i", "iso", folder("d", leaf("f", data)), rest=digest_of(data))

    assert told(compared(iso("a"), iso("bb"))) == ["content of the file"]
    assert told(compared(iso("a"), iso("b"))) == [
        "content of the file",
        "bytes outside of its parts of the ISO",
    ]


def signed(*fits: tuple[str, bool]) -> Part:
    rows = [
        leaf(f"signature {n}", b"\0" + name.encode(), "pe-signature", signer=name)
        for n, (name, _) in enumerate(fits, 1)
    ]
    rows = [
        replace(one, facts={**one.facts, "digest_matches": fit, "verifies": True})
        for one, (_, fit) in zip(rows, fits, strict=True)
    ]
    return box("u", "uki", leaf(".linux", b"\0k", "pe-section"), *rows)


def signing(state: str, *signers: str) -> dict[str, Any]:
    return {"kind": "uki", "secure_boot": {"state": state, "signers": list(signers)}}


def test_a_signature_that_does_not_fit_any_more_is_a_difference_beside_a_new_signer() -> None:
    left = Subject("l", signed(("CN=a", True)), signing("signed", "CN=a"))
    right = Subject("r", signed(("CN=a", False), ("CN=b", True)), signing("signed", "CN=b"))
    for sides, values in (((left, right), ("yes", "no")), ((right, left), ("no", "yes"))):
        result = compare_trees(*sides)
        assert told(result) == [
            "Secure Boot signers",
            "Authenticode signature by CN=a fits the program",
        ]
        last = result.differences[-1]
        assert (last.left, last.right, last.path) == (*values, "signature 1")


def test_a_broken_signature_is_told_by_the_state_alone() -> None:
    left = Subject("l", signed(("CN=a", True)), signing("signed", "CN=a"))
    right = Subject("r", signed(("CN=a", False)), signing("broken"))
    assert told(compare_trees(left, right)) == ["Secure Boot signature"]


def test_a_directory_goes_with_the_boot_entry_that_is_alone_in_it() -> None:
    uki = box("New.efi", "uki", leaf(".linux", b"\0k", "pe-section"))
    entry = {"title": "New", "path": "EFI/Linux/New.efi", "kernel_arguments": ["a=1"]}
    left = Subject("l", box("i", "iso", leaf("x", "1")), {})
    for files, what in (((), []), ((leaf("evil.efi", b"\0"),), ["directory"])):
        tree = box("i", "iso", leaf("x", "1"), folder("EFI", folder("Linux", uki, *files)))
        right = Subject("r", tree, {"boot_entries": [entry]})
        result = compare_trees(left, right)
        assert told(result) == ["boot entry New", *what]
        assert all("evil.efi" in one.right for one in result.differences[1:])


def test_boot_code_goes_with_a_bios_that_boots_it_and_with_nothing_else() -> None:
    def side(code: bytes, **boot: bool) -> Subject:
        inner = [leaf("boot code", code, "unpartitioned")] if code else []
        return Subject("d", box("d", "disk", leaf("x", "1"), *inner), {"boot": boot})

    came = compare_trees(side(b"", bios=False), side(b"\0code", bios=True))
    assert told(came) == ["boots with a BIOS"]
    other = compare_trees(side(b"\0one", uefi=False), side(b"\0two", uefi=True))
    assert told(other) == ["boots with UEFI", "content of the unpartitioned space"]
