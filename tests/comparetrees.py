"""Hand-made trees of parts and meanings, as inspection gives them, to compare in tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from local_imager.deliver.compare.derived import of_its_bytes
from local_imager.deliver.compare.verdict import Comparison
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.parts import Fact, Part, PartKind

ID_A, ID_B = "a" * 64, "b" * 64


def digest_of(data: bytes | str) -> str:
    """Return the digest of bytes as parts write it."""
    return (
        f"sha256:{hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()}"
    )


def leaf(name: str, data: bytes | str, kind: PartKind = "file", **facts: Fact) -> Part:
    """Return a part with bytes and nothing inside."""
    raw = data if isinstance(data, bytes) else data.encode()
    text = data if isinstance(data, str) and data else None
    return Part(name, kind, len(raw), digest_of(raw), facts, text=text)


def folder(name: str, *children: Part, **facts: Fact) -> Part:
    """Return a directory, which has no bytes of its own."""
    return Part(name, "directory", 0, facts=facts, children=children)


def box(name: str, kind: PartKind, *children: Part, **facts: Fact) -> Part:
    """Return a part that holds others; its digest follows from them and its facts."""
    size = sum(child.size_bytes for child in children) + 64
    return sealed(Part(name, kind, size, "sha256:", facts, children))


def sealed(part: Part) -> Part:
    """Return a part with the digest that follows from what it holds and says."""
    if not part.digest or not part.children:
        return part
    own = [row for row in part.facts.items() if of_its_bytes(part.kind, row[0])]
    inside = {"facts": sorted(map(repr, own)), "size": part.size_bytes}
    told = json.dumps([inside, [child.as_dict() for child in part.children]], default=str)
    return replace(part, digest=digest_of(told))


def altered(part: Part, path: str, change: Callable[[Part], Part]) -> Part:
    """Return a tree with the part at a path changed, and all that holds it with new digests."""
    if not path:
        return change(part)
    name, _, rest = path.partition("/")
    while part.child(name) is None and rest:  # names of directories within file systems
        step, _, rest = rest.partition("/")
        name = f"{name}/{step}"
    children = tuple(
        altered(child, rest, change) if child.name == name else child for child in part.children
    )
    if children == part.children:
        raise AssertionError(f"nothing at {path}")
    return sealed(replace(part, children=children))


def with_data(data: bytes | str) -> Callable[[Part], Part]:
    """Return a change of a part's bytes."""
    made = leaf("", data)
    return lambda part: replace(
        part, size_bytes=made.size_bytes, digest=made.digest, text=made.text
    )


def with_facts(**facts: Fact) -> Callable[[Part], Part]:
    """Return a change of facts; the digest of what it lies in follows."""
    return lambda part: sealed(replace(part, facts={**part.facts, **facts}))


@dataclass(frozen=True)
class Image:
    """What a disk image with one UKI, one extension and META is made from."""

    argument: str = "console=tty0"
    extension: str = "v1.0.0"
    schematic_id: str = ID_A
    meta: str = "hello"
    run: int = 1
    schematic: str | None = None

    @property
    def tree(self) -> Part:
        """The tree of the disk."""
        files = folder("EFI", folder("Linux", self.uki))
        efi = box("EFI", "partition", files, content="fat", guid=f"efi-{self.run}", type="esp")
        meta = leaf("0xa", self.meta, "document", key="0xa")
        return box(
            "metal-amd64.raw",
            "disk",
            efi,
            box("META", "partition", meta, content="meta", guid=f"meta-{self.run}", type="linux"),
            guid=f"disk-{self.run}",
            table="gpt",
            rest=digest_of("gaps"),
        )

    @property
    def uki(self) -> Part:
        """The UKI in it."""
        line = f"talos.platform=metal {self.argument} quiet"
        return box(
            "Talos.efi",
            "uki",
            leaf(".cmdline", line, "pe-section", content="cmdline", address="0x1000"),
            leaf(".linux", b"\0kernel", "pe-section", content="kernel", address="0x2000"),
            box(".initrd", "pe-section", *self.segments, content="initramfs", address="0x9000"),
            timestamp=0,
            checksum=digest_of(repr(self)),
            rest=digest_of("headers"),
        )

    @property
    def segments(self) -> tuple[Part, Part]:
        """The base archive of the initramfs and the one with the extensions."""
        base = (leaf("init", b"\0init", mode="0755", mtime=1), leaf("rootfs.sqsh", b"\0root"))
        files = (
            leaf("extensions.yaml", self.listing, "document", mode="0644", mtime=self.run),
            box(
                "000.sqsh",
                "squashfs",
                leaf("tool", f"program {self.extension}", mode="0755"),
                packing="zstd",
                has_xattrs=False,
                mode="0644",
                mtime=self.run,
            ),
            box(
                "001.sqsh",
                "squashfs",
                leaf(self.schematic_id, b"\0", mode="0644"),
                packing="zstd",
                has_xattrs=False,
                mode="0644",
                mtime=self.run,
            ),
        )
        rest = digest_of("order")
        return (
            box("segment 1", "cpio", *base, packing="xz", check="crc32", rest=rest),
            box("segment 2", "cpio", *files, packing="zstd", rest=rest),
        )

    @property
    def listing(self) -> str:
        """The text of extensions.yaml."""
        rows = (("000.sqsh", "tool", self.extension), ("001.sqsh", "schematic", self.schematic_id))
        return "layers:\n" + "".join(
            f"    - image: {image}\n      metadata:\n        name: {name}\n"
            f"        version: {version}\n        description: The {name} of the machine\n"
            for image, name, version in rows
        )

    @property
    def meaning(self) -> dict[str, Any]:
        """What inspection says of it."""
        return {
            "kind": "disk",
            "packing": [],
            "talos_version": "v1.13.0",
            "arch": "amd64",
            "platform": "metal",
            "schematic_id": self.schematic_id,
            "schematic": self.schematic,
            "extensions": [
                {"name": "tool", "version": self.extension, "author": "me", "image": "000.sqsh"}
            ],
            "kernel_arguments": ["talos.platform=metal", self.argument, "quiet"],
            "boot_entries": [
                {
                    "title": "Talos",
                    "loader": "uki",
                    "path": "EFI/EFI/Linux/Talos.efi",
                    "kernel_arguments": ["talos.platform=metal", self.argument, "quiet"],
                }
            ],
            "meta": {"0xa": self.meta},
            "secure_boot": {"state": "unsigned", "signers": [], "pcr_signed": False, "enrols": []},
            "boot": {"bios": True, "uefi": True},
            "imager": {},
            "unknown": [],
        }

    @property
    def subject(self) -> Subject:
        """The side of a comparison that it is."""
        return Subject("image", self.tree, self.meaning)


def compared(left: Part, right: Part, **more: Any) -> Comparison:
    """Compare two trees whose meaning is not known."""
    return compare_trees(Subject("left", left, {}), Subject("right", right, {}), **more)


def told(comparison: Comparison) -> list[str]:
    """Return what is reported as a real difference."""
    return [one.what for one in comparison.differences if one.change not in ("packing", "noise")]
