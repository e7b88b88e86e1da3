"""Finds out what any bytes are, by their magic and structure and never by a name."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from local_imager.deliver.inspect.parts import MAX_TEXT_BYTES, Fact, PartKind
from local_imager.formats.packing import Packing, packing_of, unpack
from local_imager.formats.source import FormatError, Source
from local_imager.formats.tar import is_tar

_HEAD_BYTES: Final = 4096
_ISO_MAGIC_OFFSET: Final = 0x8001
_EROFS_MAGIC_OFFSET: Final = 1024
_CPIO: Final = (b"070701", b"070702")
_MAGIC: Final[tuple[tuple[int, bytes, PartKind], ...]] = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"conectix", "vhd"),
    (0, b"KDMV", "vmdk"),
    (0, b"hsqs", "squashfs"),
    (0, b"XFSB", "xfs"),
    (_EROFS_MAGIC_OFFSET, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0x38, b"ARM\x64", "kernel"),
    (0, b"\x5a\x4b\x3c\x2d", "meta"),
)
_MAX_SECTIONS: Final = 256
# e_machine of the ELF specification, as Talos names architectures.
_ELF_ARCHES: Final = {3: "386", 62: "amd64", 183: "arm64", 243: "riscv64"}
# Arguments with a value that nearly every Linux machine has one of, and no other text.
_TELLING: Final = re.compile(
    r"(?:talos\.[a-z.]+|console|root|init_on_alloc|rd\.[a-z.]+|initrd|BOOT_IMAGE)=\S"
)
# What imagers begin a command line with (Talos pkg/imager/imager.go).
_TALOS: Final = "talos.platform="
# As the kernel parts a line: at white space outside of quotes (lib/cmdline.c, next_arg).
_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*")+')
_ARGUMENT: Final = re.compile(r'"?\w[\w.,:/\[\]-]*(?:=.*)?|--', re.ASCII | re.DOTALL)
_FLAGS: Final = frozenset({"quiet", "ro", "rw", "debug", "splash", "nomodeset", "--"})


def recognise(source: Source) -> PartKind:
    """Return what the bytes are: ``data`` when nothing known, ``document`` for short text.

    Only the first few KiB and, for discs, some fixed places are read. A stream of cpio in any
    packing is an ``initramfs``. Never raises for what the bytes are.
    """
    try:
        return _recognised(source)
    except FormatError:
        return "data"


def _recognised(source: Source) -> PartKind:
    head = source.read(0, min(_HEAD_BYTES, source.size_bytes))
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[:6] in _CPIO:
        return "initramfs"
    if is_tar(head[:512]):
        return "tar"
    packing = packing_of(head)
    if packing:
        return "initramfs" if _holds_cpio(source, packing) else "compressed"
    if head[:2] == b"MZ" or head[0x202:0x206] == b"HdrS":
        return _executable(source, head)
    if _has(source, _ISO_MAGIC_OFFSET, b"CD001"):
        return "iso"
    if _has(source, source.size_bytes - 512, b"conectix"):
        return "vhd"
    if head[510:512] == b"\x55\xaa" or _has(source, 4096, b"EFI PART"):
        return _disk_or_volume(source, head)
    return text_kind(source, head)


def _has(source: Source, offset: int, magic: bytes) -> bool:
    end = offset + len(magic)
    return 0 <= offset and source.size_bytes >= end and source.read(offset, len(magic)) == magic


def _executable(source: Source, head: bytes) -> PartKind:
    """Tell a kernel from a unified kernel image from another PE file (and from what is none)."""
    if head[0x202:0x206] == b"HdrS" or head[4:8] == b"zimg":
        return "kernel"
    start = int.from_bytes(head[0x3C:0x40], "little")
    if not _has(source, start, b"PE\0\0"):
        return "data"
    coff = source.read(start + 4, 20)
    count = int.from_bytes(coff[2:4], "little")
    table = start + 24 + int.from_bytes(coff[16:18], "little")
    rows = source.read(table, 40 * min(count, _MAX_SECTIONS))
    names = {rows[at : at + 8].rstrip(b"\0") for at in range(0, len(rows), 40)}
    return "uki" if b".linux" in names else "pe"


def _holds_cpio(source: Source, packing: Packing) -> bool:
    """Unpack the first bytes, and no more, to see whether they open a cpio archive."""
    begin = b""
    with suppress(FormatError):  # a damaged stream is one all the same; who opens it says so
        for chunk in unpack(source, packing, max_bytes=1 << 40):
            begin += chunk[:6]
            if len(begin) >= 6:
                break
    return begin[:6] in _CPIO


def _disk_or_volume(source: Source, head: bytes) -> PartKind:
    """Tell a FAT volume's boot sector from a partitioned disk's: both end in 55 AA."""
    if _has(source, 512, b"EFI PART") or _has(source, 4096, b"EFI PART"):
        return "disk"
    if _is_fat(head):
        return "fat"
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    plausible = all(entry[0] in (0, 0x80) for entry in entries)
    return "disk" if plausible and any(entry[4] for entry in entries) else "data"


def _is_fat(head: bytes) -> bool:
    sector_bytes = int.from_bytes(head[11:13], "little")
    jump = head[0] == 0xE9 or (head[0] == 0xEB and head[2] == 0x90)
    return (
        jump
        and sector_bytes in (512, 1024, 2048, 4096)
        and head[13] in (1, 2, 4, 8, 16, 32, 64, 128)
        and head[16] in (1, 2)
        and (head[54:57] == b"FAT" or head[82:87] == b"FAT32")
    )


def text_kind(source: Source, head: bytes) -> PartKind:
    """Tell a kernel command line and other short text from data."""
    text = text_of(source) if _may_be_text(head) else None
    if text is None:
        return "data"
    return "cmdline" if _is_command_line(text.strip("\0\r\n ")) else "document"


def _is_command_line(line: str) -> bool:
    """One line of kernel arguments and nothing else, most of them with a value, one well known."""
    if "\n" in line:
        return False
    if line.startswith(_TALOS):  # a schematic may ask for words of any form behind it
        return True
    words = _WORD.findall(line)
    told = sum("=" in word or word in _FLAGS for word in words)
    return (
        any(_TELLING.match(word) for word in words)
        and all(_ARGUMENT.fullmatch(word) for word in words)
        and 2 * told > len(words)
    )


def _may_be_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n\f\0\x1b" for byte in head[:64])


def text_of(source: Source) -> str | None:
    """Return the content when it is UTF-8 text of at most MAX_TEXT_BYTES, else None.

    Zeros at the end, as sections are padded with, do not count; zeros within make it no text.
    """
    if not 0 < source.size_bytes <= MAX_TEXT_BYTES:
        return None
    data = source.read(0, source.size_bytes).rstrip(b"\0")
    if b"\0" in data or not data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def program_facts(source: Source) -> dict[str, Fact]:
    """Return the architecture of a Linux program, the one thing that an initramfs shows of it."""
    if source.size_bytes < 20:
        return {}
    head = source.read(0, 20)
    if head[:4] != b"\x7fELF" or head[5] != 1:
        return {}
    arch = _ELF_ARCHES.get(int.from_bytes(head[18:20], "little"), "")
    return {"arch": arch} if arch else {}
