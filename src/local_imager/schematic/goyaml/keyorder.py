"""The order in which the Go library writes the keys of a mapping.

Numbers and bools come first, by value; then null, texts and dates. Texts are compared naturally:
runs of digits by their number, letters after everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cmp_to_key

from local_imager.schematic.goyaml.values import KIND_STRING, key_kind

# Letters and digits of Unicode 15.0, which Go has, that Python 3.11 (Unicode 14) does not know.
_NEW_LETTERS = re.compile(
    "[\U0001123f-\U00011240\U00011f02\U00011f04-\U00011f10\U00011f12-\U00011f33\U0001342f"
    "\U00013441-\U00013446\U0001b132\U0001b155\U0001df25-\U0001df2a\U0001e030-\U0001e06d"
    "\U0001e4d0-\U0001e4eb\U0002b739\U00031350-\U000323af]"
)
_NEW_DIGITS = re.compile("[\U00011f50-\U00011f59\U0001e4f0-\U0001e4f9]")

_INT64_MASK = (1 << 64) - 1
_INT64_SIGN = 1 << 63


def sorted_entries(entries: Iterable[tuple[object, object]]) -> list[tuple[object, object]]:
    """Return the entries in the library's order of their keys."""
    return sorted(entries, key=_entry_key)


def _compare(a: tuple[object, object], b: tuple[object, object]) -> int:
    if _less(a[0], b[0]):
        return -1
    return 1 if _less(b[0], a[0]) else 0


_entry_key = cmp_to_key(_compare)


def _less(a: object, b: object) -> bool:
    a_kind, b_kind = key_kind(a), key_kind(b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        a_float, b_float = float(a), float(b)
        if a_float != b_float:
            return a_float < b_float
        return a < b if a_kind == b_kind else a_kind < b_kind
    if a_kind != KIND_STRING or b_kind != KIND_STRING:
        return a_kind < b_kind
    return _text_less(_runes(str(a)), _runes(str(b)))


def _runes(text: str) -> str:
    """Return the text as Go sees its characters: bytes that are not UTF-8 become U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def _text_less(a: str, b: str) -> bool:
    after_digit = False
    for index, (a_char, b_char) in enumerate(zip(a, b, strict=False)):
        if a_char == b_char:
            after_digit = _is_digit(a_char)
            continue
        a_letter, b_letter = _is_letter(a_char), _is_letter(b_char)
        if a_letter and b_letter:
            return a_char < b_char
        if a_letter or b_letter:
            return a_letter if after_digit else b_letter
        return _digits_less(a, b, index)
    return len(a) < len(b)


def _digits_less(a: str, b: str, index: int) -> bool:
    """Compare from the first difference on, where neither side has a letter."""
    start = 0
    if "0" in (a[index], b[index]) and _follows_nonzero_digits(a, index):
        start = 1
    a_number, a_end = _number(a, index, start)
    b_number, b_end = _number(b, index, start)
    if a_number != b_number:
        return a_number < b_number
    if a_end != b_end:
        return a_end < b_end
    return a[index] < b[index]


def _follows_nonzero_digits(text: str, index: int) -> bool:
    for char in reversed(text[:index]):
        if not _is_digit(char):
            return False
        if char != "0":
            return True
    return False


def _number(text: str, index: int, start: int) -> tuple[int, int]:
    """Return the number that the digits make, in 64 bits that wrap, and where they end."""
    number = start
    while index < len(text) and _is_digit(text[index]):
        number = (number * 10 + ord(text[index]) - ord("0")) & _INT64_MASK
        index += 1
    return (number - (1 << 64) if number & _INT64_SIGN else number), index


def _is_digit(char: str) -> bool:
    return char.isdecimal() or _NEW_DIGITS.match(char) is not None


def _is_letter(char: str) -> bool:
    return char.isalpha() or _NEW_LETTERS.match(char) is not None
