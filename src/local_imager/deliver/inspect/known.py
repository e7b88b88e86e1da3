"""The build in the store that made a file, found by the file's digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Known:
    """The asset of the store whose bytes these are, and the outline of its build record.

    ``builder`` is the version of the imager that ran, ``exact`` whether it did every step itself.
    Fields of the record are empty where the store has none.
    """

    name: str
    asset: str
    version: str
    schematic_id: str
    build_key: str
    private: bool
    builder: str = ""
    builder_image: str = ""
    tool: str = ""
    started_at: str = ""
    exact: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "name": self.name,
            "asset": self.asset,
            "version": self.version,
            "schematic_id": self.schematic_id,
            "build_key": self.build_key,
            "private": self.private,
            "builder": self.builder or None,
            "builder_image": self.builder_image or None,
            "tool": self.tool or None,
            "started_at": self.started_at or None,
            "exact": self.exact,
        }
