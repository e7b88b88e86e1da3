"""Which text, tag and quotes the Go library gives a scalar."""

from __future__ import annotations

import re
from base64 import b64encode
from enum import Enum
from math import copysign

from local_imager.schematic.goyaml import nodes
from local_imager.schematic.goyaml.resolver import Timestamp, implicit_tag

_OLD_BOOLS = frozenset("y Y yes Yes YES on On ON n N no No NO off Off OFF".split())
_BASE60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_BASE64_LINE_CHARS = 70
_MIN_PLAIN_EXPONENT, _MAX_PLAIN_EXPONENT = -4, 5

# All but \t \n \x20-\x7e \xa0-\ud7ff \ue000-\ufefe \uff00-\ufffd (quicker made like this).
_SPECIAL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff\U00010000-\U0010ffff]"
)
_LINE_BREAK = re.compile("[\r\n\x85\u2028\u2029]")
_SPACE_THEN_BREAK = re.compile(" [\r\n\x85\u2028\u2029]")
_BREAK_THEN_SPACE = re.compile("[\r\n\x85\u2028\u2029] ")
_COLON_THEN_BLANK = re.compile(r":(?:[ \t]|\Z)")
_HASH_AFTER_BLANK = re.compile("[ \t\r\n\x85\u2028\u2029\0]#")
_INDICATORS = frozenset("#,[]{}&*!|>'\"%@`")
_NOT_WHITE = re.compile(
    "[^\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)  # what Go counts as white space; Python counts more


class Style(Enum):
    """How a scalar is written."""

    PLAIN = "plain"
    SINGLE = "single quotes"
    DOUBLE = "double quotes"
    LITERAL = "literal block"


class Scalar:
    """A scalar ready to be written: its text, its tag (mostly empty) and the style it asks for."""

    __slots__ = ("_wanted", "tag", "text")

    def __init__(self, text: str, tag: str = "", wanted: Style = Style.PLAIN) -> None:
        self.text = text
        self.tag = tag
        self._wanted = wanted

    @property
    def multiline(self) -> bool:
        """Whether the text holds a line break."""
        return _LINE_BREAK.search(self.text) is not None

    @property
    def style(self) -> Style:
        """The style in which the text can be written."""
        text, style = self.text, self._wanted
        if style is Style.PLAIN and not _plain_allowed(text):
            style = Style.SINGLE
        if style is Style.SINGLE and not _single_allowed(text):
            return Style.DOUBLE
        if style is Style.LITERAL and not _literal_allowed(text):
            return Style.DOUBLE
        return style


def represent(value: object) -> Scalar:
    """Return the scalar for None, a bool, a number, a text or a Timestamp."""
    if value is None:
        return Scalar("null")
    if isinstance(value, bool):
        return Scalar("true" if value else "false")
    if isinstance(value, int):
        return Scalar(str(value))
    if isinstance(value, float):
        return Scalar(format_float(value))
    if isinstance(value, Timestamp):
        # An offset beyond a day is written, but not read back, so the tag must stay.
        readable = implicit_tag(value.text) == nodes.TIMESTAMP
        return Scalar(value.text, "" if readable else nodes.TIMESTAMP)
    if isinstance(value, str):
        return _represent_text(value)
    raise TypeError(f"{type(value).__name__} has no YAML form")


def _represent_text(text: str) -> Scalar:
    try:
        text.encode()
    except UnicodeEncodeError:
        encoded = _base64_lines(text.encode("utf-8", "surrogateescape"))
        return Scalar(encoded, nodes.BINARY, Style.LITERAL if "\n" in encoded else Style.PLAIN)
    if "\n" in text:
        literal = len(text) > 1 and _NOT_WHITE.search(text)
        return Scalar(text, wanted=Style.LITERAL if literal else Style.DOUBLE)
    if (
        text in _OLD_BOOLS
        or (":" in text and _BASE60.fullmatch(text))
        or implicit_tag(text) != nodes.STR
    ):
        return Scalar(text, wanted=Style.DOUBLE)
    return Scalar(text)


def _base64_lines(data: bytes) -> str:
    encoded = b64encode(data).decode()
    if len(encoded) < _BASE64_LINE_CHARS:
        return encoded
    lines = range(0, len(encoded), _BASE64_LINE_CHARS)
    return "".join(encoded[start : start + _BASE64_LINE_CHARS] + "\n" for start in lines)


def format_float(number: float) -> str:
    """Return the number as Go's shortest form, with an exponent outside of 1e-4 to 1e6."""
    if number != number:
        return ".nan"
    if number in (float("inf"), float("-inf")):
        return ".inf" if number > 0 else "-.inf"
    mantissa, _, exponent_text = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent_text or 0) - (len(whole + fraction) - len(digits))
    sign = "-" if copysign(1, number) < 0 else ""
    return sign + (_place_point(digits.rstrip("0"), point) if digits else "0")


def _place_point(digits: str, point: int) -> str:
    """Return the significant digits with the decimal point before the digit ``point``."""
    exponent = point - 1
    if not _MIN_PLAIN_EXPONENT <= exponent <= _MAX_PLAIN_EXPONENT:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def _plain_allowed(text: str) -> bool:
    """Whether a text that is not empty can stand without quotes."""
    if text[0] == " " or text[-1] == " " or _LINE_BREAK.search(text) or "\t" in text:
        return False
    return not _SPECIAL.search(text) and not _has_indicators(text)


def _has_indicators(text: str) -> bool:
    """Whether a part of the text would be read as something else than text."""
    first = text[0]
    if text.startswith(("---", "...")) or first in _INDICATORS:
        return True
    if first in "?:-" and (len(text) == 1 or text[1] in " \t"):
        return True
    return bool(_COLON_THEN_BLANK.search(text, 1) or _HASH_AFTER_BLANK.search(text))


def _single_allowed(text: str) -> bool:
    return not (
        _SPACE_THEN_BREAK.search(text)
        or _BREAK_THEN_SPACE.search(text)
        or "\t" in text
        or _SPECIAL.search(text)
    )


def _literal_allowed(text: str) -> bool:
    return not (text.endswith(" ") or _SPACE_THEN_BREAK.search(text) or _SPECIAL.search(text))
