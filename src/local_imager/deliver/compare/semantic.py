"""One difference in what two files mean, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from local_imager.deliver.compare.verdict import Change

Topic = Literal[
    "kind",
    "system",
    "version",
    "kernel-version",
    "arch",
    "platform",
    "secure-boot",
    "boot",
    "extension",
    "argument",
    "meta",
    "schematic",
]


@dataclass(frozen=True, slots=True)
class Semantic:
    """One difference in meaning.

    ``key`` names the thing within its topic (extension, argument, META key). ``words`` are the
    words that a text on the left and on the right may differ by because of it. ``follows`` names
    the topic that explains it, where another difference does.
    """

    topic: Topic
    what: str
    left: str = ""
    right: str = ""
    key: str = ""
    path: str = ""
    words: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    follows: Topic | None = None
    diff: str = ""

    @property
    def change(self) -> Change:
        """Whether one side lacks it."""
        if not self.left and self.right:
            return "only-right"
        return "only-left" if self.left and not self.right else "altered"
