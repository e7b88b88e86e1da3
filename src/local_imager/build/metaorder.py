"""META values in one order: an imager writes them as its map happens to give them, each run anew.

The values of the META partition lie one behind the other (Talos
``internal/pkg/meta/internal/adv/talos/talos.go``, which ranges over a Go map). With two or more a
disk would differ from run to run. Here they are put in the order of their keys. Nothing else
changes: a partition that could not be written again as it is, byte for byte, is left alone.
"""

from __future__ import annotations

from pathlib import Path

from local_imager.formats.gpt import read_partitions
from local_imager.formats.meta import META_BYTES, read_meta_order, write_meta
from local_imager.formats.source import FileSource, FormatError, Source


def order_meta(disk: Path) -> tuple[int, ...]:
    """Put the META values of a raw disk into the order of their keys, in place.

    Returns the keys as they stand now; none when there is no META partition, when it is empty, or
    when it is not built as it is known to be. Raises ``OSError`` when the file cannot be written.
    """
    with FileSource(disk) as source:
        found = _read(source)
    if found is None or len({key for key, _ in found[1]}) != len(found[1]):
        return ()
    offset, values = found
    ordered = sorted(values)
    if ordered != values:
        with disk.open("r+b") as target:
            target.seek(offset)
            target.write(write_meta(ordered))
    return tuple(key for key, _ in ordered)


def meta_keys(disk: Source) -> tuple[int, ...]:
    """Return the keys of the META values of a disk as they stand; none as for ``order_meta``."""
    found = _read(disk)
    return () if found is None else tuple(key for key, _ in found[1])


def _read(disk: Source) -> tuple[int, list[tuple[int, bytes]]] | None:
    """Return where META lies and what it holds, None where it is not built as it is known to be."""
    try:
        table = read_partitions(disk)
        found = next((one for one in table.partitions if one.name == "META"), None)
        if found is None or found.size_bytes < META_BYTES:
            return None
        raw = disk.read(found.offset, META_BYTES)
        values = read_meta_order(raw)
    except FormatError:
        return None
    return (found.offset, values) if write_meta(values) == raw else None
