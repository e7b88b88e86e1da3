"""Compares extensions.yaml, the list of extensions in an initramfs, extension by extension."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from local_imager.deliver.compare.yamlfolding import plain_document

FILE_NAME: Final = "extensions.yaml"


def same_but_extensions(left: str, right: str, changed: Collection[str]) -> bool:
    """Say whether two texts list the same but for the extensions in ``changed``.

    The numbers in the names of images do not count: they follow from the order. What is no such
    list is never the same.
    """
    first, second = _listed(left), _listed(right)
    if first is None or second is None:
        return False
    if first[0] != second[0]:
        return False
    kept = [[layer for layer in one[1] if _name(layer) not in changed] for one in (first, second)]
    return repr([_numberless(layer) for layer in kept[0]]) == repr(
        [_numberless(layer) for layer in kept[1]]
    )


def _listed(text: str) -> tuple[str, list[dict[str, Any]]] | None:
    document = plain_document(text)
    if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
        return None
    layers = document.pop("layers")
    if not all(isinstance(layer, dict) for layer in layers):
        return None
    return repr(document), layers


def _name(layer: dict[str, Any]) -> str:
    metadata = layer.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else ""


def _numberless(layer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in layer.items() if key != "image"}


def images_in(text: str) -> dict[str, str]:
    """Return extension -> the file in the initramfs that holds it; empty for another text."""
    from local_imager.deliver.compare.words import clean

    listed = _listed(text)
    found: dict[str, str] = {}
    for layer in listed[1] if listed else ():
        if isinstance(layer.get("image"), str) and _name(layer):
            found.setdefault(_name(layer), clean(layer["image"]))
    return found
