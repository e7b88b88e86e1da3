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
from local_imager.deliver.compare.meaning_diff import MODULES_EXTENSION, SCHEMATIC_EXTENSION
from local_imager.deliver.compare.noise import CONTENT, kinds_of
from local_imager.deliver.compare.semantic import Semantic

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
    for finding in findings:
        if finding.group == "derived":
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
        self._owners = list(headlines)
        self._causes: dict[str, Headline] = {}
        everything = [*(h.semantic for h in headlines), *(m for h in headlines for m in h.meanings)]
        self._semantics = [one for one in everything if one is not None]

    def place(self, finding: Finding) -> None:
        """Put a real difference below the headline that accounts for it, else on top."""
        owner = next((one for one in self._owners if self._accounts(one, finding)), None)
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
            self.headlines.append(Headline(finding=finding))

    def _accounts(self, headline: Headline, finding: Finding) -> bool:
        own = [headline.semantic] if headline.semantic else []
        return any(self._covers(one, finding) for one in (*own, *headline.meanings))

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
        if topic == "extension":
            return self._of_extension(semantic, finding) or self._is_list(finding)
        if topic == "meta":
            return self._is_meta(semantic, finding)
        if topic == "schematic":
            return self._in_image(SCHEMATIC_EXTENSION, finding) or self._is_list(finding)
        return False

    def _is_meta(self, semantic: Semantic, finding: Finding) -> bool:
        within = [pair[0] for pair in finding.holders] + [finding.left or finding.right]
        if not any(part is not None and content_kind(part) == "meta" for part in within):
            return False
        part = finding.left or finding.right
        return part is not None and part.facts.get("key", part.name) == semantic.key

    def _of_extension(self, semantic: Semantic, finding: Finding) -> bool:
        """Cover an extension's image, the index of modules that is made from all of them, and the
        firmware and microcode that an imager moves from extensions into the initramfs itself."""
        if not semantic.key:
            return False
        names = (semantic.key, MODULES_EXTENSION)
        return any(self._in_image(name, finding) for name in names) or _is_firmware(finding)

    def _in_image(self, name: str, finding: Finding) -> bool:
        left, right = (images.get(name) for images in self._context.images)
        here = left is not None and left in finding.path.split("/")
        there = right is not None and right in (finding.right_path or finding.path).split("/")
        if finding.fact == "presence":
            return here if finding.left is not None else there
        return here and there

    def _is_list(self, finding: Finding) -> bool:
        texts = _texts(finding)
        if texts is None or _last(finding.path) != FILE_NAME:
            return False
        changed = {one.key for one in self._semantics if one.topic == "extension" and one.key}
        if any(one.topic == "schematic" for one in self._semantics):
            changed.add(SCHEMATIC_EXTENSION)
        if changed - {SCHEMATIC_EXTENSION}:
            changed.add(MODULES_EXTENSION)
        return same_but_extensions(*texts, changed)

    def _text_owner(self, finding: Finding) -> Headline | None:
        """Return the headline whose words a text differs by, if all of them are known."""
        texts = _texts(finding)
        if texts is None:
            return None
        spelt = [side.of(text) for side, text in zip(self._context.spellings, texts, strict=True)]
        allowed = [
            {mine.of(word) for one in self._semantics for word in one.words[side]}
            for side, mine in enumerate(self._context.spellings)
        ]
        used = differing_words(spelt[0].split(), spelt[1].split(), allowed[0], allowed[1])
        if used is None:
            return None
        for headline in self.headlines:
            for one in (headline.semantic, *headline.meanings):
                if one and (one.words[0] | one.words[1]) & (used or one.words[0] | one.words[1]):
                    return headline
        return None

    def _name_owner(self, finding: Finding) -> Headline | None:
        """Return the headline that a name's ID or version is of, else that of the extensions."""
        if finding.fact != SPELLING:
            return None
        for headline in self.headlines:
            for one in (headline.semantic, *headline.meanings):
                if one is not None and any(word in finding.values[0] for word in one.words[0]):
                    return headline
        return next((one for one in self.headlines if _topic(one) == "extension"), None)


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
