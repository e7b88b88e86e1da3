"""Unified kernel images: profiles, addons, and what other PE files are not."""

import subprocess
from pathlib import Path

import pytest

from local_imager.formats.pe import read_pe
from local_imager.formats.source import BytesSource, FormatError
from local_imager.formats.uki import MAX_PROFILES, Uki, parse_os_release, read_uki
from tests.pebytes import UKI_SECTIONS, make_pe, pcr_document, public_pem, signer


def _read(data: bytes) -> Uki | None:
    source = BytesSource(data)
    return read_uki(source, read_pe(source))


def _uki(data: bytes) -> Uki:
    uki = _read(data)
    assert uki is not None
    return uki


def test_an_image_says_what_it_is_and_how_it_starts() -> None:
    uki = _uki(make_pe(UKI_SECTIONS))
    assert (uki.kind, uki.stub) == ("uki", "systemd-stub 262.1-1")
    [profile] = uki.profiles
    assert (profile.id, profile.title) == ("main", "")
    assert profile.command_line == "talos.platform=metal console=ttyS0"
    assert dict(profile.os_release) == {"NAME": "Talos", "ID": "talos", "VERSION_ID": "v1.13.0"}
    assert profile.kernel_version == "6.18.24-talos"
    assert profile.pcr_signatures == ()
    linux = profile.section(".linux")
    assert linux is not None and linux.size_bytes == 900


def test_a_profile_replaces_the_sections_that_it_has_itself() -> None:
    more = (
        (".profile", b"ID=reset\nTITLE='Reset the machine'\n"),
        (".cmdline", b"talos.platform=metal talos.experimental.wipe=system\0\0"),
        (".profile", b"ID=third\n"),
    )
    uki = _uki(make_pe((*UKI_SECTIONS, *more)))
    assert [profile.id for profile in uki.profiles] == ["main", "reset", "third"]
    main, reset, third = uki.profiles
    assert reset.title == "Reset the machine"
    assert reset.command_line == "talos.platform=metal talos.experimental.wipe=system"
    assert main.command_line == third.command_line == "talos.platform=metal console=ttyS0"
    assert reset.section(".linux") == main.section(".linux")
    assert reset.section(".profile") != main.section(".profile")
    assert [s.name for s in reset.sections].count(".cmdline") == 1


def test_pcr_policies_are_checked_with_the_key_beside_them() -> None:
    sections = ((".pcrpkey", public_pem(signer())), (".pcrsig", pcr_document(signer())))
    [profile] = _uki(make_pe((*UKI_SECTIONS, *sections))).profiles
    assert [(one.bank, one.verifies) for one in profile.pcr_signatures] == [("sha256", True)]
    [keyless] = _uki(make_pe((*UKI_SECTIONS, sections[1]))).profiles
    assert keyless.pcr_signatures[0].verifies is None


def test_an_addon_has_no_kernel() -> None:
    uki = _uki(
        make_pe(((".sdmagic", b"#### LoaderInfo: systemd-addon 262 ####"), (".cmdline", b"x")))
    )
    assert (uki.kind, uki.stub) == ("addon", "systemd-addon 262")
    assert uki.profiles[0].command_line == "x"


def test_an_image_of_another_stub_is_one_all_the_same() -> None:
    uki = _uki(make_pe(((".linux", b"k"), (".initrd", b"i"))))
    assert (uki.kind, uki.stub, uki.profiles[0].command_line) == ("uki", "", None)


@pytest.mark.parametrize(
    "sections",
    [
        (),
        ((".text", b"x"), (".linux", b"x")),
        ((".text", b"x"), (".cmdline", b"x")),
        ((".text", b"x"), (".sdmagic", b"#### LoaderInfo: systemd-boot 262 ####"), (".osrel", b"")),
    ],
    ids=["nothing", "kernel", "no stub", "boot loader"],
)
def test_other_programs_are_none(sections: tuple[tuple[str, bytes], ...]) -> None:
    assert _read(make_pe(sections)) is None


def test_objcopy_makes_one_that_is_read_as_it_was_meant(tmp_path: Path) -> None:
    """The way that distributions describe, with a stub's sections and others added by hand."""
    stub = tmp_path / "stub.efi"
    stub.write_bytes(make_pe(UKI_SECTIONS[:2]))
    argv = ["objcopy"]
    contents = {".osrel": b"ID=debian\n", ".cmdline": b"root=/dev/sda1", ".linux": b"MZ" * 3000}
    for number, (name, content) in enumerate(contents.items()):
        (tmp_path / name[1:]).write_bytes(content)
        argv += ["--add-section", f"{name}={tmp_path / name[1:]}"]
        argv += ["--change-section-vma", f"{name}={0x40000 + 0x10000 * number:#x}"]
    subprocess.run([*argv, str(stub), str(tmp_path / "uki.efi")], check=True)
    uki = _uki((tmp_path / "uki.efi").read_bytes())
    assert uki.kind == "uki" and uki.profiles[0].os_release["ID"] == "debian"
    assert uki.profiles[0].command_line == "root=/dev/sda1"
    source = BytesSource((tmp_path / "uki.efi").read_bytes())
    linux = read_pe(source).section(".linux")
    assert linux is not None and source.read(linux.offset, linux.size_bytes) == b"MZ" * 3000


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (((".linux", b"k"), (".cmdline", b"x" * 70_000)), ".cmdline has 70000 bytes"),
        (((".linux", b"k"), (".initrd", b""), (".pcrsig", b"{")), "not JSON"),
        (
            ((".linux", b"k"), (".initrd", b""), *(((".profile", b""),) * (MAX_PROFILES + 1))),
            "profiles",
        ),
    ],
    ids=["text", "policy", "profiles"],
)
def test_what_is_too_much_is_refused(sections: tuple[tuple[str, bytes], ...], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        _read(make_pe(sections))


def test_lines_of_an_os_release_file() -> None:
    text = '# no\nID=talos\nNAME="Talos Linux"\nEMPTY=\nA=\'b\'\nno line\n=x\n a = b\nQUOTE="\n'
    assert parse_os_release(text) == {
        "ID": "talos",
        "NAME": "Talos Linux",
        "EMPTY": "",
        "A": "b",
        "QUOTE": '"',
    }
