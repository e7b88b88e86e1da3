"""What differs between the meanings of two files: the differences that a person asks about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from local_imager.deliver.compare.entrypairs import Entry, entries_of, paired
from local_imager.deliver.compare.masking import masked_text, shown_diff
from local_imager.deliver.compare.schematic_diff import schematic_differences
from local_imager.deliver.compare.semantic import Semantic, Topic
from local_imager.deliver.compare.words import clean
from local_imager.deliver.inspect.extensions import GENERATED

_META_ARGUMENT: Final = "talos.environment=INSTALLER_META_BASE64="


def differing_meaning(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Semantic]:
    """Return what differs between two ``Meaning.as_dict()``, the most telling first.

    What is not told on one of the sides for version, architecture, platform and schematic is not a
    difference by itself. Differences that follow from another one say so.
    """
    found = list(_plain(left, right))
    found += _secure_boot(left.get("secure_boot") or {}, right.get("secure_boot") or {})
    found += _boot(left.get("boot") or {}, right.get("boot") or {})
    found += _extensions(left.get("extensions") or (), right.get("extensions") or ())
    meta = list(_meta(left.get("meta") or {}, right.get("meta") or {}))
    topics: set[Topic] = {one.topic for one in (*found, *meta)}
    found += _arguments(entries_of(left), entries_of(right), topics)
    found += meta
    return found + schematic_differences(left, right, found)


def _plain(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Semantic]:
    rows: tuple[tuple[Topic, str, str], ...] = (
        ("kind", "kind", "kind of file"),
        ("system", "system", "operating system"),
        ("version", "talos_version", "Talos version"),
        ("arch", "arch", "architecture"),
        ("platform", "platform", "platform"),
        ("kernel-version", "kernel_version", "kernel version"),
    )
    versions = [side.get("talos_version") for side in (left, right)]
    version_differs = all(versions) and versions[0] != versions[1]
    for topic, key, what in rows:
        first, second = clean(str(left.get(key) or "")), clean(str(right.get(key) or ""))
        if first == second or not (first and second):
            continue
        explained = topic == "kernel-version" or (topic == "system" and _by_version(left, right))
        follows: Topic | None = "version" if version_differs and explained else None
        words = frozenset({first}), frozenset({second})
        yield Semantic(topic, what, first, second, words=words, follows=follows)


def _by_version(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether the operating systems' names, which hold the version once more, differ by it only."""
    names = []
    for side in (left, right):
        name, version = (str(side.get(key) or "") for key in ("system", "talos_version"))
        names.append(name.replace(version, "") if version else name)
    return names[0] == names[1]


def _secure_boot(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Semantic]:
    rows = (
        ("state", "Secure Boot signature"),
        ("signers", "Secure Boot signers"),
        ("pcr_signed", "signed PCR policy"),
        ("enrols", "Secure Boot keys to enrol"),
        ("enroll_keys", "enrolment of Secure Boot keys"),
    )
    for key, what in rows:
        first, second = left.get(key), right.get(key)
        if first != second:
            said = _said(first), _said(second)
            words = frozenset(said[0].split()), frozenset(said[1].split())
            # Who signed follows from whether it is signed at all, which is told before.
            signing = key == "signers" and left.get("state") != right.get("state")
            follows: Topic | None = "secure-boot" if signing else None
            yield Semantic("secure-boot", what, *said, key=key, words=words, follows=follows)


def _boot(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Semantic]:
    for key, what in (("bios", "boots with a BIOS"), ("uefi", "boots with UEFI")):
        first, second = left.get(key), right.get(key)
        if first != second and first is not None and second is not None:
            yield Semantic("boot", what, _said(first), _said(second), key=key)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return clean(", ".join(map(str, value)))
    return clean(str(value or ""))


def _extensions(
    left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> Iterator[Semantic]:
    first, second = _by_name(left), _by_name(right)
    for name in [*first, *(name for name in second if name not in first)]:
        here, there = first.get(name), second.get(name)
        what = f"extension {clean(name, 120)}"
        if here is None or there is None:
            only = here or there or {}
            value = clean(str(only.get("version") or "")) or "there"
            sides = (value, "") if here else ("", value)
            yield Semantic("extension", what, *sides, key=name)
        elif here.get("version") != there.get("version"):
            yield Semantic("extension", what, *_both(here, there, "version"), key=name)
        elif here.get("author") != there.get("author"):
            authors = _both(here, there, "author")
            yield Semantic("extension", f"author of {what}", *authors, key=name)
    kept = [[name for name in one if name in first and name in second] for one in (first, second)]
    if kept[0] != kept[1]:
        here_order, there_order = (clean(", ".join(names)) for names in kept)
        yield Semantic("extension", "order of the extensions", here_order, there_order)


def _both(left: Mapping[str, Any], right: Mapping[str, Any], key: str) -> tuple[str, str]:
    return clean(str(left.get(key) or "")), clean(str(right.get(key) or ""))


def _by_name(extensions: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the real extensions; a name that comes twice is told apart by its number."""
    found: dict[str, Mapping[str, Any]] = {}
    for extension in extensions:
        name = str(extension.get("name") or "")
        if name in GENERATED:
            continue
        while name in found:
            name += " (again)"
        found[name] = extension
    return found


def _meta(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Semantic]:
    for key in sorted({*left, *right}, key=lambda text: (len(text), text)):
        if left.get(key) == right.get(key):
            continue
        values = _meta_value(left.get(key)), _meta_value(right.get(key))
        both = key in left and key in right
        diff = shown_diff(str(left[key]), str(right[key])) if both and "\n" in left[key] else ""
        yield Semantic("meta", f"META key {clean(key, 80)}", *values, key=key, diff=diff)


def _meta_value(value: Any) -> str:
    if value is None:
        return ""
    return clean(masked_text(str(value))) or "(empty)"


def _arguments(left: list[Entry], right: list[Entry], topics: set[Topic]) -> Iterator[Semantic]:
    """Yield each differing argument once, also where several boot entries carry it."""
    told: set[tuple[str, str, str]] = set()
    for here, there in paired(left, right):
        if here is None or there is None:
            yield from (_lone_entry(one, side) for side, one in enumerate((here, there)) if one)
            continue
        for one in _argument_differences(here, there, topics):
            row = (one.what, one.left, one.right)
            if row not in told:
                told.add(row)
                yield one


def _lone_entry(entry: Entry, side: int) -> Semantic:
    line = clean(" ".join(entry.arguments)) or "(no arguments)"
    values = ("", line) if side else (line, "")
    what = f"boot entry {clean(entry.title or entry.path, 120)}".strip()
    return Semantic("argument", what, *values, key="entry", path=entry.path)


def _argument_differences(left: Entry, right: Entry, topics: set[Topic]) -> Iterator[Semantic]:
    gone, come = _unmatched(left.arguments, right.arguments)
    for name in dict.fromkeys([_name(word) for word in (*left.arguments, *right.arguments)]):
        here, there = gone.get(name, []), come.get(name, [])
        for index in range(max(len(here), len(there))):
            first = here[index] if index < len(here) else ""
            second = there[index] if index < len(there) else ""
            yield Semantic(
                "argument",
                f"kernel argument {clean(name, 120)}",
                clean(first),
                clean(second),
                key=name,
                path=left.path,
                words=(frozenset({first} - {""}), frozenset({second} - {""})),
                follows=_cause_of(first or second, topics),
            )
    kept = [_without(left.arguments, gone), _without(right.arguments, come)]
    if kept[0] != kept[1]:
        words = frozenset(kept[0]), frozenset(kept[1])
        first, second = (clean(" ".join(line)) for line in kept)
        what = "order of the kernel arguments"
        yield Semantic("argument", what, first, second, path=left.path, words=words)


def _name(word: str) -> str:
    return word.partition("=")[0]


def _cause_of(word: str, topics: set[Topic]) -> Topic | None:
    if word.startswith(_META_ARGUMENT) and "meta" in topics:
        return "meta"
    if _name(word) == "talos.platform" and "platform" in topics:
        return "platform"
    return None


def _unmatched(
    left: Sequence[str], right: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return by name what each side has that the other has not, counting repetitions."""
    only = []
    for mine, other in ((left, right), (right, left)):
        surplus = Counter(mine) - Counter(other)
        found: dict[str, list[str]] = {}
        for word in reversed(mine):  # of repeated words the last ones count as the additional ones
            if surplus[word] > 0:
                surplus[word] -= 1
                found.setdefault(_name(word), []).insert(0, word)
        only.append(found)
    return only[0], only[1]


def _without(words: Sequence[str], removed: Mapping[str, Sequence[str]]) -> list[str]:
    left = Counter(word for some in removed.values() for word in some)
    kept = []
    for word in reversed(words):
        if left[word] > 0:
            left[word] -= 1
        else:
            kept.append(word)
    return kept[::-1]
