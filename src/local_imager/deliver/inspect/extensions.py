"""System extensions and the schematic, as the initramfs lists them in ``extensions.yaml``.

The form is that of Talos ``pkg/machinery/extensions``. The factory's virtual extension
``schematic`` has the schematic's ID as its version and, from Talos 1.7 on, its text beside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from local_imager.deliver.inspect.meaning import Extension
from local_imager.events import printable
from local_imager.schematic.goyaml.composer import compose
from local_imager.schematic.goyaml.constructor import construct
from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.shapes import FreeMap, ListOf, Struct, Text

FILE_NAME: Final = "extensions.yaml"
# A schematic's text stands in it, and with it a whole machine configuration.
MAX_BYTES: Final = 1 << 20
# Extensions that no schematic names: the virtual one, and the list of all modules.
SCHEMATIC: Final = "schematic"
MODULES: Final = "modules.dep"
GENERATED: Final = frozenset({SCHEMATIC, MODULES})

_TEXT: Final = Text()
_METADATA: Final = Struct(
    "the metadata of an extension",
    {
        "name": _TEXT,
        "version": _TEXT,
        "author": _TEXT,
        "description": _TEXT,
        "compatibility": FreeMap(),
        "extraInfo": _TEXT,
    },
)
_LAYER: Final = Struct("an extension", {"image": _TEXT, "metadata": _METADATA})
_CONFIG: Final = Struct("a list of extensions", {"layers": ListOf("extensions", _LAYER)})
_ID: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listed:
    """What ``extensions.yaml`` lists; ``problem`` says in a sentence why something is missing.

    ``extensions`` are in the order in which they are laid over the root file system, without the
    virtual one. ``schematic`` is None where the virtual extension carries no text.
    """

    extensions: tuple[Extension, ...] = ()
    schematic_id: str = ""
    schematic: str | None = None
    author: str = ""
    problem: str = ""


def read_extensions(text: str) -> Listed:
    """Return what the text of an ``extensions.yaml`` lists; never raises."""
    try:
        root = compose(text.encode())
        fields = {} if root is None else construct(root, _CONFIG)
    except (YamlError, RecursionError, UnicodeEncodeError) as error:
        return Listed(problem=f"{FILE_NAME} cannot be read: {printable(str(error), limit=200)}")
    layers: Iterable[Mapping[str, Any]] = fields.get("layers") or ()  # type: ignore[assignment]
    found, schematic = [], Listed()
    for layer in layers:
        metadata = layer.get("metadata") or {}
        if metadata.get("name") == SCHEMATIC and _ID.fullmatch(metadata.get("version", "")):
            schematic = _schematic(metadata)
        else:
            found.append(_extension(layer, metadata))
    return Listed(
        tuple(found),
        schematic.schematic_id,
        schematic.schematic,
        schematic.author,
        schematic.problem,
    )


def _extension(layer: Mapping[str, Any], metadata: Mapping[str, Any]) -> Extension:
    fields = (metadata.get("name"), metadata.get("version"), metadata.get("author"))
    name, version, author = (printable(str(value or ""), limit=200) for value in fields)
    return Extension(name, version, author, printable(str(layer.get("image") or ""), limit=200))


def _schematic(metadata: Mapping[str, Any]) -> Listed:
    schematic_id = str(metadata["version"])
    text = metadata.get("extraInfo")
    author = printable(str(metadata.get("author") or ""), limit=200)
    if not isinstance(text, str) or not text:
        return Listed(schematic_id=schematic_id, author=author)
    if hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() != schematic_id:
        problem = "the schematic's text in the file does not have the ID that stands beside it"
        return Listed(schematic_id=schematic_id, author=author, schematic=text, problem=problem)
    return Listed(schematic_id=schematic_id, author=author, schematic=text)
