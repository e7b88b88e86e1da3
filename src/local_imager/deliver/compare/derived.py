"""Which facts of a part follow from other bytes, and which say only how it is packed.

A fact follows from noise only where it can be seen to: an address because the section lies just
behind those before it, a number of sectors because it is the whole image's. Else it takes a real
difference for its cause, or stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from local_imager.deliver.compare.align import content_kind
from local_imager.deliver.compare.factwords import ENTRY_FACTS, PACKED_VOLUMES
from local_imager.deliver.compare.noise import REST
from local_imager.deliver.inspect.parts import Part

PACKING: Final = frozenset({"packing", "check", "xz_check", "compression"})
# Of file systems that are packed as a whole; of others it is how they are made.
_PACKED_BLOCKS: Final = frozenset({"block_bytes", "block_size"})
# How an archive of images is laid out, and under which names it is loaded.
_ARCHIVE: Final = frozenset({"forms", "names"})
# What only some of the forms of an archive have.
_OF_MANIFEST: Final = frozenset({"manifest_digest", "manifest_rest"})
# Facts that are there for other facts, or whose difference is told as one of the part's bytes.
TOLD_OTHERWISE: Final = frozenset({"placed", "without_marker", "without_signature"})
# What the table, catalogue or header around a part says of it: nothing of its bytes.
_PLACE_FACTS: Final = frozenset(
    {"number", "type", "guid", "mbr_type", "bootable", "offset", "address", "virtual_size_bytes"}
    | {"characteristics", "platform", "emulation", "load_sectors", "load_segment", "loads"}
)

_PLACES: Final = frozenset({"partition", "pe-section", "boot-entry"})

Cause = Literal["", "itself", "beside"]
_Sure = Callable[[Part, Part], bool]


def _always(left: Part, right: Part) -> bool:
    return True


def _never(left: Part, right: Part) -> bool:
    return False


def _both(name: str, value: object) -> _Sure:
    return lambda left, right: all(one.facts.get(name) == value for one in (left, right))


def _all_in_the_file(left: Part, right: Part) -> bool:
    return all(one.facts.get("virtual_size_bytes") == one.size_bytes for one in (left, right))


# Kind -> fact -> where its cause lies, and whether it is sure to be that.
_DERIVED: Final[Mapping[str, Mapping[str, tuple[Cause, _Sure]]]] = {
    "pe": {"checksum": ("itself", _always)},
    "uki": {"checksum": ("itself", _always)},
    "pe-section": {
        "address": ("beside", _both("placed", "behind the others")),
        "virtual_size_bytes": ("beside", _all_in_the_file),
    },
    "pe-signature": {"digest": ("beside", _both("digest_matches", True))},
    "boot-entry": {"load_sectors": ("beside", _both("loads", "whole image"))},
    "cpio": {"unpacked_bytes": ("itself", _always)},
    "squashfs": {"inodes": ("itself", _never)},
    "erofs": {"inodes": ("itself", _never)},
    "layer": {"diff_id": ("itself", _always)},
    "oci-image": {"config_digest": ("itself", _always), "manifest_digest": ("itself", _always)},
}


def derivation(left: Part, right: Part, name: str) -> tuple[Cause, bool]:
    """Return where the cause of a fact's difference lies (empty for a fact that has none), and
    whether noise and packing will do for a cause."""
    if left.kind != right.kind:
        return "", True
    if name == REST:
        return "itself", False
    for kind in (left.kind, content_kind(left)):
        if name in _DERIVED.get(kind, {}):
            cause, sure = _DERIVED[kind][name]
            is_sure = sure(left, right)
            # What firmware loads is nothing that follows from other differences by chance.
            return ("", True) if kind == "boot-entry" and not is_sure else (cause, is_sure)
    return "", True


def of_its_bytes(kind: str, name: str) -> bool:
    """Say whether a fact follows from a part's own bytes, and not from a directory or a table."""
    return name not in ENTRY_FACTS and not (kind in _PLACES and name in _PLACE_FACTS)


def is_packing(left: Part, right: Part, name: str) -> bool:
    """Say whether a fact says how a part is packed, not what it is."""
    if name in PACKING:
        return True
    if name in _PACKED_BLOCKS:
        return all(content_kind(one) in PACKED_VOLUMES for one in (left, right))
    if content_kind(left) != "oci-image" or content_kind(right) != "oci-image":
        return False
    one_form = not all(one.facts.get("manifest_digest") for one in (left, right))
    return name in _ARCHIVE or (one_form and name in _OF_MANIFEST)
