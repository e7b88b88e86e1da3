"""A matrix file: schematics × versions × architectures × assets, read strictly.

The form is told in docs/matrix.md. It is YAML as schematics are, without anchors and merges; every
fault is told with its line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from local_imager.errors import InputError
from local_imager.events import printable
from local_imager.oci.blobs import open_regular
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import ARCHES
from local_imager.profile.version import TalosVersion
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.goyaml.composer import compose_plain
from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.nodes import Node, NodeKind
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import read_schematic

MAX_FILE_BYTES: Final = 256 * 1024
MAX_CELLS: Final = 5000
# Stands for each of the architectures in the name of an asset.
ARCH: Final = "ARCH"

_AXES: Final = ("schematics", "versions", "arches", "assets", "include", "exclude")
_RULE: Final = ("schematic", "version", "arch", "asset")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})

T = TypeVar("T")


class MatrixError(InputError):
    """The matrix file cannot be read or asks for what cannot be."""

    code = "matrix-invalid"


@dataclass(frozen=True, slots=True)
class Cell:
    """One asset to build; ``file`` is the schematic's as the matrix names it."""

    file: str
    schematic: Schematic = field(compare=False)
    schematic_id: str
    version: str
    asset: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What equal cells have in common: they are built once."""
        return self.schematic_id, self.version, self.asset

    @property
    def arch(self) -> str:
        """The architecture that the asset is for."""
        return AssetName.parse(self.asset).arch

    @property
    def label(self) -> str:
        """Schematic and version in short, for progress."""
        return f"{Path(self.file).stem} {self.version}"


@dataclass(frozen=True, slots=True)
class _Text:
    """A text and where it stands."""

    value: str
    node: Node


def read_matrix(path: Path, *, default_arch: str) -> tuple[Cell, ...]:
    """Return the cells of a matrix file in the order of its lists; none stands there twice.

    Schematics are read from beside the file. ``default_arch`` is what :data:`ARCH` means where the
    file lists no architectures. Raises :class:`MatrixError` with the line, and
    :class:`~local_imager.errors.SchematicError`.
    """
    try:
        # Never waits for a FIFO.
        with os.fdopen(open_regular(path), "rb") as stream:
            untrusted_data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise MatrixError(
            f"cannot read the matrix {path}: {error.strerror}", hint="give the path of a file"
        ) from error
    if len(untrusted_data) > MAX_FILE_BYTES:
        raise MatrixError(f"the matrix is larger than {MAX_FILE_BYTES >> 10} KiB", source=str(path))
    try:
        root = compose_plain(untrusted_data)
        if root is None:
            raise MatrixError("the matrix is empty", hint=_SHORTEST, source=str(path))
        return _Reader(path, default_arch).cells(root)
    except YamlError as error:
        raise MatrixError(
            error.message,
            hint=error.hint,
            source=str(path),
            line=error.line or None,
            column=error.column or None,
        ) from None
    except RecursionError:
        raise MatrixError("the matrix is nested too deeply", source=str(path)) from None


_SHORTEST: Final = (
    "the smallest has a file in 'schematics', one of 'versions' and one of 'assets': "
    "docs/matrix.md shows all"
)


class _Reader:
    def __init__(self, path: Path, default_arch: str) -> None:
        self._path, self._default_arch = path, default_arch
        self._schematics: dict[str, tuple[Schematic, str]] = {}
        self._count = 0

    def cells(self, root: Node) -> tuple[Cell, ...]:
        """Return what the document asks for."""
        fields = _mapping(root, _AXES)
        arches = self._axis(fields, "arches", self._arch) or [self._default_arch]
        product = {
            cell: None
            for file in self._axis(fields, "schematics", self._schematic)
            for version in self._axis(fields, "versions", self._version)
            for template in self._axis(fields, "assets", lambda text: text.value)
            for cell in self._expanded(file, version, template, arches, fields["assets"])
        }
        for rule in _items(fields["exclude"]) if "exclude" in fields else ():
            product = self._without(product, rule)
        for extra in _items(fields["include"]) if "include" in fields else ():
            product |= dict.fromkeys(self._included(extra, arches))
        if not product:
            _fail(root, "the matrix asks for nothing", hint=_SHORTEST)
        return tuple(product)

    def _axis(self, fields: Mapping[str, Node], name: str, read: Callable[[_Text], T]) -> list[T]:
        """Return the values of a list of texts, each once; a value that is none says its line."""
        values: dict[T, None] = {}
        for text in _texts(fields[name]) if name in fields else ():
            value = _placed(text.node, lambda text=text: read(text))  # type: ignore[misc]
            if value in values:
                _fail(text.node, f"{printable(text.value)} stands twice in {name}")
            values[value] = None
        return list(values)

    def _schematic(self, text: _Text) -> str:
        if text.value not in self._schematics:
            file = self._path.parent / text.value
            try:
                os.close(open_regular(file))
            except OSError as error:
                raise InputError(
                    f"cannot read the schematic {text.value}: {error.strerror}",
                    hint=f"it is looked for in {self._path.parent.absolute()}",
                ) from error
            # A bare "-" would be standard input.
            schematic = read_schematic("./-" if str(file) == "-" else str(file))
            self._schematics[text.value] = schematic, str(schematic_id(schematic))
        return text.value

    def _version(self, text: _Text) -> str:
        return str(TalosVersion.parse(text.value))

    def _arch(self, text: _Text) -> str:
        if text.value not in ARCHES:
            raise InputError(
                f"{printable(text.value, limit=60)!r} is not an architecture",
                hint=f"write {' or '.join(ARCHES)}",
            )
        return text.value

    def _expanded(
        self, file: str, version: str, template: str, arches: list[str], node: Node
    ) -> Iterator[Cell]:
        schematic, identity = self._schematics[file]
        for arch in arches if ARCH in template else arches[:1]:
            spelt = template.replace(ARCH, arch)
            asset = _placed(_item_of(node, template), lambda spelt=spelt: AssetName.parse(spelt))  # type: ignore[misc]
            yield Cell(file, schematic, identity, version, str(asset))
            self._check_count()

    def _check_count(self) -> None:
        self._count += 1
        if self._count > MAX_CELLS:
            raise MatrixError(f"the matrix has more than {MAX_CELLS} cells", source=str(self._path))

    def _without(self, product: dict[Cell, None], node: Node) -> dict[Cell, None]:
        fields = {name: _scalar(value) for name, value in _mapping(node, _RULE).items()}
        if not fields:
            _fail(node, "an exclusion says at least one of " + ", ".join(_RULE))
        gone = {cell for cell in product if _matches(cell, fields)}
        if not gone:
            _fail(node, "this excludes nothing", hint="it may be misspelt, or excluded already")
        return {cell: None for cell in product if cell not in gone}

    def _included(self, node: Node, arches: list[str]) -> Iterator[Cell]:
        fields = _mapping(node, ("schematic", "version", "arches", "assets"))
        for name in ("schematic", "version", "assets"):
            if name not in fields:
                _fail(node, f"an inclusion needs {name!r}")
        file, version = _scalar(fields["schematic"]), _scalar(fields["version"])
        name = _placed(file.node, lambda: self._schematic(file))
        spelt = _placed(version.node, lambda: self._version(version))
        own = self._axis(fields, "arches", self._arch) or arches
        templates = self._axis(fields, "assets", lambda text: text.value)
        if not templates:
            _fail(fields["assets"], "this includes nothing", hint="name at least one asset")
        for template in templates:
            yield from self._expanded(name, spelt, template, own, fields["assets"])


def _matches(cell: Cell, fields: Mapping[str, _Text]) -> bool:
    own = {"schematic": cell.file, "version": cell.version, "arch": cell.arch}
    for name, text in fields.items():
        if name == "asset":
            if cell.asset != text.value.replace(ARCH, cell.arch):
                return False
        elif own[name] != text.value:
            return False
    return True


def _fail(node: Node, message: str, *, hint: str = "") -> NoReturn:
    raise YamlError(message, node.line, node.column, hint=hint)


def _placed(node: Node, read: Callable[[], T]) -> T:
    """Call a parser of values and give its refusal the place of the value."""
    try:
        return read()
    except InputError as error:
        if error.source:  # it has a place of its own: in the schematic
            raise
        _fail(node, error.message, hint=error.hint)


def _mapping(node: Node, known: tuple[str, ...]) -> dict[str, Node]:
    if node.kind is not NodeKind.MAPPING:
        _fail(node, f"a mapping is wanted, with some of {', '.join(known)}")
    fields: dict[str, Node] = {}
    for key, value in zip(node.children[::2], node.children[1::2], strict=True):
        name = _scalar(key).value
        if name not in known:
            wanted = ", ".join(known)
            _fail(key, f"{printable(name, limit=60)!r} is not known here", hint=f"known: {wanted}")
        if name in fields:
            _fail(key, f"{name!r} stands here twice")
        fields[name] = value
    return fields


def _items(node: Node) -> list[Node]:
    if node.kind is not NodeKind.SEQUENCE:
        _fail(node, "a list is wanted")
    return node.children


def _texts(node: Node) -> list[_Text]:
    return [_scalar(item) for item in _items(node)]


def _scalar(node: Node) -> _Text:
    if node.kind is not NodeKind.SCALAR or (not node.quoted and node.value in _NULLS):
        _fail(node, "a text is wanted")
    if not node.value.isprintable() or not node.value:
        _fail(node, "a text of one printable line is wanted")
    return _Text(node.value, node)


def _item_of(node: Node, value: str) -> Node:
    return next((item for item in node.children if item.value == value), node)
