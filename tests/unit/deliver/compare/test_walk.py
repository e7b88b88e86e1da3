"""Comparisons of whole files: the verdict, the headlines, and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from local_imager.deliver.compare.verdict import Verdict
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.parts import Part
from tests.comparetrees import (
    ID_B,
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

SEGMENT = "EFI/EFI/Linux/Talos.efi/.initrd/segment 2"
IMAGE = Image()


def test_a_file_and_itself_are_identical() -> None:
    result = compare_trees(IMAGE.subject, IMAGE.subject)
    assert result.verdict is Verdict.IDENTICAL
    assert result.differences == ()
    assert set(result.counts.values()) == {0}


def test_an_argument_an_extension_and_a_meta_value_are_three_differences() -> None:
    changed = Image("console=ttyS0", "v1.1.0", ID_B, "world", run=2)
    result = compare_trees(IMAGE.subject, changed.subject)
    assert result.verdict is Verdict.DIFFERENT
    rows = {(one.what, one.left, one.right) for one in result.differences if one.noise == ""}
    assert rows == {
        ("extension tool", "v1.0.0", "v1.1.0"),
        ("kernel argument console", "console=tty0", "console=ttyS0"),
        ("META key 0xa", "hello", "world"),
    }
    assert result.counts["altered"] == 3
    places = {one.what: one.path for one in result.differences}
    assert places["extension tool"] == f"{SEGMENT}/000.sqsh"
    assert places["META key 0xa"] == "META/0xa"


def test_the_schematic_id_is_named_as_a_consequence() -> None:
    result = compare_trees(IMAGE.subject, Image("console=ttyS0", schematic_id=ID_B).subject)
    (only,) = (one for one in result.differences if not one.noise)
    assert only.what == "kernel argument console"
    assert "schematic ID" in [one.what for one in only.consequences]


def test_an_id_that_nothing_explains_stands_for_itself() -> None:
    result = compare_trees(IMAGE.subject, Image(schematic_id=ID_B).subject)
    assert told(result) == ["schematic ID"]


def test_two_runs_differ_by_noise_alone() -> None:
    result = compare_trees(IMAGE.subject, Image(run=2).subject)
    assert result.verdict is Verdict.NAMED_NOISE
    assert {one.noise for one in result.differences} == {"cpio-times", "gpt-guid", "follows-noise"}
    assert all(one.change == "noise" for one in result.differences)


@pytest.mark.parametrize(
    ("path", "facts", "what"),
    [
        (f"{SEGMENT}/000.sqsh/tool", {"mode": "4755"}, "file mode"),
        (f"{SEGMENT}/000.sqsh/tool", {"uid": 7}, "owner (uid)"),
        (f"{SEGMENT}/000.sqsh", {"mode": "0600"}, "file mode"),
        ("EFI/EFI/Linux/Talos.efi/.initrd/segment 1/init", {"mtime": 9}, "time"),
        (SEGMENT, {"rest": digest_of("another device")}, "bytes outside of its parts"),
        ("", {"rest": digest_of("boot code in a gap")}, "bytes outside of its parts"),
        ("EFI/EFI/Linux/Talos.efi", {"rest": digest_of("a header field")}, "bytes outside"),
        ("EFI", {"type": "other"}, "type GUID of the partition"),
        ("EFI", {"label": "X"}, "label of the partition"),
    ],
)
def test_noise_hides_no_real_change(path: str, facts: dict[str, str | int], what: str) -> None:
    noisy = altered(Image(run=2).tree, path, with_facts(**facts))
    result = compare_trees(IMAGE.subject, replace(Image(run=2).subject, tree=noisy))
    assert result.verdict is Verdict.DIFFERENT
    (only,) = told(result)
    assert only.startswith(what)


def test_an_extra_file_and_changed_bytes_are_named_beside_noise() -> None:
    noisy = Image(run=2).tree
    more = altered(
        noisy,
        SEGMENT,
        lambda part: sealed(
            replace(part, children=(*part.children, leaf("extra", b"\0x", mode="0755")))
        ),
    )
    result = compared(IMAGE.tree, more)
    assert [(one.path, one.change) for one in result.differences if not one.noise] == [
        (f"{SEGMENT}/extra", "only-right")
    ]
    other = altered(noisy, f"{SEGMENT}/000.sqsh/tool", with_data("other program"))
    result = compared(IMAGE.tree, other)
    assert [one.path for one in result.differences if not one.noise] == [f"{SEGMENT}/000.sqsh/tool"]
    assert "-program v1.0.0" not in result.differences[0].diff.split("\n")
    assert result.differences[0].diff.split("\n")[1:] == ["+other", " program", "-v1.0.0"]


def test_an_extension_of_the_same_version_with_other_bytes_is_a_difference_of_its_own() -> None:
    tree = altered(Image("console=ttyS0").tree, f"{SEGMENT}/000.sqsh/tool", with_data("evil"))
    other = replace(Image("console=ttyS0").subject, tree=tree)
    result = compare_trees(IMAGE.subject, other)
    assert told(result) == ["kernel argument console", "content of the file"]


def test_a_command_line_that_differs_by_more_than_the_meaning_says_is_not_folded() -> None:
    tree = altered(
        Image("console=ttyS0").tree,
        "EFI/EFI/Linux/Talos.efi/.cmdline",
        with_data("talos.platform=metal console=ttyS0 loud"),
    )
    result = compare_trees(IMAGE.subject, replace(Image("console=ttyS0").subject, tree=tree))
    assert told(result) == ["kernel argument console", "content of the PE section"]


def wrapped(packing: str, tree: Part, salt: str = "") -> Part:
    outer = box(f"x.{packing}", "compressed", replace(tree, name="content"), packing=packing)
    return replace(outer, digest=digest_of(f"{outer.digest}{salt}"))


def test_the_same_disk_packed_otherwise_has_the_same_content() -> None:
    tree = IMAGE.tree
    qcow2 = box("x.qcow2", "qcow2", replace(tree, name="content"), uuid="1")
    for left, right in (
        (tree, wrapped("zstd", tree)),
        (wrapped("xz", tree), wrapped("zstd", tree)),
        (wrapped("zstd", tree), wrapped("zstd", tree, salt="level 19")),
        (wrapped("zstd", tree), qcow2),
        (wrapped("gzip", qcow2), tree),
    ):
        result = compared(left, right)
        assert result.verdict is Verdict.SAME_CONTENT, result.differences
        assert {one.change for one in result.differences} == {"packing"}


def test_packing_hides_nothing_inside() -> None:
    other = altered(IMAGE.tree, "META/0xa", with_data("world"))
    result = compared(wrapped("zstd", IMAGE.tree), wrapped("xz", other))
    assert result.verdict is Verdict.DIFFERENT
    assert [one.path for one in result.differences if one.change == "altered"] == ["META/0xa"]


def test_an_initramfs_packed_otherwise_lends_its_class_to_what_follows() -> None:
    def repacked(part: Part) -> Part:
        return sealed(replace(part, facts={**part.facts, "packing": "xz"}))

    tree = altered(IMAGE.tree, SEGMENT, repacked)
    tree = altered(tree, "EFI/EFI/Linux/Talos.efi", with_facts(checksum="other"))
    assert compared(IMAGE.tree, tree).verdict is Verdict.SAME_CONTENT


def test_parts_that_were_not_read_are_never_equal_by_guess() -> None:
    left = Part("x", "data", 9, digest_of("1"), unread="encrypted")
    right = replace(left, digest=digest_of("2"))
    (only,) = compared(box("d", "disk", left), box("d", "disk", right)).differences
    assert "could not be compared: encrypted" in only.what
    nameless = replace(left, digest="")
    result = compared(box("d", "disk", nameless, a=1), box("d", "disk", nameless, a=2))
    assert "content of the file, which could not be compared: one side has no digest" in told(
        result
    )
    assert compared(nameless, nameless).verdict is Verdict.DIFFERENT


def test_bytes_that_no_part_accounts_for_are_a_difference() -> None:
    left = box("d", "disk", leaf("a", "1"))
    right = replace(left, digest=digest_of("trailing bytes"))
    result = compared(left, right)
    assert result.verdict is Verdict.DIFFERENT
    assert told(result) == ["bytes of the disk outside of its parts"]


def test_a_checksum_without_a_cause_is_a_difference() -> None:
    tree = altered(IMAGE.tree, "EFI/EFI/Linux/Talos.efi", with_facts(checksum="0x1"))
    assert told(compared(IMAGE.tree, tree)) == ["checksum of the UKI"]


def test_a_mode_is_no_cause_of_a_checksum() -> None:
    left = box("u", "uki", leaf(".linux", "1", "pe-section"), checksum="1", mode="0644")
    right = box("u", "uki", leaf(".linux", "1", "pe-section"), checksum="2", mode="0600")
    assert set(told(compared(box("d", "fat", left), box("d", "fat", right)))) == {
        "file mode",
        "checksum of the UKI",
    }


def test_an_archive_in_front_is_one_difference_and_another_order_counts() -> None:
    base, extra = Image().segments
    microcode = box("segment 1", "cpio", leaf("kernel/x86/microcode", b"\0m"), packing="none")
    left = box("i", "initramfs", base, extra)
    moved = [replace(part, name=f"segment {n}") for n, part in enumerate((base, extra), 2)]
    result = compared(left, box("i", "initramfs", microcode, *moved))
    first = result.differences[0]
    assert (first.what, first.change) == ("cpio archive", "only-right")
    assert result.counts["only-right"] == 1
    assert result.counts["altered"] == 0
    swapped = [replace(part, name=f"segment {n}") for n, part in enumerate((extra, base), 1)]
    assert compared(left, box("i", "initramfs", *swapped)).verdict is Verdict.DIFFERENT


def test_the_same_change_at_two_places_is_told_once() -> None:
    def image(text: str) -> Part:
        pe = box("a.efi", "pe", leaf(".text", text * 4096, "pe-section"))
        return box("i", "iso", folder("EFI", pe), box("ESP", "partition", pe, content="fat"))

    result = compared(image("a"), image("b"))
    assert [one.path for one in result.differences] == ["EFI/a.efi/.text"]
    assert [one.path for one in result.differences[0].consequences] == ["ESP/a.efi"]


def test_one_owner_of_many_files_is_one_difference() -> None:
    def tree(uid: int) -> Part:
        files = [leaf(f"f{n}", str(n), uid=uid) for n in range(30)]
        return box("i", "iso", folder("d", *files))

    result = compared(tree(0), tree(7))
    (only,) = result.differences
    assert (only.what, only.left, only.right) == ("owner (uid), in 30 entries alike", "0", "7")
    assert len(only.consequences) == 30


def test_the_limit_cuts_the_list_and_not_the_counts() -> None:
    left = box("t", "tar", *(leaf(f"f{n}", f"1{n}") for n in range(9)))
    right = box("t", "tar", *(leaf(f"f{n}", f"2{n}") for n in range(9)))
    result = compared(left, right, limit=4)
    assert len(result.differences) == 4
    assert result.counts["altered"] == 9


def test_kinds_that_differ_are_the_difference() -> None:
    meaning = IMAGE.meaning | {"kind": "uki"}
    result = compare_trees(IMAGE.subject, Subject("other", IMAGE.uki, meaning))
    assert told(result) == ["kind of file"]
    assert result.differences[0].right == "uki"


def test_a_partition_that_moved_and_one_that_grew() -> None:
    first = replace(box("A", "partition", leaf("a", "1")), offset=1024, size_bytes=512)
    second = replace(box("B", "partition", leaf("b", "1")), offset=4096, size_bytes=512)
    left = box("d", "disk", first, second)
    moved = box("d", "disk", first, replace(second, offset=8192))
    assert told(compared(left, moved)) == ["place of the partition"]
    grown = box("d", "disk", replace(first, size_bytes=4096, digest=digest_of("g")), second)
    assert told(compared(left, grown)) == [
        "size of the partition",
    ]


def test_names_from_a_file_are_made_printable() -> None:
    left = box("t", "tar", leaf("a\x1b[31m\nb", "1", mode="0644\x07"))
    right = box("t", "tar", leaf("a\x1b[31m\nb", "2\x1b]0;x", mode="0600"))
    for one in compared(left, right).differences:
        shown = "".join((one.path, one.what, one.left, one.right, one.diff.replace("\n", "")))
        assert shown.isprintable()


def test_microcode_and_firmware_go_with_the_extension_that_brings_them() -> None:
    base, extra = Image().segments
    microcode = folder("microcode", leaf("AMD.bin", b"\0m"))
    early = box("segment 1", "cpio", folder("kernel", folder("x86", microcode)))
    firmware = folder("lib", folder("firmware", leaf("amd.fw", b"\0f")))
    empty = folder("usr", folder("lib", folder("firmware")))
    more = sealed(replace(extra, children=(*extra.children, firmware, empty)))
    left = box("i", "initramfs", base, extra)
    right = box("i", "initramfs", early, *_numbered((base, more), 2))
    listed = Image().meaning["extensions"]
    meanings = {"extensions": listed}, {"extensions": [*listed, {"name": "ucode", "version": "1"}]}
    sides = [Subject("s", left, meanings[0]), Subject("s", right, meanings[1])]
    assert told(compare_trees(*sides)) == ["extension ucode"]
    # In the base archive, or beside firmware, nothing is an extension's.
    odd = box("segment 1", "cpio", folder("kernel", leaf("x", "1")))
    other = box("i", "initramfs", odd, *_numbered((base, extra), 2))
    sides[1] = Subject("s", other, meanings[1])
    assert told(compare_trees(*sides)) == ["extension ucode", "cpio archive"]


def _numbered(parts: tuple[Part, ...], begin: int) -> list[Part]:
    return [replace(part, name=f"segment {n}") for n, part in enumerate(parts, begin)]


def test_a_list_of_extensions_that_lies_about_its_images_hides_nothing() -> None:
    """An image called as a partition is no reason to take what lies there for an extension's."""
    changed = Image(extension="v1.1.0")
    meaning = changed.meaning
    meaning["extensions"][0]["image"] = "META"
    tree = altered(changed.tree, "META/0xa", with_data("other"))
    left = replace(IMAGE.subject, meaning=IMAGE.meaning | {"meta": {}})
    right = Subject("image", tree, meaning | {"meta": {}})
    assert "META/0xa" in [one.path for one in compare_trees(left, right).differences]


def test_many_extensions_and_many_differences_are_looked_up() -> None:
    names = [f"ext{n}" for n in range(2000)]
    listed = [
        [{"name": name, "version": version, "image": f"{name}.sqsh"} for name in names]
        for version in ("1", "2")
    ]
    trees = [
        box("i", "cpio", *(leaf(f"{name}.sqsh", f"\0{version}") for name in names))
        for version in ("1", "2")
    ]
    left, right = (
        Subject("s", tree, {"extensions": rows}) for tree, rows in zip(trees, listed, strict=True)
    )
    result = compare_trees(left, right)
    assert result.counts["altered"] == result.counts["follows"] == 2000


def test_another_order_is_shown_in_the_numbers_of_the_left_side() -> None:
    base, extra = Image().segments
    swapped = [replace(part, name=f"segment {n}") for n, part in enumerate((extra, base), 1)]
    left, right = box("i", "initramfs", base, extra), box("i", "initramfs", *swapped)
    (only,) = compared(left, right).differences
    assert only.what == "order of its parts"
    assert (only.left, only.right) == ("segment 1, segment 2", "segment 2, segment 1")


def test_packing_is_compared_between_things_of_one_kind_only() -> None:
    kernel = leaf("k", b"\0kernel", "kernel", packing="zstd", arch="amd64")
    packed = box("t.gz", "compressed", leaf("content", "text"), packing="gzip", arch="arm64")
    result = compared(kernel, packed)
    assert [one.what for one in result.differences] == ["arch of the part", "kind of part"]


def test_the_size_of_blocks_is_packing_in_packed_file_systems_alone() -> None:
    for kind, count in (("squashfs", 1), ("erofs", 1), ("xfs", 0)):
        left, right = (
            box("P", "partition", leaf("a", "1"), content=kind, block_bytes=size, has_xattrs=False)
            for size in (1024, 4096)
        )
        result = compared(left, right)
        assert result.counts["packing"] >= count
        assert told(result) == ([] if count else ["block bytes of the partition"])
