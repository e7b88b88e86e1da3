"""What can be wrong with a bundle's file, each with the images and assets that it touches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from local_imager.events import printable

# More than a person reads; a file of nothing but faults must not fill the memory.
MAX_FAULTS: Final = 1000
_MAX_SHOWN: Final = 200
# So many names are written with each fault, else a thousand faults of as many items fill a disk.
MAX_AFFECTS: Final = 100

FaultKind = Literal[
    "bit-flip",
    "missing",
    "extra",
    "wrong-order",
    "hostile-path",
    "link",
    "device",
    "sparse",
    "count",
    "duplicate",
    "ratio",
    "truncated",
    "header",
    "padding",
    "trailing",
    "manifest",
    "label",
    "compression",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``member`` is the tar member it was found at (printable, may be empty).

    ``text`` is a sentence for a person; ``affects`` are the names of the items that cannot be
    used because of it. A fault that touches none (an extra file) is a fault all the same.
    """

    kind: FaultKind
    member: str
    text: str
    affects: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``--json`` prints; ``more_affects`` counts other names."""
        return {
            "kind": self.kind,
            "member": self.member,
            "text": self.text,
            "affects": list(self.affects[:MAX_AFFECTS]),
            "more_affects": max(0, len(self.affects) - MAX_AFFECTS),
        }


class FaultList:
    """Collects faults; those beyond a ceiling are counted only."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.more = 0

    def add(
        self, kind: FaultKind, untrusted_member: str, text: str, affects: tuple[str, ...] = ()
    ) -> None:
        """Note a fault; the member's name is made printable."""
        if self.full:
            self.more += 1
            return
        member = printable(untrusted_member, limit=_MAX_SHOWN)
        self.kept.append(Fault(kind, member, printable(text), affects))

    @property
    def count(self) -> int:
        """How many faults were noted."""
        return len(self.kept) + self.more

    @property
    def full(self) -> bool:
        """Whether more faults are only counted."""
        return len(self.kept) >= MAX_FAULTS


class Ended(Exception):
    """The stream cannot be followed any further; why, at which member, and what it broke off."""

    def __init__(
        self, kind: FaultKind, untrusted_member: str, text: str, broken: int | None = None
    ) -> None:
        super().__init__(text)
        self.kind, self.untrusted_member, self.text = kind, untrusted_member, text
        self.broken = broken
