"""What facts of parts mean in a comparison, and how parts and facts are called in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from local_imager.deliver.compare.noise import REST
from local_imager.deliver.compare.words import clean, fact_text, mode_text
from local_imager.deliver.inspect.parts import Fact, Part

PACKING_FACTS: Final = frozenset(
    {"packing", "check", "xz_check", "compression", "block_bytes", "block_size"}
)
# Facts that are computed from other bytes: kind -> (names, whether the cause may be a sibling).
DERIVED_FACTS: Final[Mapping[str, tuple[frozenset[str], bool]]] = {
    "pe": (frozenset({"checksum", "authentihash", "image_bytes"}), False),
    "uki": (frozenset({"checksum", "authentihash", "image_bytes"}), False),
    "kernel": (frozenset({"checksum", "authentihash"}), False),
    "pe-section": (frozenset({"address", "virtual_bytes", "raw_bytes"}), True),
    "pe-signature": (frozenset({"digest", "signed_digest", "signing_time"}), True),
    "boot-entry": (frozenset({"address", "sector", "sectors", "load_sectors"}), True),
    "initramfs": (frozenset({"unpacked_bytes", "stored_bytes"}), False),
    "cpio": (frozenset({"unpacked_bytes", "stored_bytes"}), False),
    "layer": (frozenset({"diff_id", "digest"}), False),
    "oci-image": (frozenset({"image_id", "config", "manifest"}), False),
    "meta": (frozenset({"checksum"}), False),
    "iso": (frozenset({"volume_bytes", "volume_sectors"}), False),
}
FACT_WORDS: Final[Mapping[str, str]] = {
    "mode": "file mode",
    "uid": "owner (uid)",
    "gid": "group (gid)",
    "mtime": "time",
    "link_target": "target of the link",
    "guid": "GUID",
    "uuid": "UUID",
    "type": "type GUID",
    "packing": "compression",
    "content": "kind of content",
    REST: "bytes outside of its parts",
}


def noun(part: Part) -> str:
    nouns = {
        "data": "file",
        "document": "file",
        "special": "special file",
        "uki": "UKI",
        "pe": "PE file",
        "pe-section": "PE section",
        "pe-signature": "Authenticode signature",
        "iso": "ISO",
        "fat": "FAT file system",
        "xfs": "XFS file system",
        "meta": "META partition",
        "cpio": "cpio archive",
        "oci-image": "image",
        "boot-entry": "boot entry",
        "partition-table": "partition table",
        "cmdline": "kernel command line",
        "unpartitioned": "unpartitioned space",
        "compressed": "compressed file",
    }
    if part.kind == "special" and isinstance(part.facts.get("device"), str):
        return "device node"
    return nouns.get(part.kind, part.kind)


def shown(name: str, value: Fact | None) -> str:
    if name == "mode" and isinstance(value, str):
        try:
            return mode_text(int(value, 8))
        except ValueError:
            return clean(value)
    if name == "mode" and isinstance(value, int) and not isinstance(value, bool):
        return mode_text(value)
    return fact_text(value)


def signer(part: Part) -> tuple[tuple[str, Fact], ...]:
    """Return who signed: everything that is said of a signature but what follows the content."""
    derived = DERIVED_FACTS["pe-signature"][0]
    return tuple(sorted((name, value) for name, value in part.facts.items() if name not in derived))
