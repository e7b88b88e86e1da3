"""What a scalar means: the Go library's mix of YAML 1.1 and 1.2.

Integers may be decimal, hexadecimal (0x), octal (0o or a leading 0) or binary (0b), with
underscores; there are no base 60 numbers; ``yes``, ``on`` and the like are strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from local_imager.schematic.goyaml import nodes
from local_imager.schematic.goyaml.timestamps import canonical_timestamp


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A point in time, as the RFC 3339 text that Go writes for it."""

    text: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A scalar's type and value: None, bool, int, float, str or Timestamp."""

    tag: str
    value: object


class TagMismatch(Exception):
    """A scalar's text is not of the type that its explicit tag names."""


_WORDS: dict[str, Resolved] = {
    word: Resolved(tag, value)
    for words, tag, value in (
        ("true True TRUE", nodes.BOOL, True),
        ("false False FALSE", nodes.BOOL, False),
        ("~ null Null NULL", nodes.NULL, None),
        (".nan .NaN .NAN", nodes.FLOAT, float("nan")),
        (".inf .Inf .INF +.inf +.Inf +.INF", nodes.FLOAT, float("inf")),
        ("-.inf -.Inf -.INF", nodes.FLOAT, float("-inf")),
        ("-0 -0.0", nodes.FLOAT, -0.0),
        ("<<", nodes.MERGE, "<<"),
    )
    for word in words.split()
} | {"": Resolved(nodes.NULL, None)}

_RESOLVABLE = frozenset({"", nodes.BOOL, nodes.INT, nodes.FLOAT, nodes.NULL, nodes.TIMESTAMP})
_NUMBER_STARTS = frozenset("+-0123456789")
_INTEGER = re.compile(
    "(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[oO](?P<octal>[0-7]+)|0[bB](?P<binary>[01]+)"
    "|(?P<legacy>0[0-7]*)|(?P<decimal>[1-9][0-9]*))"
)
_BASES = {"hex": 16, "octal": 8, "binary": 2, "legacy": 8, "decimal": 10}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_POINT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")
_MAX_INTEGER_DIGITS = 80  # binary digits of 64 bits, with room; more never fit

INT64_MIN, INT64_MAX, UINT64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1


def resolve(tag: str, text: str) -> Resolved:
    """Return type and value of a scalar; ``tag`` is its explicit tag, or empty.

    A tag that names no type to check against comes back with the text as value. Raises
    TagMismatch when the text is not of the type that the tag names.
    """
    if tag not in _RESOLVABLE:
        return Resolved(tag, text)
    found = _resolve_plain(text, try_timestamp=tag in ("", nodes.TIMESTAMP))
    if tag in ("", found.tag):
        return found
    number = found.value
    if tag == nodes.FLOAT and found.tag == nodes.INT and isinstance(number, int):
        if number <= INT64_MAX:
            return Resolved(nodes.FLOAT, float(number))
    raise TagMismatch


def implicit_tag(text: str) -> str:
    """Return the type that a plain scalar with this text has."""
    return _resolve_plain(text, try_timestamp=True).tag


def _resolve_plain(text: str, *, try_timestamp: bool) -> Resolved:
    word = _WORDS.get(text)
    if word is not None:
        return word
    if text[0] == ".":
        return _float_or_text(text, _POINT_FLOAT, text)
    if text[0] not in _NUMBER_STARTS:
        return Resolved(nodes.STR, text)
    if try_timestamp:
        moment = canonical_timestamp(text)
        if moment is not None:
            return Resolved(nodes.TIMESTAMP, Timestamp(moment))
    plain = text.replace("_", "")
    number = _parse_integer(plain)
    if number is not None:
        return Resolved(nodes.INT, number)
    return _float_or_text(plain, _FLOAT, text)


def _parse_integer(plain: str) -> int | None:
    found = _INTEGER.fullmatch(plain)
    if not found:
        return None
    base, digits = next((b, found[name]) for name, b in _BASES.items() if found[name] is not None)
    significant = digits.lstrip("0")
    if len(significant) > _MAX_INTEGER_DIGITS:
        return None
    magnitude = int(significant or "0", base)
    number = -magnitude if found["sign"] == "-" else magnitude
    if INT64_MIN <= number <= INT64_MAX:
        return number
    # Beyond 63 bits only an unsigned number without any sign is an integer.
    return number if not found["sign"] and number <= UINT64_MAX else None


def _float_or_text(digits: str, pattern: re.Pattern[str], text: str) -> Resolved:
    if pattern.fullmatch(digits):
        number = float(digits)
        if number not in (float("inf"), float("-inf")):
            return Resolved(nodes.FLOAT, number)
    return Resolved(nodes.STR, text)
