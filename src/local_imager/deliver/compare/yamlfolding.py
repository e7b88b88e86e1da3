"""YAML texts of files: whether two differ only in folding, and the document of a plain one."""

from __future__ import annotations

from typing import Any, Final

# extensions.yaml of a model with every extension stays far below.
_MAX_CHARS: Final = 64 * 1024


def same_but_folding(left: str, right: str) -> bool:
    """Say whether both texts have the same words in the same order and are the same document.

    Texts with anchors or aliases, and those that are no YAML, are never the same. Types count:
    ``"1"`` and ``1`` differ.
    """
    if max(len(left), len(right)) > _MAX_CHARS or left.split() != right.split():
        return False
    import yaml

    try:
        return _events(left) == _events(right)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def plain_document(text: str) -> Any:
    """Return the document of a text without anchors and aliases, None for any other text."""
    import yaml

    if len(text) > _MAX_CHARS:
        return None
    try:
        _events(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return None


def _events(text: str) -> list[tuple[object, ...]]:
    """Return the text's events without places: structure, scalars, their tags and quoting."""
    import yaml

    found: list[tuple[object, ...]] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "anchor", None) is not None:
            raise ValueError("anchors are not compared")
        found.append(
            (
                type(event).__name__,
                getattr(event, "tag", None),
                getattr(event, "value", None),
                getattr(event, "implicit", None),
            )
        )
    return found
