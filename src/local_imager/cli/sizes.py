"""Sizes for people: read from options, and shown in tables and progress."""

from __future__ import annotations


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
