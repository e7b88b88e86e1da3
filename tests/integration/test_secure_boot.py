"""Secure boot assets are signed with the user's own keys, and sbverify agrees."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.looking import efi_file, efi_names, iso_file, iso_names, read_pe, unpack
from tests.labfolder import NEWEST, OLDEST, run
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

VANILLA = SCHEMATICS / "vanilla.yaml"
CERTIFICATE = "uki-signing-cert.pem"


@pytest.fixture(scope="module")
def keyed(warm: Program, signing_keys: Path, programs: None) -> Program:
    """The program with secure boot keys."""
    env = {"LOCAL_IMAGER_BUILD_SECUREBOOT_KEYS": str(signing_keys)}
    return Program(warm.config, warm.store, warm.out, env=env)


@pytest.fixture(scope="module")
def other_keys(warm: Program, session_folder: Path) -> Path:
    keys = session_folder / "other-keys"
    warm("secureboot", "keygen", keys).expect(0)
    return keys


def check_signature(efi: Path, keys: Path, others: Path) -> None:
    run("sbverify", "--cert", keys / CERTIFICATE, efi)
    wrong = subprocess.run(["sbverify", "--cert", others / CERTIFICATE, efi], capture_output=True)
    assert wrong.returncode != 0


@pytest.mark.parametrize(
    ("version", "arch"), [(NEWEST, "amd64"), (NEWEST, "arm64"), (OLDEST, "amd64")]
)
def test_uki_iso_and_command_line(
    keyed: Program,
    signing_keys: Path,
    other_keys: Path,
    tmp_path: Path,
    version: str,
    arch: str,
) -> None:
    assets = (
        f"metal-{arch}-secureboot-uki.efi",
        f"metal-{arch}-secureboot.iso",
        f"cmdline-metal-{arch}-secureboot",
        f"installer-{arch}-secureboot.tar",
    )
    results = keyed.build(VANILLA, *assets, version=version)
    uki, iso, cmdline, installer = (Path(result["path"]) for result in results)
    check_signature(uki, signing_keys, other_keys)
    found = read_pe(uki.read_bytes())
    assert found.signature_bytes > 0 and found.arch == arch
    assert {".pcrsig", ".pcrpkey"} <= set(found.sections)
    assert " ".join(found.kernel_args) == " ".join(cmdline.read_text().split())
    name = next(name for name in iso_names(iso) if name.startswith("/EFI/Linux/"))
    inner = tmp_path / "inner.efi"
    inner.write_bytes(iso_file(iso, name, tmp_path))
    check_signature(inner, signing_keys, other_keys)
    assert f'"{arch}"' in run("skopeo", "inspect", f"docker-archive:{installer}")


def test_a_disk(keyed: Program, signing_keys: Path, other_keys: Path, folder: Path) -> None:
    (result,) = keyed.build(VANILLA, "metal-amd64-secureboot.raw.zst", version=OLDEST)
    raw = unpack(Path(result["path"]), folder)
    efi = folder / "program.efi"
    programs = [name for name in efi_names(raw) if name.lower().endswith(".efi")]
    assert len(programs) >= 2  # the boot loader and the UKI
    for name in programs:
        efi.write_bytes(efi_file(raw, name, folder))
        check_signature(efi, signing_keys, other_keys)


def test_other_keys_make_another_build(
    keyed: Program, other_keys: Path, signing_keys: Path
) -> None:
    order = (VANILLA, "metal-amd64-secureboot-uki.efi")
    first = keyed.build(*order, version=NEWEST)
    other = keyed.build(*order, "--secureboot-keys", str(other_keys), version=NEWEST)
    again = keyed.build(*order, version=NEWEST)
    assert first[0]["build_key"] == again[0]["build_key"] != other[0]["build_key"]
    assert again[0]["cached"]


def test_private_keys_stay_private(keyed: Program, signing_keys: Path) -> None:
    keyed.build(VANILLA, "metal-amd64-secureboot-uki.efi", version=NEWEST)
    private = [path for path in signing_keys.iterdir() if path.name.endswith("key.pem")]
    assert len(private) >= 2
    for path in private:
        assert path.stat().st_mode & 0o077 == 0
        body = path.read_text().splitlines()[1].encode()
        held = [
            blob
            for blob in keyed.store.rglob("*")
            if blob.is_file() and blob.stat().st_size < 1 << 20
        ]
        assert not [blob for blob in held if body in blob.read_bytes()]
    keyed("secureboot", "keygen", signing_keys).expect(2)
