"""A cheap mark that tells whether a blob's bytes may have been written to since they were hashed.

An exported file may be a hard link to its blob, and whoever runs as root (or changes the mode) can
write through it. Hashing gigabytes at each use would be safe and slow. So when a blob's bytes have
just been hashed, the sub-second part of its modification time is set to a value derived from its
digest. Any write lets the kernel set another time, which breaks the seal, and a blob without seal
is hashed again before it is used. This finds accidents; somebody who can forge times in the store
already has all rights of its owner.
"""

from __future__ import annotations

import os
import time
from typing import Final

from local_imager.oci.model import Digest

_SECOND_NS: Final = 1_000_000_000
# Steps of 100 ns are kept by every file system with sub-second times (NTFS has no finer ones).
_STEP_NS: Final = 100
_STEPS: Final = _SECOND_NS // _STEP_NS


def _mark_ns(digest: Digest) -> int:
    """Between 100 ns and 1 s - 100 ns: never zero, which coarse file systems would show."""
    return (int(digest.hex[:12], 16) % (_STEPS - 1) + 1) * _STEP_NS


def is_sealed(status: os.stat_result, digest: Digest) -> bool:
    """Return whether nothing was written since the file was found to have this digest."""
    return status.st_mtime_ns % _SECOND_NS == _mark_ns(digest)


def seal(handle: int, digest: Digest) -> None:
    """Mark an open file as having this digest; its time moves back by less than a second."""
    written_ns, mark_ns = os.fstat(handle).st_mtime_ns, _mark_ns(digest)
    sealed_ns = written_ns // _SECOND_NS * _SECOND_NS + mark_ns
    if sealed_ns > written_ns:  # a file from the future makes other tools warn
        sealed_ns -= _SECOND_NS
    os.utime(handle, ns=(time.time_ns(), sealed_ns))


def touch(path: str | os.PathLike[str]) -> None:
    """Note a use: the access time becomes now (and with it ctime); the seal stays."""
    status = os.stat(path)
    os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
