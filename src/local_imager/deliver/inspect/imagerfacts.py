"""What in a file shows which imager made it, and how: for a comparison to name, not to judge."""

from __future__ import annotations

from local_imager.deliver.inspect.parts import Part


def imager_facts(tree: Part) -> dict[str, str]:
    """Return what is visible of the tools and settings that made a file, by stable names."""
    facts: dict[str, str] = {}
    for _path, part in tree.walk():
        if part.kind == "cpio" and any(c.name == "extensions.yaml" for c in part.children):
            facts.setdefault("extensions_packing", str(part.facts.get("packing", "")))
            listed = part.child("extensions.yaml")
            if listed is not None and "mtime" in listed.facts:
                facts.setdefault("extensions_mtime", str(listed.facts["mtime"]))
    return facts
