"""Moving over comments as the Go library does, which collects them.

What it collects is of no use here. How far it moves is: on the way from one comment line to the
next it skips tabs that are an error elsewhere, and it looks ahead at most 512 characters.
"""

from __future__ import annotations

from local_imager.schematic.goyaml.cursor import BLANKS, BREAKS, BREAKS_OR_END, Cursor
from local_imager.schematic.goyaml.errors import YamlError

_LOOKAHEAD_CHARS = 512
_WIDE_BREAKS = "\x85\u2028\u2029"  # more than one byte each: the library's look ahead trips on them


def skip_line_comment(cursor: Cursor) -> None:
    """Move over a comment that follows a token on the same line, if there is one."""
    if cursor.after_line_break:
        return
    ahead = _find(cursor, 0, BLANKS)
    if ahead is not None:
        cursor.take_line()


def skip_comment_block(cursor: Cursor) -> None:
    """Move over the comment line that begins here and the comment lines that follow it.

    Stands at the end of the last of them afterwards, before its line break.
    """
    cursor.take_line()
    while True:
        # The look ahead begins behind one character of the line break, whatever that is.
        ahead = None if cursor.char() in _WIDE_BREAKS else _find(cursor, 1, BLANKS + BREAKS)
        if ahead is None:
            return
        passed = 0
        while passed < ahead:
            cursor.need(2)
            if cursor.char() in BREAKS_OR_END:
                passed += 2 if cursor.text[cursor.pos : cursor.pos + 2] == "\r\n" else 1
                cursor.take_break()
            else:
                passed += 1
                cursor.skip()
        cursor.need(1)
        cursor.take_line()


def _find(cursor: Cursor, start: int, passable: str) -> int | None:
    """Return how far ahead the next ``#`` is, if only passable characters come before it."""
    for ahead in range(start, _LOOKAHEAD_CHARS):
        try:
            cursor.need(ahead + 1)
        except YamlError:
            return None
        current = cursor.char(ahead)
        if current == "#":
            return ahead
        if current not in passable or current in _WIDE_BREAKS:
            return None
    return None
