"""Tokens to nodes: the grammar of YAML, with the Go library's reading of it.

The first document of the input is read and nothing behind it, but for what the scanner looks
ahead.
"""

from __future__ import annotations

from typing import NoReturn

from local_imager.schematic.goyaml import nodes
from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.limits import MAX_DEPTH, MAX_NODES
from local_imager.schematic.goyaml.nodes import Node, NodeKind
from local_imager.schematic.goyaml.resolver import implicit_tag
from local_imager.schematic.goyaml.scanner import Scanner
from local_imager.schematic.goyaml.tokens import Mark, Token, TokenKind

_DEFAULT_TAG_PREFIXES = {"!": "!", "!!": nodes.LONG_TAG_PREFIX}
_DIRECTIVES = frozenset({TokenKind.VERSION_DIRECTIVE, TokenKind.TAG_DIRECTIVE})
_ENDS_DOCUMENT = _DIRECTIVES | {
    TokenKind.DOCUMENT_START,
    TokenKind.DOCUMENT_END,
    TokenKind.STREAM_END,
}
_ENDS_BLOCK_ITEM = frozenset({TokenKind.BLOCK_ENTRY, TokenKind.BLOCK_END})
_ENDS_BLOCK_PART = frozenset({TokenKind.KEY, TokenKind.VALUE, TokenKind.BLOCK_END})
_ENDS_PLAIN_ITEM = _ENDS_BLOCK_PART | {TokenKind.BLOCK_ENTRY}
_ENDS_PAIR = frozenset({TokenKind.FLOW_ENTRY, TokenKind.FLOW_SEQUENCE_END})
_ENDS_FLOW_VALUE = frozenset({TokenKind.FLOW_ENTRY, TokenKind.FLOW_MAPPING_END})
_SUPPORTED_VERSION = "1.1"


def compose(untrusted_data: bytes) -> Node | None:
    """Return the root of the first document, or None when the input holds no document.

    Raises YamlError with the place of the first fault.
    """
    return _Composer(untrusted_data).document()


def compose_plain(untrusted_data: bytes) -> Node | None:
    """Return the root of the only document, or None when the input holds no document.

    For forms of our own, which are read strictly: raises YamlError also for what :func:`compose`
    passes over, a second document, and for an anchor.
    """
    composer = _Composer(untrusted_data)
    root = composer.document()
    composer.refuse_more()
    return root


class _Properties:
    """The anchor and the tag that stand before a value, and where the value begins."""

    __slots__ = ("anchor", "mark", "tag")

    def __init__(self, anchor: str, tag: str, mark: Mark) -> None:
        self.anchor = anchor
        self.tag = tag
        self.mark = mark


class _Composer:
    def __init__(self, untrusted_data: bytes) -> None:
        self._scanner = Scanner(untrusted_data)
        self._tag_prefixes: dict[str, str] = {}
        self._anchors: dict[str, Node] = {}
        self._depth = 0
        self._count = 0

    def document(self) -> Node | None:
        scanner = self._scanner
        scanner.next()  # the start of the input
        while scanner.peek().kind is TokenKind.DOCUMENT_END:
            scanner.next()
        first = scanner.peek()
        if first.kind is TokenKind.STREAM_END:
            return None
        if first.kind in _DIRECTIVES or first.kind is TokenKind.DOCUMENT_START:
            self._directives()
            if scanner.peek().kind is not TokenKind.DOCUMENT_START:
                self._fail("'---' must follow the directives", scanner.peek().mark)
            scanner.next()
            if scanner.peek().kind in _ENDS_DOCUMENT:
                root = self._empty(scanner.peek().mark)
            else:
                root = self._node(block=True)
        else:
            self._tag_prefixes = dict(_DEFAULT_TAG_PREFIXES)
            root = self._node(block=True)
        scanner.peek()  # what follows must at least be made of tokens
        return root

    def refuse_more(self) -> None:
        """Refuse anchors, and whatever stands behind the document."""
        for name, node in self._anchors.items():
            message = f"anchors and aliases are not used here (&{name})"
            raise YamlError(message, node.line, node.column)
        while self._scanner.peek().kind is TokenKind.DOCUMENT_END:
            self._scanner.next()
        behind = self._scanner.peek()
        if behind.kind is not TokenKind.STREAM_END:
            self._fail("one document is wanted, and here more follows", behind.mark)

    def _directives(self) -> None:
        has_version = False
        while self._scanner.peek().kind in _DIRECTIVES:
            token = self._scanner.next()
            if token.kind is TokenKind.TAG_DIRECTIVE:
                if token.value in self._tag_prefixes:
                    self._fail("the same %TAG handle is given twice", token.mark)
                self._tag_prefixes[token.value] = token.extra
                continue
            if has_version:
                self._fail("%YAML is given twice", token.mark)
            if token.extra != _SUPPORTED_VERSION:
                self._fail("only '%YAML 1.1' is accepted", token.mark)
            has_version = True
        self._tag_prefixes = {**_DEFAULT_TAG_PREFIXES, **self._tag_prefixes}

    def _node(self, *, block: bool, indentless: bool = False) -> Node:
        """Read one value. ``indentless`` allows a list at the indentation of its key."""
        token = self._scanner.peek()
        self._count += 1
        if self._count > MAX_NODES:
            self._fail(f"more than {MAX_NODES} values", token.mark)
        if token.kind is TokenKind.ALIAS:
            return self._alias(self._scanner.next())
        properties = self._properties(token)
        token = self._scanner.peek()
        if token.kind is TokenKind.SCALAR:
            self._scanner.next()
            return self._scalar(properties, token)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"nested deeper than {MAX_DEPTH} levels", token.mark)
        if indentless and token.kind is TokenKind.BLOCK_ENTRY:
            node = self._indentless_sequence(properties)
        elif token.kind is TokenKind.FLOW_SEQUENCE_START:
            node = self._flow_sequence(properties)
        elif token.kind is TokenKind.FLOW_MAPPING_START:
            node = self._flow_mapping(properties)
        elif block and token.kind is TokenKind.BLOCK_SEQUENCE_START:
            node = self._block_sequence(properties)
        elif block and token.kind is TokenKind.BLOCK_MAPPING_START:
            node = self._block_mapping(properties)
        elif properties.anchor or properties.tag:
            node = self._scalar(properties, Token(TokenKind.SCALAR, properties.mark, plain=True))
        else:
            self._fail(f"a value is missing before {token.kind.value}", token.mark)
        self._depth -= 1
        return node

    def _properties(self, token: Token) -> _Properties:
        """Read ``&anchor`` and ``!tag``, in either order, each at most once."""
        mark = token.mark
        anchor = tag = ""
        if token.kind is TokenKind.ANCHOR:
            anchor = self._scanner.next().value
            if self._scanner.peek().kind is TokenKind.TAG:
                tag = self._tag(self._scanner.next())
        elif token.kind is TokenKind.TAG:
            tag_token = self._scanner.next()
            if self._scanner.peek().kind is TokenKind.ANCHOR:
                anchor = self._scanner.next().value
            self._scanner.peek()
            tag = self._tag(tag_token)
        return _Properties(anchor, tag, mark)

    def _tag(self, token: Token) -> str:
        prefix = self._tag_prefixes.get(token.value) if token.value else ""
        if prefix is None:
            self._fail(f"the tag handle {token.value!r} is not defined", token.mark)
        return nodes.short_tag(prefix + token.extra)

    def _scalar(self, properties: _Properties, token: Token) -> Node:
        tag = properties.tag
        if not tag:
            tag = implicit_tag(token.value) if token.plain else nodes.STR
        node = self._new(NodeKind.SCALAR, properties, tag)
        node.value = token.value
        node.quoted = not token.plain
        return node

    def _empty(self, mark: Mark) -> Node:
        return Node(NodeKind.SCALAR, nodes.NULL, "", mark.line, mark.column)

    def _alias(self, token: Token) -> Node:
        target = self._anchors.get(token.value)
        if target is None:
            self._fail(f"the anchor {token.value!r} is not defined", token.mark)
        mark = token.mark
        return Node(NodeKind.ALIAS, "", token.value, mark.line, mark.column, target=target)

    def _new(self, kind: NodeKind, properties: _Properties, tag: str) -> Node:
        node = Node(kind, tag, "", properties.mark.line, properties.mark.column)
        if properties.anchor:
            self._anchors[properties.anchor] = node
        return node

    def _block_sequence(self, properties: _Properties) -> Node:
        scanner = self._scanner
        node = self._new(NodeKind.SEQUENCE, properties, properties.tag or nodes.SEQ)
        opened = scanner.next().mark
        while scanner.peek().kind is TokenKind.BLOCK_ENTRY:
            mark = scanner.next().mark
            if scanner.peek().kind in _ENDS_BLOCK_ITEM:
                node.children.append(self._empty(mark))
            else:
                node.children.append(self._node(block=True))
        if scanner.peek().kind is not TokenKind.BLOCK_END:
            self._fail(
                f"'- ' is missing in the list that begins at line {opened.line}",
                scanner.peek().mark,
            )
        scanner.next()
        return node

    def _indentless_sequence(self, properties: _Properties) -> Node:
        scanner = self._scanner
        node = self._new(NodeKind.SEQUENCE, properties, properties.tag or nodes.SEQ)
        while scanner.peek().kind is TokenKind.BLOCK_ENTRY:
            mark = scanner.next().mark
            if scanner.peek().kind in _ENDS_PLAIN_ITEM:
                node.children.append(self._empty(mark))
            else:
                node.children.append(self._node(block=True))
        return node

    def _block_mapping(self, properties: _Properties) -> Node:
        scanner = self._scanner
        node = self._new(NodeKind.MAPPING, properties, properties.tag or nodes.MAP)
        opened = scanner.next().mark
        while scanner.peek().kind is TokenKind.KEY:
            node.children.append(self._block_part(scanner.next()))
            if scanner.peek().kind is TokenKind.VALUE:
                node.children.append(self._block_part(scanner.next()))
            else:
                node.children.append(self._empty(scanner.peek().mark))
        if scanner.peek().kind is not TokenKind.BLOCK_END:
            self._fail(
                f"a key is missing in the mapping that begins at line {opened.line}",
                scanner.peek().mark,
            )
        scanner.next()
        return node

    def _block_part(self, indicator: Token) -> Node:
        """Read what follows a key or value indicator in a block mapping."""
        if self._scanner.peek().kind in _ENDS_BLOCK_PART:
            return self._empty(indicator.mark)
        return self._node(block=True, indentless=True)

    def _flow_sequence(self, properties: _Properties) -> Node:
        scanner = self._scanner
        node = self._new(NodeKind.SEQUENCE, properties, properties.tag or nodes.SEQ)
        opened = scanner.next().mark
        first = True
        while scanner.peek().kind is not TokenKind.FLOW_SEQUENCE_END:
            if not first:
                self._expect_flow_entry("]", opened)
            first = False
            kind = scanner.peek().kind
            if kind is TokenKind.KEY:
                node.children.append(self._flow_pair(scanner.next()))
            elif kind is not TokenKind.FLOW_SEQUENCE_END:
                node.children.append(self._node(block=False))
        scanner.next()
        return node

    def _flow_pair(self, indicator: Token) -> Node:
        """Read ``key: value`` inside square brackets: a mapping of one entry."""
        scanner = self._scanner
        mark = indicator.mark
        node = Node(NodeKind.MAPPING, nodes.MAP, "", mark.line, mark.column)
        kind = scanner.peek().kind
        if kind is not TokenKind.VALUE and kind not in _ENDS_PAIR:
            node.children.append(self._node(block=False))
        else:
            # The library drops this token, whichever it is.
            node.children.append(self._empty(scanner.next().mark))
        if scanner.peek().kind is TokenKind.VALUE:
            scanner.next()
            if scanner.peek().kind not in _ENDS_PAIR:
                node.children.append(self._node(block=False))
                return node
        node.children.append(self._empty(scanner.peek().mark))
        return node

    def _flow_mapping(self, properties: _Properties) -> Node:
        scanner = self._scanner
        node = self._new(NodeKind.MAPPING, properties, properties.tag or nodes.MAP)
        opened = scanner.next().mark
        first = True
        while scanner.peek().kind is not TokenKind.FLOW_MAPPING_END:
            if not first:
                self._expect_flow_entry("}", opened)
            first = False
            kind = scanner.peek().kind
            if kind is TokenKind.KEY:
                scanner.next()
                node.children += self._flow_entry()
            elif kind is not TokenKind.FLOW_MAPPING_END:
                node.children.append(self._node(block=False))
                node.children.append(self._empty(scanner.peek().mark))
        scanner.next()
        return node

    def _flow_entry(self) -> list[Node]:
        """Read key and value behind a key indicator inside braces."""
        scanner = self._scanner
        kind = scanner.peek().kind
        if kind is TokenKind.VALUE or kind in _ENDS_FLOW_VALUE:
            key = self._empty(scanner.peek().mark)
        else:
            key = self._node(block=False)
        if scanner.peek().kind is TokenKind.VALUE:
            scanner.next()
            if scanner.peek().kind not in _ENDS_FLOW_VALUE:
                return [key, self._node(block=False)]
        return [key, self._empty(scanner.peek().mark)]

    def _expect_flow_entry(self, closing: str, opened: Mark) -> None:
        token = self._scanner.peek()
        if token.kind is not TokenKind.FLOW_ENTRY:
            self._fail(f"',' or '{closing}' is missing (opened at line {opened.line})", token.mark)
        self._scanner.next()

    def _fail(self, message: str, mark: Mark) -> NoReturn:
        raise YamlError(message, mark.line, mark.column)
