"""ISO images as parts: the tree, what each firmware boots, and the partitions of a hybrid."""

from __future__ import annotations

from typing import Final

from local_imager.deliver.inspect.disks import partition_facts, partition_name, table_facts
from local_imager.deliver.inspect.isorest import iso_rest
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.volumes import Names, clean, frozen, volume_parts
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.eltorito import BootEntry
from local_imager.formats.gpt import Partition, PartitionTable, read_partitions
from local_imager.formats.iso import IsoVolume, read_iso
from local_imager.formats.source import FormatError, Slice, Source

# The fact of a boot entry of which all is loaded.
_WHOLE: Final = "whole image"
_TITLES: Final = {"bios": "BIOS boot", "uefi": "UEFI boot"}


def open_iso(walk: Walk, source: Source) -> Inside:
    """Return the files of an ISO, its boot entries, and the partitions that a disk would show.

    A boot entry or partition whose bytes are a file of the tree says so in the fact ``image`` and
    is not opened a second time; nor is the partition that holds the tree itself.
    """
    volume = read_iso(source)
    table = _table(source)
    parts = list(volume_parts(walk, volume))
    names = Names(part.name for part in parts)
    partitions = table.partitions if table is not None else ()
    named = [(names.unique(partition_name(one)), one) for one in partitions]
    places = {one.offset: name for name, one in reversed(named)}
    lengths = {one.offset: one.size_bytes for one in reversed(partitions)}
    boots = [
        _boot_entry(walk, source, volume, entry, names, places, lengths)
        for entry in volume.boot.entries
    ]
    views = [_partition(walk, source, volume, partition, name) for name, partition in named]
    facts = (
        _volume_facts(volume)
        | _owner_facts(volume)
        | (table_facts(table) if table is not None else {})
    )
    opened = [(one.offset, one.size_bytes) for one in boots if one.offset is not None]
    opened += [
        (partition.offset, partition.size_bytes)
        for part, (_, partition) in zip(views, named, strict=True)
        if "view" not in part.facts
    ]
    whole = [
        entry.at
        for part, entry in zip(boots, volume.boot.entries, strict=True)
        if part.facts.get("loads") == _WHOLE
    ]
    facts["rest"] = iso_rest(source, volume, table, opened, whole)
    catalog = _image_at(volume, volume.boot.offset) if volume.boot.offset else ""
    if catalog:
        facts["catalog"] = catalog
    if volume.boot.fault:
        fault = walk.leaf(names.unique("boot catalogue"), "boot-entry", unread=volume.boot.fault)
        boots.append(fault)
    return Inside(facts=facts, children=(*parts, *boots, *views))


def _volume_facts(volume: IsoVolume) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "label": volume.volume_id,
        "system_id": volume.system_id,
        "volume_set_id": volume.volume_set_id,
        "publisher": volume.publisher,
        "preparer": volume.preparer,
        "application": volume.application,
        "created": volume.created,
        "modified": volume.modified,
        "names": volume.names,
        "joliet_label": volume.joliet_id,
    }
    return {key: value for key, value in facts.items() if value != ""}


def _owner_facts(volume: IsoVolume) -> dict[str, Fact]:
    """Say whose all entries are, where it is one: mostly the user that the ISO was made by."""
    owners = {(one.uid, one.gid) for one in volume.entries}
    if len(owners) != 1:
        return {}
    uid, gid = owners.pop()
    return {} if uid is None or gid is None else {"owner": f"{uid}:{gid}"}


def _table(source: Source) -> PartitionTable | None:
    """Return the partition table of a hybrid image, None for a plain one."""
    try:
        return read_partitions(source)
    except FormatError:
        return None


def _boot_entry(
    walk: Walk,
    source: Source,
    volume: IsoVolume,
    entry: BootEntry,
    names: Names,
    places: dict[int, str],
    lengths: dict[int, int],
) -> Part:
    name = names.unique(_TITLES.get(entry.platform, f"{entry.platform} boot"))
    facts: dict[str, Fact] = {
        "platform": entry.platform,
        "emulation": entry.emulation,
        "load_sectors": entry.load_sectors,
        "load_segment": f"{entry.load_segment:#x}",
        "bootable": entry.is_bootable,
    }
    image = _image_at(volume, entry.offset) or places.get(entry.offset, "")
    file = volume.file_at(entry.offset)
    length = file.size_bytes if file is not None else lengths.get(entry.offset, 0)
    if length and entry.load_sectors == -(-length // 512):
        facts["loads"] = _WHOLE
    if image:
        return walk.leaf(name, "boot-entry", facts=frozen(facts | {"image": image}))
    try:
        content = volume.open_boot_image(entry)
    except FormatError as error:
        return walk.leaf(name, "boot-entry", facts=frozen(facts), unread=error.message)
    return walk.part(content, name, place="boot-entry", facts=facts, offset=entry.offset)


def _partition(
    walk: Walk, source: Source, volume: IsoVolume, partition: Partition, name: str
) -> Part:
    facts = partition_facts(partition)
    image = _image_at(volume, partition.offset)
    if image:
        facts["image"] = image
    outside = partition.offset >= min(volume.size_bytes, source.size_bytes)
    is_boot = any(entry.offset == partition.offset for entry in volume.boot.entries)
    look = not image and (outside or is_boot)
    if not look:
        # All its bytes are told as files of the tree, and as what lies between them.
        facts["view"] = "of the volume"
    try:
        content = Slice(source, partition.offset, partition.size_bytes)
    except FormatError as error:
        size = partition.size_bytes
        return walk.leaf(name, "partition", size, facts=frozen(facts), unread=error.message)
    return walk.part(
        content, name, place="partition", facts=facts, offset=partition.offset, look=look
    )


def _image_at(volume: IsoVolume, offset: int) -> str:
    """Return the path of the file that begins here, empty for none."""
    found = volume.file_at(offset)
    return clean(found.path) if found is not None else ""
