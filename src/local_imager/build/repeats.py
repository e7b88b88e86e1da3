"""What of a build may come out otherwise the next time, and where it ran: read from its record.

Records may have come with a bundle: nothing is taken for granted about their form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeGuard

from local_imager.events import printable

# What an imager writes file systems for. FAT is filled by mcopy in the order in which a directory
# lists its files: in memory always the same, on disk that of the disk's own file system.
WITH_FAT: Final = frozenset({"iso", "image"})

_MAX_COUNT: Final = 1 << 20

Scratch = Literal["memory", "disk", ""]
"""Where a build had its temporary files; empty where its record does not say."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a build ran: workers of our own, the container's user, the processors it could use."""

    workers: int
    user: str
    processors: int


def parse_record(documents: Sequence[bytes]) -> dict[str, Any]:
    """Return the last of an asset's build records; empty where there is none that can be read."""
    if not documents:
        return {}
    try:
        document = json.loads(documents[-1])
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def varying(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps that did not go the way that repeats, each with why.

    An ``--exact`` build, of which nothing repeats that holds an initramfs, is not told here.
    """
    return tuple(_varying(record))


def _varying(record: Mapping[str, Any]) -> Iterator[str]:
    for step in ("initramfs", "meta", "iso", "installer"):
        facts = record.get(step)
        if isinstance(facts, dict) and facts.get("way") == "plain":
            reason = facts.get("reason")
            yield f"{step}: {_text(reason) or 'as the imager made it'}"
    if follows_disk(record) and scratch_of(record) == "disk":
        yield "file systems: their files were collected on a disk, not in memory"


def scratch_of(record: Mapping[str, Any]) -> Scratch:
    """Return where the runs of a build had their temporary files: on disk if one of them had."""
    runs = record.get("runs")
    found = [
        one.get("scratch")
        for one in (runs if isinstance(runs, list) else ())
        if isinstance(one, dict)
    ]
    if "disk" in found:
        return "disk"
    return "memory" if "memory" in found else ""


def follows_disk(record: Mapping[str, Any]) -> bool:
    """Whether the place of temporary files decides about bytes of what was built."""
    return isinstance(kind := _kind(record), str) and kind in WITH_FAT


def surroundings_of(record: Mapping[str, Any]) -> Surroundings | None:
    """Return where a build ran, or None for a record that does not say."""
    told = record.get("surroundings")
    if not isinstance(told, dict):
        return None
    workers, user, processors = (told.get(name) for name in ("workers", "user", "processors"))
    if not (_is_count(workers) and isinstance(user, str) and _is_count(processors)):
        return None
    return Surroundings(workers, _text(user), processors)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 < value < _MAX_COUNT


def _kind(record: Mapping[str, Any]) -> object:
    profile = record.get("profile")
    output = profile.get("output") if isinstance(profile, dict) else None
    return output.get("kind") if isinstance(output, dict) else None


def _text(value: object) -> str:
    return printable(value, limit=500) if isinstance(value, str) else ""
