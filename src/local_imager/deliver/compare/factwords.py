"""What facts of parts mean in a comparison, and how parts and facts are called in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from local_imager.deliver.compare.align import content_kind
from local_imager.deliver.compare.noise import REST
from local_imager.deliver.compare.words import clean, fact_text, mode_text
from local_imager.deliver.inspect.parts import Fact, Part

# File systems whose entries are all that a reader sees; their bytes besides are how it is packed.
PACKED_VOLUMES: Final = frozenset({"squashfs", "erofs"})
# Facts of an entry in a directory: they say nothing about the bytes, and no byte follows from them.
ENTRY_FACTS: Final = frozenset(
    {"mode", "uid", "gid", "mtime", "link_target", "link_digest", "name_digest", "attributes"}
)
# What inspection tells in full: every byte is one of a part or of a fact, ``rest`` among them.
WHOLLY_TOLD: Final = frozenset(
    {"cpio", "disk", "fat", "initramfs", "iso", "layer", "meta", "oci-image", "pe", "tar", "uki"}
)
# Whether a signature holds: of the bytes that it is over, and of its certificate.
FIT_FACTS: Final[Mapping[str, str]] = {
    "digest_matches": "fits the program",
    "verifies": "is one of its certificate",
}
FACT_WORDS: Final[Mapping[str, str]] = {
    "mode": "file mode",
    "uid": "owner (uid)",
    "gid": "group (gid)",
    "mtime": "time",
    "link_target": "target of the link",
    "link_digest": "target of the link as it is written",
    "name_digest": "name as it is written",
    "manifest_rest": "annotations",
    "guid": "GUID",
    "uuid": "UUID",
    "type": "type GUID",
    "packing": "compression",
    "content": "kind of content",
    REST: "bytes outside of its parts",
}


def noun(part: Part) -> str:
    """Return what a part is called in a sentence."""
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


def fact_words(left: Part, right: Part, name: str) -> str:
    """Return what a differing fact of two parts is called."""
    if name in FIT_FACTS and left.kind == right.kind == "pe-signature":
        signers = {fact_text(one.facts.get("signer")) for one in (left, right)}
        by = f" by {signers.pop()}" if len(signers) == 1 and "" not in signers else ""
        return f"Authenticode signature{by} {FIT_FACTS[name]}"
    words = FACT_WORDS.get(name, clean(name.replace("_", " ")))
    if name in ENTRY_FACTS:
        return words
    return f"{words} of the {noun(left) if left.kind == right.kind else 'part'}"


def shown(name: str, value: Fact | None) -> str:
    """Return a fact's value for people: modes as letters, times as dates."""
    if name in ("mtime", "timestamp", "made") and isinstance(value, int):
        return time_text(value)
    if name == "mode" and isinstance(value, str):
        try:
            return mode_text(int(value, 8))
        except ValueError:
            return clean(value)
    if name == "mode" and isinstance(value, int) and not isinstance(value, bool):
        return mode_text(value)
    return fact_text(value)


def hidden_properties(part: Part) -> str:
    """Say what of a packed file system no fact shows: two that differ may differ in just that."""
    kind = content_kind(part)
    if kind not in PACKED_VOLUMES:
        return ""
    if part.facts.get("has_xattrs") is not False:
        return f"content of the {kind}: extended attributes could not be compared"
    if any(one.kind == "special" and "device" not in one.facts for _, one in part.walk()):
        return f"content of the {kind}: numbers of devices could not be compared"
    return ""


def signs_alike(left: Part, right: Part) -> bool:
    """Say whether two valid signatures say the same but for the digest of what they sign."""
    first, second = (
        {name: value for name, value in side.facts.items() if name != "digest"}
        for side in (left, right)
    )
    fits = first.get("verifies") is True and first.get("digest_matches") is True
    return fits and first == second


def time_text(seconds: int) -> str:
    """Return seconds since 1970 as a date in UTC, or the number where it is no date."""
    from datetime import UTC, datetime

    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return str(seconds)
