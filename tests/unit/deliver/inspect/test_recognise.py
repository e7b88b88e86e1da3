"""What bytes are is told by what they hold, whatever they are called."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile

import pytest
import zstandard

from local_imager.deliver.inspect.recognise import program_facts, recognise, text_of
from local_imager.formats.source import BytesSource
from tests.diskfiles import gpt_disk, gpt_entry, mbr_entries, patched, small_fat32
from tests.pebytes import make_pe
from tests.talosfiles import cpio, elf, initramfs, kernel, meta, uki


def old_tar() -> bytes:
    """Return a header of the form before ustar: without its magic."""
    header = bytearray(tarfile.TarInfo("name").tobuf())
    header[257:] = bytes(255)
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    header[148:156] = b"%06o\0 " % total
    return bytes(header)


ARCHIVE = cpio({"init": b"x"})
MBR = bytes(446) + mbr_entries([(0x80, 0x83, 1, 9)]) + bytes(10 * 512)
KINDS = {
    "kernel": kernel(),
    "arm64 kernel": bytes(0x38) + b"ARM\x64" + bytes(100),
    "uki": uki(),
    "pe": make_pe([(".text", b"x")]),
    "plain initramfs": ARCHIVE,
    "initramfs": initramfs(),
    "gzip initramfs": gzip.compress(ARCHIVE),
    "bzip2 initramfs": bz2.compress(ARCHIVE),
    "zstd initramfs": zstandard.compress(ARCHIVE),
    "compressed": lzma.compress(b"no archive"),
    "empty compressed": gzip.compress(b""),
    "gpt disk": gpt_disk(200, [gpt_entry(64, 90, "A")]),
    "4096 byte sector disk": gpt_disk(200, [gpt_entry(64, 90, "A")], sector_bytes=4096),
    "mbr disk": MBR,
    "fat": small_fat32({"A.TXT": b"a"}),
    "qcow2": b"QFI\xfb" + bytes(200),
    "dynamic vhd": b"conectix" + bytes(600),
    "fixed vhd": MBR + b"conectix".ljust(512, b"\0"),
    "vmdk": b"KDMV" + bytes(600),
    "iso": bytes(0x8001) + b"CD001" + bytes(2042),
    "squashfs": b"hsqs" + bytes(200),
    "erofs": bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(200),
    "xfs": b"XFSB" + bytes(508),
    "meta": meta({}),
    "tar": tarfile.TarInfo("name").tobuf(),
    "v7 tar": old_tar(),
    "cmdline": b"talos.platform=metal console=ttyS0\n",
    "document": b"just = a setting\n",
    "other document": b'{"layers": []}',
    "data": b"\x01\x02\x03" * 99,
    "empty data": b"",
    "zero data": bytes(4096),
    "boot code without table data": bytes(510) + b"\x55\xaa",
    "mz data": b"MZ" + bytes(300),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name: str) -> None:
    assert recognise(BytesSource(KINDS[name])) == name.split()[-1]


@pytest.mark.parametrize("name", KINDS)
def test_the_begin_of_a_file_is_something_too(name: str) -> None:
    data = KINDS[name][:70_000]
    for end in {*range(0, min(len(data), 700), 7), len(data) // 2, len(data) - 1} - {-1}:
        recognise(BytesSource(data[:end]))


def test_a_pe_header_that_points_outside_is_data() -> None:
    lying = patched(make_pe([(".text", b"x")]), 0x3C, (1 << 31).to_bytes(4, "little"))
    assert recognise(BytesSource(lying)) == "data"


def test_text_is_short_and_without_zeros_but_at_its_end() -> None:
    assert text_of(BytesSource(b"padded\0\0")) == "padded"
    assert text_of(BytesSource("ü".encode())) == "ü"
    for data in (b"", b"\0\0", b"a\0b", b"\xff\xfe", b"x" * 65537):
        assert text_of(BytesSource(data)) is None


def test_architecture_of_a_program() -> None:
    assert program_facts(BytesSource(elf())) == {"arch": "amd64"}
    assert program_facts(BytesSource(elf(183))) == {"arch": "arm64"}
    assert program_facts(BytesSource(elf(2))) == {}
    assert program_facts(BytesSource(b"\x7fELF")) == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("talos.platform=metal console=ttyS0\n", "cmdline"),
        ("talos.platform=metal é=1 'two words of a schematic'", "cmdline"),
        ("BOOT_IMAGE=/vmlinuz root=UUID=6b1d ro quiet splash nosmt", "cmdline"),
        ('root=/dev/sda1 dyndbg="file a.c +p; func b +p" -- single', "cmdline"),
        ("quiet console=tty0", "cmdline"),
        ("The quiet = x root", "document"),
        ("The root = x is quiet, and ro is not rw", "document"),
        ("set console=tty0 to see what it says", "document"),
        ("export root=/srv; run", "document"),
        ("just=a setting", "document"),
        ("root= quiet", "document"),
        ("quiet ro", "document"),
        ("console=tty0\nroot=/dev/sda1\n", "document"),
        ("", "data"),
    ],
)
def test_what_is_a_kernel_command_line(text: str, kind: str) -> None:
    assert recognise(BytesSource(text.encode())) == kind
