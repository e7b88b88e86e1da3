"""One place where two trees of parts differ, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from local_imager.deliver.compare.verdict import Change
from local_imager.deliver.compare.words import clean
from local_imager.deliver.inspect.parts import Part

# ``derived`` follows from other differences within ``scope``; alone it counts as real.
Class = Literal["real", "packing", "noise", "derived"]


# The fact of a name that differs by an ID, version or number that stands for the same thing.
SPELLING: Final = "spelling"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where the trees differ.

    ``path`` and ``right_path`` name it on both sides; ``fact`` is the fact's name, ``content`` for
    bytes, ``presence`` for a part that one side lacks. ``scope`` is the path below which the cause
    of a derived difference lies; without ``lessens`` only a real one will do for a cause.
    ``left`` and ``right`` are the parts, ``values`` what is shown.
    """

    path: str
    what: str
    fact: str
    group: Class
    change: Change
    left: Part | None
    right: Part | None
    values: tuple[str, str]
    right_path: str = ""
    noise: str = ""
    scope: str = ""
    holders: tuple[tuple[Part, Part], ...] = ()
    lessens: bool = True


def join(path: str, name: str) -> str:
    """Return the path of a child; names from files are made printable."""
    return f"{path}/{clean(name)}" if path else clean(name)


def lies_in(path: str, scope: str) -> bool:
    """Say whether a path is a scope or lies below it."""
    return not scope or path == scope or path.startswith(scope + "/")


def volume_of(finding: Finding) -> str:
    """Return the path of the archive, file system or other part that an entry lies in."""
    depth = 0
    for left, _ in reversed(finding.holders):
        if left.kind != "directory":
            break
        depth += 1
    names = finding.path.split("/")
    return "/".join(names[: max(len(names) - 1 - depth, 0)])
