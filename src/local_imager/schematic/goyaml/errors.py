"""The one error of the YAML reader, with the place in the input."""

from __future__ import annotations


class YamlError(Exception):
    """The input is not YAML that the factory's library reads.

    ``line`` and ``column`` count from 1; both are 0 where the place is not known. ``hint`` says
    what to write instead, where that is known.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line
        self.column = column
