"""Glob patterns over image names, and which of two patterns is the more specific.

A pattern is matched with ``registry/repository`` in lower case (host names have no case, and a
spelling with capitals must not slip past a rule). ``*`` stands for any characters inside one path
segment, ``**`` for one or more whole segments. Specificity, most important first:

1. a pattern without wildcards beats one with;
2. the longer text before the first wildcard wins;
3. the more characters that are not wildcards win.

Patterns that are still equal rank side by side: what either accepts is accepted.

``bundles`` is reserved: it stands for bundles that are carried over a gap, and for no image. It
could be none, since an image's name always has a registry and a slash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from local_imager.errors import SettingsError

MAX_PATTERN_CHARACTERS: Final = 512
# More wildcards than path segments of any real name only make matching slow.
MAX_WILDCARDS: Final = 8
BUNDLES: Final = "bundles"
_ALLOWED: Final = re.compile(r"[a-z0-9._:/*\[\]-]+")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A checked pattern; ``text`` is lower case."""

    text: str

    @classmethod
    def parse(cls, text: str, source: str = "") -> NamePattern:
        """Read a pattern; raises :class:`SettingsError`."""
        lowered = text.lower()
        segments = lowered.split("/")
        problem = ""
        if not _ALLOWED.fullmatch(lowered) or len(lowered) > MAX_PATTERN_CHARACTERS:
            problem = "has characters that no image name has"
        elif "" in segments:
            problem = "has an empty path segment"
        elif any("**" in segment and segment != "**" for segment in segments):
            problem = "mixes ** with other characters in one segment"
        elif lowered.count("*") > MAX_WILDCARDS:
            problem = f"has more than {MAX_WILDCARDS} wildcards"
        if problem:
            raise SettingsError(
                f"the trust pattern {text[:80]!r} {problem}",
                hint="for example ghcr.io/siderolabs/** or registry.example:5000/team/*",
                source=source,
            )
        return cls(lowered)

    @property
    def for_bundles(self) -> bool:
        """Whether this is the reserved pattern; no other, ``**`` among them, covers a bundle."""
        return self.text == BUNDLES

    def matches(self, name: str) -> bool:
        """Say whether the pattern covers ``registry/repository``."""
        return not self.for_bundles and _compiled(self.text).fullmatch(name.lower()) is not None

    @property
    def specificity(self) -> tuple[bool, int, int]:
        """Sort key: larger is more specific (see the module's text)."""
        first = self.text.find("*")
        prefix = len(self.text) if first < 0 else first
        return (first < 0, prefix, len(self.text) - self.text.count("*"))


@lru_cache(maxsize=256)
def _compiled(text: str) -> re.Pattern[str]:
    segments = [
        ".+" if segment == "**" else "[^/]*".join(map(re.escape, segment.split("*")))
        for segment in text.split("/")
    ]
    return re.compile("/".join(segments))
