"""A comparison as lines for a terminal; whoever prints them gives each role its colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from local_imager.deliver.compare.noise import ALL_NOISE
from local_imager.deliver.compare.verdict import Comparison, Difference, SideSummary, Verdict
from local_imager.deliver.compare.words import clean, size_text

Role = Literal["verdict", "side", "difference", "left", "right", "text", "quiet"]
WORDS: Final[Mapping[Verdict, str]] = {
    Verdict.IDENTICAL: "identical bytes",
    Verdict.SAME_CONTENT: "same content, packed differently",
    Verdict.NAMED_NOISE: "same but for named noise",
    Verdict.DIFFERENT: "different",
}
# What stands below another version or processor without anything that shows why it differs.
ASSUMED: Final = "only taken to follow, from another version or processor"
REASONS: Final[Mapping[str, str]] = {rule.code: rule.reason for rule in ALL_NOISE}
_SHOWN_DIFF_LINES: Final = 24
_SHOWN_FOLLOWING: Final = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report, printable, and what it is."""

    role: Role
    text: str


def verdict_text(comparison: Comparison) -> str:
    """Say the verdict in a sentence, with how many differences of which sort there are."""
    counts = comparison.counts
    word = WORDS[comparison.verdict]
    if comparison.verdict in (Verdict.IDENTICAL, Verdict.SAME_CONTENT):
        return word
    parts = []
    real = sum(counts.get(name, 0) for name in ("altered", "only-left", "only-right"))
    if real:
        parts.append(_counted(real, "difference"))
    if counts.get("follows"):
        verb = "goes" if counts["follows"] == 1 else "go"
        parts.append(f"{counts['follows']} more that {verb} with {'it' if real == 1 else 'them'}")
    if counts.get("assumed"):
        parts[-1] += f" ({counts['assumed']:,} of these {ASSUMED})"
    if counts.get("packing"):
        parts.append(f"packed differently in {_counted(counts['packing'], 'place')}")
    if counts.get("noise"):
        noise = f"named noise in {_counted(counts['noise'], 'place')}"
        parts.append(noise if real else noise.removeprefix("named noise "))
    return f"{word}: {', '.join(parts)}" if parts else word


def report_lines(comparison: Comparison) -> Iterator[Line]:
    """Yield the report of a comparison line by line: verdict, sides, differences, expectation."""
    yield Line("verdict", verdict_text(comparison))
    yield Line("side", f"  left   {side_text(comparison.left)}")
    yield Line("side", f"  right  {side_text(comparison.right)}")
    real = [one for one in comparison.differences if one.change not in ("packing", "noise")]
    for number, one in enumerate(real, 1):
        yield Line("text", "")
        yield from _difference(number, one)
    yield from _lesser("packed differently", comparison.differences, "packing")
    yield from _lesser("named noise", comparison.differences, "noise")
    hidden = _hidden(comparison)
    if hidden:
        yield Line("quiet", f"… and {hidden} more (--limit shows more of them)")
    yield Line("text", "")
    yield Line("quiet", expected_text(comparison))
    for note in comparison.notes:
        yield Line("quiet", f"note: {clean(note, 1000)}")


def side_text(side: SideSummary) -> str:
    """Describe a side in a line: name, what it is, size."""
    words = ", ".join(_described(side.meaning))
    described = f"{words}, " if words else ""
    return f"{clean(side.asked)}  ({described}{size_text(side.size_bytes)})"


def expected_text(comparison: Comparison) -> str:
    """Say which verdict was to be expected, and why."""
    because, word = clean(comparison.because, 1000), WORDS[comparison.expected]
    # Inputs of which nothing shows that they differ may differ all the same.
    of_what = "" if comparison.expected is Verdict.DIFFERENT else " of equal inputs"
    return f"expected{of_what}: {word}, because {because}"


def _described(meaning: Mapping[str, Any]) -> Iterator[str]:
    kind = clean(str(meaning.get("kind") or ""))
    packing = [clean(str(one), 40) for one in meaning.get("packing") or ()]
    if kind:
        yield f"{kind} in {' in '.join(reversed(packing))}" if packing else kind
    if meaning.get("talos_version"):
        yield f"Talos {clean(str(meaning['talos_version']), 80)}"
    for key in ("arch", "platform"):
        if meaning.get(key):
            yield clean(str(meaning[key]), 80)


def _difference(number: int, one: Difference) -> Iterator[Line]:
    place = f"  in {one.path}" if one.path else ""
    lacks = {"only-left": " is on the left side only", "only-right": " is on the right side only"}
    yield Line("difference", f"{number}. {one.what}{lacks.get(one.change, '')}{place}")
    if one.diff:
        lines = one.diff.split("\n")
        for line in lines[:_SHOWN_DIFF_LINES]:
            role: Role = "left" if line[:1] == "-" else "right" if line[:1] == "+" else "text"
            yield Line(role, f"     {line}")
        if len(lines) > _SHOWN_DIFF_LINES:
            yield Line("quiet", f"     … {len(lines) - _SHOWN_DIFF_LINES} lines more")
    else:
        if one.left:
            yield Line("left", f"     - {one.left}")
        if one.right:
            yield Line("right", f"     + {one.right}")
    if offset_text(one):
        yield Line("quiet", f"     {offset_text(one)}")
    if one.consequences:
        shown = [_short(follower) for follower in one.consequences[:_SHOWN_FOLLOWING]]
        rest = len(one.consequences) - len(shown)
        more = f" and {rest} more" if rest else ""
        yield Line("quiet", f"     with it: {'; '.join(shown)}{more}")


def offset_text(one: Difference) -> str:
    """Say where the bytes of a part begin to differ, and how far the differing ones reach."""
    if one.offset is None:
        return f"bytes differ {one.where}" if one.where else ""
    reach = f", within {size_text(one.size_bytes)} from there" if one.size_bytes else ""
    where = f" ({one.where})" if one.where else ""
    return f"bytes differ from offset {one.offset:,}{where}{reach}"


def _short(one: Difference) -> str:
    return f"{one.what} ({one.path})" if one.path else one.what


def _lesser(title: str, differences: Sequence[Difference], change: str) -> Iterator[Line]:
    rows = [one for one in differences if one.change == change]
    if not rows:
        return
    yield Line("text", "")
    yield Line("difference", f"{title}:")
    for one in rows:
        code = f"{one.noise}: " if one.noise else ""
        values = "" if one.noise else f": {one.left} / {one.right}"
        yield Line("text", f"  {code}{one.what}{values}  in {one.path or 'the whole file'}")


def _hidden(comparison: Comparison) -> int:
    """Count the differences that the limit cut off; noise is counted in groups, so not at all."""
    real = ("altered", "only-left", "only-right", "packing")
    shown = sum(1 for one in comparison.differences if one.change != "noise")
    return max(sum(comparison.counts.get(name, 0) for name in real) - shown, 0)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
