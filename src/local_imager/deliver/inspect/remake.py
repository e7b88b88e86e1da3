"""How a file could be made again: its schematic and the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Remake:
    """The schematic and the command that make the file again.

    ``schematic`` is the text to write into the file that ``command`` names. ``guessed`` is empty
    when the file itself carries that text, else it says what the text was put together from.
    """

    schematic: str
    schematic_id: str
    asset: str
    version: str
    command: str
    guessed: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "schematic": self.schematic,
            "schematic_id": self.schematic_id,
            "asset": self.asset,
            "version": self.version,
            "command": self.command,
            "guessed": self.guessed or None,
            "notes": list(self.notes),
        }
