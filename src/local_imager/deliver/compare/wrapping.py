"""Parts that only wrap another one: compressed files and virtual disks."""

from __future__ import annotations

from collections.abc import Iterator

from local_imager.deliver.compare.align import WRAPPERS
from local_imager.deliver.compare.words import clean, size_text
from local_imager.deliver.inspect.parts import Part


def core(part: Part) -> Part:
    """Return what is left of a part without anything that only wraps it."""
    for _ in range(16):
        if part.kind not in WRAPPERS or part.unread:
            return part
        inner = [one for one in part.children if one.kind in WRAPPERS or one.kind == "disk"]
        inner = inner if part.kind == "ova" else list(part.children)
        if len(inner) != 1:
            return part
        part = inner[0]
    return part


def chain(part: Part) -> Iterator[Part]:
    """Yield the wrappers of a part from the outermost one, and the core at the end."""
    inner = core(part)
    for _ in range(16):
        yield part
        if part is inner or not part.children:
            return
        inside = [one for one in part.children if one.kind in WRAPPERS or one is inner]
        part = inside[0] if inside else inner


def wrapping(part: Part) -> str:
    """Say how a part is wrapped: ``zstd of qcow2, 1,234 bytes``."""
    names = []
    for one in chain(part):
        packing = one.facts.get("packing")
        names.append(packing if one.kind == "compressed" and isinstance(packing, str) else one.kind)
    return clean(f"{' of '.join(names)}, {size_text(part.size_bytes)}")


def wrapper_words(part: Part) -> str:
    return "compression" if part.kind == "compressed" else f"layout of the {part.kind} file"
