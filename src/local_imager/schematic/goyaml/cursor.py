"""A position in the input: line, column and the ways to move on.

Every method moves over exactly the characters that the Go library's does. ``need`` comes before
each look ahead, as there, because it decides which window of the input is decoded.
"""

from __future__ import annotations

import re
from typing import NoReturn

from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.reader import END, Reader
from local_imager.schematic.goyaml.tokens import Mark

BLANKS = " \t"
BREAKS = "\r\n\x85\u2028\u2029"
BREAKS_OR_END = BREAKS + END
BLANKS_BREAKS_OR_END = BLANKS + BREAKS_OR_END

_TO_LINE_END = re.compile(f"[^{BREAKS_OR_END}]*")


class Cursor(Reader):
    """The place where the scanner stands."""

    __slots__ = ("after_line_break", "column", "line")

    def __init__(self, untrusted_data: bytes) -> None:
        super().__init__(untrusted_data)
        self.line = 1
        self.column = 1
        self.after_line_break = False  # only blanks since the last line break?

    @property
    def mark(self) -> Mark:
        """The current place."""
        return Mark(self.line, self.column)

    def char(self, ahead: int = 0) -> str:
        """Return the character ``ahead`` of the position; ``END`` behind what is visible."""
        index = self.pos + ahead
        return self.text[index] if index < len(self.text) else END

    def skip(self, count: int = 1) -> None:
        """Move over ``count`` characters of this line."""
        for index in range(self.pos, self.pos + count):
            if index < len(self.text) and self.text[index] not in BLANKS:
                self.after_line_break = False
                break
        self.pos += count
        self.column += count

    def take(self) -> str:
        """Return the current character and move over it."""
        taken = self.char()
        self.skip()
        return taken

    def take_run(self, pattern: re.Pattern[str], lookahead: int) -> str:
        """Return what ``pattern`` matches here, leaving ``lookahead - 1`` visible characters.

        The caller asks again after ``need(lookahead)``, so long runs cross windows at the same
        places as one character at a time would.
        """
        found = pattern.match(self.text, self.pos, max(self.pos, len(self.text) - lookahead + 1))
        run = found.group() if found else ""
        if run:
            self.skip(len(run))
        return run

    def take_line(self) -> str:
        """Return the rest of the line, without its break."""
        parts = []
        while self.char() not in BREAKS_OR_END:
            parts.append(self.take_run(_TO_LINE_END, 1))
            self.need(1)
        return "".join(parts)

    def take_break(self) -> str:
        """Move over a line break and return it normalised; nothing when there is none."""
        current = self.char()
        if current not in BREAKS:
            return ""
        self.pos += 2 if current == "\r" and self.char(1) == "\n" else 1
        self.line += 1
        self.column = 1
        self.after_line_break = True
        return current if current in "\u2028\u2029" else "\n"

    def skip_blanks(self) -> None:
        """Move over spaces and tabs."""
        while self.char() in BLANKS:
            self.skip()
            self.need(1)

    def at_document_indicator(self) -> bool:
        """Whether ``---`` or ``...`` begins this line; needs four visible characters."""
        return (
            self.column == 1
            and self.text[self.pos : self.pos + 3] in ("---", "...")
            and self.char(3) in BLANKS_BREAKS_OR_END
        )

    def fail(self, message: str, mark: Mark | None = None) -> NoReturn:
        """Raise YamlError for the given place, by default the current one."""
        place = mark or self.mark
        raise YamlError(message, place.line, place.column)
