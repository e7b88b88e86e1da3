"""What can be wrong with a bundle's file, each with the images and assets that it touches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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
        """Return the JSON object that ``--json`` prints."""
        return {
            "kind": self.kind,
            "member": self.member,
            "text": self.text,
            "affects": list(self.affects),
        }
