"""Which verdict equal inputs would give, per kind of file and per what is known of the builders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from local_imager.deliver.compare.verdict import Verdict
from local_imager.deliver.compare.words import clean

Meant = Mapping[str, Any]
MadeBy = Mapping[str, Any] | None

_COPIED: Final = frozenset({"kernel", "cmdline"})
_WITH_INITRAMFS: Final = frozenset({"initramfs", "uki", "iso", "disk", "installer"})
_PARTITIONED: Final = frozenset({"iso", "disk"})
# What inspection tells of an imager that differs from run to run of the same one.
_TIMES_OF_RUNS: Final = frozenset({"extensions_mtime"})
_INPUTS: Final = (
    ("kind", "kinds of file"),
    ("talos_version", "Talos versions"),
    ("arch", "architectures"),
    ("platform", "platforms"),
    ("schematic_id", "schematics"),
)


def expected_verdict(
    left: Meant, right: Meant, left_made_by: MadeBy = None, right_made_by: MadeBy = None
) -> tuple[Verdict, str]:
    """Return the verdict that equal inputs would give, and the reason in a sentence.

    The two meanings are ``Meaning.as_dict()``; ``made_by`` is ``Known.as_dict()`` of a build in the
    store. When the inputs are seen to differ, so will the files.
    """
    differing = [words for key, words in _INPUTS if _differ(left.get(key), right.get(key))]
    states = [(side.get("secure_boot") or {}).get("state") for side in (left, right)]
    if _differ(*states):
        differing.append("Secure Boot signatures")
    if differing:
        return Verdict.DIFFERENT, f"the {_listed(differing)} differ, so the files have to"
    verdict, because = _by_kind(left, right, left_made_by, right_made_by)
    if list(left.get("packing") or ()) != list(right.get("packing") or ()):
        packed = "the sides are packed in different ways"
        if verdict is Verdict.IDENTICAL:
            return Verdict.SAME_CONTENT, f"{packed}; {because}"
        return verdict, f"{because}; {packed}"
    return verdict, because


def _by_kind(left: Meant, right: Meant, *made_by: MadeBy) -> tuple[Verdict, str]:
    kind = left.get("kind")
    if kind in _COPIED:
        return Verdict.IDENTICAL, f"a {kind} depends on its input alone, whatever imager made it"
    if kind not in _WITH_INITRAMFS:
        return Verdict.IDENTICAL, "nothing is known that would make two of these differ"
    signed = any(_is_signed(side) for side in (left, right))
    if _both_repeat(made_by):
        if signed:
            return Verdict.NAMED_NOISE, "both builds repeat to the byte but for their signatures"
        return Verdict.IDENTICAL, "both builds are of the kind that repeats to the byte"
    if any(side.get("extensions") or side.get("schematic_id") for side in (left, right)):
        return Verdict.NAMED_NOISE, (
            "imagers up to v1.14 pack extensions with the time of the run, and all that holds the "
            "initramfs differs with it"
        )
    if kind in _PARTITIONED:
        return Verdict.NAMED_NOISE, "GUIDs and times of file systems differ from run to run"
    if signed:
        return Verdict.NAMED_NOISE, "signatures may hold their time"
    return Verdict.IDENTICAL, "there are no extensions in it, so nothing in it has a time"


def notes_on(
    left: Meant, right: Meant, left_made_by: MadeBy = None, right_made_by: MadeBy = None
) -> Iterator[str]:
    """Yield sentences for people: other imager code on one side, what could not be told."""
    if left_made_by and right_made_by:
        builders = [clean(str(one.get("builder") or "")) for one in (left_made_by, right_made_by)]
        if all(builders) and builders[0] != builders[1]:
            yield f"the sides were made by different imager code: {builders[0]} and {builders[1]}"
    first, second = left.get("imager") or {}, right.get("imager") or {}
    for key in sorted({*first, *second} - _TIMES_OF_RUNS):
        here, there = clean(str(first.get(key, ""))), clean(str(second.get(key, "")))
        if here and there and here != there:
            name = clean(str(key).replace("_", " "), 80)
            yield f"the sides were made by different imager code ({name}): {here} and {there}"
    for word, side in (("left", left), ("right", right)):
        for unknown in list(side.get("unknown") or ())[:20]:
            what, why = (clean(str(unknown.get(key) or "")) for key in ("what", "why"))
            yield f"{word}: {what} could not be told: {why}"


def _differ(left: Any, right: Any) -> bool:
    """Say whether both are known and differ."""
    return bool(left) and bool(right) and left != right


def _is_signed(side: Meant) -> bool:
    return (side.get("secure_boot") or {}).get("state") in ("signed", "partly-signed")


def _both_repeat(made_by: tuple[MadeBy, ...]) -> bool:
    """Say whether builds of the store made both, by steps that all repeat, with one builder."""
    if not all(one and one.get("exact") is False and not one.get("varies") for one in made_by):
        return False
    return len({(one or {}).get("builder_image") for one in made_by}) == 1


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
