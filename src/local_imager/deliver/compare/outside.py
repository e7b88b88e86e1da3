"""Which differences explain bytes of a container that none of its parts has.

A header names the sections there are, an archive writes owners beside names: such bytes follow when
a part comes, goes, moves or gets another property. No byte between the parts follows from the
content of one, so what is put there is never taken for a part of another difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from local_imager.deliver.compare.derived import of_its_bytes
from local_imager.deliver.compare.finding import SPELLING, Finding
from local_imager.deliver.compare.noise import CONTENT, REST, kinds_of

# Differences in bytes alone.
_STAYING: Final = frozenset({CONTENT, REST, "unread", "kind"})
_NAMES: Final = frozenset({"name", SPELLING})
# These restate what their parts hold: values in any order, sizes in a second tree, digests.
_RESTATING: Final = frozenset({"meta", "oci-image", "xfs", "squashfs", "erofs"})


def explained_by(finding: Finding) -> Iterator[int]:
    """Yield the ``id`` of each part (of the left side) whose bytes outside of parts may differ
    because of a real difference."""
    moves = finding.fact not in _STAYING
    if finding.left is not None and finding.right is not None and moves:
        # What a directory or a table says of a part changes no byte of the part.
        if finding.fact not in _NAMES and of_its_bytes(finding.left.kind, finding.fact):
            yield id(finding.left)
    sizes_differ = _resized(finding)
    nearest = True
    for left, right in reversed(finding.holders):
        kinds = kinds_of(left)
        if (nearest and moves) or kinds & _RESTATING or ("iso" in kinds and sizes_differ):
            yield id(left)
        nearest = nearest and left.kind == "directory"
        sizes_differ = sizes_differ or left.size_bytes != right.size_bytes


def _resized(finding: Finding) -> bool:
    """Say whether a part has another size than before; one that is alone always has."""
    if finding.left is None or finding.right is None:
        return True
    return finding.left.size_bytes != finding.right.size_bytes
