"""Each entry of the list of noise, where it covers a difference and where it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from local_imager.deliver.compare.noise import ALL_NOISE, FOLLOWS_NOISE, NOISE
from local_imager.deliver.compare.verdict import Verdict
from local_imager.deliver.inspect.parts import Fact, Part, PartKind
from tests.comparetrees import box, compared, digest_of, folder, leaf, sealed, told

Make = Callable[[int], Part]
SIGNED: dict[str, Fact] = {
    "digest": "sha256:1",
    "digest_matches": True,
    "verifies": True,
    "signer": "CN=a",
    "serial": "1",
}
FOLDED = (
    "layers:\n    - image: 0.sqsh\n      metadata:\n        description: one two\n          three\n"
)
PLAIN = FOLDED.replace("\n          three", " three")


@dataclass(frozen=True)
class Case:
    """Two parts that differ by noise alone, and two that look alike and do not."""

    code: str
    noise: Make
    real: Make

    def __str__(self) -> str:
        return self.code


def cpio(*extra: Part, mtime: int) -> Part:
    return box("segment 2", "cpio", *extra, folder("lib", leaf("a", "1", mode="0644", mtime=mtime)))


def manifest(disk: Part, description: Part, text: str = "") -> Part:
    lines = "".join(f"SHA256({one.name})= {one.digest[7:]}\n" for one in (disk, description))
    return leaf("disk.mf", text or lines, "document")


def described(disk: Part, more: str = "") -> Part:
    text = f'<File ovf:href="{disk.name}" ovf:id="file1" ovf:size="{disk.size_bytes}"/>{more}\n'
    return leaf("disk.ovf", text, "document")


def ova(name: str, *, lies: bool = False, more: bool = False) -> Make:
    """Return an OVA whose files have another owner, and whose disk has another identity."""

    def make(run: int) -> Part:
        disk = box("disk.vmdk", "vmdk", leaf("content", b"\0d", "disk"), content_id=f"{run}")
        disk = replace(disk, size_bytes=1000 + run)
        text = described(disk, f"<Item>{run}</Item>" if more else "")
        listed = manifest(disk, text, f"SHA256(disk.vmdk)= {run:064}\n" if lies else "")
        files = (replace(one, facts={**one.facts, name: run}) for one in (text, listed, disk))
        return box("x.ova", "ova", *files)

    return make


def listing(text: str, holder: str = "cpio") -> Part:
    inner = leaf("extensions.yaml", text, "document")
    return box("segment 2", "cpio" if holder == "cpio" else "tar", inner)


def filesystem(kind: str, place: str = "mtime", **facts: str | int) -> Make:
    def make(run: int) -> Part:
        times: dict[str, Fact] = {"mtime": 1, place: run}
        entry = replace(leaf("a", "1"), facts=times)
        return replace(
            box("p", "partition", folder("d", entry), content=kind, **facts),
            digest=digest_of(f"{kind}{run}"),
        )

    return make


def fact(kind: PartKind, name: str, content: str = "") -> Make:
    def make(run: int) -> Part:
        facts: dict[str, str | bool] = {name: f"value {run}", "has_xattrs": False}
        facts |= {"content": content} if content else {}
        return box("x", kind, leaf("a", "1"), **facts)

    return make


def signature(**changed: str | bool) -> Make:
    def make(run: int) -> Part:
        facts: dict[str, Fact] = {**SIGNED, **(changed if run == 2 else {})}
        part = replace(leaf("signature 1", f"\0{run}", "pe-signature"), text=None)
        return box("u", "uki", leaf(".linux", b"\0k"), sealed(replace(part, facts=facts)))

    return make


def xfs(mode: str = "0644") -> Make:
    def make(run: int) -> Part:
        inner = leaf("a", "1", mode="0644" if run == 1 else mode)
        return replace(
            box("BOOT", "partition", inner, content="xfs"), digest=digest_of(f"xfs {run}")
        )

    return make


def meta_partition(*, same: bool) -> Make:
    def make(run: int) -> Part:
        rest = digest_of("plain" if same else f"more {run}")
        inner = box("META", "partition", leaf("0xa", "1", key="0xa"), content="meta", rest=rest)
        return replace(inner, digest=digest_of(f"order {run}"))

    return make


def disk(kind: PartKind, name: str) -> Make:
    def make(run: int) -> Part:
        inner = box("content", "disk", leaf("a", "1"), **({} if name else {"table": f"{run}"}))
        facts = {name or "uuid": f"{run}"}
        return box("x", kind, inner, **facts)

    return make


def key(*, same: bool) -> Make:
    def make(run: int) -> Part:
        rest = digest_of("keys" if same else f"keys {run}")
        part = replace(leaf("db.auth", f"\0{run}"), text=None)
        return box("f", "fat", replace(part, facts={"without_signature": rest}))

    return make


def owned(*owners: str) -> Make:
    def make(run: int) -> Part:
        facts: dict[str, Fact] = {"owner": owners[run - 1]} if run <= len(owners) else {}
        return box("i", "iso", folder("d", leaf("a", "1", uid=7 * run)), **facts)

    return make


def marker(folder_name: str = ".disk") -> Make:
    def make(run: int) -> Part:
        empty = leaf(f"2026-11-21-15-06-4{run}-00.uuid", b"")
        return box("i", "iso", folder(folder_name, empty))

    return make


CASES = [
    Case(
        "cpio-times",
        lambda run: cpio(mtime=run),
        lambda run: cpio(leaf("init", b"\0i", mtime=1), mtime=run),
    ),
    Case(
        "yaml-folding",
        lambda run: listing((FOLDED, PLAIN)[run - 1]),
        lambda run: listing((FOLDED, PLAIN.replace("three", "tree"))[run - 1]),
    ),
    Case("gpt-guid", fact("partition", "guid"), fact("partition", "type")),
    Case("meta-order", meta_partition(same=True), meta_partition(same=False)),
    Case("fat-serial", fact("partition", "serial", "fat"), fact("partition", "label", "fat")),
    Case("fat-times", filesystem("fat"), filesystem("fat", "mode")),
    Case("xfs-identity", fact("partition", "uuid", "xfs"), fact("partition", "features", "xfs")),
    Case("xfs-bookkeeping", xfs(), xfs(mode="4755")),
    Case("xfs-times", filesystem("xfs"), filesystem("xfs", "uid")),
    Case("iso-dates", fact("iso", "modified"), fact("iso", "label")),
    Case("iso-times", filesystem("iso"), filesystem("iso", "mode")),
    Case("iso-owner", owned("0:0", "7:0"), owned("0:0")),
    Case("grub-marker", marker(), marker(folder_name="disk")),
    Case("squashfs-time", fact("squashfs", "made"), fact("squashfs", "flags")),
    Case("erofs-identity", fact("erofs", "uuid"), fact("erofs", "features")),
    Case("pe-timestamp", fact("uki", "timestamp"), fact("uki", "entry_point")),
    Case("authenticode-bytes", signature(), signature(signer="CN=b")),
    Case("key-signature", key(same=True), key(same=False)),
    Case("image-created", fact("oci-image", "created"), fact("oci-image", "entrypoint")),
    Case("ova-members", ova("uid"), ova("mode")),
    Case("virtual-disk-identity", disk("vhd", "uuid"), disk("vhd", "")),
]


def disk_of(part: Part) -> Part:
    return replace(box("d", "disk", part), size_bytes=1 << 20)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_noise_is_named_and_its_neighbour_is_a_difference(case: Case) -> None:
    noisy = compared(disk_of(case.noise(1)), disk_of(case.noise(2)))
    codes = {one.noise for one in noisy.differences if one.change == "noise"}
    assert case.code in codes, noisy.differences
    assert codes <= {case.code, FOLLOWS_NOISE.code, "xfs-bookkeeping", "virtual-disk-identity"}
    assert noisy.verdict is Verdict.NAMED_NOISE, noisy.differences
    real = compared(disk_of(case.real(1)), disk_of(case.real(2)))
    assert real.verdict is Verdict.DIFFERENT
    assert told(real)


def test_every_entry_of_the_list_has_a_case_and_words() -> None:
    assert [case.code for case in CASES] == [rule.code for rule in NOISE]
    assert len({rule.code for rule in ALL_NOISE}) == len(ALL_NOISE)
    assert all(rule.what and len(rule.reason) > 10 for rule in ALL_NOISE)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a: 1\nb: x y\n", "a: '1'\nb: x\n  y\n"),
        ("a: &x b\nc: *x\n", "a: &x b\nc:\n  *x\n"),
        ("a: [b, c\n", "a: [b,\n c\n"),
        ("a: |\n  b c\n", "a: >\n  b c\n"),
        ("a: b c\n", "a:\n  b: c\n"),
    ],
)
def test_what_only_looks_folded_is_a_difference(left: str, right: str) -> None:
    assert compared(listing(left), listing(right)).verdict is Verdict.DIFFERENT


def test_folding_counts_in_an_initramfs_alone() -> None:
    left, right = listing(FOLDED, "tar"), listing(PLAIN, "tar")
    assert compared(left, right).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("changed", [{"verifies": False}, {"digest_matches": False}])
def test_a_signature_that_does_not_hold_is_no_noise(changed: dict[str, bool]) -> None:
    make = signature(**changed)
    assert compared(make(1), make(2)).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("said", ["verifies", "digest_matches"])
def test_two_signatures_that_do_not_hold_are_different(said: str) -> None:
    sides = []
    for run in (1, 2):
        part = replace(leaf("signature 1", f"\0{run}", "pe-signature"), text=None)
        part = replace(part, facts={**SIGNED, said: False})
        sides.append(box("u", "uki", leaf(".linux", b"\0k"), part))
    assert told(compared(*sides)) == ["content of the Authenticode signature"]


def signed_policy(pcrs: str, sig: str, key: str = "k") -> str:
    return f'{{"sha256": [{{"pcrs": [{pcrs}], "pkfp": "{key}", "pol": "{sig}", "sig": "{sig}"}}]}}'


def policy(run: int, text: str, **facts: int) -> Part:
    sections = leaf(".initrd", b"\0i", "pe-section"), leaf(".pcrsig", text, "pe-section")
    return box("u", "uki", *sections, **({"timestamp": run} | facts))


def test_a_pcr_signature_follows_from_noise_and_from_nothing_else() -> None:
    left = policy(1, signed_policy("11", "aa"))
    follows = compared(left, policy(2, signed_policy("11", "bb")))
    assert follows.verdict is Verdict.NAMED_NOISE
    assert FOLLOWS_NOISE.code in {one.noise for one in follows.differences}
    assert told(compared(left, policy(1, signed_policy("11", "bb")))) == ["PCR signature"]
    for other in (signed_policy("7", "bb"), signed_policy("11", "bb", "other key"), "[]", "{"):
        assert compared(left, policy(2, other)).verdict is Verdict.DIFFERENT


def squashfs(name: str, *inner: Part, **facts: bool | int) -> Part:
    part = box("0.sqsh", "squashfs", leaf("a", "1"), *inner, **({"has_xattrs": False} | facts))
    return replace(part, digest=digest_of(name))


def test_a_squashfs_of_equal_files_is_packed_differently_unless_it_hides_properties() -> None:
    assert compared(squashfs("1"), squashfs("2")).verdict is Verdict.SAME_CONTENT
    untold = [replace(squashfs(name), facts={}) for name in ("1", "2")]
    assert compared(*untold).verdict is Verdict.DIFFERENT
    node = Part("null", "special", 0, facts={"mode": "0666"})
    for more in ({"has_xattrs": True}, {}):
        inner = () if more else (node,)
        for made in (1, 2):
            left = squashfs("1", *inner, made=1, **more)
            right = squashfs("2", *inner, made=made, **more)
            assert compared(left, right).verdict is Verdict.DIFFERENT


def test_what_an_ova_says_of_its_files_follows_where_it_is_right() -> None:
    same = ova("mtime")
    result = compared(same(1), same(2))
    assert result.verdict is Verdict.NAMED_NOISE, result.differences
    rows = {(one.path, one.noise) for one in result.differences}
    assert {("disk.mf", FOLLOWS_NOISE.code), ("disk.ovf", FOLLOWS_NOISE.code)} <= rows
    for make, path in ((ova("mtime", lies=True), "disk.mf"), (ova("mtime", more=True), "disk.ovf")):
        real = [one for one in compared(make(1), make(2)).differences if not one.noise]
        assert path in [one.path for one in real], real
