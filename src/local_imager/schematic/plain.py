"""A schematic's values as JSON knows them, for documents that are handed on."""

from __future__ import annotations

import math
from typing import Any

from local_imager.errors import SchematicError
from local_imager.schematic.goyaml.scalarstyle import represent
from local_imager.schematic.goyaml.values import Timestamp, mapping_items
from local_imager.schematic.model import Overlay, Schematic


def plain_options(overlay: Overlay) -> dict[str, Any]:
    """Return the overlay's options made of dicts, lists, texts, numbers, bools and None only.

    What JSON does not have becomes text, as it stands in the canonical text: dates, ``.inf`` and
    ``.nan``, and keys that are not texts.
    """
    return {key: _plain(value) for key, value in overlay.options.items()}


def require_text(schematic: Schematic) -> None:
    """Raise SchematicError for values that are not UTF-8.

    ``!!binary`` can bring them in. They have an ID, but no place in the JSON that an imager reads.
    """
    custom = schematic.customization
    values: tuple[object, ...] = (
        schematic.overlay.image,
        schematic.overlay.name,
        schematic.overlay.options,
        custom.embedded_machine_configuration,
        custom.extra_kernel_args,
        custom.official_extensions,
        tuple(item.value for item in custom.meta),
        custom.secureboot.enroll_keys,
    )
    if any(not _is_text(value) for value in values):
        raise SchematicError(
            "the schematic holds binary data that is not UTF-8 text",
            hint="replace the !!binary value by text",
            code="schematic-not-text",
        )


def _plain(value: object) -> Any:
    items = mapping_items(value)
    if items is not None:
        return {represent(key).text: _plain(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Timestamp) or (isinstance(value, float) and not math.isfinite(value)):
        return represent(value).text
    return value


def _is_text(value: object) -> bool:
    items = mapping_items(value)
    if items is not None:
        return all(_is_text(key) and _is_text(item) for key, item in items)
    if isinstance(value, list | tuple):
        return all(_is_text(item) for item in value)
    return not isinstance(value, str) or not any("\ud800" <= char <= "\udfff" for char in value)
