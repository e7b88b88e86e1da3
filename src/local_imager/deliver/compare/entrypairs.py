"""Pairs the boot entries of two files: by where they stand, then by what they are called."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Pair = tuple["Entry | None", "Entry | None"]
# Where boot loaders look in a volume, and the file there (systemd-boot, GRUB).
_IN_VOLUME: Final = re.compile(
    r"(?:^|/)(?:efi/linux|loader/entries|boot/grub|grub)/[^/]+$", re.IGNORECASE
)
# What was unpacked is the child "content" of its wrapper, which no path of a comparison names.
_WRAPPED: Final = re.compile(r"^([^/]+\.(?:vmdk|vhd|qcow2)/)?(?:content/)+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One boot entry of one side; ``path`` is from the unpacked file inwards. ``spelt`` is its
    title with a token for the Talos version, and ``place`` its path so."""

    title: str
    path: str
    arguments: tuple[str, ...]
    profile: str = ""
    spelt: str = ""
    place: str = ""

    @property
    def volume(self) -> str:
        """The path of the file system that it stands in."""
        found = _IN_VOLUME.search(self.place)
        return self.place[: found.start()] if found else self.place.rpartition("/")[0]

    @property
    def file_name(self) -> str:
        """The name of the file that it stands in."""
        return self.place.rpartition("/")[2]


def entries_of(meaning: Mapping[str, Any]) -> list[Entry]:
    """Return the boot entries of a side; a command line by itself is one without a name."""
    entries = meaning.get("boot_entries")
    version = str(meaning.get("talos_version") or "")
    if not entries:
        arguments = tuple(map(str, meaning.get("kernel_arguments") or ()))
        return [Entry("", "", arguments)] if arguments else []
    found = []
    for one in entries:
        profile = str(one.get("profile") or "")
        path = _WRAPPED.sub(lambda found: found[1] or "", str(one.get("path") or ""))
        title = str(one.get("title") or profile)
        spelt, place = (
            text.replace(version, "<talos_version>") if version else text for text in (title, path)
        )
        arguments = tuple(map(str, one.get("kernel_arguments") or ()))
        found.append(Entry(title, path, arguments, profile, spelt, place))
    return found


_PLACES: Final[tuple[Callable[[Entry], object], ...]] = (
    lambda one: (one.place, one.spelt, one.profile),
    lambda one: (one.place, one.profile),
    lambda one: one.place,
    lambda one: (one.volume, one.spelt),
    lambda one: (one.file_name, one.spelt),
)
# For what is left: the title alone, and at last the order.
_REMAINING: Final[tuple[Callable[[Entry], object], ...]] = (
    lambda one: one.spelt,
    lambda one: "",
)


def paired(left: Sequence[Entry], right: Sequence[Entry]) -> Iterator[Pair]:
    """Yield every entry of both sides with its counterpart, None for one that has none.

    What is the same in two places of a file is told once by inspection. So an entry that stands
    where the other side has none is paired with the one of the same title and file elsewhere, also
    when that has a counterpart: an ISO holds its UKI twice, and one copy may have been altered.
    """
    partner: dict[int, int] = {}
    for key in _PLACES:
        _match(left, right, key, partner)
    twins: dict[int, Pair] = {}
    taken = set(partner.values())
    named = [_named(side) for side in (left, right)]
    for index, entry in enumerate(left):
        if index not in partner and (twin := _twin(entry, named[1])) is not None:
            twins[index] = (entry, twin)
    again: list[Pair] = []
    for index, entry in enumerate(right):
        if index not in taken and (twin := _twin(entry, named[0])) is not None:
            again.append((twin, entry))
            taken.add(index)
    kept = [entry for index, entry in enumerate(left) if index not in twins]
    others = [entry for index, entry in enumerate(right) if index not in taken]
    lone = [
        entry for index, entry in enumerate(left) if index not in twins and index not in partner
    ]
    late: dict[int, int] = {}
    for key in _REMAINING:
        _match(lone, others, key, late)
    found = {id(entry): right[partner[n]] for n, entry in enumerate(left) if n in partner}
    found |= {id(lone[n]): others[match] for n, match in late.items()}
    yield from ((entry, found.get(id(entry))) for entry in kept)
    yield from (*twins.values(), *again)
    paired_late = set(late.values())
    yield from ((None, entry) for n, entry in enumerate(others) if n not in paired_late)


def _match(
    left: Sequence[Entry],
    right: Sequence[Entry],
    key: Callable[[Entry], object],
    partner: dict[int, int],
) -> None:
    """Pair those of one key in their order, of what has no partner yet."""
    taken = set(partner.values())
    waiting: dict[object, deque[int]] = {}
    for index, entry in enumerate(right):
        if index not in taken:
            waiting.setdefault(key(entry), deque()).append(index)
    for index, entry in enumerate(left):
        if index not in partner and waiting.get(key(entry)):
            partner[index] = waiting[key(entry)].popleft()


def _name(entry: Entry) -> tuple[str, str, str]:
    return entry.file_name, entry.spelt, entry.profile


def _named(entries: Sequence[Entry]) -> dict[tuple[str, str, str], list[Entry]]:
    """Return the entries by name, of each the first two places: one is another one than any."""
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        rows = found.setdefault(_name(entry), [])
        if len(rows) < 2 and all(one.place != entry.place for one in rows):
            rows.append(entry)
    return found


def _twin(entry: Entry, others: Mapping[tuple[str, str, str], Sequence[Entry]]) -> Entry | None:
    return next((one for one in others.get(_name(entry), ()) if one.place != entry.place), None)
