"""The tree of parts: what a boot file consists of, down to the level that a comparison needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

Fact = str | int | bool | tuple[str, ...]

# Texts up to this size are kept, so that a difference can be shown as a diff.
MAX_TEXT_BYTES: Final = 64 * 1024

PartKind = Literal[
    "kernel",  # a Linux kernel image
    "initramfs",  # one or more cpio archives one after the other
    "cmdline",  # a kernel command line in a file or section of its own
    "uki",  # a PE file with the sections of a unified kernel image
    "pe",  # any other PE file (boot loader, stub, addon)
    "pe-section",
    "pe-signature",  # one Authenticode signature
    "iso",
    "boot-entry",  # one entry of an El Torito catalogue
    "disk",  # a raw disk; other containers of one hold it as their only child
    "qcow2",
    "vhd",
    "vmdk",
    "ova",
    "partition-table",
    "partition",
    "unpartitioned",  # bytes of a disk outside of table and partitions (BIOS boot code)
    "fat",
    "xfs",
    "squashfs",
    "erofs",
    "meta",  # the META partition of Talos
    "directory",
    "file",
    "link",
    "special",  # device, pipe or socket
    "cpio",  # one archive of an initramfs
    "compressed",  # xz, gzip, zstd …; what was unpacked is its only child
    "tar",
    "oci-image",  # an installer: docker or OCI archive, or an image in a registry
    "layer",
    "document",  # text or JSON that means something (configuration, manifest)
    "data",  # anything else; not looked into
]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a boot file.

    ``name`` is what it is called inside its parent, unique there (``ESP``, ``EFI/BOOT``,
    ``.cmdline``, ``segment 2``). ``digest`` is the SHA-256 of its bytes as they lie there
    (``sha256:…``; empty where it has no bytes of its own, as a directory). ``facts`` are the
    properties that count in a comparison, each under a stable name (``mode``, ``mtime``, ``guid``,
    ``uuid``, ``label``, ``link_target``, ``packing``, ``address`` …). ``text`` is the content
    where it is text of at most :data:`MAX_TEXT_BYTES`. ``unread`` says in a sentence why it was
    not looked into, empty when it was or has nothing inside. ``offset`` is where it lies in its
    parent, None when it does not lie there in one piece.
    """

    name: str
    kind: PartKind
    size_bytes: int
    digest: str = ""
    facts: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))
    children: tuple[Part, ...] = ()
    text: str | None = None
    unread: str = ""
    offset: int | None = None

    def child(self, name: str) -> Part | None:
        """Return the child with this name, or None."""
        return next((part for part in self.children if part.name == name), None)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Part]]:
        """Yield every part below with its path (names joined by ``/``), this one first."""
        yield prefix, self
        for part in self.children:
            yield from part.walk(f"{prefix}/{part.name}" if prefix else part.name)

    def as_dict(self) -> dict[str, Any]:
        """Return the part as JSON values; empty fields are left out, but for name, kind, size."""
        document: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "size_bytes": self.size_bytes,
        }
        optional = {
            "offset": self.offset,
            "digest": self.digest or None,
            "facts": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.facts.items()
            }
            or None,
            "text": self.text,
            "unread": self.unread or None,
            "children": [part.as_dict() for part in self.children] or None,
        }
        return document | {key: value for key, value in optional.items() if value is not None}
