"""What holds for every pair of trees: mirrored when swapped, never equal by mistake."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.deliver.compare.verdict import Comparison, Difference, Verdict
from local_imager.deliver.inspect.parts import Part, PartKind
from tests.comparetrees import altered, compared, digest_of, sealed

KINDS = [
    kind
    for kind in get_args(PartKind)
    if kind not in ("directory", "link", "special", "compressed")
]
NAMES = ["a", "b.txt", "init", "extensions.yaml", ".pcrsig", "EFI", "x/y"]
FACTS = ["mode", "mtime", "guid", "uuid", "rest", "packing", "checksum", "content", "made"]
MIRRORED = {"only-left": "only-right", "only-right": "only-left"}


@st.composite
def parts(draw: st.DrawFn, depth: int = 3) -> Part:
    """Draw a tree whose digests follow from what it holds."""
    kind = draw(st.sampled_from(KINDS))
    text = draw(st.none() | st.text("ab \n=:", max_size=8))
    facts = draw(
        st.dictionaries(st.sampled_from(FACTS), st.integers(0, 2) | st.sampled_from(["x", "fat"]))
    )
    children: list[Part] = []
    if depth and draw(st.booleans()):
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True)):
            children.append(replace(draw(parts(depth=depth - 1)), name=name.replace("/", "-")))
    data = text or draw(st.sampled_from(["1", "2", "3"]))
    own = "" if children else text
    unread = draw(st.sampled_from(["", "", "", "encrypted"]))
    part = Part("r", kind, len(data), digest_of(data), facts, tuple(children), own or None, unread)
    return sealed(part)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[Part, Part]:
    """Draw a tree and the same tree with one change somewhere in it."""
    tree = draw(parts())
    path, part = draw(st.sampled_from([row for row in tree.walk()]))
    ways = ["digest", "size", "fact"] + (["drop"] if part.children else [])
    way = draw(st.sampled_from(ways))

    def change(part: Part) -> Part:
        if way == "digest":
            return replace(part, digest=digest_of(f"other {part.digest}"), text=None)
        if way == "size":
            other = digest_of(f"longer {part.digest}")
            return replace(part, size_bytes=part.size_bytes + 1, digest=other)
        if way == "drop":
            return sealed(
                replace(part, children=part.children[1:])
                if part.children[1:]
                else replace(part, children=(), digest=digest_of("dropped"))
            )
        facts = {**part.facts, "flags": "changed"}
        return replace(sealed(replace(part, facts=facts)), digest=digest_of(f"f{part.digest}"))

    return tree, altered(tree, path, change)


def rows(comparison: Comparison, *, mirrored: bool = False) -> list[tuple[str, ...]]:
    def row(one: Difference) -> tuple[str, ...]:
        change = MIRRORED.get(one.change, one.change) if mirrored else one.change
        sides = (one.right, one.left) if mirrored else (one.left, one.right)
        return (one.what.partition(":")[0], change, *sides, one.noise, str(len(one.consequences)))

    return sorted(row(one) for one in comparison.differences)


@given(parts())
@settings(max_examples=25, deadline=None)
def test_a_tree_and_itself_are_identical(tree: Part) -> None:
    assert compared(tree, tree).verdict is Verdict.IDENTICAL


@given(parts(), parts())
@settings(max_examples=60, deadline=None)
def test_swapped_sides_mirror_the_result(left: Part, right: Part) -> None:
    there, back = compared(left, right), compared(right, left)
    assert there.verdict is back.verdict
    counts = {MIRRORED.get(name, name): count for name, count in back.counts.items()}
    assert dict(there.counts) == counts
    assert rows(there) == rows(back, mirrored=True)


@given(mutations())
@settings(max_examples=60, deadline=None)
def test_no_change_anywhere_is_taken_for_identical(pair: tuple[Part, Part]) -> None:
    result = compared(*pair)
    assert result.verdict is not Verdict.IDENTICAL
    assert result.differences
    if result.verdict is Verdict.DIFFERENT:
        assert any(one.change not in ("packing", "noise") for one in result.differences)
