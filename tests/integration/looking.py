"""Looking into built files with the programs that people use for it."""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from tests.labfolder import run

UNPACKERS = {
    ".tar.gz": ("tar", "-xzOf"),
    ".gz": ("gzip", "-dc"),
    ".xz": ("xz", "-dc"),
    ".zst": ("zstd", "-dcq"),
}


def kind_of(path: Path) -> str:
    """Return what file(1) says."""
    return run("file", "-b", path)


def stem_and_packing(name: str) -> tuple[str, str]:
    """Split ``a.raw.tar.gz`` into ``a.raw`` and ``.tar.gz``; the packing may be empty."""
    for packing in UNPACKERS:
        if name.endswith(packing):
            return name.removesuffix(packing), packing
    return name, ""


def unpacked_digest(path: Path) -> str:
    """Return the SHA-256 of the file without its compression, as ``sha256:…``."""
    packing = stem_and_packing(path.name)[1]
    sums = hashlib.sha256()
    with subprocess.Popen([*UNPACKERS[packing], str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(1 << 20):
            sums.update(chunk)
    assert process.returncode == 0
    return f"sha256:{sums.hexdigest()}"


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a compressed file into a folder; holes stay holes."""
    stem, packing = stem_and_packing(path.name)
    target = folder / stem
    with target.open("wb") as stream:
        unpacker = subprocess.Popen([*UNPACKERS[packing], str(path)], stdout=subprocess.PIPE)
        subprocess.run(
            ["dd", "bs=1M", "conv=sparse", "status=none", f"of={target}"],
            stdin=unpacker.stdout,
            check=True,
        )
        assert unpacker.wait() == 0
        stream.flush()
    return target


@dataclass(frozen=True)
class PortableExecutable:
    """The sections of an EFI program, and whether it carries a signature."""

    machine: int
    sections: dict[str, bytes]
    signature_bytes: int

    @property
    def arch(self) -> str:
        """The architecture in the names of OCI."""
        return {0x8664: "amd64", 0xAA64: "arm64"}[self.machine]

    @property
    def kernel_args(self) -> list[str]:
        """The kernel command line of a UKI."""
        return self.sections[".cmdline"].rstrip(b"\0").decode().split()


def read_pe(data: bytes) -> PortableExecutable:
    """Read an EFI program (PE32+; sections by name, the first of each)."""
    start = struct.unpack_from("<I", data, 0x3C)[0]
    assert data[:2] == b"MZ" and data[start : start + 4] == b"PE\0\0"
    machine, count = struct.unpack_from("<HH", data, start + 4)
    optional_bytes = struct.unpack_from("<H", data, start + 20)[0]
    certificates = struct.unpack_from("<I", data, start + 24 + 112 + 4 * 8 + 4)[0]
    sections: dict[str, bytes] = {}
    for number in range(count):
        entry = start + 24 + optional_bytes + 40 * number
        name = data[entry : entry + 8].rstrip(b"\0").decode()
        size, _, stored, offset = struct.unpack_from("<IIII", data, entry + 8)
        sections.setdefault(name, data[offset : offset + min(size, stored)])
    return PortableExecutable(machine, sections, certificates)


def initramfs_files(data: bytes) -> dict[str, bytes]:
    """Return the files of an initramfs: cpio archives (newc), plain or compressed, in a row."""
    files: dict[str, bytes] = {}
    while data := data.lstrip(b"\0"):
        if data.startswith(b"070701"):
            data = _read_archive(data, files)
        elif data.startswith(b"\xfd7zXZ"):
            xz = lzma.LZMADecompressor()
            _read_archive(xz.decompress(data), files)
            data = xz.unused_data
        else:
            zst = zstandard.ZstdDecompressor().decompressobj()
            _read_archive(zst.decompress(data), files)
            data = zst.unused_data
    return files


def _read_archive(data: bytes, files: dict[str, bytes]) -> bytes:
    """Collect the files of the archive that the data begins with; return what follows it."""
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        size, name_bytes = (int(data[at + field : at + field + 8], 16) for field in (54, 94))
        name = data[at + 110 : at + 110 + name_bytes - 1].decode()
        begin = (at + 110 + name_bytes + 3) // 4 * 4
        at = (begin + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return data[at:]
        files[name.removeprefix("./")] = data[begin : begin + size]


def iso_file(iso: Path, name: str, folder: Path) -> bytes:
    """Return a file of an ISO 9660 image."""
    target = folder / "from-iso"
    target.unlink(missing_ok=True)
    run("xorriso", "-osirrox", "on", "-indev", iso, "-extract", name, target)
    return target.read_bytes()


def iso_names(iso: Path) -> set[str]:
    """Return the names of all files of an ISO 9660 image."""
    listed = run("xorriso", "-indev", iso, "-find", "/", "-type", "f")
    return {line.strip().strip("'") for line in listed.splitlines()}


@dataclass(frozen=True)
class Partition:
    """One entry of a partition table."""

    name: str
    start_bytes: int
    size_bytes: int


def partitions(disk: Path) -> dict[str, Partition]:
    """Return the partitions of a raw disk by name; sgdisk must find no fault in the table."""
    verdict = run("sgdisk", "-v", disk)
    assert "No problems found" in verdict, verdict
    table = run("sgdisk", "-p", disk)
    sector_bytes = int(table.partition("(logical): ")[2].split()[0])
    rows = [line.split() for line in table.partition("Number")[2].splitlines()[1:]]
    return {
        name: Partition(
            name, int(first) * sector_bytes, (int(last) - int(first) + 1) * sector_bytes
        )
        for _, first, last, _, _, _, name in rows
    }


def efi_file(disk: Path, name: str, folder: Path) -> bytes:
    """Return a file of a raw disk's EFI partition."""
    target = folder / "from-disk"
    target.unlink(missing_ok=True)
    start = partitions(disk)["EFI"].start_bytes
    run("mcopy", "-n", "-i", f"{disk}@@{start}", f"::{name}", target)
    return target.read_bytes()


def efi_names(disk: Path) -> set[str]:
    """Return the files of a raw disk's EFI partition."""
    start = partitions(disk)["EFI"].start_bytes
    listed = run("mdir", "-b", "-/", "-i", f"{disk}@@{start}", "::/")
    return {line.removeprefix("::") for line in listed.splitlines() if not line.endswith("/")}


def disk_info(disk: Path) -> dict[str, Any]:
    """Return what qemu-img says of a disk image."""
    found: dict[str, Any] = json.loads(run("qemu-img", "info", "--output=json", disk))
    return found


def meta_values(disk: Path) -> str:
    """Return the text that the META partition of a raw disk holds."""
    meta = partitions(disk)["META"]
    with disk.open("rb") as stream:
        stream.seek(meta.start_bytes)
        return stream.read(meta.size_bytes).decode("utf-8", "replace")


def differing_bytes(one: Path, other: Path) -> list[int]:
    """Return the offsets (from 0) of the bytes in which two files of equal size differ."""
    done = subprocess.run(["cmp", "-l", one, other], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return [int(line.split()[0]) - 1 for line in done.stdout.splitlines()]
