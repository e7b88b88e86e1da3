"""From bytes to the tree of parts: which reader opens what."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, cast

from local_imager.deliver.inspect.limits import Digests, Limits
from local_imager.deliver.inspect.parts import Part, PartKind
from local_imager.deliver.inspect.walking import Inside, Opener, Walk
from local_imager.events import NULL_SINK, EventSink
from local_imager.formats.source import FormatError, Source

# kind -> module:function; a reader is imported when the first part of its kind is met.
_OPENERS: Final[Mapping[PartKind, str]] = MappingProxyType(
    {
        "compressed": "packed:open_compressed",
        "disk": "disks:open_disk",
        "erofs": "filesystems:open_erofs",
        "fat": "filesystems:open_fat",
        "initramfs": "boots:open_initramfs",
        "iso": "images:open_iso",
        "kernel": "boots:open_kernel",
        "meta": "filesystems:open_meta",
        "pe": "programs:open_program",
        "uki": "programs:open_program",
        "qcow2": "packed:open_qcow2",
        "squashfs": "filesystems:open_squashfs",
        "tar": "archives:open_tar",
        "vhd": "packed:open_vhd",
        "vmdk": "packed:open_vmdk",
        "xfs": "filesystems:open_xfs",
    }
)
# What has one child that is the thing itself, only wrapped.
_WRAPPERS: Final = frozenset({"compressed", "qcow2", "vhd", "vmdk"})

_WORDS: Final[Mapping[PartKind, str]] = MappingProxyType(
    {
        "compressed": "compressed file",
        "disk": "disk image",
        "fat": "FAT volume",
        "iso": "ISO image",
        "meta": "META partition",
        "oci-image": "container image",
        "ova": "virtual appliance",
        "pe": "EFI program",
        "tar": "tar archive",
        "uki": "unified kernel image",
        "qcow2": "disk in qcow2",
        "vhd": "VHD disk",
        "vmdk": "VMDK disk",
        "xfs": "XFS volume",
    }
)


def _lazy(place: str) -> Opener:
    module, _, name = place.partition(":")

    def opened(walk: Walk, source: Source) -> Inside:
        found = getattr(import_module(f"local_imager.deliver.inspect.{module}"), name)
        return cast(Opener, found)(walk, source)

    return opened


def part_tree(
    source: Source,
    name: str,
    *,
    limits: Limits | None = None,
    sink: EventSink = NULL_SINK,
    digests: Digests = "all",
) -> Part:
    """Return the tree of parts of some bytes; each byte is unpacked and hashed once.

    ``digests`` says how much is hashed. What is damaged inside has a reason in ``unread``. Raises
    :class:`FormatError` when the file is damaged as a whole, or asks for more than ``limits``.
    """
    openers = {kind: _lazy(place) for kind, place in _OPENERS.items()}
    with Walk(openers, limits or Limits(), sink, subject=name, digests=digests) as walk:
        tree = walk.part(source, name)
    _refuse_damaged(tree)
    return tree


def _refuse_damaged(tree: Part) -> None:
    """Raise when nothing of a file could be read, whatever it is wrapped in."""
    part = tree
    while part.kind in _WRAPPERS and len(part.children) == 1 and not part.unread:
        part = part.children[0]
    if part.unread and not part.children:
        what = f"{tree.name} is a damaged {_WORDS.get(part.kind, part.kind)}"
        raise FormatError(
            f"{what}: {part.unread}", hint="fetch or build it again, and compare its checksum"
        )
