"""Initramfs as an imager leaves them: archives of the day around the bytes of a version."""

from __future__ import annotations

import lzma
import time
from collections.abc import Sequence

import zstandard

from local_imager.build.request import ImagerRequest

BASE = b"\xfd7zXZ\x00 the initramfs of a version, which nobody reads" * 3
FILES = (("usr", None), ("usr/lib", None), ("0.sqsh", b"layer" * 99), ("extensions.yaml", b"a: 1"))


def cpio(files: Sequence[tuple[str, bytes | None]], mtime: int, *, block: int = 512) -> bytes:
    """A newc archive as ``cpio --reproducible`` writes it; None makes a folder."""
    out = b""
    for number, (name, content) in enumerate((*files, ("TRAILER!!!", b"")), start=1):
        last = name == "TRAILER!!!"
        mode = 0 if last else 0o100644 if content is not None else 0o040755
        data, raw = content or b"", name.encode() + b"\0"
        inode, links, when = (0, 1, 0) if last else (number, 1 if content else 2, mtime)
        fields = (inode, mode, 0, 0, links, when, len(data), 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + raw
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out + bytes(-len(out) % block)


def pack(archive: bytes, packing: str = "zstd") -> bytes:
    """Pack as the imager does: zstd from v1.8 on, xz with CRC-32 before."""
    if packing == "xz":
        return lzma.compress(archive, check=lzma.CHECK_CRC32)
    return zstandard.ZstdCompressor(level=18, write_content_size=False).compress(archive)


def imager_initramfs(
    base: bytes = BASE, *, mtime: int | None = None, packing: str = "zstd", early: bool = False
) -> bytes:
    """What an imager makes at some time (now, to the nanosecond) out of a version's initramfs."""
    when = time.time_ns() & 0xFFFFFFFF if mtime is None else mtime
    blob = [("kernel", None), ("kernel/x86.bin", b"microcode")]
    return (cpio(blob, when) if early else b"") + base + pack(cpio(FILES, when), packing)


def packed_extensions(request: ImagerRequest) -> bytes:
    """The output of a run of kind initramfs, around the staged initramfs of the version."""
    assert request.input_dir is not None
    base = request.input_dir / "base" / request.arch / "initramfs.xz"
    return imager_initramfs(base.read_bytes())
