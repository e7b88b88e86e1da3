"""Harnesses for what boot files consist of: streams, archives, file systems, kernels, menus."""

from __future__ import annotations

from typing import Final

from local_imager.formats.cpio import read_cpio, rewrite_times
from local_imager.formats.entries import Volume
from local_imager.formats.erofs import read_erofs
from local_imager.formats.grub import read_grub
from local_imager.formats.initramfs import segments
from local_imager.formats.kernel import read_kernel
from local_imager.formats.packing import packing_of, unpack
from local_imager.formats.source import BytesSource, FormatError, stream
from local_imager.formats.squashfs import read_squashfs
from tests.fuzz.driver import Fault, Harness

# What unpacks to more is for the tests of ceilings, not for the fuzzer.
_MAX_UNPACKED_BYTES: Final = 8 << 20


def packed(data: bytes) -> None:
    """A compressed file of any kind, whatever it unpacks to."""
    total = 0
    for piece in unpack(BytesSource(data), packing_of(data[:16]), max_bytes=_MAX_UNPACKED_BYTES):
        total += len(piece)
    if total > _MAX_UNPACKED_BYTES:
        raise Fault("more came out than was asked for")


def cpio(data: bytes) -> None:
    """An archive: written again with its own times it is the same, and with others as long."""
    names = 0
    for entry in read_cpio([data]):
        names += 1
        content = sum(len(piece) for piece in entry.chunks())
        if content > len(data) or "//" in entry.path or entry.path.startswith("/"):
            raise Fault("an entry that cannot be")
    if b"".join(rewrite_times([data], None)) != data:
        raise Fault("an archive became another one")
    if len(b"".join(rewrite_times([data], 0))) != len(data):
        raise Fault("other times changed more than times")


def initramfs(data: bytes) -> None:
    """Segments do not overlap and lie inside of the file."""
    end = 0
    for segment in segments(BytesSource(data), max_bytes=_MAX_UNPACKED_BYTES):
        if segment.offset < end:
            raise Fault("segments overlap")
        for entry in segment.entries():
            for _ in entry.chunks():
                pass
        end = segment.offset + segment.size_bytes
        if end > len(data):
            raise Fault("a segment ends outside of the file")


def squashfs(data: bytes) -> None:
    """A squashfs with whatever its tables say."""
    _volume(read_squashfs(BytesSource(data)))


def erofs(data: bytes) -> None:
    """An erofs with whatever its inodes say."""
    _volume(read_erofs(BytesSource(data)))


def _volume(volume: Volume) -> None:
    paths = {entry.path for entry in volume.entries}
    if len(paths) != len(volume.entries):
        raise Fault("two entries have one path")
    taken = 0
    for entry in volume.entries:
        if not entry.path or entry.path.startswith("/") or "/../" in f"/{entry.path}/":
            raise Fault("a path that leads out")
        if entry.kind != "file" or taken > _MAX_UNPACKED_BYTES:
            continue
        try:
            content = volume.open(entry)
            if content.size_bytes != entry.size_bytes:
                raise Fault("a file has two sizes")
            for piece in stream(content, 0, min(entry.size_bytes, 1 << 20)):
                taken += len(piece)
        except FormatError:
            continue


def kernel(data: bytes) -> None:
    """A kernel image of any form."""
    read_kernel(BytesSource(data)).version.encode(errors="surrogateescape")


def grubcfg(data: bytes) -> None:
    """A GRUB configuration; what a kernel gets does not have more words than were written."""
    config = read_grub(data)
    chosen, why = config.choice
    if chosen is not None and (why or not any(chosen is one for one in config.entries)):
        raise Fault("the entry that starts by itself is none, or is not sure")
    for entry in config.entries:
        if len(entry.command_line) > 4 * len(data):
            raise Fault("a command line is longer than its file")


HARNESSES: Final = (
    Harness("packed", packed),
    Harness("cpio", cpio),
    Harness("initramfs", initramfs),
    Harness("squashfs", squashfs),
    Harness("erofs", erofs),
    Harness("kernel", kernel, 4096),
    Harness("grubcfg", grubcfg, 8192),
)
