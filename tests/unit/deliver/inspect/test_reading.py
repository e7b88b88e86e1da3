"""What parts mean: version, schematic, boot entries, META, signatures; and what is not told."""

from __future__ import annotations

import base64
import gzip
import hashlib

import pytest
import zstandard

from local_imager.deliver.inspect.arguments import meta_in, meta_key, split_arguments
from local_imager.deliver.inspect.extensions import MAX_BYTES, read_extensions
from local_imager.deliver.inspect.inspection import Inspection, inspect_source
from local_imager.deliver.inspect.meaning import Meaning
from local_imager.formats.source import BytesSource
from tests.diskfiles import small_fat32
from tests.pebytes import (
    make_pe,
    pcr_document,
    pkcs7,
    plain_hash,
    public_pem,
    sign_pe,
    signer,
    with_signatures,
)
from tests.talosfiles import (
    CMDLINE,
    KERNEL_VERSION,
    OS_RELEASE,
    SCHEMATIC,
    SCHEMATIC_ID,
    cpio,
    disk,
    docker_archive,
    elf,
    extensions_yaml,
    initramfs,
    kernel,
    meta,
    talos_disk,
    uki,
)

GRUB = b"""
set default="1"
menuentry "B - Talos v1.8.0" {
  linux /B/vmlinuz talos.platform=metal console=tty0
}
menuentry "A - Talos v1.9.0" {
  linux /A/vmlinuz talos.platform=metal "quoted word=1 2" $extra
  initrd /A/initramfs.xz
}
"""


def inspected(data: bytes) -> Inspection:
    return inspect_source(BytesSource(data), "file")


def meaning_of(data: bytes) -> Meaning:
    return inspected(data).meaning


def why(meaning: Meaning, what: str) -> str:
    return next((one.why for one in meaning.unknown if one.what == what), "")


def test_a_disk_of_talos() -> None:
    found = meaning_of(zstandard.compress(talos_disk()))
    assert (found.kind, found.packing, found.talos_version) == ("disk", ("zstd",), "v1.13.0")
    assert (found.arch, found.platform, found.kernel_version) == ("amd64", "metal", KERNEL_VERSION)
    assert (found.schematic_id, found.schematic) == (SCHEMATIC_ID, SCHEMATIC)
    assert [(one.name, one.version, one.author) for one in found.extensions] == [
        ("gvisor", "20250101.0", "Sidero Labs")
    ]
    assert dict(found.meta) == {"0xa": "ten"}
    assert (found.bios, found.uefi, found.secure_boot.state) == (False, True, "unsigned")
    assert [(one.loader, one.profile, one.title) for one in found.boot_entries] == [
        ("systemd-boot", "main", "Talos (v1.13.0)"),
        ("systemd-boot", "reset", "Talos (v1.13.0) (Reset system disk)"),
    ]
    assert found.kernel_arguments == tuple(CMDLINE.split())
    assert found.boot_entries[1].kernel_arguments[-1] == "talos.experimental.wipe=system"
    assert found.content_bytes == len(talos_disk()) and found.unknown == ()
    assert found.imager["stub"] == "systemd-stub 258.2"
    assert found.imager["extensions_mtime"] == "1559424892"


def test_a_profile_has_the_command_line_of_the_image_unless_it_has_its_own() -> None:
    sections = [(".linux", kernel()), (".cmdline", b"a=1"), (".osrel", OS_RELEASE.encode())]
    image = make_pe([*sections, (".profile", b"ID=one"), (".profile", b"ID=two\nTITLE=Two")])
    entries = meaning_of(image).boot_entries
    assert [(one.profile, one.kernel_arguments) for one in entries] == [
        ("one", ("a=1",)),
        ("two", ("a=1",)),
    ]
    own = make_pe([*sections, (".profile", b"ID=one"), (".cmdline", b"b=2")])
    assert [one.kernel_arguments for one in meaning_of(own).boot_entries] == [("b=2",)]


def test_grub_entries_begin_with_the_one_that_boots() -> None:
    found = meaning_of(disk([("BOOT", cpio({"grub/grub.cfg": GRUB}))]))
    assert [(one.loader, one.title) for one in found.boot_entries] == [
        ("grub", "A - Talos v1.9.0"),
        ("grub", "B - Talos v1.8.0"),
    ]
    assert found.kernel_arguments[:2] == ("talos.platform=metal", '"quoted word=1 2"')
    assert found.talos_version == "v1.9.0"
    assert "GRUB fills in $extra" in why(found, "boot")


def test_a_default_behind_a_submenu_or_in_a_variable() -> None:
    menu = GRUB.replace(
        b"}\nmenuentry", b"}\nsubmenu More { menuentry C {\n linux /k c=1\n} }\nmenuentry", 1
    )
    for default, first in ((b"2", "A - Talos v1.9.0"), (b"More>C", "More > C")):
        text = menu.replace(b'"1"', b'"' + default + b'"')
        found = meaning_of(disk([("BOOT", cpio({"grub/grub.cfg": text}))]))
        assert found.boot_entries[0].title == first
        assert "which entry GRUB starts" not in why(found, "boot")
    text = menu.replace(b'"1"', b'"${saved}"')
    found = meaning_of(disk([("BOOT", cpio({"grub/grub.cfg": text}))]))
    assert found.boot_entries[0].title == "B - Talos v1.8.0"
    said = "which entry GRUB starts by itself is not known, for its default is what $saved holds"
    assert said in why(found, "boot")


def test_meta_travels_in_the_arguments_too() -> None:
    environment = base64.b64encode(b"0xc=rack;0xa=two words").decode()
    line = f"{CMDLINE} talos.environment=INSTALLER_META_BASE64={environment}"
    assert dict(meaning_of(uki(cmdline=line)).meta) == {"0xc": "rack", "0xa": "two words"}
    both = talos_disk(uki(cmdline=line), {12: "disk"})
    assert dict(meaning_of(both).meta) == {"0xc": "disk"}


def test_meta_values_of_every_form() -> None:
    def said(data: bytes) -> tuple[dict[str, str], str]:
        value = base64.b64encode(data).decode()
        found, problem = meta_in([f"talos.environment=INSTALLER_META_BASE64={value}"])
        return dict(found), problem

    long = b"0x0C=" + b"x" * 300
    assert said(gzip.compress(long)) == ({"0xc": "x" * 300}, "")
    assert said(b"12=a=b;;") == ({"0xc": "a=b", "": ""}, "")
    for broken in (gzip.compress(long)[:-9], b"\xff\xfe", gzip.compress(bytes(1 << 22))):
        found, problem = said(broken)
        assert not found and "is not what Talos writes there" in problem
    assert meta_in(["talos.environment=INSTALLER_META_BASE64=%%%"])[1]
    assert meta_in(["talos.environment=HTTP_PROXY=x", "quiet"]) == ({}, "")
    assert (meta_key("10"), meta_key("0xA"), meta_key("x\n")) == ("0xa", "0xa", "x\ufffd")


def test_words_of_a_command_line() -> None:
    line = ' a  b="c d" "e=f g"\t\x1b[2J \0\0'
    assert split_arguments(line) == ("a", 'b="c d"', '"e=f g"', "\ufffd[2J")
    assert len(split_arguments("x " * 100_000)) == 4096


@pytest.mark.parametrize(
    ("data", "kind", "unknown"),
    [
        (kernel(), "kernel", {"talos_version": "a kernel says the version of Linux only"}),
        (initramfs(), "initramfs", {"schematic": "its initramfs lists no extensions, so"}),
        (
            initramfs(extensions_yaml([("a", "1")], None)),
            "initramfs",
            {"schematic": "its extensions do not include the virtual one"},
        ),
        (CMDLINE.encode(), "cmdline", {}),
        (meta({12: "x"}), "meta", {}),
        (b"\0\1\2", "unknown", {}),
        (
            make_pe([(".linux", kernel()), (".cmdline", b"root=/dev/sda1")]),
            "uki",
            {"talos_version": "nothing in it names the operating system"},
        ),
        (
            uki(initrd=cpio({"x": b""}))
            .replace(b"=talos\n", b"=other\n")
            .replace(b"Talos", b"Other"),
            "uki",
            {"talos_version": "it calls itself Other (v1.13.0), which is not Talos"},
        ),
    ],
)
def test_what_cannot_be_told_is_said(data: bytes, kind: str, unknown: dict[str, str]) -> None:
    found = meaning_of(data)
    assert found.kind == kind
    for what, reason in unknown.items():
        assert why(found, what).startswith(reason), found.unknown
    if not unknown:
        assert not found.unknown


def test_a_command_line_by_itself() -> None:
    found = meaning_of(CMDLINE.encode() + b"\n")
    assert found.kernel_arguments == tuple(CMDLINE.split()) and found.platform == "metal"
    assert found.boot_entries[0].loader == "none"


def test_an_installer_has_its_version_in_a_label() -> None:
    listed = extensions_yaml([("gvisor", "1")])
    files = {
        "usr/install/amd64/vmlinuz": kernel(),
        "usr/install/amd64/initramfs.xz": cpio({"init": elf(), "extensions.yaml": listed}),
    }
    found = meaning_of(docker_archive(files, version="v1.9.0-alpha.1"))
    assert (found.kind, found.talos_version, found.arch) == ("installer", "v1.9.0-alpha.1", "amd64")
    assert found.schematic_id == SCHEMATIC_ID
    assert meaning_of(docker_archive({"bin/sh": elf()})).kind == "image"


def test_signatures_and_policies() -> None:
    by = signer()
    more = [(".pcrsig", pcr_document(by)), (".pcrpkey", public_pem(by))]
    signed = sign_pe(uki(more=more), by)
    found = meaning_of(signed)
    assert (found.secure_boot.state, found.secure_boot.signers) == ("signed", ("CN=test rsa",))
    assert found.secure_boot.pcr_signed
    altered = signed.replace(b"console=tty0", b"console=tty9")
    broken = meaning_of(altered).secure_boot
    assert (broken.state, broken.signers) == ("broken", ())
    assert broken.not_fitting == ("CN=test rsa",)
    assert meaning_of(talos_disk(signed)).secure_boot.state == "partly-signed"
    other = [(".pcrsig", pcr_document(by)), (".pcrpkey", public_pem(signer("ec")))]
    assert not meaning_of(uki(more=other)).secure_boot.pcr_signed


def test_who_signed_other_bytes_is_no_signer_of_these() -> None:
    first, second = signer(), signer("ec")
    other = pkcs7(plain_hash(uki()), first)
    altered = uki(cmdline=CMDLINE.replace("tty0", "tty1"))
    own = pkcs7(plain_hash(altered), second)
    found = meaning_of(with_signatures(altered, other, own)).secure_boot
    assert (found.state, found.signers) == ("signed", ("CN=test ec",))
    assert found.not_fitting == ("CN=test rsa",)
    both = with_signatures(altered, pkcs7(plain_hash(altered), first), own)
    assert meaning_of(both).secure_boot.signers == ("CN=test rsa", "CN=test ec")
    assert meaning_of(both).secure_boot.not_fitting == ()


def test_parts_that_cannot_be_read_are_named() -> None:
    image = talos_disk()
    begin = image.index(b"\x28\xb5\x2f\xfd")
    found = meaning_of(image[:begin] + b"\x28\xb5\x2f\xfd\xff\xff\xff\xff" + image[begin + 8 :])
    assert found.schematic_id == ""
    assert why(found, "EFI/EFI/LINUX/TALOS.EFI/.initrd")


def test_lists_of_extensions_that_differ() -> None:
    first, second = (extensions_yaml([("gvisor", version)]) for version in ("1", "2"))
    found = meaning_of(cpio({"a/extensions.yaml": first, "b/extensions.yaml": second}))
    assert [one.version for one in found.extensions] == ["1"]
    assert "lists others than" in why(found, "extensions")


def test_the_text_of_a_schematic_has_to_have_the_id_beside_it() -> None:
    listed = read_extensions(extensions_yaml([], SCHEMATIC, number="ab" * 32).decode())
    assert listed.schematic_id == "ab" * 32 and "does not have the ID" in listed.problem
    old = read_extensions(extensions_yaml([("a", "1")], "", number="cd" * 32).decode())
    assert (old.schematic_id, old.schematic, old.problem) == ("cd" * 32, None, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "layers: []",
        "layers: 1",
        "a: &a [*a]",
        "\0",
        "- x",
        "layers:\n  - image: [1]",
        "{" * 999,
    ],
)
def test_odd_lists_of_extensions(text: str) -> None:
    listed = read_extensions(text)
    assert listed.extensions == () and bool(listed.problem) == (text not in ("", "layers: []"))


def test_a_list_with_a_large_schematic_is_read() -> None:
    text = "customization:\n    embeddedMachineConfiguration: " + "x" * 100_000 + "\n"
    data = initramfs(extensions_yaml([("a", "1")], text))
    found = meaning_of(data)
    assert found.schematic == text
    assert found.schematic_id == hashlib.sha256(text.encode()).hexdigest()
    assert len(inspected(data).as_dict()["parts"]["children"]) == 2
    huge = initramfs(extensions_yaml([("a", "1")], text * (MAX_BYTES // len(text) + 1)))
    assert meaning_of(huge).schematic_id == ""


def test_json_is_stable() -> None:
    document = inspected(talos_disk()).as_dict()
    assert document["format"] == "local-imager/inspection/v1"
    assert list(document) == [
        *("format", "name", "size_bytes", "digest", "kind", "packing", "system", "talos_version"),
        *("kernel_version", "arch", "platform", "schematic_id", "schematic", "extensions"),
        *("kernel_arguments", "boot_entries", "meta", "secure_boot", "boot", "sizes", "imager"),
        *("unknown", "known", "remake", "parts"),
    ]


def test_the_same_image_in_two_places_boots_once() -> None:
    esp = small_fat32({"EFI/A.TXT": b"x", "EFI/LINUX/TALOS.EFI": uki()})
    found = meaning_of(disk([("COPY", uki()), ("ESP", esp)]))
    assert [(one.loader, one.profile, one.path) for one in found.boot_entries] == [
        ("systemd-boot", "main", "ESP/EFI/LINUX/TALOS.EFI"),
        ("systemd-boot", "reset", "ESP/EFI/LINUX/TALOS.EFI"),
    ]
