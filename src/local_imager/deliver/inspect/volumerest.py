"""The fact ``rest`` of file systems and archives: bytes that no entry and no other fact shows.

See :mod:`local_imager.deliver.inspect.rest` for what it is for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from local_imager.deliver.inspect.limits import charge_rest
from local_imager.deliver.inspect.rest import rest_digest
from local_imager.formats.source import Source

if TYPE_CHECKING:
    from local_imager.formats.fat import FatVolume
    from local_imager.formats.tar import TarVolume

# Sectors in front of the tables; mkfs.fat makes 32 at most.
_MAX_RESERVED_BYTES: Final = 1 << 20
# Of the sector "FSInfo": hints how many clusters are free, and where.
_HINTS: Final = (488, 8)
_NAME: Final = (3, 8)
# What following a chain by one cluster costs, in bytes that could be hashed in that time.
_WORK_BYTES: Final = 64


def fat_rest(source: Source, volume: FatVolume) -> str:
    """Return the digest of the sectors before the tables (geometry, code), of other copies of the
    table that differ, of what it says of clusters that no file has, and of the bytes behind files,
    in free clusters and behind the volume.

    Left out are name of the maker, state, serial and label, which are facts, and hints.
    """
    tables = volume.tables
    reserved = bytearray(source.read(0, min(tables[0][0], _MAX_RESERVED_BYTES)))
    at = 64 if volume.kind == "fat32" else 36
    boots, hints = {0}, set[int]()
    if volume.kind == "fat32":
        size = int.from_bytes(reserved[11:13], "little")
        info, backup = (int.from_bytes(reserved[n : n + 2], "little") for n in (48, 50))
        boots.add(backup * size)
        hints |= {info * size, (backup + info) * size}
    masked = [
        (start + n, count) for start in boots for n, count in (_NAME, (at + 1, 1), (at + 3, 15))
    ]
    masked += [(start + _HINTS[0], _HINTS[1]) for start in hints if start]
    for start, count in masked:
        reserved[start : start + count] = bytes(max(min(count, len(reserved) - start), 0))
    hasher = hashlib.sha256(reserved)
    # The table is walked and read here; both take their time in a volume of millions of clusters.
    charge_rest(volume.cluster_count * _WORK_BYTES + sum(length for _, length in tables))
    first = source.read(*tables[0])
    for place in tables[1:]:
        other = source.read(*place)
        if other != first:
            hasher.update(hashlib.sha256(other).digest())
    hasher.update(volume.loose())
    covered = [(0, len(reserved)), *volume.owned()]
    hasher.update(rest_digest(source, covered, numbered=False).encode())
    return f"sha256:{hasher.hexdigest()}"


def tar_rest(source: Source, volume: TarVolume) -> str:
    """Return the digest of what headers say beside the facts of entries, and of what lies behind
    the archive's end."""
    behind = rest_digest(source, [(0, volume.end_bytes)], numbered=False)
    return f"sha256:{hashlib.sha256(f'{volume.headers} {behind}'.encode()).hexdigest()}"


def tail_rest(source: Source, end_bytes: int) -> str:
    """Return the digest of what follows a file system in its file; empty for zeros alone."""
    return rest_digest(source, [(0, end_bytes)], numbered=False)
