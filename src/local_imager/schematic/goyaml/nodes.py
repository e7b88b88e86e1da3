"""The tree that a document is read into, before anything is known about its types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

LONG_TAG_PREFIX = "tag:yaml.org,2002:"

STR = "!!str"
BOOL = "!!bool"
INT = "!!int"
FLOAT = "!!float"
NULL = "!!null"
TIMESTAMP = "!!timestamp"
BINARY = "!!binary"
MERGE = "!!merge"
SEQ = "!!seq"
MAP = "!!map"
NON_SPECIFIC = "!"


class NodeKind(Enum):
    """What a node is."""

    SCALAR = "scalar"
    SEQUENCE = "list"
    MAPPING = "mapping"
    ALIAS = "alias"


@dataclass(slots=True, eq=False)
class Node:
    """One value of the document.

    ``tag`` is in short form and set for all but aliases; ``value`` is the text of a scalar or the
    anchor name of an alias; ``quoted`` is true for every scalar style but plain. A mapping has its
    keys and values in turn in ``children``.
    """

    kind: NodeKind
    tag: str
    value: str
    line: int
    column: int
    quoted: bool = False
    children: list[Node] = field(default_factory=list)
    target: Node | None = None

    @property
    def is_text(self) -> bool:
        """Whether the node says by tag or quotes that it is a string."""
        return self.kind is NodeKind.SCALAR and (
            self.tag == STR or (self.tag == NON_SPECIFIC and self.quoted)
        )

    @property
    def is_merge_key(self) -> bool:
        """Whether the node, as a key, merges another mapping into this one."""
        return self.kind is NodeKind.SCALAR and self.tag == MERGE

    @property
    def effective_tag(self) -> str:
        """The tag that says of which type the node is; an alias has that of its target."""
        if self.kind is NodeKind.ALIAS and self.target is not None:
            return self.target.effective_tag
        if self.is_text:
            return STR
        if self.tag == NON_SPECIFIC:
            kinds = {NodeKind.MAPPING: MAP, NodeKind.SEQUENCE: SEQ}
            return kinds.get(self.kind, STR)
        return self.tag


def short_tag(tag: str) -> str:
    """Return the tag with the prefix of YAML's own types written as ``!!``."""
    if tag.startswith(LONG_TAG_PREFIX):
        return "!!" + tag[len(LONG_TAG_PREFIX) :]
    return tag
