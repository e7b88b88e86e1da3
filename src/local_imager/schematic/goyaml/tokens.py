"""Tokens, the kinds of them, and places in the input."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in the input; lines and columns count from 1."""

    line: int
    column: int


class TokenKind(Enum):
    """What the scanner found."""

    STREAM_START = "the start of the input"
    STREAM_END = "the end of the input"
    VERSION_DIRECTIVE = "a %YAML directive"
    TAG_DIRECTIVE = "a %TAG directive"
    DOCUMENT_START = "'---'"
    DOCUMENT_END = "'...'"
    BLOCK_SEQUENCE_START = "a block list"
    BLOCK_MAPPING_START = "a block mapping"
    BLOCK_END = "the end of a block"
    FLOW_SEQUENCE_START = "'['"
    FLOW_SEQUENCE_END = "']'"
    FLOW_MAPPING_START = "'{'"
    FLOW_MAPPING_END = "'}'"
    BLOCK_ENTRY = "'-'"
    FLOW_ENTRY = "','"
    KEY = "a key"
    VALUE = "':'"
    ALIAS = "an alias"
    ANCHOR = "an anchor"
    TAG = "a tag"
    SCALAR = "a scalar"


class Token:
    """One token.

    ``value`` is the text of a scalar, the name of an anchor or alias, or the handle of a tag or
    tag directive; ``extra`` is the suffix of a tag, the prefix of a tag directive or the number
    of a version directive. ``plain`` tells a plain scalar from a quoted or block one.
    """

    __slots__ = ("extra", "kind", "mark", "plain", "value")

    def __init__(
        self, kind: TokenKind, mark: Mark, value: str = "", extra: str = "", plain: bool = False
    ) -> None:
        self.kind = kind
        self.mark = mark
        self.value = value
        self.extra = extra
        self.plain = plain
