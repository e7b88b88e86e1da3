"""Nodes to typed values, strictly and with the Go library's conversions.

A *shape* says what a field may hold. The conversions follow the library: a number or a bool is
taken as text where text is wanted, ``10.0`` where a whole number is wanted, ``yes`` where a bool
is wanted; null leaves a field as it is; a merge key brings in what the mapping does not have.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import NoReturn

from local_imager.schematic.goyaml import limits, nodes, values
from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.nodes import Node, NodeKind
from local_imager.schematic.goyaml.resolver import Resolved, TagMismatch, resolve
from local_imager.schematic.goyaml.shapes import (
    Anything,
    Bool,
    Enumerated,
    FreeMap,
    ListOf,
    Shape,
    Struct,
    Text,
    Unsigned,
)

_TEXT, _ANYTHING = Text(), Anything()
_UNSET = object()  # what Go calls "not good": the field keeps its value, the item is dropped
_TRUE_WORDS = frozenset("y Y yes Yes YES on On ON".split())
_FALSE_WORDS = frozenset("n N no No NO off Off OFF".split())
_SHOWN_CHARS = 20

_TAG_NAMES = {
    nodes.STR: "a text",
    nodes.INT: "a number",
    nodes.FLOAT: "a number",
    nodes.BOOL: "true or false",
    nodes.TIMESTAMP: "a date",
    nodes.BINARY: "binary data",
    nodes.SEQ: "a list",
    nodes.MAP: "a mapping",
}


def construct(root: Node, shape: Struct) -> dict[str, object]:
    """Return the fields that the document sets. Raises YamlError with the place of the fault."""
    fields: dict[str, object] = {}
    _Constructor().value(root, shape, fields)
    return fields


# A key as it is kept while a mapping is built: the kind keeps 1, 1.0 and true apart.
_Key = tuple[int, object]


class _Constructor:
    def __init__(self) -> None:
        self._depth = 0
        self._constructed = 0
        self._aliased = 0
        self._alias_depth = 0
        self._merge_depth = 0
        self._open_aliases: set[int] = set()
        # Keys that a merge must not overwrite; None outside of merges.
        self._merged: set[_Key] | None = None

    def value(self, node: Node, shape: Shape, current: dict[str, object] | None = None) -> object:
        """Return the node's value in the given shape, or _UNSET.

        ``current`` is what a mapping is read into; by default a new one.
        """
        self._count(node)
        alias = node
        if node.target is not None:
            # Followed in this frame: a chain of aliases must not eat the stack.
            self._enter_alias(alias)
            node = node.target
            self._count(node)
        if node.kind is NodeKind.SCALAR:
            result = self._scalar(node, shape)
        else:
            self._enter_collection(node)
            if node.kind is NodeKind.SEQUENCE:
                result = self._sequence(node, shape)
            else:
                result = self._mapping(node, shape, current)
            self._depth -= 1
        if alias is not node:
            self._leave_alias(alias)
        return result

    def _enter_collection(self, node: Node) -> None:
        self._depth += 1
        if self._depth > limits.MAX_DEPTH:
            _fail(node, f"nested deeper than {limits.MAX_DEPTH} levels when aliases are followed")

    def _count(self, node: Node) -> None:
        self._constructed += 1
        if self._alias_depth:
            self._aliased += 1
        if self._constructed > limits.MAX_CONSTRUCTED_NODES:
            _fail(node, f"more than {limits.MAX_CONSTRUCTED_NODES} values, aliases followed")
        if (
            self._aliased > limits.ALIAS_RULE_MIN_ALIASED
            and self._constructed > limits.ALIAS_RULE_MIN_TOTAL
            and self._aliased / self._constructed > limits.ALIAS_RULE_MAX_SHARE
        ):
            _fail(node, "too much of the document is made by aliases")

    def _enter_alias(self, node: Node) -> None:
        if id(node) in self._open_aliases:
            _fail(node, f"the anchor {node.value!r} contains itself")
        self._open_aliases.add(id(node))
        self._alias_depth += 1

    def _leave_alias(self, node: Node) -> None:
        self._alias_depth -= 1
        self._open_aliases.discard(id(node))

    def _scalar(self, node: Node, shape: Shape) -> object:
        resolved = _resolve(node)
        if resolved.value is None:
            return _null(shape)
        if isinstance(shape, Enumerated):
            text = resolved.value if resolved.tag == nodes.BINARY else node.value
            found = shape.parse(str(text))
            return _wrong(node, shape) if found is None else found
        if isinstance(shape, Text):
            return _text(node, resolved)
        if resolved.tag == nodes.MERGE:
            return _UNSET
        if isinstance(shape, Anything):
            return resolved.value
        if isinstance(shape, Unsigned):
            return _unsigned(node, shape, resolved)
        if isinstance(shape, Bool):
            return _bool(node, shape, resolved)
        return _wrong(node, shape)

    def _sequence(self, node: Node, shape: Shape) -> object:
        if isinstance(shape, ListOf):
            item_shape = shape.item
        elif isinstance(shape, Anything):
            item_shape = shape
        else:
            return _wrong(node, shape)
        items = []
        for child in node.children:
            item = self.value(child, item_shape)
            if item is not _UNSET:
                items.append(item)
        return tuple(items)

    def _mapping(self, node: Node, shape: Shape, current: dict[str, object] | None) -> object:
        if isinstance(shape, Enumerated):
            return _wrong(node, shape)
        _check_unique_keys(node)
        if isinstance(shape, Struct):
            fields = {} if current is None else current
            self._struct(node, shape, fields)
            return fields
        if isinstance(shape, FreeMap):
            texts: dict[_Key, object] = {}
            self._map(node, _TEXT, texts)
            return {str(key): value for (_, key), value in texts.items()}
        if isinstance(shape, Anything):
            key_shape: Shape = _TEXT if _has_text_keys(node) else shape
            entries: dict[_Key, object] = {}
            self._map(node, key_shape, entries)
            if key_shape is _TEXT:
                return {str(key): value for (_, key), value in entries.items()}
            return values.MixedMap(tuple((key, value) for (_, key), value in entries.items()))
        return _wrong(node, shape)

    def _struct(self, node: Node, shape: Struct, fields: dict[str, object]) -> None:
        merged, self._merged = self._merged, None
        done: set[str] = set()
        merge_node: Node | None = None
        for key_node, value_node in _pairs(node):
            if key_node.is_merge_key:
                merge_node = value_node
                continue
            key = self.value(key_node, _TEXT)
            if not isinstance(key, str):
                continue
            if _already_merged(merged, (values.KIND_STRING, key)):
                continue
            if key not in shape.fields:
                _unknown_key(key_node, key, shape)
            if key in done:
                _fail(key_node, f"the key {key!r} is given twice")
            done.add(key)
            self._field(value_node, shape.fields[key], key, fields)
        self._merged = merged
        if merge_node is not None:
            self._merge(node, merge_node, lambda source: self._struct(source, shape, fields))

    def _field(self, node: Node, shape: Shape, key: str, fields: dict[str, object]) -> None:
        current: dict[str, object] | None = None
        if isinstance(shape, Struct):
            held = fields.setdefault(key, {})
            current = held if isinstance(held, dict) else None
        result = self.value(node, shape, current)
        if result is not _UNSET:
            fields[key] = result

    def _map(self, node: Node, key_shape: Shape, entries: dict[_Key, object]) -> None:
        merged, self._merged = self._merged, None
        merge_node: Node | None = None
        for key_node, value_node in _pairs(node):
            if key_node.is_merge_key:
                merge_node = value_node
                continue
            key_value = self.value(key_node, key_shape)
            if key_value is _UNSET:
                continue
            key = _hashable_key(key_node, key_value)
            if _already_merged(merged, key):
                continue
            value = self.value(value_node, _ANYTHING)
            if value is not _UNSET:
                entries.pop(key, None)
                entries[key] = None if key[1] != key[1] else value  # Go cannot look NaN up again
        self._merged = merged
        if merge_node is not None:
            self._merge(node, merge_node, lambda source: self._map(source, key_shape, entries))

    def _merge(self, parent: Node, source: Node, read: Callable[[Node], None]) -> None:
        """Bring in the entries of one mapping or several; what is there already stays."""
        outer = self._merged
        if outer is None:
            self._merged = set()
            for key_node, _ in _pairs(parent):
                key = self.value(key_node, _ANYTHING)
                if key is not _UNSET:
                    self._merged.add(_hashable_key(key_node, key))
        sources = source.children if source.kind is NodeKind.SEQUENCE else [source]
        for item in sources:
            self._merge_one(item, read)
        self._merged = outer

    def _merge_one(self, source: Node, read: Callable[[Node], None]) -> None:
        target = source if source.target is None else source.target
        if target.kind is not NodeKind.MAPPING:
            _fail(source, "'<<' merges a mapping or a list of mappings")
        self._merge_depth += 1
        if self._merge_depth > limits.MAX_MERGE_DEPTH:
            _fail(source, f"more than {limits.MAX_MERGE_DEPTH} merges ('<<') inside each other")
        if target is not source:
            self._count(source)
            self._enter_alias(source)
        self._count(target)
        _check_unique_keys(target)
        read(target)
        if target is not source:
            self._leave_alias(source)
        self._merge_depth -= 1


def _resolve(node: Node) -> Resolved:
    if node.is_text:
        return Resolved(nodes.STR, node.value)
    try:
        resolved = resolve(node.tag, node.value)
    except TagMismatch:
        _fail(node, f"the text is not of the type that its tag {node.tag} names")
    if resolved.tag == nodes.BINARY:
        return Resolved(nodes.BINARY, _decode_binary(node))
    return resolved


def _decode_binary(node: Node) -> str:
    compact = node.value.replace("\r", "").replace("\n", "")
    try:
        if len(compact) % 4:
            raise Base64Error  # Python takes padding behind complete groups, Go does not
        data = b64decode(compact.encode("ascii"), validate=True)
    except (Base64Error, UnicodeEncodeError):
        _fail(node, "a !!binary value must be base64")
    return data.decode("utf-8", "surrogateescape")


def _null(shape: Shape) -> object:
    if isinstance(shape, Anything):
        return None
    if isinstance(shape, FreeMap):
        return {}
    return () if isinstance(shape, ListOf) else _UNSET


def _text(node: Node, resolved: Resolved) -> object:
    if resolved.tag == nodes.BINARY:
        return resolved.value
    if resolved.tag == nodes.TIMESTAMP:
        _fail(node, "a date stands where a text is expected", hint="put it in quotes")
    return node.value


def _unsigned(node: Node, shape: Unsigned, resolved: Resolved) -> object:
    number = resolved.value
    if resolved.tag == nodes.FLOAT and isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= shape.maximum:
        return number
    return _wrong(node, shape)


def _bool(node: Node, shape: Bool, resolved: Resolved) -> object:
    if isinstance(resolved.value, bool):
        return resolved.value
    if resolved.tag == nodes.STR and node.value in _TRUE_WORDS:
        return True
    if resolved.tag == nodes.STR and node.value in _FALSE_WORDS:
        return False
    return _wrong(node, shape)


def _pairs(node: Node) -> list[tuple[Node, Node]]:
    return list(zip(node.children[::2], node.children[1::2], strict=True))


def _has_text_keys(node: Node) -> bool:
    return all(key.effective_tag in (nodes.STR, nodes.MERGE) for key in node.children[::2])


def _check_unique_keys(node: Node) -> None:
    seen: dict[tuple[NodeKind, str], Node] = {}
    for key in node.children[::2]:
        first = seen.setdefault((key.kind, key.value), key)
        if first is not key:
            _fail(key, f"the key {_shown(key.value)} is given twice (first at line {first.line})")


def _hashable_key(node: Node, key: object) -> _Key:
    if isinstance(key, tuple | dict | values.MixedMap):
        _fail(node, "a list or a mapping cannot be a key")
    if key != key:
        key = float("nan")  # a key of its own each time, as in a Go map
    return values.key_kind(key), key


def _already_merged(merged: set[_Key] | None, key: _Key) -> bool:
    """Whether an earlier mapping gave the key; remembers it."""
    if merged is None:
        return False
    if key in merged:
        return True
    merged.add(key)
    return False


def _unknown_key(node: Node, key: str, shape: Struct) -> NoReturn:
    import difflib

    by_lower = {name.lower(): name for name in shape.fields}
    close = difflib.get_close_matches(key.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        hint = f"did you mean {by_lower[close[0]]!r}?"
    else:
        hint = f"the keys of {shape.name} are {', '.join(shape.fields)}"
    _fail(node, f"{_shown(key)} is not a key of {shape.name}", hint=hint)


def _wrong(node: Node, shape: Shape) -> NoReturn:
    found = _TAG_NAMES.get(node.effective_tag, f"a value with the tag {node.effective_tag}")
    if node.kind is NodeKind.SCALAR and isinstance(shape, Unsigned | Bool | Enumerated):
        found += f" ({_shown(node.value)})"  # these fields hold no secrets
    _fail(node, f"{shape.name} is expected here, not {found}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")


def _fail(node: Node, message: str, *, hint: str = "") -> NoReturn:
    raise YamlError(message, node.line, node.column, hint=hint)
