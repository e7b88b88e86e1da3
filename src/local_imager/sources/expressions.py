"""Regular expressions that mean what they mean to cosign: Go's syntax, and a search.

google-re2 is that engine. Python's own differs in anchors, flags and classes, so without
google-re2 such a pattern is not used at all.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

# One piece of a pattern: a quoted run, an escape, a class, a group's begin, a counted repetition,
# or any other character. Order matters.
_PIECE: Final = re.compile(
    r"\\Q.*?(?:\\E|$)|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\((?:\?(?:P?<\w+>|[\w-]*:?))?"
    r"|\{\d+(?:,\d*)?\}|.",
    re.DOTALL,
)


class EngineMissing(Exception):
    """google-re2 is not installed."""


@lru_cache(maxsize=64)
def compiled(expression: str) -> Any:
    """Return the compiled pattern; raises :class:`EngineMissing`, or ``ValueError`` for its fault.

    The pattern's ``search`` is what cosign does.
    """
    try:
        import re2
    except ImportError as error:
        raise EngineMissing from error
    options = re2.Options()
    # Faults are ours to report; the engine would write them to the terminal.
    options.log_errors = False
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        raise ValueError("not a regular expression in Go's syntax") from error


def is_open(expression: str) -> bool:
    """Say whether a search with the pattern can match in the middle of a longer name.

    That is so when one of its alternatives is anchored at neither end. The pattern is one that
    Go's engine takes (``compiled``); where this reading is in doubt it says open.
    """
    pieces = [match[0] for match in _PIECE.finditer(expression)]
    anchored, _ = _anchored(pieces, 0)
    return not anchored


def _anchored(pieces: list[str], at: int) -> tuple[bool, int]:
    """Read alternatives up to the group's end; say whether each of them holds an anchor."""
    every, some = True, False
    while at < len(pieces):
        piece = pieces[at]
        at += 1
        held = piece in ("^", "$", "\\A", "\\z")
        if piece == ")":
            break
        if piece == "|":
            every, some = every and some, False
        elif piece.startswith("("):
            held, at = _anchored(pieces, at)
        # What may be left out does not hold the pattern to an end.
        optional = at < len(pieces) and (pieces[at] in ("?", "*") or pieces[at][:2] == "{0")
        some = some or (held and not optional)
    return every and some, at
