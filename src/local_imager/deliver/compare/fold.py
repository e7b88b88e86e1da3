"""Puts differences of parts below the difference in meaning that they merely follow from.

A part's difference is folded only when the difference in meaning accounts for all of it: a text
must be equal but for the words that are known to differ. What is not accounted for stays on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from local_imager.deliver.compare.align import Spelling, content_kind
from local_imager.deliver.compare.covering import (
    depth_in_archive,
    differing_words,
    is_entry_alone,
    is_firmware,
    is_of_signing,
    kinds_of_both,
    last_name,
)
from local_imager.deliver.compare.extensionlist import FILE_NAME, same_but_extensions
from local_imager.deliver.compare.factwords import ENTRY_FACTS
from local_imager.deliver.compare.finding import SPELLING, Finding, volume_of
from local_imager.deliver.compare.noise import CONTENT, REST
from local_imager.deliver.compare.outside import explained_by
from local_imager.deliver.compare.release import may_follow
from local_imager.deliver.compare.semantic import Semantic
from local_imager.deliver.inspect.extensions import MODULES, SCHEMATIC

if TYPE_CHECKING:
    from local_imager.deliver.compare.bytesdiff import Locate

# With one of these a release's programs are others; that a part is, for that reason, is taken on
# trust and counted.
_RELEASE: Final = frozenset({"version", "arch"})
# Whose spelling a text may differ by, and the token that stands for it.
_SPELT: Final = (("schematic", "schematic_id"), ("version", "talos_version"), ("system", "system"))
_KERNEL_PLACES: Final = frozenset({".linux", ".uname"})


@dataclass(slots=True)
class Headline:
    """A difference on top: in meaning, or (``semantic`` None) of a part, with what follows.

    ``alike`` are the same difference in other entries of one archive or file system. ``assumed``
    are those of ``parts`` that are only taken to follow: nothing shows that they do.
    """

    semantic: Semantic | None = None
    finding: Finding | None = None
    parts: list[Finding] = field(default_factory=list)
    meanings: list[Semantic] = field(default_factory=list)
    alike: list[Finding] = field(default_factory=list)
    assumed: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Context:
    """How both sides call things: images of extensions, and words to be taken as equal."""

    images: tuple[dict[str, str], dict[str, str]]
    spellings: tuple[Spelling, Spelling]


def fold(
    semantics: Sequence[Semantic],
    findings: Sequence[Finding],
    context: Context,
    locate: Locate | None = None,
) -> tuple[list[Headline], list[Finding]]:
    """Return the headlines with what follows from each, and what is packing or noise.

    Derived findings go to the headline that has their cause within their scope; with noise or
    packing alone within it, they are of that class; without any cause they are headlines. So are
    bytes in a gap, where ``locate`` shows that there are any: nothing else says what lies there.
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
    folder = _Folder(headlines, context, locate)
    for finding in findings:
        if finding.group == "real":
            folder.place(finding)
    lesser = [finding for finding in findings if finding.group in ("packing", "noise")]
    noisy, packed = (
        {scope for one in lesser if one.group == group for scope in scopes_of(one)}
        for group in ("noise", "packing")
    )
    derived = [finding for finding in findings if finding.group == "derived"]
    # Bytes outside of parts first, from the inside out: when they stand for themselves, checksums
    # and what lies around follow from them.
    for finding in sorted(derived, key=lambda one: (one.fact != REST, -len(one.holders))):
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
    def __init__(self, headlines: list[Headline], context: Context, locate: Locate | None) -> None:
        self.headlines = headlines
        self._locate = locate
        self.lesser: list[Finding] = []
        self._context = context
        self._causes: dict[str, Headline] = {}
        # The same for bytes outside of parts, by the part.
        self._outside: dict[int, Headline] = {}
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
            owner = self._release_of(finding)
            if owner is not None:
                owner.assumed.append(finding)
        if owner is None:
            owner = Headline(finding=finding)
            self.headlines.append(owner)
        else:
            owner.parts.append(finding)
        self._explain(finding, owner)

    def _explain(self, finding: Finding, owner: Headline) -> None:
        for scope in scopes_of(finding):
            self._causes.setdefault(scope, owner)
        for part in explained_by(finding):
            self._outside.setdefault(part, owner)

    def derived(self, finding: Finding, noisy: set[str], packed: set[str]) -> None:
        """Put a derived difference where its cause is; on top when it has none.

        ``noisy`` and ``packed`` are the scopes that have noise or other packing within.
        """
        if finding.fact == REST:
            owner = self._outside.get(id(finding.left))
            place = self._locate(finding) if owner is not None and self._locate else None
            owner = None if place is not None and place.in_gap else owner
        else:
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
            if finding.fact == REST:
                self._explain(finding, headline)

    def _accounts(self, headline: Headline, finding: Finding) -> bool:
        return any(self._covers(one, finding) for one in _meanings(headline))

    def _covers(self, semantic: Semantic, finding: Finding) -> bool:
        topic = semantic.topic
        if topic == "kind":
            left, right = finding.left, finding.right
            return not finding.path and bool(left and right and left.kind != right.kind)
        if topic == "secure-boot":
            return is_of_signing(semantic, finding)
        if topic == "boot":
            came = semantic.key == "bios" and finding.fact == "presence"
            kinds = {"boot-entry", "unpartitioned"} if came else {"boot-entry"}
            return bool(kinds & kinds_of_both(finding))
        if topic == "argument" and semantic.key == "entry":
            return is_entry_alone(semantic, finding)
        if topic in ("extension", "schematic"):
            return self._is_list(finding)
        return topic == "meta" and self._is_meta(semantic, finding)

    def _release_of(self, finding: Finding) -> Headline | None:
        """Return the headline of another version, processor or kernel that a part may be of.

        A file that one side's extension lacks is none of the release.
        """
        for headline in self.headlines:
            topics = {one.topic for one in _meanings(headline)}
            if topics & _RELEASE and may_follow(finding):
                extension = finding.fact == "presence" and self._extension_at(finding)
                return None if extension else headline
            if "kernel-version" in topics and finding.fact != "presence":
                is_kernel = last_name(finding.path) in _KERNEL_PLACES or "kernel" in kinds_of_both(
                    finding
                )
                if is_kernel and finding.fact not in ENTRY_FACTS:
                    return headline
        return None

    def _extension_at(self, finding: Finding) -> bool:
        return any(self._image_at(finding, side) is not None for side in (0, 1))

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
        if names[0] == names[1] == MODULES or is_firmware(finding):
            return next(iter(self._extensions.values()), None)
        owners = [self._extensions.get(name or "") for name in names]
        return owners[0] if all(owner is not None for owner in owners) else None

    def _image_at(self, finding: Finding, side: int) -> str | None:
        """Return which extension's image, at the root of an archive, a part is or lies in."""
        if not any(pair[side].kind == "cpio" for pair in finding.holders):
            return None
        path = (finding.path, finding.right_path or finding.path)[side]
        return self._names[side].get(path.split("/")[-depth_in_archive(finding)])

    def _is_list(self, finding: Finding) -> bool:
        texts = _texts(finding)
        if texts is None or last_name(finding.path) != FILE_NAME:
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
        owners = [self._by_word[word] for word in used]
        # Without a word that differs, the texts differ by what is spelt in another way.
        return min(owners, key=self._rank) if owners else self._speller(spelt[0])

    def _speller(self, text: str) -> Headline | None:
        """Return the headline of what both sides spell in their own way in a text."""
        topics = [topic for topic, token in _SPELT if f"<{token}>" in text]
        return next(
            (one for topic in topics for one in self.headlines if _has_topic(one, topic)), None
        )

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
