"""Seeds for the harnesses of disks, made by Debian's programs; of each only what is read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lab.debian import need_packages
from local_imager.formats.entries import Volume
from local_imager.formats.fat import read_fat
from local_imager.formats.mapped import DiskView
from local_imager.formats.qcow2 import open_qcow2
from local_imager.formats.source import FileSource, Source, sha256_of
from local_imager.formats.vhd import open_vhd
from local_imager.formats.vmdk import open_vmdk
from local_imager.formats.xfs import read_xfs
from tests.diskfiles import (
    Sparse,
    empty_file,
    gpt_disk,
    gpt_entry,
    mbr_entries,
    meta_copy,
    meta_syslinux,
    patched,
    small_fat32,
    tool,
)
from tests.fuzz.diskfiles import packed

Seed = tuple[str, str, bytes]
_MIB: Final = 1 << 20
_UUID: Final = "01234567-89ab-cdef-0123-456789abcdef"
_OLD_XFS: Final = "crc=0,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0"
_QCOW2: Final = {
    "plain": ("-o", "cluster_size=4096"),
    "old": ("-o", "compat=0.10,cluster_size=4096"),
    "zlib": ("-c", "-o", "cluster_size=4096"),
    "zstd": ("-c", "-o", "cluster_size=4096,compression_type=zstd"),
}


class Recording:
    """A source that remembers what was read of it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size_bytes = source.size_bytes
        self.read_pieces: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        """See Source.read."""
        data = self._source.read(offset, length)
        if len(data) > len(self.read_pieces.get(offset, b"")):
            self.read_pieces[offset] = data
        return data

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See Source.data_runs."""
        return self._source.data_runs(offset, length)

    def seed(self) -> bytes:
        """Return what was read as an input."""
        return packed(Sparse(self.size_bytes, self.read_pieces.items()))


def diskfiles() -> Iterator[Seed]:
    """Yield (harness, name, bytes)."""
    need_packages(["filesystems"])
    yield from _tables()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _fat(folder)
        yield from _xfs(folder)
        yield from _containers(folder)


def _whole(data: bytes) -> bytes:
    return packed(Sparse(len(data), [(0, data)]))


def _tables() -> Iterator[Seed]:
    two = [gpt_entry(34, 99, "ESP"), gpt_entry(100, 999, "META", attributes=4)]
    disk = gpt_disk(1034, two)
    yield "gpt", "512", _whole(disk)
    yield "gpt", "4096", _whole(gpt_disk(512, two[:1], sector_bytes=4096))
    yield "gpt", "backup", _whole(patched(disk, 512, b"x"))
    hybrid = mbr_entries([(0, 0xEE, 1, 33), (0x80, 0x83, 100, 900)])
    yield "gpt", "hybrid", _whole(patched(disk, 446, hybrid))
    mbr = bytes(446) + mbr_entries([(0, 0x83, 1, 9), (0, 0x05, 10, 80)])
    mbr = patched(mbr.ljust(100 * 512, b"\0"), 10 * 512 + 446, mbr_entries([(0, 0x83, 1, 5)]))
    yield "gpt", "mbr", _whole(mbr)
    copy = meta_copy([(10, b"addresses: []\n"), (17, b"dual-boot")])
    yield "meta", "two", _whole((copy + copy).ljust(_MIB, b"\0"))
    yield "meta", "second", _whole((b"x" + copy[1:] + copy).ljust(_MIB, b"\0"))
    old = meta_syslinux([(6, b"upgrade")])
    yield "meta", "syslinux", _whole((copy + copy).ljust(_MIB - 1024, b"\0") + old + old)


def _read_volume(path: Path, read: Callable[[Source], Volume]) -> bytes:
    with FileSource(path) as source:
        recording = Recording(source)
        volume = read(recording)
        for entry in volume.entries:
            if entry.kind == "file":
                sha256_of(volume.open(entry))
        return recording.seed()


def _fat(folder: Path) -> Iterator[Seed]:
    yield "fat", "small-fat32", _whole(small_fat32({"A": b"a" * 1500, "D/E/B": b"b", "D/C": b""}))
    (folder / "EFI" / "BOOT").mkdir(parents=True)
    (folder / "EFI" / "BOOT" / "A longer name than eight").write_bytes(b"text\n" * 300)
    (folder / "EFI" / "lower.txt").write_bytes(b"x")
    for kind, size_mib in (("12", 1), ("16", 4)):
        volume = empty_file(folder / "volume", size_mib * _MIB)
        tool("mkfs.fat", "--invariant", "-F", kind, "-s", "1", "-n", "EFI", volume)
        tool("mcopy", "-s", "-i", volume, folder / "EFI", "::/")
        yield "fat", f"fat{kind}", _read_volume(volume, read_fat)
        volume.unlink()


def _xfs(folder: Path) -> Iterator[Seed]:
    (folder / "content").write_bytes(b"set timeout=3\n" * 20)
    lines = ["/dev/null", "0 0", "d--755 0 0", f"grub.cfg ---644 3 4 {folder / 'content'}"]
    lines += ["link l--777 0 0 A/vmlinuz", "pipe p--600 0 0", "many d--750 7 8"]
    lines += [f"a-rather-long-name-{n} ---640 1 2 /dev/null" for n in range(12)]
    (folder / "tree").write_text("\n".join([*lines, "$", "$", ""]))
    for name, features in (("v4", _OLD_XFS), ("v5", "rmapbt=1,bigtime=1,inobtcount=1")):
        volume = empty_file(folder / "volume", 300 * _MIB)
        options = ("-m", features, "-m", f"uuid={_UUID}", "-L", "BOOT")
        tool("mkfs.xfs", "-q", *options, "-p", folder / "tree", volume)
        yield "xfs", name, _read_volume(volume, read_xfs)
        volume.unlink()


def _containers(folder: Path) -> Iterator[Seed]:
    with empty_file(folder / "raw", _MIB + 512).open("r+b") as stream:
        for offset in (0, 70_000, _MIB):
            stream.seek(offset)
            stream.write(b"text of a disk\n" * 20)
    for name, options in _QCOW2.items():
        yield "qcow2", name, _converted(folder, open_qcow2, "qcow2", *options)
    for name in ("fixed", "dynamic"):
        options = ("-o", f"subformat={name},force_size=on")
        yield "vhd", name, _converted(folder, open_vhd, "vpc", *options)
    for name in ("monolithicSparse", "streamOptimized"):
        yield "vmdk", name, _converted(folder, open_vmdk, "vmdk", "-o", f"subformat={name}")


def _converted(
    folder: Path, opened: Callable[[Source], DiskView], form: str, *options: str
) -> bytes:
    target = folder / "converted"
    tool("qemu-img", "convert", "-f", "raw", "-O", form, *options, folder / "raw", target)
    with FileSource(target) as source:
        recording = Recording(source)
        sha256_of(opened(recording).source)
        return recording.seed()
