"""What in a file shows which imager made it, and how: for a comparison to name, not to judge."""

from __future__ import annotations

from collections.abc import Iterable

from local_imager.deliver.inspect.extensions import FILE_NAME
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.places import content_of, outside_of

# Fact of a part -> its name here; the first one found counts.
_TOLD = {
    "stub": "stub",
    "loader": "loader",
    "preparer": "iso_preparer",
}


def imager_facts(tree: Part, starts: Iterable[str] = ()) -> dict[str, str]:
    """Return what is visible of the tools and settings that made a file, by stable names.

    What lies in the parts ``starts`` (of the entry that boots) counts before all else.
    ``stub`` and ``loader`` are versions of systemd-stub and systemd-boot, which come with the
    version of Talos; ``extensions_packing``, ``extensions_filesystem`` and ``extensions_mtime``
    (seconds since 1970: the time of the run, or a fixed one where the initramfs was normalised)
    show how the imager packed extensions; ``iso_preparer`` and ``fat_made_by`` are its programs.
    """
    facts: dict[str, str] = {}
    is_other = outside_of(starts)
    for _path, part in sorted(tree.walk(), key=lambda row: is_other(row[0])):
        for name, shown in _TOLD.items():
            if name in part.facts:
                facts.setdefault(shown, str(part.facts[name]))
        if content_of(part) == "fat":
            facts.setdefault("fat_made_by", str(part.facts.get("made_by", "")))
        elif part.kind == "cpio" and part.child(FILE_NAME) is not None:
            for name, text in _packing(part).items():
                facts.setdefault(name, text)
    return {name: text for name, text in facts.items() if text}


def _packing(segment: Part) -> dict[str, str]:
    """Return how the segment with the extensions was packed."""
    facts = {"extensions_packing": str(segment.facts.get("packing", ""))}
    listed = segment.child(FILE_NAME)
    if listed is not None and "mtime" in listed.facts:
        facts["extensions_mtime"] = str(listed.facts["mtime"])
    systems = [part for part in segment.children if part.kind in ("squashfs", "erofs")]
    if systems:
        inner = str(systems[0].facts.get("packing", ""))
        facts["extensions_filesystem"] = f"{systems[0].kind} {inner}".strip()
    return facts
