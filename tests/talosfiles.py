"""Boot files as Talos' imager makes them, small and by hand: initramfs, kernel, UKI, disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import struct
import tarfile
from collections.abc import Iterable, Mapping
from typing import Final

import zstandard

from tests.diskfiles import gpt_disk, gpt_entry, meta_copy, small_fat32
from tests.pebytes import Sections, make_pe

EPOCH: Final = 1559424892
SCHEMATIC: Final = (
    "customization:\n"
    "    extraKernelArgs:\n"
    "        - console=ttyS1\n"
    "    systemExtensions:\n"
    "        officialExtensions:\n"
    "            - siderolabs/gvisor\n"
)
SCHEMATIC_ID: Final = hashlib.sha256(SCHEMATIC.encode()).hexdigest()
CMDLINE: Final = "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on"
OS_RELEASE: Final = 'NAME="Talos"\nID=talos\nVERSION_ID=v1.13.0\nPRETTY_NAME="Talos (v1.13.0)"\n'
STUB: Final = b"#### LoaderInfo: systemd-stub 258.2 ####\0"
KERNEL_VERSION: Final = "6.18.24-talos"


def cpio(files: Mapping[str, bytes | str], *, mtime: int = EPOCH) -> bytes:
    """Return a newc archive; a text is the target of a symbolic link."""
    out = b""
    rows = [(name, content) for name, content in files.items()] + [("TRAILER!!!", b"")]
    for number, (name, content) in enumerate(rows, 1):
        mode = 0o120777 if isinstance(content, str) else 0o100644
        data = content.encode() if isinstance(content, str) else content
        fields = (number, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def extensions_yaml(
    extensions: Iterable[tuple[str, str]], schematic: str | None = SCHEMATIC, *, number: str = ""
) -> bytes:
    """Return the list of extensions; with a schematic the virtual one that carries it is last."""
    layers = [
        f"    - image: {n}.sqsh\n      metadata:\n"
        f"        name: {name}\n        version: {version}\n"
        "        author: Sidero Labs\n        description: |\n            text\n"
        "        compatibility:\n            talos:\n                version: '>= v1.0.0'\n"
        for n, (name, version) in enumerate(extensions)
    ]
    if schematic is not None:
        number = number or hashlib.sha256(schematic.encode()).hexdigest()
        text = "".join(f"            {line}\n" for line in schematic.splitlines())
        layers.append(
            f"    - image: 9.sqsh\n      metadata:\n        name: schematic\n"
            f"        version: {number}\n"
            "        author: Image Factory (https://factory.talos.dev/)\n"
            + (f"        extraInfo: |\n{text}" if text else "")
        )
    return ("layers:\n" + "".join(layers)).encode()


def initramfs(listed: bytes | None = None, *, mtime: int = EPOCH) -> bytes:
    """Return an initramfs: the system's own segment, and the one that the extensions are in."""
    base = lzma.compress(cpio({"init": elf(), "etc/os-release": OS_RELEASE.encode()}), check=1)
    if listed is None:
        return base
    added = cpio({"extensions.yaml": listed, "0.sqsh": b"not a squashfs"}, mtime=mtime)
    return base + zstandard.compress(added)


def elf(machine: int = 62) -> bytes:
    """Return the begin of a Linux program."""
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + struct.pack("<H", machine) + bytes(44)


def kernel(version: str = KERNEL_VERSION) -> bytes:
    """Return an x86 kernel that is all header."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<H", setup, 0x20E, 0x200)
    setup[0x236] = 1
    text = f"{version} (builder@talos) #1 SMP".encode()
    setup[0x400 : 0x400 + len(text)] = text
    return bytes(setup) + b"\xf4" * 512


def uki(
    *, cmdline: str = CMDLINE, initrd: bytes | None = None, more: Sections = (), reset: bool = True
) -> bytes:
    """Return a unified kernel image with the profiles that Talos puts into one."""
    listed = extensions_yaml([("gvisor", "20250101.0")])
    sections: list[tuple[str, bytes]] = [
        (".text", b"\xf4" * 11),
        (".sdmagic", STUB),
        (".osrel", OS_RELEASE.encode()),
        (".cmdline", cmdline.encode()),
        (".uname", KERNEL_VERSION.encode()),
        (".linux", kernel()),
        (".initrd", initramfs(listed) if initrd is None else initrd),
        *more,
        (".profile", b"ID=main"),
    ]
    if reset:
        wipe = f"{cmdline} talos.experimental.wipe=system"
        sections += [
            (".profile", b'ID=reset\nTITLE="Reset system disk"'),
            (".cmdline", wipe.encode()),
        ]
    return make_pe(sections)


def meta(values: Mapping[int, str]) -> bytes:
    """Return a META partition."""
    copy = meta_copy((key, value.encode()) for key, value in values.items())
    return (copy * 2).ljust(1 << 20, b"\0")


def disk(partitions: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a GPT disk with these contents, one after the other."""
    at, entries, contents = 64, [], []
    for name, content in partitions:
        sectors = -(-len(content) // 512)
        entries.append(gpt_entry(at, at + sectors - 1, name))
        contents.append((at * 512, content))
        at += sectors
    whole = bytearray(gpt_disk(at + 64, entries))
    for offset, content in contents:
        whole[offset : offset + len(content)] = content
    return bytes(whole)


def talos_disk(image: bytes | None = None, values: Mapping[int, str] | None = None) -> bytes:
    """Return a disk with an ESP that holds a UKI, and META."""
    found = uki() if image is None else image
    files = {
        "EFI/README.TXT": b"a folder above has to have a file of its own\n",
        "EFI/BOOT/BOOTX64.EFI": make_pe([(".text", b"\xf4"), (".sdmagic", STUB)]),
        "EFI/LINUX/TALOS.EFI": found,
        "LOADER/README.TXT": b"text\n",
    }
    esp = small_fat32(files, clusters=max(2000, len(found) // 512 + 200))
    return disk([("EFI", esp), ("META", meta(values if values is not None else {10: "ten"}))])


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without times or owners."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def docker_archive(files: Mapping[str, bytes], *, version: str = "v1.13.0") -> bytes:
    """Return an image with one packed layer, as the imager writes installers."""
    plain = tar(files)
    layer = gzip.compress(plain, mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"alpha.talos.dev/version": version}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
    }
    document = json.dumps(config).encode()
    name = f"sha256:{hashlib.sha256(document).hexdigest()}"
    manifest = [{"Config": name, "RepoTags": ["installer:v1"], "Layers": ["layer.tar.gz"]}]
    listed = json.dumps(manifest).encode()
    return tar({name: document, "layer.tar.gz": layer, "manifest.json": listed})
