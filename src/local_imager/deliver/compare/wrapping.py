"""Parts that only wrap another one: compressed files and virtual disks."""

from __future__ import annotations

from collections.abc import Iterator

from local_imager.deliver.compare.align import WRAPPERS
from local_imager.deliver.compare.words import clean, size_text
from local_imager.deliver.inspect.parts import Part


def wrapped(part: Part) -> Part | None:
    """Return the part that another one only wraps; None where it has more to say.

    A tar file wraps when a disk is all that it holds; an OVA also has descriptions of its disk.
    """
    if part.unread or part.kind not in (*WRAPPERS, "tar"):
        return None
    disks = [one for one in part.children if one.kind in WRAPPERS or one.kind == "disk"]
    if part.kind == "ova":
        return disks[0] if len(disks) == 1 else None
    if part.kind == "tar" and not disks:
        return None
    return part.children[0] if len(part.children) == 1 else None


def core(part: Part) -> Part:
    """Return what is left of a part without anything that only wraps it."""
    for _ in range(16):
        inner = wrapped(part)
        if inner is None:
            return part
        part = inner
    return part


def chain(part: Part) -> Iterator[Part]:
    """Yield the wrappers of a part from the outermost one, and the core at the end."""
    for _ in range(16):
        yield part
        inner = wrapped(part)
        if inner is None:
            return
        part = inner


def wrapping(part: Part) -> str:
    """Say how a part is wrapped: ``disk in qcow2 in zstd, 1,234 bytes``."""
    names = []
    for one in chain(part):
        packing = one.facts.get("packing")
        names.append(packing if one.kind == "compressed" and isinstance(packing, str) else one.kind)
    return clean(f"{' in '.join(reversed(names))}, {size_text(part.size_bytes)}")


def wrapper_words(part: Part) -> str:
    """Name what of a wrapper differs when two of a kind hold the same."""
    return "compression" if part.kind == "compressed" else f"layout of the {part.kind} file"
