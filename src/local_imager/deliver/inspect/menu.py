"""The order in which systemd-boot lists what it finds, and which of it starts by itself.

Boot Loader Specification (UAPI.1, "Sorting"), Version Format Specification (UAPI.10) and
loader.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, TypeVar

# What ends a name that counts its tries: ``+LEFT`` or ``+LEFT-DONE`` (UAPI.1, "Boot Counting").
_TRIES: Final = re.compile(r"\+(\d{1,9})(?:-\d{1,9})?(?=\.(?:conf|efi)$)")
_TOKEN: Final = re.compile(r"[~^.-]|[0-9]+|[A-Za-z]+")
# As characters in the order of UAPI.10: what counts less than the end of a text, the end, and more.
_RANKS: Final = {"~": "\0", "-": "\2", "^": "\3", ".": "\4"}
_END, _LETTERS, _DIGITS = "\1", "\5", "\6"
# Ends letters below every letter, so that a shorter word counts less.
_WORD_END: Final = "\0"
# No file of a FAT volume has a longer name.
_MAX_CHARS: Final = 255


def version_key(text: str) -> str:
    """Return what a version is sorted by, older before newer.

    Characters that no version has separate its parts, and all before and behind are passed over.
    """
    found = []
    for token in _TOKEN.findall(text[:_MAX_CHARS]):
        if token in _RANKS:
            found.append(_RANKS[token])
        elif token[0].isdigit():
            number = token.lstrip("0")
            found.append(f"{_DIGITS}{chr(len(number))}{number}")
        else:
            found.append(f"{_LETTERS}{token}{_WORD_END}")
    return "".join((*found, _END))


@dataclass(frozen=True, slots=True)
class MenuLine:
    """What an entry is sorted by. ``name`` is its file's name; of a unified kernel image with
    several profiles all but the first have ``profile`` in their ID."""

    name: str
    profile: str = ""
    sort_key: str = ""
    version: str = ""
    machine_id: str = ""

    @property
    def identifier(self) -> str:
        """The ID that ``default`` is compared with: the file's name without its count of tries."""
        name = _TRIES.sub("", self.name.lower())
        return f"{name}@{self.profile.lower()}" if self.profile else name

    @property
    def is_spent(self) -> bool:
        """Whether it has no tries left."""
        tries = _TRIES.search(self.name.lower())
        return tries is not None and not int(tries[1])


_Row = TypeVar("_Row")


def in_menu_order(rows: Sequence[tuple[MenuLine, _Row]]) -> list[tuple[MenuLine, _Row]]:
    """Return entries as systemd-boot lists them; profiles of one file stay in their order."""
    ordered = list(rows)
    # From the last criterion to the first: sorting keeps the order of what is equal.
    ordered.sort(key=lambda row: version_key(_TRIES.sub("", row[0].name.lower())), reverse=True)
    ordered.sort(
        key=lambda row: version_key(row[0].version if row[0].sort_key else ""), reverse=True
    )
    ordered.sort(
        key=lambda row: (
            row[0].is_spent,
            not row[0].sort_key,
            row[0].sort_key,
            row[0].machine_id if row[0].sort_key else "",
        )
    )
    return ordered


def default_of(loader_conf: str) -> str:
    """Return what ``default`` says in a loader.conf, empty when it says nothing."""
    found = ""
    for line in loader_conf.splitlines():
        words = line.strip().split(None, 1)
        if len(words) == 2 and words[0] == "default":
            found = words[1].strip().strip("\"'")
    return found


def chosen_first(
    rows: Sequence[tuple[MenuLine, _Row]], default: str
) -> tuple[list[tuple[MenuLine, _Row]], bool]:
    """Return entries in menu order, but the one first that ``default`` means (a pattern over IDs),
    and whether there was one."""
    pattern = default.lower()
    if not pattern or len(pattern) > _MAX_CHARS:
        return list(rows), False
    for number, (line, _) in enumerate(rows):
        if fnmatchcase(line.identifier, pattern):
            return [rows[number], *rows[:number], *rows[number + 1 :]], True
    return list(rows), False
