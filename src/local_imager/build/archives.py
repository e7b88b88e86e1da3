"""Tar files around a disk: the sparse ``.tar.gz`` of cloud images and the OVA of VMware."""

from __future__ import annotations

import hashlib
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from local_imager.build.chunks import CHUNK_BYTES, DIG_BYTES, file_chunks, rechunk
from local_imager.build.compress import write_gzip
from local_imager.build.ovf import ovf_document
from local_imager.errors import BuildError
from local_imager.oci.sparse import hash_file

_BLOCK: Final = 512
_FIRST_ENTRIES: Final = 4
_MORE_ENTRIES: Final = 21
# A number field of 12 bytes holds 11 octal digits: 8 GiB and more need the binary form.
_OCTAL_LIMIT: Final = 8**11


def write_disk_tar_gz(
    disk: Path, target: Path, epoch: int, workers: int, cancel: threading.Event
) -> None:
    """Write ``disk.raw`` as a sparse tar, gzip-compressed, as the imager names and owns it.

    The old GNU sparse format is what Google Cloud asks for (Talos pkg/imager/post.go).
    """
    with target.open("xb") as stream:
        chunks = rechunk(_sparse_tar(disk, "disk.raw", epoch), CHUNK_BYTES)
        write_gzip(chunks, stream, workers, cancel)


def _data_map(disk: Path) -> list[tuple[int, int]]:
    """Return (offset, length) of the parts with content, joined, and an end marker."""
    parts: list[tuple[int, int]] = []
    offset = 0
    for chunk in file_chunks(disk, DIG_BYTES):
        if chunk.data is not None:
            if parts and sum(parts[-1]) == offset:
                parts[-1] = (parts[-1][0], parts[-1][1] + chunk.length)
            else:
                parts.append((offset, chunk.length))
        offset += chunk.length
    if not parts or sum(parts[-1]) != offset:
        parts.append((offset, 0))  # GNU tar marks a hole at the end this way
    return parts


def _number(value: int) -> bytes:
    if value < _OCTAL_LIMIT:
        return b"%011o\x00" % value
    return b"\x80" + value.to_bytes(11, "big")


def _sparse_tar(disk: Path, name: str, epoch: int) -> Iterator[bytes]:
    parts = _data_map(disk)
    data_bytes = sum(length for _, length in parts)
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.type = data_bytes, 0o644, epoch, tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:_BLOCK])
    entries = [_number(offset) + _number(length) for offset, length in parts]
    first, rest = entries[:_FIRST_ENTRIES], entries[_FIRST_ENTRIES:]
    sparse = b"".join(first).ljust(_FIRST_ENTRIES * 24, b"\x00")
    sparse += (b"\x01" if rest else b"\x00") + _number(disk.stat().st_size)
    header[386 : 386 + len(sparse)] = sparse
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    yield bytes(header)
    while rest:
        block, rest = rest[:_MORE_ENTRIES], rest[_MORE_ENTRIES:]
        data = b"".join(block).ljust(_MORE_ENTRIES * 24, b"\x00")
        yield (data + (b"\x01" if rest else b"\x00")).ljust(_BLOCK, b"\x00")
    yield from _parts_data(disk, parts)
    yield bytes(-data_bytes % _BLOCK)
    yield bytes(tarfile.RECORDSIZE)


def _parts_data(disk: Path, parts: list[tuple[int, int]]) -> Iterator[bytes]:
    with disk.open("rb") as stream:
        for offset, length in parts:
            stream.seek(offset)
            while length:
                data = stream.read(min(length, CHUNK_BYTES))
                if not data:
                    raise OSError("the disk became shorter while it was packed")
                length -= len(data)
                yield data


def write_ova(vmdk: Path, target: Path, epoch: int) -> None:
    """Pack a stream-optimised VMDK with its OVF description and manifest.

    Names and order of the members are the imager's (Talos pkg/imager/ova); owner and times are
    fixed. Raises :class:`BuildError` when the file is not a VMDK.
    """
    disk_bytes = _vmdk_capacity(vmdk)
    digest, size_bytes = hash_file(vmdk)
    ovf = ovf_document("disk.vmdk", size_bytes, disk_bytes)
    manifest = (
        f"SHA256(disk.vmdk)= {digest.hex}\nSHA256(disk.ovf)= {hashlib.sha256(ovf).hexdigest()}\n"
    ).encode()
    with target.open("xb") as stream:
        for name, data in (("disk.ovf", ovf), ("disk.mf", manifest)):
            stream.write(_plain_header(name, len(data), epoch) + data + bytes(-len(data) % _BLOCK))
        stream.write(_plain_header("disk.vmdk", size_bytes, epoch))
        with vmdk.open("rb") as source:
            while data := source.read(CHUNK_BYTES):
                stream.write(data)
        stream.write(bytes(-size_bytes % _BLOCK) + bytes(2 * _BLOCK))


def _vmdk_capacity(vmdk: Path) -> int:
    """Read the size of the disk inside (VMware Virtual Disk Format 5.0, sparse extent header)."""
    with vmdk.open("rb") as stream:
        magic, _, _, sectors = struct.unpack("<4sIIQ", stream.read(20))
    if magic != b"KDMV":
        raise BuildError("the conversion to VMDK gave a file without a VMDK header")
    return int(sectors) * _BLOCK


def _plain_header(name: str, size_bytes: int, epoch: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, epoch
    return info.tobuf(tarfile.GNU_FORMAT)
