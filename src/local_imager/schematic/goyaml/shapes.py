"""What a field of a document may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    name: str = "a text"


@dataclass(frozen=True, slots=True)
class Bool:
    """A bool."""

    name: str = "true or false"


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A whole number from 0 to ``maximum``."""

    maximum: int

    @property
    def name(self) -> str:
        """What is expected, in words."""
        return f"a whole number from 0 to {self.maximum}"


@dataclass(frozen=True, slots=True)
class Enumerated:
    """A word out of a set; ``parse`` returns its value or None when it is not in the set."""

    name: str
    parse: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of which each item has the same shape."""

    name: str
    item: Shape


@dataclass(frozen=True, slots=True)
class Struct:
    """A mapping with known keys; reading gives a dict that holds the fields that were set."""

    name: str
    fields: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FreeMap:
    """A mapping from strings to values of any form."""

    name: str = "a mapping"


@dataclass(frozen=True, slots=True)
class Anything:
    """A value of any form."""

    name: str = "any value"


Shape = Text | Bool | Unsigned | Enumerated | ListOf | Struct | FreeMap | Anything
