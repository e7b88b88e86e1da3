"""Which parts can be of a difference in meaning: firmware of an extension, signatures, words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from local_imager.deliver.compare.factwords import FIT_FACTS
from local_imager.deliver.compare.finding import Finding, lies_in
from local_imager.deliver.compare.noise import kinds_of
from local_imager.deliver.compare.semantic import Semantic
from local_imager.deliver.compare.words import files_in

# Where signatures and the keys for them lie.
_SIGNED_SECTIONS: Final = frozenset({".pcrsig", ".pcrpkey"})
_PCR_FACTS: Final = frozenset({"pcr_policies", "pcr_verifies"})
_KEY_SUFFIXES: Final = (".auth", ".esl", ".der", ".cer", ".crt", ".pem")
_FIRMWARE: Final = ("kernel/x86/microcode/", "lib/firmware/", "usr/lib/firmware/")


def is_entry_alone(semantic: Semantic, finding: Finding) -> bool:
    """Say whether a part that one side lacks is the file of a boot entry that it lacks, or a
    directory with that file alone."""
    part = finding.left or finding.right
    if finding.fact != "presence" or part is None or not lies_in(semantic.path, finding.path):
        return False
    return part.kind != "directory" or all(
        f"{finding.path}/{name}" == semantic.path for name, _ in files_in(part)
    )


def is_firmware(finding: Finding) -> bool:
    """Say whether a part lies where an imager puts firmware and microcode of extensions.

    The base archive, the one with ``/init``, has none of an extension's.
    """
    archives = [pair for pair in finding.holders if pair[0].kind == "cpio"]
    part = finding.left or finding.right
    if part is None or any(one.child("init") for pair in archives for one in pair):
        return False
    if part.kind != "cpio" and not archives:
        return False
    names = finding.path.split("/")[-depth_in_archive(finding) :] if archives else []
    rows = [(path + "/", one.kind) for path, one in part.walk("/".join(names)) if path]
    return bool(rows) and all(
        path.startswith(_FIRMWARE)
        or (kind == "directory" and any(place.startswith(path) for place in _FIRMWARE))
        for path, kind in rows
    )


def depth_in_archive(finding: Finding) -> int:
    """Return how many names of a path lie within the nearest archive."""
    depth = 1
    for left, _ in reversed(finding.holders):
        if left.kind == "cpio":
            break
        depth += 1
    return depth


def is_of_signing(semantic: Semantic, finding: Finding) -> bool:
    """Cover signatures, the signed PCR policy and its place in a UKI, and keys to enrol."""
    kinds, name = kinds_of_both(finding), last_name(finding.path)
    if finding.fact in FIT_FACTS:
        # Another signer beside it is no reason why a signature does not fit any more.
        return semantic.key == "state" and "broken" in (semantic.left, semantic.right)
    if semantic.key in ("state", "signers"):
        return "pe-signature" in kinds
    if semantic.key == "pcr_signed":
        in_uki = any("uki" in kinds_of(pair[0]) for pair in finding.holders)
        moved = name == ".profile" or name.startswith("profile ")
        return (
            (in_uki and finding.fact == "presence" and (moved or name in _SIGNED_SECTIONS))
            or (in_uki and name in _SIGNED_SECTIONS)
            or finding.fact in _PCR_FACTS
        )
    part = finding.left or finding.right
    if semantic.key != "enrols" or part is None:
        return False
    files = [one.name for _, one in part.walk() if one.kind != "directory"]
    return bool(files) and all(one.endswith(_KEY_SUFFIXES) for one in files)


def differing_words(
    left: Sequence[str], right: Sequence[str], gone: set[str], come: set[str]
) -> set[str] | None:
    """Return the words by which two texts differ if all are allowed to, else None.

    ``gone`` may be missing on the right, ``come`` on the left; the others come in the same order.
    """
    used: set[str] = set()
    here = there = 0
    while here < len(left) or there < len(right):
        first = left[here] if here < len(left) else None
        second = right[there] if there < len(right) else None
        if first == second:
            here, there = here + 1, there + 1
        elif first is not None and first in gone:
            used.add(first)
            here += 1
        elif second is not None and second in come:
            used.add(second)
            there += 1
        else:
            return None
    return used


def last_name(path: str) -> str:
    """Return the last name of a path."""
    return path.rpartition("/")[2]


def kinds_of_both(finding: Finding) -> frozenset[str]:
    """Return the kinds of both parts of a difference, and of what lies in them."""
    parts = [part for part in (finding.left, finding.right) if part is not None]
    return frozenset(kind for part in parts for kind in kinds_of(part))
