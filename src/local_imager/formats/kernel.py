"""Linux kernel images: what their headers say.

Rules: the kernel's documentation, "The Linux/x86 Boot Protocol" (arch/x86/boot.rst) and "Booting
AArch64 Linux" (arch/arm64/booting.rst); compressed EFI images: drivers/firmware/efi/libstub/zboot.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.formats.packing import HEAD_BYTES, Packing, packing_of, unpack
from local_imager.formats.source import FormatError, Slice, Source, stream

# `kernel_format_of` needs no more than this many first bytes.
KERNEL_HEAD_BYTES: Final = 0x268
# arm64's with everything built in and debug symbols left out has a tenth of that.
_MAX_UNPACKED_BYTES: Final = 512 << 20
_MAX_VERSION_BYTES: Final = 512
_MACHINES: Final = {0x8664: "amd64", 0x14C: "386", 0xAA64: "arm64", 0x5064: "riscv64"}
_BANNER: Final = b"Linux version "
_NUMBERED: Final = re.compile(r" #[0-9]")

KernelFormat = Literal["bzImage", "Image", "zboot", ""]


@dataclass(frozen=True, slots=True)
class Kernel:
    """What a kernel image says of itself.

    ``format`` is ``bzImage`` (x86), ``Image`` (arm64 and riscv64, not packed) or ``zboot`` (EFI
    program with a packed Image inside). ``arch`` is written as Talos does (``amd64``, ``arm64``),
    empty when unknown. ``version`` is the text from release name to build date, empty when there is
    none. ``protocol`` is the x86 boot protocol (``2.15``), ``packing`` how the kernel inside is
    packed ("" if it is not or in an unknown way). ``efi_stub`` says whether UEFI can start it.
    """

    format: KernelFormat
    arch: str
    version: str
    efi_stub: bool
    protocol: str = ""
    packing: Packing = ""

    @property
    def release(self) -> str:
        """The name of the release (``uname -r``), the first word of the version."""
        return self.version.partition(" ")[0]


def kernel_format_of(head: bytes) -> KernelFormat:
    """Tell by its first bytes (:data:`KERNEL_HEAD_BYTES`) which kernel image it is, if any."""
    if head[0x202:0x206] == b"HdrS" and head[0x1FE:0x200] == b"\x55\xaa":
        return "bzImage"
    if head[:2] == b"MZ" and head[4:8] == b"zimg":
        return "zboot"
    if head[0x38:0x3C] in (b"ARMd", b"RSC\x05"):
        return "Image"
    return ""


def read_kernel(source: Source) -> Kernel:
    """Read what a kernel image says; raises :class:`FormatError` when it is none."""
    head = source.read(0, min(KERNEL_HEAD_BYTES, source.size_bytes))
    form = kernel_format_of(head)
    machine = _pe_machine(source)
    if form == "bzImage":
        return _bzimage(source, head, machine)
    if form == "zboot":
        return _zboot(source, head, machine)
    if form == "Image":
        arch = "arm64" if head[0x38:0x3C] == b"ARMd" else "riscv64"
        return Kernel("Image", arch, _banner(stream(source)), efi_stub=machine != 0)
    raise FormatError("it is no Linux kernel image of a known form")


def _bzimage(source: Source, head: bytes, machine: int) -> Kernel:
    if len(head) < KERNEL_HEAD_BYTES:
        raise FormatError("the kernel ends inside of its setup header")
    setup_sectors = head[0x1F1] or 4
    protocol, at = (
        struct.unpack_from("<H", head, 0x206)[0],
        struct.unpack_from("<H", head, 0x20E)[0],
    )
    version = ""
    if 0 < at < setup_sectors * 512:
        begin = at + 0x200
        length = min(_MAX_VERSION_BYTES, max(source.size_bytes - begin, 0))
        version = _text(source.read(begin, length).partition(b"\0")[0])
    packing: Packing = ""
    if protocol >= 0x208:
        offset, length = struct.unpack_from("<II", head, 0x248)
        begin = (setup_sectors + 1) * 512 + offset
        if offset + length and begin + length > source.size_bytes:
            raise FormatError("the packed kernel lies outside of its file")
        packing = packing_of(source.read(begin, min(HEAD_BYTES, length)))
    is_64_bit = protocol >= 0x20C and head[0x236] & 1
    return Kernel(
        "bzImage",
        "amd64" if is_64_bit else "386",
        version,
        efi_stub=machine != 0,
        protocol=f"{protocol >> 8}.{protocol & 0xFF:02}",
        packing=packing,
    )


def _zboot(source: Source, head: bytes, machine: int) -> Kernel:
    offset, length = struct.unpack_from("<II", head.ljust(16, b"\0"), 8)
    payload = Slice(source, offset, length)
    packing = packing_of(payload.read(0, min(HEAD_BYTES, length)))
    version = ""
    if packing:
        version = _banner(unpack(payload, packing, max_bytes=_MAX_UNPACKED_BYTES))
    arch = _MACHINES.get(machine, "")
    return Kernel("zboot", arch, version, efi_stub=machine != 0, packing=packing)


def _pe_machine(source: Source) -> int:
    """Return the machine of the PE header, 0 where there is none."""
    if source.size_bytes < 0x40 or source.read(0, 2) != b"MZ":
        return 0
    at = int.from_bytes(source.read(0x3C, 4), "little")
    if at + 6 > source.size_bytes:
        return 0
    found = source.read(at, 6)
    return int.from_bytes(found[4:], "little") if found.startswith(b"PE\0\0") else 0


def _banner(chunks: Iterable[bytes]) -> str:
    """Return the text that the kernel prints first, without who compiled it where.

    Older links keep a first draft of it, whose build has no number yet (``# SMP``).
    """
    kept, draft = b"", ""
    for chunk in chunks:
        window = kept + chunk
        whole = len(window) - _MAX_VERSION_BYTES
        at = window.find(_BANNER)
        while 0 <= at <= whole:
            version = _version_in(window[at : at + _MAX_VERSION_BYTES])
            if _NUMBERED.search(version):
                return version
            draft = draft or version
            at = window.find(_BANNER, at + 1)
        kept = window[max(whole + 1, 0) :]
    while _BANNER in kept:
        kept = kept[kept.find(_BANNER) :]
        draft = _version_in(kept) or draft
        kept = kept[1:]
    return draft


def _version_in(banner: bytes) -> str:
    """Take the version out of ``Linux version RELEASE (who@where) (compiler) #1 … date``."""
    line = banner[len(_BANNER) :].partition(b"\n")[0].partition(b"\0")[0]
    release, _, rest = line.partition(b" ")
    # The format string "Linux version %s (%s) …" stands before the banner in some builds.
    if not release[:1].isdigit():
        return ""
    build = rest.find(b"#")
    return _text(release + b" " + rest[build:] if build >= 0 else release)


def _text(data: bytes) -> str:
    return os.fsdecode(data).strip()
