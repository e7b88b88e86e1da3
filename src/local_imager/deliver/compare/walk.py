"""Compares two inspected files: what differs in meaning first, then in parts, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_imager.deliver.compare.align import Spelling
from local_imager.deliver.compare.expected import expected_verdict, notes_on
from local_imager.deliver.compare.finding import Finding
from local_imager.deliver.compare.fold import Context, Headline, fold
from local_imager.deliver.compare.masking import masked_meaning
from local_imager.deliver.compare.meaning_diff import differing_meaning
from local_imager.deliver.compare.showing import Showing
from local_imager.deliver.compare.trees import find_differences
from local_imager.deliver.compare.verdict import Comparison, Difference, SideSummary, Verdict
from local_imager.deliver.compare.words import clean, content_text
from local_imager.deliver.inspect.parts import Part

if TYPE_CHECKING:
    from local_imager.deliver.compare.bytesdiff import Locate
    from local_imager.deliver.inspect.inspection import Inspection

DEFAULT_LIMIT: Final = 200
COUNTS: Final = ("altered", "only-left", "only-right", "packing", "noise", "follows", "assumed")
# A shorter name is a part of words that have nothing to do with it.
_SPELT_CHARS: Final = 4


@dataclass(frozen=True, slots=True)
class Subject:
    """One side as the comparison needs it: how it was asked for, its tree and its meaning.

    ``meaning`` is ``Meaning.as_dict()``; ``made_by`` says which builder and tool made it, where
    that is known from the store (``Known.as_dict()``).
    """

    asked: str
    tree: Part
    meaning: Mapping[str, Any]
    made_by: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, inspection: Inspection, asked: str) -> Subject:
        """Return an inspected file as a side of a comparison."""
        known = inspection.known.as_dict() if inspection.known else None
        return cls(asked, inspection.tree, inspection.meaning.as_dict(), known)

    @property
    def summary(self) -> SideSummary:
        """What the report says of this side."""
        meaning = masked_meaning(self.meaning)
        return SideSummary(clean(self.asked), self.tree.digest, self.tree.size_bytes, meaning)


def compare_trees(
    left: Subject,
    right: Subject,
    *,
    limit: int = DEFAULT_LIMIT,
    locate: Locate | None = None,
) -> Comparison:
    """Compare two sides; the result holds at most ``limit`` differences, and counts all of them.

    ``locate`` finds where the bytes of a pair of parts differ, where the caller has them.
    The sides are interchangeable: swapped, the result is mirrored.
    """
    equal = left.tree.digest == right.tree.digest and bool(left.tree.digest)
    if equal and left.tree.size_bytes == right.tree.size_bytes:
        return _comparison(left, right, Verdict.IDENTICAL, [], Counter(), limit)
    semantics = differing_meaning(left.meaning, right.meaning)
    context = Context(_images(left, right), _spellings(left, right))
    findings = find_differences(left.tree, right.tree, context.spellings)
    headlines, lesser = fold(semantics, findings, context, locate)
    if not headlines and not lesser:
        headlines = [Headline(finding=_unaccounted(left.tree, right.tree))]
    counts = Counter(_change(headline) for headline in headlines)
    limit = max(limit, 1)
    showing = Showing(limit, locate, context.images)
    real = [showing.difference(headline) for headline in headlines[:limit]]
    packing = [showing.finding(one) for one in lesser if one.group == "packing"]
    noise = showing.grouped([one for one in lesser if one.group == "noise"])
    counts["packing"], counts["noise"] = len(packing), sum(1 for one in lesser if one.noise)
    counts["follows"] = sum(
        len(one.parts) + len(one.meanings) + len(one.alike) for one in headlines
    )
    counts["assumed"] = sum(len(one.assumed) for one in headlines)
    verdict = Verdict.DIFFERENT if real else Verdict.NAMED_NOISE if noise else Verdict.SAME_CONTENT
    return _comparison(left, right, verdict, [*real, *packing, *noise], counts, limit)


def _comparison(
    left: Subject,
    right: Subject,
    verdict: Verdict,
    differences: Sequence[Difference],
    counts: Counter[str],
    limit: int,
) -> Comparison:
    expected, because = expected_verdict(left.meaning, right.meaning, left.made_by, right.made_by)
    return Comparison(
        left.summary,
        right.summary,
        verdict,
        tuple(differences[:limit]),
        {name: counts[name] for name in COUNTS},
        expected,
        because,
        tuple(notes_on(left.meaning, right.meaning, left.made_by, right.made_by)),
    )


def _unaccounted(left: Part, right: Part) -> Finding:
    """Name bytes that differ where nothing inside does: never let that pass as equal."""
    values = content_text(left), content_text(right)
    return Finding("", "bytes of the whole file", "rest", "real", "altered", left, right, values)


def _images(left: Subject, right: Subject) -> tuple[dict[str, str], dict[str, str]]:
    """Return for each side which file of the initramfs holds which extension."""
    first, second = (_images_of(side) for side in (left, right))
    return first, second


def _images_of(side: Subject) -> dict[str, str]:
    images = {
        str(one.get("name")): clean(str(one.get("image") or ""))
        for one in side.meaning.get("extensions") or ()
        if one.get("image")
    }
    listed = _listed_images(side.tree)
    return {**listed, **images}


def _listed_images(tree: Part) -> dict[str, str]:
    """Read the virtual extensions' images from extensions.yaml, which the meaning leaves out."""
    from local_imager.deliver.compare.extensionlist import FILE_NAME, images_in

    for _, part in tree.walk():
        if part.name == FILE_NAME and part.text:
            return images_in(part.text)
    return {}


def _spellings(left: Subject, right: Subject) -> tuple[Spelling, Spelling]:
    """Return what names may differ by: schematic IDs, versions, numbers of extensions' images."""
    words: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for key in ("system", "schematic_id", "talos_version"):
        values = [str(side.meaning.get(key) or "") for side in (left, right)]
        if min(map(len, values)) >= _SPELT_CHARS and values[0] != values[1]:
            for side, value in zip(words, values, strict=True):
                side.append((value, f"<{key}>"))
    images = _images(left, right)
    names = [
        tuple((image, f"<extension {name}>") for name, image in side.items()) for side in images
    ]
    return Spelling(tuple(words[0]), names[0]), Spelling(tuple(words[1]), names[1])


def _change(headline: Headline) -> str:
    top = headline.semantic or headline.finding
    return top.change if top is not None else "altered"
