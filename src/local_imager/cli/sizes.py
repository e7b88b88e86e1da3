"""Sizes for people: read from options, and shown in tables and progress."""

from __future__ import annotations

import re
from typing import Final

from local_imager.errors import InputError

_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([kmgt]?)(i?)b?")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Read a size in bytes: ``3900MiB``, ``4GB`` (of a thousand each, as media are sold), ``512``.

    Raises :class:`InputError`.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or (match[3] and not match[2]):
        raise InputError(
            f"{text[:40]!r} is not a size", hint="write 3900MiB, 4GB or a number of bytes"
        )
    thousands = match[2] and not match[3] and text.strip().lower().endswith("b")
    size_bytes = int(float(match[1]) * (1000 if thousands else 1024) ** _POWERS[match[2]])
    if size_bytes < 1:
        raise InputError(f"{text[:40]!r} is no room at all", hint="write 3900MiB or 4GB")
    return size_bytes


def human_size(size_bytes: int) -> str:
    """Return a size in binary units (``4.1 GiB``)."""
    amount, unit = float(size_bytes), "B"
    for following in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, following
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def counted(number: int, word: str) -> str:
    """Return a number with its noun: ``1 blob``, ``3 blobs``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
