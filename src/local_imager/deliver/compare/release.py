"""What of a file may differ because it is of another Talos version or for another processor.

Nobody can see that a kernel's bytes follow from a version. So this says only where a release has
its programs; what is put below a version by it is counted as taken to follow, not as shown to.
Settings, boot code, gaps, and parts that one side lacks are never among it.
"""

from __future__ import annotations

import re
from typing import Final

from local_imager.deliver.compare.align import content_kind
from local_imager.deliver.compare.factwords import ENTRY_FACTS
from local_imager.deliver.compare.finding import SPELLING, Finding
from local_imager.deliver.compare.noise import CONTENT, REST

# File systems of a release: of these, files come and go from one to the next.
_ROOTS: Final = frozenset({"squashfs", "erofs", "layer"})
_ARCHIVES: Final = frozenset({"cpio", "initramfs"})
_KERNELS: Final = frozenset({"kernel", "initramfs", "cpio"})
_PROGRAMS: Final = frozenset({"uki", "pe"})
# Sections that say what to start and whom to trust, not what it is made from.
_SETTINGS: Final = frozenset({".cmdline", ".profile", ".pcrsig", ".pcrpkey"})
_PROGRAM_FACTS: Final = frozenset({"arch", "entry_point", "image_base", "stub", "loader"})
_ARRANGEMENT: Final = frozenset({"name", "order", "kind", "characteristics", SPELLING, REST})
# What an imager writes into a volume for UEFI (pkg/imager/iso, bootloader/sdboot), and GRUB's
# modules. Its boot code for a BIOS is not a release's.
_PLACES: Final = re.compile(
    r"(?:^|/)efi/(?:boot/boot[a-z0-9]+|systemd/systemd-boot[a-z0-9]+|linux/[^/]+)\.efi$"
)
_MODULES: Final = re.compile(r"(?:^|/)grub/[a-z0-9_]+-[a-z0-9]+/[^/]+\.(?:mod|lst)$")


def may_follow(finding: Finding) -> bool:
    """Say whether a difference may come of another version or processor."""
    kinds = {content_kind(left) for left, _ in finding.holders}
    if kinds & _ROOTS:
        return True
    if finding.left is None or finding.right is None:
        return False
    if finding.fact in _ARRANGEMENT or finding.fact in ENTRY_FACTS:
        return False
    if kinds & _ARCHIVES or content_kind(finding.left) in _KERNELS:
        return True
    if finding.fact in (CONTENT, "arch") and _MODULES.search(finding.path):
        return True
    return _of_program(finding)


def _of_program(finding: Finding) -> bool:
    """Say whether a part is one of an EFI program where an imager writes those."""
    if finding.left is None:
        return False
    if finding.left.kind == "pe-section":
        path, _, name = finding.path.rpartition("/")
        return name not in _SETTINGS and _is_imagers(path)
    is_program = finding.left.kind in _PROGRAMS and finding.fact in _PROGRAM_FACTS
    return is_program and _is_imagers(finding.path)


def _is_imagers(path: str) -> bool:
    return not path or _PLACES.search(path.lower()) is not None
