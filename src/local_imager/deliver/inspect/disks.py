"""Disks as parts: partition table, partitions and what no partition covers."""

from __future__ import annotations

from typing import Final

from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.rest import disk_rest
from local_imager.deliver.inspect.volumes import Names, clean, frozen
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.gpt import Partition, PartitionTable, read_partitions
from local_imager.formats.source import BytesSource, FormatError, Slice, Source

# Boot code that a BIOS runs lies in the first 440 bytes of a disk (UEFI specification, 5.2.1).
_BOOT_CODE_BYTES: Final = 440


def open_disk(walk: Walk, source: Source) -> Inside:
    """Return table, boot code and partitions of a raw disk."""
    table = read_partitions(source)
    facts = table_facts(table) | {"rest": disk_rest(source, table)}
    return Inside(facts=facts, children=disk_parts(walk, source, table))


def table_facts(table: PartitionTable) -> dict[str, Fact]:
    """Return what a partition table says of the disk as a whole."""
    facts: dict[str, Fact] = {"table": table.kind, "sector_bytes": table.sector_bytes}
    if table.disk_guid:
        facts["guid"] = table.disk_guid
    if table.faults:
        facts["faults"] = tuple(clean(fault) for fault in table.faults)
    return facts


def disk_parts(walk: Walk, source: Source, table: PartitionTable) -> tuple[Part, ...]:
    """Return the boot code and the partitions; each is called by its name, else its number."""
    names = Names()
    parts = []
    code = table.boot_code[:_BOOT_CODE_BYTES]
    if code.strip(b"\0"):
        part = walk.part(
            BytesSource(code),
            names.unique("boot code"),
            place="unpartitioned",
            offset=0,
            look=False,
        )
        parts.append(part)
    for partition in table.partitions or table.mbr:
        parts.append(_partition(walk, source, partition, names))
    return tuple(parts)


def partition_name(partition: Partition) -> str:
    """Return the name of a partition, ``partition 1`` where it has none."""
    return partition.name or f"partition {partition.number}"


def partition_facts(partition: Partition) -> dict[str, Fact]:
    """Return what the table says of a partition, but for where it lies."""
    facts: dict[str, Fact] = {"number": partition.number}
    if partition.type_guid:
        facts |= {
            "type": partition.type_guid,
            "guid": partition.guid,
            "attributes": f"{partition.attributes:#x}",
        }
    if partition.mbr_type is not None:
        facts |= {"mbr_type": f"{partition.mbr_type:#04x}", "bootable": partition.bootable}
    return facts


def _partition(walk: Walk, source: Source, partition: Partition, names: Names) -> Part:
    name = names.unique(partition_name(partition))
    facts = partition_facts(partition)
    try:
        piece = Slice(source, partition.offset, partition.size_bytes)
    except FormatError as error:
        size = partition.size_bytes
        return walk.leaf(name, "partition", size, facts=frozen(facts), unread=error.message)
    return walk.part(piece, name, place="partition", facts=facts, offset=partition.offset)
