"""Regular expressions that mean what they mean to cosign: Go's syntax, and a search.

google-re2 is that engine. Python's own differs in anchors, flags and classes, so without
google-re2 such a pattern is not used at all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any


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
