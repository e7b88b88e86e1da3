"""The answers of a comparison, as values; terminal, JSON and page are made from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from local_imager.deliver.compare.masking import shows_secrets

FORMAT: Final = "local-imager/comparison/v1"


class Verdict(IntEnum):
    """How alike two sides are; a larger one is worse, so the worst of many is their ``max``."""

    IDENTICAL = 0
    SAME_CONTENT = 1
    NAMED_NOISE = 2
    DIFFERENT = 3

    @property
    def word(self) -> str:
        """The verdict's stable name in JSON."""
        return ("identical", "same-content", "named-noise", "different")[self]


Change = Literal["altered", "only-left", "only-right", "packing", "noise"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference at the deepest level that explains it.

    ``path`` is the place in the tree of parts (``ESP/EFI/Linux/Talos-v1.13.0.efi/.cmdline``),
    ``what`` the thing that differs in a person's words (``kernel argument console``, ``META key
    0xa``, ``extension tailscale``, ``file mode``), ``left`` and ``right`` its two values (empty
    for what is not there), ``diff`` a unified diff for text. ``noise`` names the entry of the list
    of noise that covers it. ``offset`` and ``size_bytes`` say where the first differing bytes lie
    in that part, where they are known, and ``where`` in which gap of it. ``consequences`` are the
    differences of other parts that merely follow from this one (the command line's section, the
    checksum, the schematic ID).
    """

    path: str
    what: str
    change: Change
    left: str = ""
    right: str = ""
    diff: str = ""
    noise: str = ""
    offset: int | None = None
    size_bytes: int | None = None
    where: str = ""
    consequences: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as JSON values; fields that say nothing are left out."""
        document: dict[str, Any] = {"path": self.path, "what": self.what, "change": self.change}
        optional = {
            "left": self.left or None,
            "right": self.right or None,
            "diff": self.diff or None,
            "noise": self.noise or None,
            "offset": self.offset,
            "size_bytes": self.size_bytes,
            "where": self.where or None,
            "consequences": [one.as_dict() for one in self.consequences] or None,
        }
        return document | {key: value for key, value in optional.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SideSummary:
    """What one side of a comparison is: as asked for, its digest and size, and its meaning.

    ``meaning`` is what ``inspect --json`` says of it (kind, version, schematic …).
    """

    asked: str
    digest: str
    size_bytes: int
    meaning: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result for one pair.

    ``differences`` holds the real ones first, then packing, then noise; ``counts`` says how many
    there are of each change (consequences under ``follows``), also where the list was cut.
    ``expected`` is the verdict that equal inputs would give for this kind and these builders, with
    the reason in ``because``. ``notes`` are sentences for people (other imager code on one side,
    parts that could not be read).
    """

    left: SideSummary
    right: SideSummary
    verdict: Verdict
    differences: tuple[Difference, ...]
    counts: Mapping[str, int]
    expected: Verdict
    because: str
    notes: tuple[str, ...] = ()

    @property
    def shows_secrets(self) -> bool:
        """Whether a report of it shows what may be secret (kernel arguments, META values)."""
        return any(shows_secrets(side.meaning) for side in (self.left, self.right))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``compare --json`` (docs/compare.md)."""
        return {
            "format": FORMAT,
            "verdict": self.verdict.word,
            "expected": {"verdict": self.expected.word, "because": self.because},
            "left": _side(self.left),
            "right": _side(self.right),
            "differences": [difference.as_dict() for difference in self.differences],
            "counts": dict(self.counts),
            "notes": list(self.notes),
        }


def _side(side: SideSummary) -> dict[str, Any]:
    return {
        "asked": side.asked,
        "digest": side.digest,
        "size_bytes": side.size_bytes,
        "meaning": dict(side.meaning),
    }
