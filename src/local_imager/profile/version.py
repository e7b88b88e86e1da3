"""The Talos version value: parsing, ordering and its one spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering

from local_imager.errors import InputError

# Semantic Versioning 2.0.0 without build metadata; the factory's tags carry a leading v.
_VERSION = re.compile(
    r"v(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,  # \d is a digit of any script otherwise
)


@total_ordering
@dataclass(frozen=True, slots=True)
class TalosVersion:
    """A full Talos version such as ``v1.9.0`` or ``v1.14.0-rc.1``, ordered as SemVer says."""

    major: int
    minor: int
    patch: int
    prerelease: str = ""

    @classmethod
    def parse(cls, text: str) -> TalosVersion:
        """Read ``v1.9.0``; raises :class:`InputError` that shows the full spelling wanted."""
        match = _VERSION.fullmatch(text) if len(text) < 128 else None
        if match is None:
            raise InputError(
                f"{text[:60]!r} is not a Talos version", hint=_spelling_hint(text), code="version"
            )
        major, minor, patch, prerelease = match.groups()
        return cls(int(major), int(minor), int(patch), prerelease or "")

    def __str__(self) -> str:
        base = f"v{self.major}.{self.minor}.{self.patch}"
        return f"{base}-{self.prerelease}" if self.prerelease else base

    @property
    def release(self) -> tuple[int, int, int]:
        """Major, minor and patch, without the pre-release part."""
        return (self.major, self.minor, self.patch)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, TalosVersion):
            return NotImplemented
        if self.release != other.release:
            return self.release < other.release
        return _prerelease_key(self.prerelease) < _prerelease_key(other.prerelease)


def nearest_versions(
    asked: TalosVersion, known: Iterable[TalosVersion], count: int = 5
) -> tuple[TalosVersion, ...]:
    """Return the known versions nearest to one that is not there, nearest first."""

    def distance(version: TalosVersion) -> tuple[int, int, int]:
        ours, theirs = version.release, asked.release
        return (abs(ours[0] - theirs[0]), abs(ours[1] - theirs[1]), abs(ours[2] - theirs[2]))

    return tuple(sorted(known, key=distance)[:count])


def _prerelease_key(text: str) -> tuple[int, list[tuple[int, int, str]]]:
    """SemVer 11: a release is newest; numbers order as numbers and before words."""
    if not text:
        return (1, [])
    parts = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in text.split(".")]
    return (0, parts)


def _spelling_hint(text: str) -> str:
    numbers = text.strip().lstrip("vV")
    if re.fullmatch(r"\d+\.\d+", numbers):
        return f"give the full version with its patch number, for example v{numbers}.0"
    if _VERSION.fullmatch("v" + numbers):
        return f"write it with a leading v: v{numbers}"
    return "a version reads v1.9.0 or v1.14.0-rc.1"
