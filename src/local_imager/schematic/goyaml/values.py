"""Values of free form, as a document's ``any`` field holds them.

They are None, bool, int, float, str, Timestamp, a tuple of values, a mapping from str to values,
or a MixedMap. A str may hold bytes that are not UTF-8 (from ``!!binary``) as surrogate escapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from local_imager.schematic.goyaml.resolver import INT64_MAX, Timestamp

# Go's order of kinds, by which keys of different kinds are sorted.
KIND_BOOL = 1
KIND_INT = 2
KIND_UINT64 = 11
KIND_FLOAT64 = 14
KIND_NULL = 20
KIND_STRING = 24
KIND_TIMESTAMP = 25


@dataclass(frozen=True, slots=True)
class MixedMap:
    """A mapping with keys that are not all strings; ``1``, ``1.0`` and ``true`` are three keys."""

    entries: tuple[tuple[object, object], ...]


def key_kind(key: object) -> int:
    """Return the rank of the key's kind in Go's order."""
    if isinstance(key, bool):
        return KIND_BOOL
    if isinstance(key, int):
        return KIND_UINT64 if key > INT64_MAX else KIND_INT
    if isinstance(key, float):
        return KIND_FLOAT64
    if isinstance(key, str):
        return KIND_STRING
    return KIND_NULL if key is None else KIND_TIMESTAMP


def mapping_items(value: object) -> list[tuple[object, object]] | None:
    """Return the entries of a mapping of either form, or None for any other value."""
    if isinstance(value, MixedMap):
        return list(value.entries)
    if isinstance(value, Mapping):
        return list(value.items())
    return None


__all__ = ["MixedMap", "Timestamp", "key_kind", "mapping_items"]
