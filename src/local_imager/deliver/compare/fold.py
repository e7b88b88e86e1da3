"""Puts differences of parts below the difference in meaning that they merely follow from.

A part's difference is folded only when the difference in meaning accounts for all of it: a text
must be equal but for the words that are known to differ. What is not accounted for stays on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from local_imager.deliver.compare.align import Spelling, content_kind
from local_imager.deliver.compare.extensionlist import FILE_NAME, same_but_extensions
from local_imager.deliver.compare.factwords import ENTRY_FACTS
from local_imager.deliver.compare.finding import SPELLING, Finding, lies_in, volume_of
from local_imager.deliver.compare.noise import CONTENT, REST, kinds_of
from local_imager.deliver.compare.semantic import Semantic
from local_imager.deliver.inspect.extensions import MODULES, SCHEMATIC

# With one of these, nearly every byte is another one: parts are listed below it.
_TOTAL: Final = frozenset({"kind", "system", "version", "arch"})
# Where signatures and the keys for them lie.
_SIGNED_SECTIONS: Final = frozenset({".pcrsig", ".pcrpkey"})
_PCR_FACTS: Final = frozenset({"pcr_policies", "pcr_verifies"})
_KEY_SUFFIXES: Final = (".auth", ".esl", ".der", ".cer", ".crt", ".pem")
_FIRMWARE: Final = ("kernel/x86/microcode/", "lib/firmware/", "usr/lib/firmware/")
_KERNEL_PLACES: Final = frozenset({".linux", ".uname"})


@dataclass(slots=True)
class Headline:
    """A difference on top: in meaning, or (``semantic`` None) of a part, with what follows.

    ``alike`` are the same difference in other entries of one archive or file system.
    """

    semantic: Semantic | None = None
    finding: Finding | None = None
    parts: list[Finding] = field(default_factory=list)
    meanings: list[Semantic] = field(default_factory=list)
    alike: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Context:
    """How both sides call things: images of extensions, and words to be taken as equal."""

    images: tuple[dict[str, str], dict[str, str]]
    spellings: tuple[Spelling, Spelling]


def fold(
    semantics: Sequence[Semantic], findings: Sequence[Finding], context: Context
) -> tuple[list[Headline], list[Finding]]:
    """Return the headlines with what follows from each, and what is packing or noise.

    Derived findings go to the headline that has their cause within their scope; with noise or
    packing alone within it, they are of that class; without any cause they are headlines.
    """
    tops = [one for one in semantics if one.follows is None]
    headlines = [Headline(semantic=one) for one in tops]
    for one in semantics:
        if one.follows is not None:
            owner = next((h for h in headlines if _topic(h) == one.follows), None)
            if owner is None:
                headlines.append(Headline(semantic=one))
            else:
                owner.meanings.append(one)
    folder = _Folder(headlines, context)
    for finding in findings:
        if finding.group == "real":
            folder.place(finding)
    lesser = [finding for finding in findings if finding.group in ("packing", "noise")]
    noisy, packed = (
        {scope for one in lesser if one.group == group for scope in scopes_of(one)}
        for group in ("noise", "packing")
    )
    derived = [finding for finding in findings if finding.group == "derived"]
    # Bytes outside of parts first: when they stand for themselves, checksums follow from them.
    for finding in sorted(derived, key=lambda one: one.fact != REST):
        folder.derived(finding, noisy, packed)
    return _grouped(folder.headlines), [*lesser, *folder.lesser]


def _grouped(headlines: Sequence[Headline]) -> list[Headline]:
    """Put the same difference of many entries (an owner, a mode) below the first of them."""
    groups: dict[tuple[object, ...], Headline] = {}
    kept = []
    for headline in headlines:
        one = headline.finding
        if one is None or headline.parts or one.fact not in ENTRY_FACTS:
            kept.append(headline)
            continue
        key = (one.fact, one.change, one.values, volume_of(one))
        if key in groups:
            groups[key].alike.append(one)
        else:
            groups[key] = headline
            kept.append(headline)
    return kept


def _topic(headline: Headline) -> str:
    return headline.semantic.topic if headline.semantic else ""


class _Folder:
    def __init__(self, headlines: list[Headline], context: Context) -> None:
        self.headlines = headlines
        self.lesser: list[Finding] = []
        self._context = context
        self._causes: dict[str, Headline] = {}
        # Arguments account for texts alone; all but the first extension for their images alone.
        listing = [one for one in headlines if _topic(one) == "extension"]
        later = {id(one) for one in listing[1:]}
        self._owners = [
            one for one in headlines if not _plain_argument(one) and id(one) not in later
        ]
        self._extensions = {
            one.semantic.key: one for one in listing if one.semantic and one.semantic.key
        }
        self._schematic = next((one for one in headlines if _has_topic(one, "schematic")), None)
        self._names = [{image: name for name, image in side.items()} for side in context.images]
        self._ranks = {id(one): rank for rank, one in enumerate(headlines)}
        self._allowed: tuple[set[str], set[str]] = (set(), set())
        self._by_word: dict[str, Headline] = {}
        for headline in headlines:
            for semantic in _meanings(headline):
                for side, words in enumerate(semantic.words):
                    spelt = {context.spellings[side].of(word) for word in words}
                    self._allowed[side].update(spelt)
                    self._by_word |= {word: headline for word in spelt - self._by_word.keys()}
        self._semantics = [one for headline in headlines for one in _meanings(headline)]

    def place(self, finding: Finding) -> None:
        """Put a real difference below the headline that accounts for it, else on top."""
        owner = next((one for one in self._owners if self._accounts(one, finding)), None)
        owner = owner or self._of_extension(finding)
        owner = owner or self._text_owner(finding) or self._name_owner(finding)
        if owner is None:
            owner = Headline(finding=finding)
            self.headlines.append(owner)
        else:
            owner.parts.append(finding)
        for scope in scopes_of(finding):
            self._causes.setdefault(scope, owner)

    def derived(self, finding: Finding, noisy: set[str], packed: set[str]) -> None:
        """Put a derived difference where its cause is; on top when it has none.

        ``noisy`` and ``packed`` are the scopes that have noise or other packing within.
        """
        owner = self._causes.get(finding.scope)
        if owner is not None:
            owner.parts.append(finding)
        elif finding.lessens and finding.scope in noisy:
            self.lesser.append(lessened(finding, "noise"))
        elif finding.lessens and finding.scope in packed:
            self.lesser.append(lessened(finding, "packing"))
        else:
            headline = Headline(finding=finding)
            self.headlines.append(headline)
            for scope in scopes_of(finding) if finding.fact == REST else ():
                self._causes.setdefault(scope, headline)

    def _accounts(self, headline: Headline, finding: Finding) -> bool:
        return any(self._covers(one, finding) for one in _meanings(headline))

    def _covers(self, semantic: Semantic, finding: Finding) -> bool:
        topic = semantic.topic
        if topic in _TOTAL:
            return True
        if topic == "kernel-version":
            return _last(finding.path) in _KERNEL_PLACES or "kernel" in _kinds(finding)
        if topic == "secure-boot":
            return _of_signing(semantic, finding)
        if topic == "boot":
            return bool({"boot-entry", "unpartitioned"} & _kinds(finding))
        if topic == "argument" and semantic.key == "entry":
            # A whole boot entry is on one side only, and so is the directory that it lies in.
            return finding.fact == "presence" and lies_in(semantic.path, finding.path)
        if topic in ("extension", "schematic"):
            return self._is_list(finding)
        return topic == "meta" and self._is_meta(semantic, finding)

    def _is_meta(self, semantic: Semantic, finding: Finding) -> bool:
        within = [pair[0] for pair in finding.holders] + [finding.left or finding.right]
        if not any(part is not None and content_kind(part) == "meta" for part in within):
            return False
        part = finding.left or finding.right
        return part is not None and part.facts.get("key", part.name) == semantic.key

    def _of_extension(self, finding: Finding) -> Headline | None:
        """Return the headline of the extension that a part is of.

        The index of modules is made from all extensions, and firmware and microcode are moved
        from them into the initramfs itself: these go with the first one.
        """
        names = [self._image_at(finding, side) for side in (0, 1)]
        if finding.fact == "presence":
            names = [names[0] if finding.left is not None else names[1]] * 2
        if names[0] == names[1] == SCHEMATIC:
            return self._schematic
        if names[0] == names[1] == MODULES or _is_firmware(finding):
            return next(iter(self._extensions.values()), None)
        owners = [self._extensions.get(name or "") for name in names]
        return owners[0] if all(owner is not None for owner in owners) else None

    def _image_at(self, finding: Finding, side: int) -> str | None:
        """Return which extension's image, at the root of an archive, a part is or lies in."""
        if not any(pair[side].kind == "cpio" for pair in finding.holders):
            return None
        path = (finding.path, finding.right_path or finding.path)[side]
        return self._names[side].get(path.split("/")[-_depth_in_archive(finding)])

    def _is_list(self, finding: Finding) -> bool:
        texts = _texts(finding)
        if texts is None or _last(finding.path) != FILE_NAME:
            return False
        changed = {one.key for one in self._semantics if one.topic == "extension" and one.key}
        if any(one.topic == "schematic" for one in self._semantics):
            changed.add(SCHEMATIC)
        if changed - {SCHEMATIC}:
            changed.add(MODULES)
        return same_but_extensions(*texts, changed)

    def _text_owner(self, finding: Finding) -> Headline | None:
        """Return the headline whose words a text differs by, if all of them are known."""
        texts = _texts(finding)
        if texts is None:
            return None
        spelt = [side.of(text) for side, text in zip(self._context.spellings, texts, strict=True)]
        used = differing_words(spelt[0].split(), spelt[1].split(), *self._allowed)
        if used is None:
            return None
        # Without a word that differs, the texts differ by what is spelt in another way.
        owners = [self._by_word[word] for word in used]
        return min(owners, key=self._rank) if owners else self._schematic

    def _rank(self, headline: Headline) -> int:
        return self._ranks[id(headline)]

    def _name_owner(self, finding: Finding) -> Headline | None:
        """Return the headline that a name's ID is of, or its number: that of the extensions."""
        if finding.fact != SPELLING:
            return None
        return self._schematic or next(iter(self._extensions.values()), None)


def _has_topic(headline: Headline, topic: str) -> bool:
    return any(one.topic == topic for one in _meanings(headline))


def _meanings(headline: Headline) -> list[Semantic]:
    own = [headline.semantic] if headline.semantic else []
    return [*own, *headline.meanings]


def _plain_argument(headline: Headline) -> bool:
    """Say whether nothing but texts can follow from a headline."""
    return all(one.topic == "argument" and one.key != "entry" for one in _meanings(headline))


def _is_firmware(finding: Finding) -> bool:
    """Say whether a part lies where an imager puts firmware and microcode of extensions.

    The base archive, the one with ``/init``, has none of an extension's.
    """
    archives = [pair for pair in finding.holders if pair[0].kind == "cpio"]
    part = finding.left or finding.right
    if part is None or any(one.child("init") for pair in archives for one in pair):
        return False
    if part.kind != "cpio" and not archives:
        return False
    names = finding.path.split("/")[-_depth_in_archive(finding) :] if archives else []
    rows = [(path + "/", one.kind) for path, one in part.walk("/".join(names)) if path]
    return bool(rows) and all(
        path.startswith(_FIRMWARE)
        or (kind == "directory" and any(place.startswith(path) for place in _FIRMWARE))
        for path, kind in rows
    )


def _depth_in_archive(finding: Finding) -> int:
    depth = 1
    for left, _ in reversed(finding.holders):
        if left.kind == "cpio":
            break
        depth += 1
    return depth


def _of_signing(semantic: Semantic, finding: Finding) -> bool:
    """Cover signatures, the signed PCR policy and its place in a UKI, and keys to enrol."""
    kinds, name = _kinds(finding), _last(finding.path)
    if semantic.key in ("state", "signers"):
        return "pe-signature" in kinds
    if semantic.key == "pcr_signed":
        in_uki = any("uki" in kinds_of(pair[0]) for pair in finding.holders)
        moved = name == ".profile" or name.startswith("profile ")
        return (
            (in_uki and finding.fact == "presence" and (moved or name in _SIGNED_SECTIONS))
            or (in_uki and name in _SIGNED_SECTIONS)
            or finding.fact in _PCR_FACTS
        )
    part = finding.left or finding.right
    if semantic.key != "enrols" or part is None:
        return False
    files = [one.name for _, one in part.walk() if one.kind != "directory"]
    return bool(files) and all(one.endswith(_KEY_SUFFIXES) for one in files)


def differing_words(
    left: Sequence[str], right: Sequence[str], gone: set[str], come: set[str]
) -> set[str] | None:
    """Return the words by which two texts differ if all are allowed to, else None.

    ``gone`` may be missing on the right, ``come`` on the left; the others come in the same order.
    """
    used: set[str] = set()
    here = there = 0
    while here < len(left) or there < len(right):
        first = left[here] if here < len(left) else None
        second = right[there] if there < len(right) else None
        if first == second:
            here, there = here + 1, there + 1
        elif first is not None and first in gone:
            used.add(first)
            here += 1
        elif second is not None and second in come:
            used.add(second)
            there += 1
        else:
            return None
    return used


def scopes_of(cause: Finding) -> Iterator[str]:
    """Yield the path of every part whose bytes may differ because of a difference.

    These are what it lies in, and the part itself; but a mode or time of a part changes no byte of
    that part, only of what holds it.
    """
    path = cause.path
    if cause.fact not in ENTRY_FACTS:
        yield path
    while path:
        path = path.rpartition("/")[0]
        yield path


def lessened(finding: Finding, group: str) -> Finding:
    """Return a derived finding as one that follows from noise or packing only."""
    from dataclasses import replace

    from local_imager.deliver.compare.noise import FOLLOWS_NOISE

    if group == "noise":
        return replace(finding, group="noise", change="noise", noise=FOLLOWS_NOISE.code)
    return replace(finding, group="packing", change="packing")


def _texts(finding: Finding) -> tuple[str, str] | None:
    if finding.fact != CONTENT or finding.left is None or finding.right is None:
        return None
    left, right = finding.left.text, finding.right.text
    return None if left is None or right is None or left == right else (left, right)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _kinds(finding: Finding) -> frozenset[str]:
    parts = [part for part in (finding.left, finding.right) if part is not None]
    return frozenset(kind for part in parts for kind in kinds_of(part))
