"""Values to the text that the Go library writes for them: four spaces, block style, no folding.

The layout state (column, whether white space or an indentation character came last) is kept as
the library keeps it, since its odd corners, such as lists in lists, follow from that state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from local_imager.schematic.goyaml.keyorder import sorted_entries
from local_imager.schematic.goyaml.scalarstyle import Scalar, Style, represent
from local_imager.schematic.goyaml.values import mapping_items

_INDENT = 4
_ITEM_INDENT = 2  # what stands in a list item lines up behind its "- "
_MAX_SIMPLE_KEY_BYTES = 128
_BREAKS = re.compile("([\n\x85\u2028\u2029])")

_NAMED_ESCAPES = {
    0x00: "0",
    0x07: "a",
    0x08: "b",
    0x09: "t",
    0x0A: "n",
    0x0B: "v",
    0x0C: "f",
    0x0D: "r",
    0x1B: "e",
    0x22: '"',
    0x5C: "\\",
    0x85: "N",
    0xA0: "_",
    0x2028: "L",
    0x2029: "P",
}
_NEEDS_ESCAPE = re.compile(
    # All but \x20-\x7e without " and \, \xa0-\u2027, \u202a-\ud7ff, \ue000-\ufefe, \uff00-\ufffd.
    r"[\0-\x1f\x22\x5c\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff\U00010000-\U0010ffff]"
)
_ANY_CHAR = re.compile("(?s).")
_BOM = "\ufeff"


def emit(entries: Iterable[tuple[str, object]]) -> str:
    """Return the text of a mapping whose entries come in the order given.

    The mappings further in are sorted as the library sorts them; ``Fields`` are not.
    """
    emitter = _Emitter()
    emitter.mapping(list(entries), 0)
    emitter.start_line(0)
    return "".join(emitter.parts)


class Fields(list[tuple[str, object]]):
    """The entries of a struct: written in this order."""


class _Emitter:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._column = 0
        self._whitespace = True  # was white space, or the start of a line, written last?
        self._indention = True  # is there only indentation on this line so far?

    def mapping(self, entries: Sequence[tuple[object, object]], indent: int) -> None:
        for key, value in entries:
            scalar = represent(key)
            self.start_line(indent)
            if _is_simple_key(scalar):
                self._scalar(scalar, indent)
                self._indicator(":", spaced=False)
            else:
                self._indicator("?", keeps_indention=True)
                self._scalar(scalar, _inner_indent(indent))
                self.start_line(indent)
                self._indicator(":", keeps_indention=True)
            self._node(value, _inner_indent(indent))

    def _sequence(self, items: Sequence[object], indent: int) -> None:
        for item in items:
            self.start_line(indent)
            self._indicator("-", keeps_indention=True)
            self._node(item, indent + _ITEM_INDENT)

    def _node(self, value: object, indent: int) -> None:
        """Write a value; ``indent`` is where its content stands if it takes several lines."""
        if isinstance(value, list | tuple) and not isinstance(value, Fields):
            if value:
                self._sequence(value, indent)
            else:
                self._indicator("[", then_space=True)
                self._indicator("]", spaced=False)
            return
        entries = value if isinstance(value, Fields) else mapping_items(value)
        if entries is None:
            self._scalar(represent(value), indent)
        elif entries:
            ordered = entries if isinstance(entries, Fields) else sorted_entries(entries)
            self.mapping(ordered, indent)
        else:
            self._indicator("{", then_space=True)
            self._indicator("}", spaced=False)

    def _scalar(self, scalar: Scalar, indent: int) -> None:
        if scalar.tag:
            self._space()
            self._write(scalar.tag)
            self._whitespace = self._indention = False
        style = scalar.style
        if style is Style.LITERAL:
            self._literal(scalar.text, indent)
        elif style is Style.DOUBLE:
            self._indicator('"' + _escaped(scalar.text) + '"')
        elif style is Style.SINGLE:
            self._single(scalar.text, indent)
        else:
            self._indicator(scalar.text)

    def _single(self, text: str, indent: int) -> None:
        self._indicator("'")
        self._lines(text.replace("'", "''"), indent)
        self._indicator("'", spaced=False)

    def _literal(self, text: str, indent: int) -> None:
        hint = str(_INDENT) if text.startswith(" ") else ""
        self._indicator("|" + hint + _chomping(text))
        self._break("\n")
        self._whitespace = True
        self._lines(text, indent)

    def _lines(self, text: str, indent: int) -> None:
        """Write text that may hold line breaks, each line of it at the indentation."""
        at_break = self._column == 0
        for piece in _BREAKS.split(text):
            if not piece:
                continue
            if _BREAKS.fullmatch(piece):
                self._break(piece)
                at_break = True
                continue
            if at_break:
                self.start_line(indent)
            self._write(piece)
            self._indention = False
            at_break = False

    def start_line(self, indent: int) -> None:
        """Begin a line at the indentation, unless the place is there already."""
        if (
            not self._indention
            or self._column > indent
            or (self._column == indent and not self._whitespace)
        ):
            self._break("\n")
        if self._column < indent:
            self._write(" " * (indent - self._column))
        self._whitespace = True

    def _indicator(
        self,
        text: str,
        *,
        spaced: bool = True,
        then_space: bool = False,
        keeps_indention: bool = False,
    ) -> None:
        if spaced:
            self._space()
        self._write(text)
        self._whitespace = then_space
        self._indention = self._indention and keeps_indention

    def _space(self) -> None:
        if not self._whitespace:
            self._write(" ")

    def _write(self, text: str) -> None:
        self.parts.append(text)
        self._column += len(text)

    def _break(self, character: str) -> None:
        self.parts.append(character)
        self._column = 0
        self._indention = True


def _inner_indent(indent: int) -> int:
    """Return the next multiple of the indentation: also behind a list item that is off it."""
    return (indent + _INDENT) // _INDENT * _INDENT


def _is_simple_key(scalar: Scalar) -> bool:
    size = len(scalar.tag) + len(scalar.text.encode())
    return not scalar.multiline and size <= _MAX_SIMPLE_KEY_BYTES


def _chomping(text: str) -> str:
    """Return ``-`` for text without a final line break and ``+`` for several of them."""
    breaks = "\n\x85\u2028\u2029"
    if text[-1] not in breaks:
        return "-"
    return "+" if len(text) == 1 or text[-2] in breaks else ""


def _escaped(text: str) -> str:
    # A byte order mark at the start makes the library escape all of the text.
    pattern = _ANY_CHAR if text.startswith(_BOM) else _NEEDS_ESCAPE
    return pattern.sub(lambda found: _escape(ord(found.group())), text)


def _escape(code: int) -> str:
    named = _NAMED_ESCAPES.get(code)
    if named:
        return "\\" + named
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
