"""PE headers, sections and image hashes; objdump and sbsign's tools are the witnesses."""

import re
import struct
import subprocess
from pathlib import Path

import pytest

from local_imager.formats.pe import MAX_CERTIFICATES, authentihash, read_pe, section_source
from local_imager.formats.source import BytesSource, FormatError
from tests.pebytes import (
    UKI_SECTIONS,
    directory_offset,
    make_pe,
    pkcs7,
    plain_hash,
    sign_pe,
    signer,
    with_signatures,
)

_PLAIN = make_pe(UKI_SECTIONS)


def test_sections_are_told_without_the_padding_behind_them() -> None:
    source = BytesSource(_PLAIN)
    pe = read_pe(source)
    contents = [(s.name, section_source(source, s).read(0, s.size_bytes)) for s in pe.sections]
    assert contents == list(UKI_SECTIONS)
    assert (pe.machine, pe.subsystem, pe.timestamp) == ("amd64", "efi-application", 7)
    assert pe.section(".cmdline") == pe.sections[3] and pe.section(".none") is None
    assert pe.certificates == () and pe.table_bytes == 0


@pytest.mark.parametrize(("machine", "name"), [(0xAA64, "arm64"), (0x1234, "0x1234")])
def test_machines_have_names_where_one_is_known(machine: int, name: str) -> None:
    assert read_pe(BytesSource(make_pe(UKI_SECTIONS, machine=machine))).machine == name


def test_objdump_sees_the_same_sections(tmp_path: Path) -> None:
    (tmp_path / "x.efi").write_bytes(_PLAIN)
    shown = subprocess.run(
        ["objdump", "-h", str(tmp_path / "x.efi")], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^ +\d+ (\S+) +([0-9a-f]+) +\S+ +\S+ +([0-9a-f]+)", shown, re.M)
    seen = [(name, int(size, 16), int(offset, 16)) for name, size, offset in rows]
    sections = read_pe(BytesSource(_PLAIN)).sections
    assert seen == [(s.name, s.size_bytes, s.offset) for s in sections]


@pytest.mark.parametrize("wide", [True, False], ids=["PE32+", "PE32"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_the_image_hash_leaves_out_what_a_signature_changes(wide: bool, algorithm: str) -> None:
    plain = make_pe(UKI_SECTIONS, wide=wide)
    expected = plain_hash(plain, algorithm).hex()
    for data in (plain, sign_pe(plain, signer())):
        source = BytesSource(data)
        assert authentihash(source, read_pe(source), algorithm) == expected
    changed = bytearray(plain)
    changed[152 + 64] ^= 1  # the checksum
    source = BytesSource(bytes(changed))
    assert authentihash(source, read_pe(source), algorithm) == expected
    changed[-600] ^= 1
    source = BytesSource(bytes(changed))
    assert authentihash(source, read_pe(source), algorithm) != expected


def test_a_file_without_signature_is_hashed_as_it_would_be_signed() -> None:
    odd = _PLAIN + b"behind the sections"
    source = BytesSource(odd)
    assert authentihash(source, read_pe(source)) == plain_hash(odd).hex()
    signed = BytesSource(sign_pe(odd, signer()))
    assert authentihash(signed, read_pe(signed)) == plain_hash(odd).hex()


def test_the_entries_of_the_certificate_table_are_found() -> None:
    data = with_signatures(_PLAIN, b"one", b"second one", kind=7)
    pe = read_pe(BytesSource(data))
    found = [(data[c.offset : c.offset + c.size_bytes], c.kind) for c in pe.certificates]
    assert found == [(b"one", 7), (b"second one", 7)]
    assert (pe.table_offset, pe.table_bytes) == (len(_PLAIN), 40)


def test_sbverify_agrees_that_what_is_signed_here_is_signed(tmp_path: Path) -> None:
    """The witness for the maker of test files, on which the tests of signatures stand."""
    from cryptography.hazmat.primitives.serialization import Encoding

    (tmp_path / "x.efi").write_bytes(sign_pe(_PLAIN, signer()))
    pem = signer().certificate.public_bytes(Encoding.PEM)
    (tmp_path / "cert.pem").write_bytes(pem)
    argv = ["sbverify", "--cert", str(tmp_path / "cert.pem"), str(tmp_path / "x.efi")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "Signature verification OK" in done.stdout, done.stderr


def _patched(offset: int, form: str, *values: int) -> bytes:
    data = bytearray(_PLAIN)
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


_COFF = 0x80
_TABLE = _COFF + 24 + 112 + 128


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends before"),
        (b"MZ" + bytes(200), "no PE file"),
        (_PLAIN[:300], "ends before"),
        (_PLAIN[:-1], "ends at byte"),
        (_patched(60, "<I", 0xFFFFFFFF), "no PE file"),
        (_patched(_COFF + 6, "<H", 0xFFFF), "65535 sections"),
        (_patched(_COFF + 20, "<H", 0), "neither PE32"),
        (_patched(_COFF + 20, "<H", 100), "header is cut off"),
        (_patched(_COFF + 20, "<H", 120), "shorter than its directories"),
        (_patched(_COFF + 24, "<H", 0x107), "neither PE32"),
        (_patched(_TABLE + 20, "<I", 0xFFFFFF00), "ends at byte 42949"),
        (_patched(directory_offset(_PLAIN), "<II", 0xFFFFFFF0, 16), "outside"),
        (_patched(directory_offset(_PLAIN), "<II", 512, 2 << 20), "outside"),
        (with_signatures(_PLAIN, *[b"x"] * (MAX_CERTIFICATES + 1)), "more than 16"),
    ],
)
def test_what_lies_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read_pe(BytesSource(data))


def test_an_entry_with_a_wrong_length_is_refused() -> None:
    data = bytearray(sign_pe(_PLAIN, signer()))
    for wrong in (0, 7, 0xFFFFFFF0):
        struct.pack_into("<I", data, len(_PLAIN), wrong)
        with pytest.raises(FormatError, match="wrong length"):
            read_pe(BytesSource(bytes(data)))


def test_sections_that_overlap_are_not_hashed_again_and_again() -> None:
    """512 sections that all are the whole file would cost 512 times its size."""
    many = bytearray(make_pe([(f"s{number}", b"x" * 512) for number in range(40)]))
    for number in range(40):
        struct.pack_into("<II", many, _TABLE + 40 * number + 16, len(many) - 4096, 4096)
    source = BytesSource(bytes(many))
    with pytest.raises(FormatError, match="overlap"):
        authentihash(source, read_pe(source))


@pytest.mark.parametrize("size", [0, 100, 1 << 30])
def test_headers_of_an_impossible_size_are_not_hashed(size: int) -> None:
    source = BytesSource(_patched(_COFF + 24 + 60, "<I", size))
    with pytest.raises(FormatError, match="cannot be"):
        authentihash(source, read_pe(source))


def test_an_image_may_span_more_memory_than_programs_do() -> None:
    """A large initrd puts sections beyond 256 MB; a common reader of PE files drops those."""
    pe = read_pe(BytesSource(_patched(_TABLE + 40 * 7 + 12, "<I", 0x18000000)))
    assert pe.sections[7].name == ".profile" and pe.sections[7].address == 0x18000000


def test_a_signature_of_its_own_kind_is_an_entry_like_others() -> None:
    by = signer("ec")
    data = with_signatures(_PLAIN, pkcs7(plain_hash(_PLAIN), by))
    assert [one.kind for one in read_pe(BytesSource(data)).certificates] == [2]
