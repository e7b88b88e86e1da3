"""Kernel images: the setup header of x86, the header and the banner of arm64, packed EFI images."""

import gzip
import struct

import pytest
import zstandard

from local_imager.formats.kernel import Kernel, kernel_format_of, read_kernel
from local_imager.formats.source import BytesSource, FormatError

_VERSION = b"6.18.1-talos (@buildkitsandbox) #1 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 1970"
_BANNER = (
    b"Linux version 6.18.1-talos (@buildkitsandbox) (clang version 21) "
    b"#1 SMP Thu Jan 1 00:00:00 UTC 1970\n\0"
)


def _pe(machine: int, at: int = 0x40) -> bytes:
    image = bytearray(0x80)
    image[:2] = b"MZ"
    image[0x3C:0x40] = struct.pack("<I", at)
    image[at : at + 6] = b"PE\0\0" + struct.pack("<H", machine)
    return bytes(image)


def _bzimage(
    payload: bytes = b"", *, protocol: int = 0x20F, flags: int = 1, stub: bool = True
) -> bytes:
    image = bytearray(2 * 512 + 512)
    if stub:
        image[:0x80] = _pe(0x8664)
    image[0x1F1], image[0x1FE:0x200], image[0x202:0x206] = 2, b"\x55\xaa", b"HdrS"
    image[0x206:0x208] = struct.pack("<H", protocol)
    image[0x20E:0x210] = struct.pack("<H", 0x100)
    image[0x236] = flags
    image[0x248:0x250] = struct.pack("<II", 16, len(payload))
    image[0x300 : 0x300 + len(_VERSION)] = _VERSION
    return bytes(image) + bytes(16) + payload


def _image(content: bytes) -> bytes:
    head = bytearray(_pe(0xAA64))
    head[0x38:0x3C] = b"ARMd"
    return bytes(head) + content


def test_a_bzimage_says_version_and_protocol() -> None:
    payload = zstandard.ZstdCompressor().compress(b"kernel")
    assert read_kernel(BytesSource(_bzimage(payload))) == Kernel(
        "bzImage", "amd64", _VERSION.decode(), efi_stub=True, protocol="2.15", packing="zstd"
    )


def test_an_old_bzimage_says_less() -> None:
    kernel = read_kernel(BytesSource(_bzimage(protocol=0x204, flags=0, stub=False)))
    assert (kernel.arch, kernel.protocol, kernel.efi_stub, kernel.packing) == (
        "386",
        "2.04",
        False,
        "",
    )
    assert kernel.release == "6.18.1-talos"


def test_an_arm64_image_is_searched_for_its_banner() -> None:
    for gap in (0, 1 << 20, (1 << 20) - 200):
        draft = b"Linux version %s (%s)\0Linux version 6.18.1-talos (x) (clang) # SMP \n\0"
        kernel = read_kernel(BytesSource(_image(draft + bytes(gap) + _BANNER + bytes(9))))
        assert kernel.version == "6.18.1-talos #1 SMP Thu Jan 1 00:00:00 UTC 1970"
    assert (kernel.format, kernel.arch, kernel.efi_stub) == ("Image", "arm64", True)


def test_an_image_without_a_numbered_banner_gives_what_it_has() -> None:
    assert (
        read_kernel(BytesSource(_image(b"Linux version 6.1 (x) # SMP\n\0"))).version == "6.1 # SMP"
    )
    assert read_kernel(BytesSource(_image(b"no banner"))).version == ""


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_packed_efi_image_is_unpacked_for_its_banner(name: str) -> None:
    pack = gzip.compress if name == "gzip" else zstandard.ZstdCompressor().compress
    payload = pack(_image(bytes(5000) + _BANNER))
    head = bytearray(_pe(0xAA64))
    head[4:8], head[8:16] = b"zimg", struct.pack("<II", len(head), len(payload))
    kernel = read_kernel(BytesSource(bytes(head) + payload + b"\0\0\0\0"))
    assert (kernel.format, kernel.arch, kernel.packing) == ("zboot", "arm64", name)
    assert kernel.release == "6.18.1-talos"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no Linux kernel image"),
        (_pe(0x8664), "no Linux kernel image"),
        (_bzimage()[:0x240], "ends inside of its setup header"),
        (_bzimage(b"payload")[:-3], "lies outside of its file"),
        (b"MZ\0\0zimg" + struct.pack("<II", 4, 1 << 30), "lies outside"),
    ],
)
def test_damage_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_kernel(BytesSource(data))


def test_a_version_outside_of_the_setup_is_not_followed() -> None:
    image = bytearray(_bzimage())
    image[0x20E:0x210] = b"\xff\xff"
    assert read_kernel(BytesSource(bytes(image))).version == ""


def test_a_pe_header_outside_of_the_file_is_not_followed() -> None:
    image = bytearray(_bzimage())
    image[0x3C:0x40] = b"\xff\xff\xff\xff"
    assert read_kernel(BytesSource(bytes(image))).efi_stub is False


def test_forms_are_told_apart() -> None:
    assert kernel_format_of(_bzimage()[:0x268]) == "bzImage"
    assert kernel_format_of(_image(b"")) == "Image"
    assert kernel_format_of(b"MZ\0\0zimg") == "zboot"
    assert kernel_format_of(_pe(0x8664)) == ""
