"""Seeds for the harnesses of boot files; images are made by Debian's mksquashfs and mkfs.erofs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zstandard

from lab.archives import Entry, cpio_newc
from lab.debian import need_packages

Seed = tuple[str, str, bytes]
TEXT: Final = "".join(f"line {number * number}\n" for number in range(420)).encode()
# Path to content; None for a folder, a path for a link, "" for a pipe.
TREE: Final[dict[str, bytes | str | None]] = {
    "bin": None,
    "bin/tool": TEXT,
    "etc": None,
    "etc/hello": b"hello\n",
    "etc/nothing": b"",
    "etc/über": b"umlaut",
    "lib": None,
    "lib/deep": None,
    "lib/deep/link": "../../etc/hello",
    "lib/pipe": "",
    "lib/zeros": bytes(4200),
}
_UUID: Final = "12345678-1234-1234-1234-123456789abc"
_SQUASH: Final = ("gzip", "xz", "zstd", "lz4", "lzo")
_EROFS: Final[dict[str, list[str]]] = {
    "plain": [],
    "packed": ["-zlz4hc,9", "-C65536", "-Eztailpacking"],
}


def bootfiles() -> Iterator[Seed]:
    """Yield (harness, name, bytes)."""
    need_packages(["inspect"])
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        _make(tree)
        for name in _SQUASH:
            yield "squashfs", name, _squashed(tree, name)
        for name, options in _EROFS.items():
            target = Path(folder, "image")
            fixed = ["--quiet", "-T1559424892", f"-U{_UUID}", "--all-root"]
            argv: list[str | Path] = ["mkfs.erofs", *fixed, *options, target, tree]
            subprocess.run(argv, check=True)
            yield "erofs", name, target.read_bytes()
            target.unlink()
    yield from _archives()
    yield from _kernels()
    yield (
        "grubcfg",
        "iso",
        (
            b'set default=0\nset timeout=3\nmenuentry "Talos ISO" {\n\tset gfxmode=auto\n'
            b'\tlinux /boot/vmlinuz a=\\$\\{b\\} \'c d\' "e\\"f"\n\tinitrd /boot/initramfs.xz\n}\n'
        ),
    )
    yield (
        "grubcfg",
        "menus",
        (
            b"submenu 'x' --id y {\n menuentry z $menuentry_id_option 'w' { if [ a ]; then\n"
            b'linuxefi /k $q ${r} \\\n s; fi # comment\n initrdefi /1 /2 }\n}\nset default="0>1"\n'
        ),
    )


def _make(tree: Path) -> None:
    tree.mkdir()
    for name, content in TREE.items():
        path = tree / name
        if content is None:
            path.mkdir(mode=0o755)
        elif content == "":
            os.mkfifo(path, 0o644)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if name.startswith("bin/") else 0o644)


def _squashed(tree: Path, packing: str) -> bytes:
    target = tree.parent / "image"
    fixed = ["-all-root", "-all-time", "1559424892", "-mkfs-time", "1559424892"]
    quiet = ["-quiet", "-no-progress", "-noappend", "-nopad", "-processors", "1"]
    argv: list[str | Path] = [
        "mksquashfs",
        tree,
        target,
        "-comp",
        packing,
        "-b",
        "4096",
        *fixed,
        *quiet,
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    data = target.read_bytes()
    target.unlink()
    return data


def _archives() -> Iterator[Seed]:
    base = cpio_newc([Entry("init", b"#!/bin/sh\n", mode=0o755), Entry("l", link_target="init")])
    late = cpio_newc([Entry("0.sqsh", b"hsqs"), Entry("extensions.yaml", b"layers: []\n")])
    crc = base.replace(b"070701", b"070702")
    packings = {
        "xz": lzma.compress(late, check=lzma.CHECK_CRC32),
        "gzip": gzip.compress(late, mtime=0),
        "zstd": zstandard.ZstdCompressor(level=18, write_checksum=True).compress(late),
        "bzip2": bz2.compress(late),
        "lz4": bytes.fromhex("04224d186440a7") + b"\x05\0\0\0\x10a\1\0\x00" + bytes(4),
        "lz4-older": bytes.fromhex("02214c18") + b"\x09\0\0\0\x40abcd\1\0\x10e",
    }
    yield "cpio", "one", base
    yield "cpio", "two", base + bytes(8) + late + bytes(100)
    yield "cpio", "crc", crc
    for name, data in packings.items():
        yield "packed", name, data
        if not name.startswith("lz4"):
            yield "initramfs", name, base + bytes(8) + data + data


def _kernels() -> Iterator[Seed]:
    x86 = bytearray(0x600)
    x86[:2], x86[0x3C], x86[0x40:0x46] = b"MZ", 0x40, b"PE\0\0\x64\x86"
    x86[0x1F1], x86[0x1FE:0x200], x86[0x202:0x208] = 2, b"\x55\xaa", b"HdrS\x0f\x02"
    x86[0x20E:0x210], x86[0x236], x86[0x300:0x310] = b"\0\1", 1, b"6.1.0 (x) #1 SMP"
    yield "kernel", "bzimage", bytes(x86)
    arm = bytearray(x86[:0x80])
    arm[0x38:0x3C], arm[0x44:0x46] = b"ARMd", b"\x64\xaa"
    arm += b"Linux version %s (%s)\n\0" + b"Linux version 6.1.0 (x) (gcc) #1 SMP\n\0"
    yield "kernel", "image", bytes(arm)
    inside = gzip.compress(bytes(arm), mtime=0)
    size = len(inside).to_bytes(4, "little")
    yield "kernel", "zboot", b"MZ\0\0zimg\x40\0\0\0" + size + bytes(48) + inside
