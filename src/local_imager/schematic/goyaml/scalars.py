"""Scanning of plain, quoted and block scalars."""

from __future__ import annotations

import re

from local_imager.schematic.goyaml.cursor import (
    BLANKS,
    BLANKS_BREAKS_OR_END,
    BREAKS,
    BREAKS_OR_END,
    Cursor,
)
from local_imager.schematic.goyaml.reader import END
from local_imager.schematic.goyaml.tokens import Mark, Token, TokenKind

_PLAIN_RUN = re.compile(rf"[^{BLANKS_BREAKS_OR_END}:,?\[\]{{}}]*")
_SINGLE_RUN = re.compile(f"[^{BLANKS_BREAKS_OR_END}']*")
_DOUBLE_RUN = re.compile(rf'[^{BLANKS_BREAKS_OR_END}"\\]*')

_ESCAPES = {
    "0": "\0",
    "a": "\x07",
    "b": "\x08",
    "t": "\t",
    "\t": "\t",
    "n": "\n",
    "v": "\x0b",
    "f": "\x0c",
    "r": "\r",
    "e": "\x1b",
    " ": " ",
    '"': '"',
    "'": "'",
    "\\": "\\",
    "N": "\x85",
    "_": "\xa0",
    "L": "\u2028",
    "P": "\u2029",
}
_CODE_LENGTHS = {"x": 2, "u": 4, "U": 8}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class _LineFolder:
    """The white space between two runs of text: kept within a line, folded across lines."""

    __slots__ = ("_breaks", "_first_break", "_white", "crossed_line")

    def __init__(self) -> None:
        self._white: list[str] = []
        self._first_break = ""
        self._breaks: list[str] = []
        self.crossed_line = False

    def skip_space(self, cursor: Cursor, tab_limit: int = 0) -> None:
        """Take in blanks and line breaks; a tab before column ``tab_limit`` is an error."""
        while cursor.char() in BLANKS + BREAKS:
            if cursor.char() in BLANKS:
                if self.crossed_line and cursor.column < tab_limit and cursor.char() == "\t":
                    cursor.fail("a tab stands where the indentation must be made of spaces")
                blank = cursor.take()
                if not self.crossed_line:
                    self._white.append(blank)
            else:
                cursor.need(2)
                taken = cursor.take_break()
                if self.crossed_line:
                    self._breaks.append(taken)
                else:
                    self._white.clear()
                    self._first_break = taken
                    self.crossed_line = True
            cursor.need(1)

    def join(self) -> str:
        """Return what the white space amounts to, and forget it."""
        if not self.crossed_line:
            joined = "".join(self._white)
            self._white.clear()
            return joined
        breaks = "".join(self._breaks)
        joined = breaks or " " if self._first_break == "\n" else self._first_break + breaks
        self._first_break = ""
        self._breaks.clear()
        self.crossed_line = False
        return joined


def scan_plain(cursor: Cursor, indent: int, in_flow: bool) -> tuple[Token, bool]:
    """Scan a plain scalar; also tell whether it ended on a later line than its last text.

    ``indent`` is the column from which a continuation line may begin.
    """
    mark = cursor.mark
    parts: list[str] = []
    folder = _LineFolder()
    while True:
        cursor.need(4)
        if cursor.at_document_indicator() or cursor.char() == "#":
            break
        while cursor.char() not in BLANKS_BREAKS_OR_END and not _ends_plain(cursor, in_flow):
            parts.append(folder.join())
            parts.append(cursor.take())
            parts.append(cursor.take_run(_PLAIN_RUN, 2))
            cursor.need(2)
        if cursor.char() not in BLANKS + BREAKS:
            break
        cursor.need(1)
        folder.skip_space(cursor, tab_limit=indent)
        if not in_flow and cursor.column < indent:
            break
    return Token(TokenKind.SCALAR, mark, "".join(parts), plain=True), folder.crossed_line


def _ends_plain(cursor: Cursor, in_flow: bool) -> bool:
    current, following = cursor.char(), cursor.char(1)
    if current == ":" and following in BLANKS_BREAKS_OR_END:
        return True
    if not in_flow:
        return False
    if current == "?":
        return following in BLANKS_BREAKS_OR_END
    return current in ",[]{}" or (current == ":" and following in ",]}")


def scan_quoted(cursor: Cursor, quote: str) -> Token:
    """Scan a scalar in single or double quotes; raises YamlError when it is not closed."""
    mark = cursor.mark
    cursor.skip()
    run = _SINGLE_RUN if quote == "'" else _DOUBLE_RUN
    parts: list[str] = []
    while True:
        folder = _LineFolder()
        cursor.need(4)
        if cursor.at_document_indicator():
            cursor.fail("a document marker stands inside a quoted text", mark)
        if cursor.char() == END:
            cursor.fail("the quoted text is not closed", mark)
        while cursor.char() not in BLANKS_BREAKS_OR_END:
            current = cursor.char()
            if current == quote == "'" and cursor.char(1) == "'":
                parts.append("'")
                cursor.skip(2)
            elif current == quote:
                break
            elif current == "\\" and quote == '"':
                if cursor.char(1) in BREAKS:
                    cursor.need(3)
                    cursor.skip()
                    cursor.take_break()
                    folder.crossed_line = True
                    break
                parts.append(_scan_escape(cursor, mark))
            else:
                parts.append(cursor.take())
                parts.append(cursor.take_run(run, 2))
            cursor.need(2)
        cursor.need(1)
        if cursor.char() == quote:
            break
        folder.skip_space(cursor)
        parts.append(folder.join())
    cursor.skip()
    return Token(TokenKind.SCALAR, mark, "".join(parts))


def _scan_escape(cursor: Cursor, mark: Mark) -> str:
    letter = cursor.char(1)
    plain = _ESCAPES.get(letter)
    length = _CODE_LENGTHS.get(letter, 0)
    if plain is None and not length:
        cursor.fail("this escape is not known in double quotes (write \\\\ for a backslash)")
    cursor.skip(2)
    if plain is not None:
        return plain
    cursor.need(length)
    digits = cursor.text[cursor.pos : cursor.pos + length]
    if not set(digits) <= _HEX_DIGITS:
        cursor.fail("the escape needs hexadecimal digits", mark)
    code = int(digits, 16)
    if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
        cursor.fail("the escape does not name a Unicode character", mark)
    cursor.skip(length)
    return chr(code)


def scan_block(cursor: Cursor, literal: bool, parent_indent: int) -> Token:
    """Scan a literal (``|``) or folded (``>``) block scalar."""
    mark = cursor.mark
    cursor.skip()
    chomping, increment = _scan_block_header(cursor, mark)
    indent = 0
    if increment:
        indent = parent_indent + increment if parent_indent >= 0 else increment + 1
    parts: list[str] = []
    leading_break = ""
    indent, breaks = _scan_block_breaks(cursor, indent, parent_indent)
    follows_blank = False
    while cursor.column == indent and cursor.char() != END:
        begins_blank = cursor.char() in BLANKS
        if not literal and not follows_blank and not begins_blank and leading_break == "\n":
            parts.append("" if breaks else " ")
        else:
            parts.append(leading_break)
        parts.append(breaks)
        follows_blank = begins_blank
        parts.append(cursor.take_line())
        cursor.need(2)
        leading_break = cursor.take_break()
        indent, breaks = _scan_block_breaks(cursor, indent, parent_indent)
    if chomping != "-":
        parts.append(leading_break)
    if chomping == "+":
        parts.append(breaks)
    return Token(TokenKind.SCALAR, mark, "".join(parts))


def _scan_block_header(cursor: Cursor, mark: Mark) -> tuple[str, int]:
    """Return the chomping sign and the indentation number, and move to the next line."""
    chomping = ""
    increment = 0
    cursor.need(1)
    if cursor.char() in "+-":
        chomping = cursor.take()
        cursor.need(1)
        increment = _scan_increment(cursor)
    else:
        increment = _scan_increment(cursor)
        if increment:
            cursor.need(1)
            chomping = cursor.take() if cursor.char() in "+-" else ""
    cursor.need(1)
    cursor.skip_blanks()
    if cursor.char() == "#":
        cursor.take_line()
    if cursor.char() not in BREAKS_OR_END:
        cursor.fail("a block text begins on the line after its indicator", mark)
    if cursor.char() in BREAKS:
        cursor.need(2)
        cursor.take_break()
    return chomping, increment


def _scan_increment(cursor: Cursor) -> int:
    if cursor.char() not in "0123456789":
        return 0
    if cursor.char() == "0":
        cursor.fail("the indentation of a block text cannot be 0")
    return int(cursor.take())


def _scan_block_breaks(cursor: Cursor, indent: int, parent_indent: int) -> tuple[int, str]:
    """Move over empty lines and indentation; return the indentation and the line breaks."""
    breaks: list[str] = []
    widest = 0
    while True:
        cursor.need(1)
        while (indent == 0 or cursor.column < indent) and cursor.char() == " ":
            cursor.skip()
            cursor.need(1)
        widest = max(widest, cursor.column)
        if (indent == 0 or cursor.column < indent) and cursor.char() == "\t":
            cursor.fail("a tab stands where the indentation must be made of spaces")
        if cursor.char() not in BREAKS:
            break
        cursor.need(2)
        breaks.append(cursor.take_break())
    return indent or max(widest, parent_indent + 1, 1), "".join(breaks)
