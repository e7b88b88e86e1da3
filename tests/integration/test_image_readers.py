"""What the readers see in images, programs and archives of the imager, other tools see too."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from local_imager.formats.archive import image_archive_of
from local_imager.formats.authenticode import read_signatures
from local_imager.formats.iso import SECTOR, read_iso
from local_imager.formats.pe import read_pe
from local_imager.formats.source import FileSource, sha256_of
from local_imager.formats.tar import read_tar
from local_imager.formats.uki import read_uki
from tests.labfolder import NEWEST, OLDEST, run
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

VANILLA = SCHEMATICS / "vanilla.yaml"
UKI = "metal-amd64-secureboot-uki.efi"


@pytest.fixture(scope="module")
def signed(warm: Program, signing_keys: Path, programs: None) -> dict[str, Path]:
    """Assets of the newest version for secure boot, by name."""
    env = {"LOCAL_IMAGER_BUILD_SECUREBOOT_KEYS": str(signing_keys)}
    keyed = Program(warm.config, warm.store, warm.out, env=env)
    names = (UKI, "metal-amd64-secureboot.iso", "installer-amd64-secureboot.tar")
    results = keyed.build(VANILLA, *names, version=NEWEST)
    return {name: Path(result["path"]) for name, result in zip(names, results, strict=True)}


def test_sections_and_signature_of_a_unified_kernel_image(
    signed: dict[str, Path], signing_keys: Path, tmp_path: Path
) -> None:
    with FileSource(signed[UKI]) as source:
        pe = read_pe(source)
        [signature] = read_signatures(source, pe)
        uki = read_uki(source, pe)
    shown = run("objdump", "-h", signed[UKI])
    rows = re.findall(r"^ +\d+ (\S+) +([0-9a-f]+) +\S+ +\S+ +([0-9a-f]+)", shown, re.M)
    assert [(name, int(size, 16), int(at, 16)) for name, size, at in rows] == [
        (section.name, section.size_bytes, section.offset) for section in pe.sections
    ]
    assert signature.holds
    run("sbattach", "--detach", tmp_path / "pkcs7", signed[UKI])
    parsed = run("openssl", "asn1parse", "-inform", "der", "-in", tmp_path / "pkcs7")
    assert f"[HEX DUMP]:{signature.digest.upper()}" in parsed
    certificate = signing_keys / "uki-signing-cert.pem"
    shown = run("openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256")
    assert signature.signer is not None
    assert signature.signer.sha256 == shown.strip().partition("=")[2].replace(":", "").lower()
    assert uki is not None and uki.kind == "uki"
    policies = uki.profiles[0].pcr_signatures
    assert {one.bank for one in policies} >= {"sha256", "sha384"}
    assert all(one.verifies and one.pcrs == (11,) for one in policies)


def test_an_image_of_each_boot_loader_is_read_as_xorriso_reads_it(
    warm: Program, signed: dict[str, Path], tmp_path: Path
) -> None:
    """systemd-boot with an appended ESP, and GRUB for BIOS and UEFI with the ESP in a file."""
    [grub] = warm.build(VANILLA, "metal-amd64.iso", version=OLDEST)
    for number, iso in enumerate((signed["metal-amd64-secureboot.iso"], Path(grub["path"]))):
        report = run("xorriso", "-indev", iso, "-report_el_torito", "plain")
        target = tmp_path / str(number)
        run("xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", target)
        with FileSource(iso) as source:
            volume = read_iso(source)
            seen = {
                entry.path: sha256_of(volume.open(entry)) if entry.kind == "file" else entry.kind
                for entry in volume.entries
            }
            modes = {entry.path: entry.mode for entry in volume.entries}
            boots = [
                (e.platform.upper(), str(e.load_sectors), str(e.offset // SECTOR))
                for e in volume.boot.entries
            ]
            lengths = [volume.open_boot_image(e).size_bytes for e in volume.boot.entries]
        assert seen == _files_below(target)
        assert modes == {path: os.stat(target / path).st_mode & 0o7777 for path in modes}
        assert boots == re.findall(
            r"El Torito boot img : +\d+ +(\S+) +y +none +\S+ +\S+ +(\d+) +(\d+)", report
        )
        # Where the catalogue does not say, xorriso takes the partition for it as well.
        blocks = re.findall(r"El Torito img blks : +\d+ +(\d+)", report)
        assert str(lengths[-1] // SECTOR) in blocks or lengths[-1] == 5760 * 512
        assert volume.names == "rock-ridge" and volume.volume_id.startswith("TALOS_V1_")


def _files_below(root: Path) -> dict[str, str]:
    found = {}
    for path in root.rglob("*"):
        digest = "directory"
        if path.is_file():
            digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[str(path.relative_to(root))] = digest
    return found


def test_an_installer_is_read_as_skopeo_reads_it(signed: dict[str, Path]) -> None:
    tar = signed["installer-amd64-secureboot.tar"]
    inspected = json.loads(run("skopeo", "inspect", f"docker-archive:{tar}"))
    with FileSource(tar) as source:
        archive = image_archive_of(read_tar(source))
        assert archive is not None
        [image] = archive.images
        sizes = [layer.source.size_bytes for layer in image.layers]
    assert image.architecture == inspected["Architecture"] == "amd64"
    assert dict(image.labels) == inspected["Labels"]
    assert image.labels["alpha.talos.dev/version"] == NEWEST
    assert [layer.diff_id for layer in image.layers] == inspected["Layers"]
    assert image.names[0].endswith(f":{NEWEST}")
    listed = run("tar", "-tvf", tar)
    assert all(f" {size} " in listed for size in sizes)
