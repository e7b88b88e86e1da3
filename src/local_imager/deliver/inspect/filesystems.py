"""Each file system as parts, and the META partition, which is one of keys and values."""

from __future__ import annotations

from types import MappingProxyType

from local_imager.deliver.inspect.parts import Fact
from local_imager.deliver.inspect.rest import meta_rest
from local_imager.deliver.inspect.volumerest import fat_rest, tail_rest
from local_imager.deliver.inspect.volumes import clean, volume_parts
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.source import BytesSource, Source, sha256_of


def open_fat(walk: Walk, source: Source) -> Inside:
    """Return what a FAT volume (an EFI system partition) holds."""
    from local_imager.formats.fat import read_fat

    volume = read_fat(source)
    facts: dict[str, Fact] = {
        "filesystem": volume.kind,
        "label": clean(volume.label),
        "serial": volume.serial,
        "made_by": clean(volume.oem_name),
        "cluster_bytes": volume.cluster_bytes,
        "rest": fat_rest(source, volume),
    }
    return Inside(facts=facts, children=volume_parts(walk, volume))


def open_xfs(walk: Walk, source: Source) -> Inside:
    """Return what an XFS volume (the partition that GRUB reads kernels from) holds."""
    from local_imager.formats.xfs import read_xfs

    volume = read_xfs(source)
    facts: dict[str, Fact] = {
        "filesystem": f"xfs v{volume.version}",
        "label": clean(volume.label),
        "uuid": volume.uuid,
        "features": tuple(volume.features),
        "block_bytes": volume.block_bytes,
        "sector_bytes": volume.sector_bytes,
        "inode_bytes": volume.inode_bytes,
        "group_count": volume.group_count,
        "log_blocks": volume.log_blocks,
    }
    return Inside(facts=facts, children=volume_parts(walk, volume))


def open_squashfs(walk: Walk, source: Source) -> Inside:
    """Return what a squashfs (an extension, the root file system) holds, not looking into it."""
    from local_imager.formats.squashfs import read_squashfs

    volume = read_squashfs(source)
    facts: dict[str, Fact] = {
        "filesystem": "squashfs",
        "packing": volume.facts.packing,
        "block_bytes": volume.facts.block_bytes,
        "made": volume.facts.made,
        "inodes": volume.facts.inodes,
        "has_xattrs": volume.facts.has_xattrs,
        "flags": f"{volume.facts.flags:#x}",
    }
    tail = tail_rest(source, volume.facts.image_bytes)
    if tail:
        facts["rest"] = tail
    return Inside(facts=facts, children=volume_parts(walk, volume, look=False))


def open_erofs(walk: Walk, source: Source) -> Inside:
    """Return what an erofs (an extension, the root file system) holds, not looking into it."""
    from local_imager.formats.erofs import read_erofs

    volume = read_erofs(source)
    facts: dict[str, Fact] = {
        "filesystem": "erofs",
        "label": clean(volume.facts.label),
        "uuid": volume.facts.uuid,
        "block_bytes": volume.facts.block_bytes,
        "made": volume.facts.made,
        "inodes": volume.facts.inodes,
        "features": volume.facts.features,
    }
    tail = tail_rest(source, volume.facts.image_bytes)
    if tail:
        facts["rest"] = tail
    return Inside(facts=facts, children=volume_parts(walk, volume, look=False))


def open_meta(walk: Walk, source: Source) -> Inside:
    """Return the values of a META partition, each under its key as Talos writes it (``0xa``)."""
    from local_imager.formats.meta import read_meta

    meta = read_meta(source)
    facts: dict[str, Fact] = {"rest": meta_rest(source)}
    if meta.faults:
        facts["faults"] = tuple(clean(fault) for fault in meta.faults)
    parts = []
    for where, values in (("", meta), ("syslinux ", meta.syslinux)):
        for key, value in sorted(values.items()):
            text = walk.kept(_text(value))
            part = walk.leaf(
                f"{where}{key:#x}",
                "document" if text is not None else "data",
                len(value),
                digest=sha256_of(BytesSource(value)),
                text=text,
                facts=MappingProxyType({"key": f"{key:#x}"}),
            )
            parts.append(part)
    return Inside(facts=facts, children=tuple(parts))


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
