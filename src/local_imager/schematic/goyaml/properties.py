"""Scanning of directives, tags, anchors and aliases."""

from __future__ import annotations

import re

from local_imager.schematic.goyaml.cursor import (
    BLANKS,
    BLANKS_BREAKS_OR_END,
    BREAKS,
    BREAKS_OR_END,
    Cursor,
)
from local_imager.schematic.goyaml.tokens import Mark, Token, TokenKind

_WORD_RUN = re.compile("[0-9A-Za-z_-]*")
_ANCHOR_CHARS = frozenset(map(chr, range(0x21, 0x7F))) - frozenset(":,[]{}")
_AFTER_ANCHOR = BLANKS_BREAKS_OR_END + "?:,]}%@`"
_URI_CHARS = frozenset(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-;/?:@&=+$.!~*'()%"
)
_VERBATIM_URI_CHARS = _URI_CHARS | frozenset(",[]{}")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_MAX_VERSION_DIGITS = 2


def scan_anchor(cursor: Cursor, kind: TokenKind) -> Token:
    """Scan an anchor or an alias."""
    mark = cursor.mark
    cursor.skip()
    cursor.need(1)
    name: list[str] = []
    while cursor.char() in _ANCHOR_CHARS and not cursor.starts_with_bom:
        name.append(cursor.take())
        cursor.need(1)
    if not name or cursor.char() not in _AFTER_ANCHOR:
        cursor.fail(f"{kind.value} needs a name of ASCII letters and digits", mark)
    return Token(kind, mark, "".join(name))


def scan_tag(cursor: Cursor) -> Token:
    """Scan a tag; its token holds the handle and the suffix."""
    mark = cursor.mark
    cursor.need(2)
    if cursor.char(1) == "<":
        cursor.skip(2)
        handle = ""
        suffix = _scan_uri(cursor, "", verbatim=True)
        if cursor.char() != ">":
            cursor.fail("the tag is not closed by '>'", mark)
        cursor.skip()
    else:
        handle = _scan_handle(cursor, in_directive=False)
        if len(handle) > 1 and handle.endswith("!"):
            suffix = _scan_uri(cursor, "", verbatim=False)
        else:
            suffix = _scan_uri(cursor, handle, verbatim=False)
            handle, suffix = ("!", suffix) if suffix else ("", "!")
    cursor.need(1)
    if cursor.char() not in BLANKS_BREAKS_OR_END:
        cursor.fail("a tag must be followed by a space or a line break", mark)
    return Token(TokenKind.TAG, mark, handle, suffix)


def scan_directive(cursor: Cursor) -> Token:
    """Scan a %YAML or %TAG line; raises YamlError for any other directive."""
    mark = cursor.mark
    cursor.skip()
    cursor.need(1)
    name = _scan_word(cursor)
    if cursor.char() not in BLANKS_BREAKS_OR_END or name not in ("YAML", "TAG"):
        cursor.fail("only the directives %YAML and %TAG are known", mark)
    if name == "YAML":
        token = Token(TokenKind.VERSION_DIRECTIVE, mark, extra=_scan_version(cursor, mark))
    else:
        token = _scan_tag_directive(cursor, mark)
    cursor.need(1)
    cursor.skip_blanks()
    if cursor.char() == "#":
        cursor.take_line()
    if cursor.char() not in BREAKS_OR_END:
        cursor.fail("nothing but a comment may follow a directive", mark)
    if cursor.char() in BREAKS:
        cursor.need(2)
        cursor.take_break()
    return token


def _scan_version(cursor: Cursor, mark: Mark) -> str:
    cursor.need(1)
    cursor.skip_blanks()
    major = _scan_number(cursor, mark)
    if cursor.char() != ".":
        cursor.fail("%YAML needs a version such as 1.1", mark)
    cursor.skip()
    minor = _scan_number(cursor, mark)
    return f"{int(major)}.{int(minor)}"


def _scan_number(cursor: Cursor, mark: Mark) -> str:
    cursor.need(1)
    digits: list[str] = []
    while cursor.char() in "0123456789":
        digits.append(cursor.take())
        if len(digits) > _MAX_VERSION_DIGITS:
            cursor.fail("the number in the %YAML version is too long", mark)
        cursor.need(1)
    if not digits:
        cursor.fail("%YAML needs a version such as 1.1", mark)
    return "".join(digits)


def _scan_tag_directive(cursor: Cursor, mark: Mark) -> Token:
    cursor.need(1)
    cursor.skip_blanks()
    handle = _scan_handle(cursor, in_directive=True)
    cursor.need(1)
    if cursor.char() not in BLANKS:
        cursor.fail("%TAG needs a handle and a prefix", mark)
    cursor.skip_blanks()
    prefix = _scan_uri(cursor, "", verbatim=True)
    cursor.need(1)
    if cursor.char() not in BLANKS_BREAKS_OR_END:
        cursor.fail("the prefix of a %TAG directive has a character that is not allowed", mark)
    return Token(TokenKind.TAG_DIRECTIVE, mark, handle, prefix)


def _scan_word(cursor: Cursor) -> str:
    parts = []
    while run := cursor.take_run(_WORD_RUN, 1):
        parts.append(run)
        cursor.need(1)
    return "".join(parts)


def _scan_handle(cursor: Cursor, *, in_directive: bool) -> str:
    cursor.need(1)
    if cursor.char() != "!":
        cursor.fail("a tag begins with '!'")
    handle = cursor.take()
    cursor.need(1)
    handle += _scan_word(cursor)
    if cursor.char() == "!":
        handle += cursor.take()
    elif in_directive and handle != "!":
        cursor.fail("the handle of a %TAG directive ends with '!'")
    return handle


def _scan_uri(cursor: Cursor, head: str, *, verbatim: bool) -> str:
    """Scan the rest of a tag that began with ``head``; the leading '!' of it is dropped."""
    octets = bytearray(head[1:].encode())
    has_content = bool(head)
    allowed = _VERBATIM_URI_CHARS if verbatim else _URI_CHARS
    cursor.need(1)
    while cursor.char() in allowed:
        if cursor.char() == "%":
            octets += _scan_uri_escapes(cursor)
        else:
            octets += cursor.take().encode()
        cursor.need(1)
        has_content = True
    if not verbatim and "\x21" <= cursor.char() <= "\x7e":
        cursor.fail(f"the character {cursor.char()!r} is not allowed in a tag")
    if not has_content:
        cursor.fail("the tag has no name")
    return octets.decode("utf-8", "surrogateescape")


def _scan_uri_escapes(cursor: Cursor) -> bytes:
    """Scan the %-escapes of one UTF-8 sequence."""
    octets = bytearray()
    width = 1
    while len(octets) < width:
        cursor.need(3)
        digits = cursor.text[cursor.pos + 1 : cursor.pos + 3]
        if cursor.char() != "%" or len(digits) < 2 or not set(digits) <= _HEX_DIGITS:
            cursor.fail("the tag holds an incomplete %-escape")
        octet = int(digits, 16)
        if not octets:
            width = _sequence_width(octet)
        if not width or (octets and octet & 0xC0 != 0x80):
            cursor.fail("the %-escapes of the tag are not UTF-8")
        octets.append(octet)
        cursor.skip(3)
    return bytes(octets)


def _sequence_width(lead: int) -> int:
    for width, mask, value in ((1, 0x80, 0), (2, 0xE0, 0xC0), (3, 0xF0, 0xE0), (4, 0xF8, 0xF0)):
        if lead & mask == value:
            return width
    return 0
