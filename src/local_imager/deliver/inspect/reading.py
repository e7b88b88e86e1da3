"""Reads a tree of parts as Talos means it."""

from __future__ import annotations

from local_imager.deliver.inspect.meaning import Kind, Meaning
from local_imager.deliver.inspect.parts import Part

_WRAPPERS = frozenset({"compressed", "qcow2", "vhd", "vmdk", "ova"})
_KINDS: dict[str, Kind] = {
    "disk": "disk",
    "iso": "iso",
    "uki": "uki",
    "kernel": "kernel",
    "initramfs": "initramfs",
    "cmdline": "cmdline",
    "oci-image": "image",
    "pe": "boot-loader",
    "meta": "meta",
    "fat": "volume",
    "xfs": "volume",
    "squashfs": "volume",
    "erofs": "volume",
    "tar": "volume",
}


def meaning_of(tree: Part) -> Meaning:
    """Return what a file means; what cannot be told is empty and named in ``unknown``."""
    content, packing = unwrapped(tree)
    return Meaning(
        kind=_KINDS.get(content.kind, "unknown"),
        packing=packing,
        size_bytes=tree.size_bytes,
        content_bytes=content.size_bytes,
    )


def unwrapped(tree: Part) -> tuple[Part, tuple[str, ...]]:
    """Return the part that counts, and what is packed around it, outermost first."""
    part, packing = tree, []
    while part.kind in _WRAPPERS and len(part.children) == 1:
        packing.append(str(part.facts.get("packing", part.kind)))
        part = part.children[0]
    return part, tuple(packing)
