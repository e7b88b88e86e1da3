"""Makes converted disks independent of when they were written, and of chance.

qemu-img puts the time and a random identifier into a VHD's footer (and into the copy that a dynamic
disk begins with), vmdk-convert two random content IDs into a VMDK's description. They are replaced
by values that follow from what the disk is.
Formats: Microsoft, Virtual Hard Disk Image Format Specification 1.0, "Hard Disk Footer Format";
VMware, Virtual Disk Format 5.0, "The Disk Descriptor File".
"""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path
from typing import BinaryIO, Final

from local_imager.errors import BuildError

_FOOTER_BYTES: Final = 512
_COOKIE: Final = b"conectix"
_VHD_EPOCH: Final = 946684800  # times count from 2000-01-01 in UTC
_TIME_AT, _CHECKSUM_AT, _ID_AT = 24, 64, 68
_TYPE_AT: Final = 60
_FIXED: Final = 2
# The description follows the header and fits into 20 sectors.
_VMDK_HEAD_BYTES: Final = 21 * 512


def fix_vhd_identity(path: Path, epoch: int, identity: str) -> None:
    """Set the time to ``epoch`` and the identifier to one derived from ``identity``.

    Raises :class:`BuildError` when the file is not a VHD.
    """
    with path.open("r+b") as stream:
        stream.seek(-_FOOTER_BYTES, 2)
        end = stream.tell()
        footer = _patched(stream.read(_FOOTER_BYTES), epoch, identity)
        _write(stream, end, footer)
        (kind,) = struct.unpack_from(">I", footer, _TYPE_AT)
        if kind != _FIXED:
            _write(stream, 0, footer)


def fix_vmdk_identity(path: Path, identity: str) -> None:
    """Set both content IDs of a stream-optimised VMDK to ones derived from ``identity``.

    Raises :class:`BuildError` when the file has no description with such IDs.
    """
    content_id = hashlib.sha256(f"vmdk {identity}".encode()).hexdigest()[:32].encode()
    with path.open("r+b") as stream:
        head = stream.read(_VMDK_HEAD_BYTES)
        if not head.startswith(b"KDMV"):
            raise BuildError("the conversion to VMDK gave a file without a VMDK header")
        # The short ID is the end of the long one; the lengths stay, so nothing moves.
        changed, short = re.subn(rb"(\nCID=)[0-9a-f]{8}", rb"\g<1>" + content_id[-8:], head)
        long_id = rb'(ddb\.longContentID = ")[0-9a-f]{32}'
        changed, long = re.subn(long_id, rb"\g<1>" + content_id, changed)
        if (short, long) != (1, 1):
            raise BuildError("the description of the VMDK has no content IDs")
        _write(stream, 0, changed)


def _patched(footer: bytes, epoch: int, identity: str) -> bytes:
    if not footer.startswith(_COOKIE):
        raise BuildError("the conversion to VHD gave a file without a VHD footer")
    new = bytearray(footer)
    struct.pack_into(">I", new, _TIME_AT, max(0, epoch - _VHD_EPOCH) & 0xFFFFFFFF)
    new[_ID_AT : _ID_AT + 16] = hashlib.sha256(f"vhd {identity}".encode()).digest()[:16]
    struct.pack_into(">I", new, _CHECKSUM_AT, 0)
    struct.pack_into(">I", new, _CHECKSUM_AT, ~sum(new) & 0xFFFFFFFF)
    return bytes(new)


def _write(stream: BinaryIO, offset: int, data: bytes) -> None:
    stream.seek(offset)
    stream.write(data)
