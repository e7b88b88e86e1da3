"""Pairs the parts of both sides: by name, and where names carry a version, by what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.compare.words import clean
from local_imager.deliver.inspect.parts import Part

Pair = tuple[Part | None, Part | None]
# Containers whose only meaningful child is the thing itself; a path does not name that child.
WRAPPERS: Final = frozenset({"compressed", "qcow2", "vhd", "vmdk", "ova"})
# Of these, two that are alone in their kind belong together whatever they are called.
_KNOWN_ALONE: Final = frozenset(
    {"uki", "kernel", "initramfs", "iso", "disk", "squashfs", "erofs", "partition", "cpio", "meta"}
)
# What the base of an initramfs has, the archive of the extensions, and early microcode.
_ROLES: Final = ("init", "extensions.yaml", "kernel")
# Names of these are numbers in order: an archive put in front moves all others.
NUMBERED: Final = frozenset({"initramfs"})


def content_kind(part: Part) -> str:
    """Return what lies in a part: its kind, or for a place (partition, section) that of its
    content."""
    content = part.facts.get("content")
    return content if isinstance(content, str) else part.kind


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one side spells what differs by name only: its schematic ID and version, say.

    ``words`` maps spellings anywhere in a text to tokens that both sides share, ``names`` does so
    for whole names of files.
    """

    words: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...] = ()

    def of(self, text: str) -> str:
        """Return the text with this side's spellings replaced by the shared tokens."""
        for name, token in self.names:
            if text == name:
                return token
        for word, token in self.words:
            text = text.replace(word, token)
        return text


def pairs(
    left: Part, right: Part, spellings: tuple[Spelling, Spelling] = (Spelling(), Spelling())
) -> Iterator[Pair]:
    """Yield the children of both parts in pairs, in the order of the left side, each once.

    Those of the same name first, as far as ``spellings`` make names equal; then, among what is
    left, those with equal bytes (renamed), and the one of a kind that is alone on both sides. A
    child without a counterpart is paired with None.
    """
    partner: dict[int, int] = {}
    passes: list[Callable[[Part, int], object]] = [
        lambda part, side: (spellings[side].of(part.name), part.kind),
        lambda part, side: spellings[side].of(part.name),
        _bytes_of,
    ]
    if left.kind in NUMBERED or content_kind(left) in NUMBERED:
        passes[:0] = [_bytes_of, _role_of]
    for key in passes:
        _match(left.children, right.children, key, partner, alone=False)
    _match(left.children, right.children, _alone_key, partner, alone=True)
    taken = set(partner.values())
    for index, part in enumerate(left.children):
        match = partner.get(index)
        yield part, None if match is None else right.children[match]
    for index, part in enumerate(right.children):
        if index not in taken:
            yield None, part


def _bytes_of(part: Part, side: int) -> object:
    return (part.digest, part.kind) if part.digest and part.size_bytes else None


def _role_of(part: Part, side: int) -> object:
    """Tell the archives of an initramfs by what only one of them has, not by their number."""
    return next((name for name in _ROLES if part.child(name) is not None), None)


def _alone_key(part: Part, side: int) -> object:
    """Pair what was renamed and altered, where there is no doubt what belongs together."""
    if part.kind in ("file", "data", "document", "pe"):
        suffix = part.name.rpartition(".")[2] if "." in part.name[1:] else ""
        return (part.kind, suffix) if suffix else None
    return (part.kind, content_kind(part)) if part.kind in _KNOWN_ALONE else None


def _match(
    left: Sequence[Part],
    right: Sequence[Part],
    key: Callable[[Part, int], object],
    partner: dict[int, int],
    *,
    alone: bool,
) -> None:
    taken = set(partner.values())
    waiting: dict[object, list[int]] = {}
    for index, part in enumerate(right):
        value = key(part, 1)
        if index not in taken and value is not None:
            waiting.setdefault(value, []).append(index)
    seeking: dict[object, list[int]] = {}
    for index, part in enumerate(left):
        value = key(part, 0)
        if index not in partner and value is not None:
            seeking.setdefault(value, []).append(index)
    for value, indexes in seeking.items():
        found = waiting.get(value, [])
        if alone and (len(indexes) != 1 or len(found) != 1):
            continue
        partner.update(zip(indexes, found, strict=False))


def same_order(left: Part, right: Part, rows: Sequence[Pair]) -> bool:
    """Say whether what both parts have comes in the same order on both sides.

    ``rows`` are their pairs, which count where names are mere numbers.
    """
    if left.kind in NUMBERED or content_kind(left) in NUMBERED:
        places = {id(part): place for place, part in enumerate(right.children)}
        found = [places[id(two)] for one, two in rows if one is not None and two is not None]
        return found == sorted(found)
    here, there = ([part.name for part in side.children] for side in (left, right))
    common = set(here) & set(there)
    return [name for name in here if name in common] == [name for name in there if name in common]


def orders_of(left: Part, right: Part, rows: Sequence[Pair]) -> tuple[str, str]:
    """Return the order of the parts of both sides, those of the right by their names on the left.

    Names that are mere numbers would read the same on both sides; what the left side lacks keeps
    its own.
    """
    known = {id(two): one.name for one, two in rows if one is not None and two is not None}
    here = ", ".join(part.name for part in left.children)
    there = ", ".join(
        known.get(id(part)) or f"{part.name} of the right side" for part in right.children
    )
    return clean(here), clean(there)
