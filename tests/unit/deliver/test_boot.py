"""The boot test's QEMU command line: cut off from network and host, nothing written back."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from local_imager.deliver import boot
from local_imager.deliver.boot import BootReport, BootRequest, qemu_argv
from local_imager.errors import HostError, InputError

DATA = b"\x00" * (3 << 20) + b"boot sector" + b"\x00" * 4096


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that QEMU and a firmware are installed; nothing is started in these tests."""
    code, variables = tmp_path / "code.fd", tmp_path / "vars.fd"
    code.write_bytes(b"code")
    variables.write_bytes(b"vars")
    pair = ((str(code), str(variables)),)
    monkeypatch.setattr(boot, "_FIRMWARE", {"amd64": pair, "arm64": pair})
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


def drive_of(argv: list[str]) -> str:
    return next(value for value in argv if "id=media" in value)


def test_the_machine_has_no_network_and_qemu_its_sandbox(qemu: Path, tmp_path: Path) -> None:
    argv = qemu_argv(BootRequest(tmp_path / "metal-amd64.iso"), qemu)
    assert argv[argv.index("-nic") + 1] == "none"
    assert argv[argv.index("-sandbox") + 1].startswith("on,")
    assert "-nodefaults" in argv
    assert "media=cdrom,readonly=on" in drive_of(argv)


def test_firmware_variables_are_a_copy(qemu: Path, tmp_path: Path) -> None:
    argv = qemu_argv(BootRequest(tmp_path / "metal-amd64.iso"), qemu)
    assert any(f"file={qemu / 'vars.fd'}" in value for value in argv)
    assert any("readonly=on" in value and "code.fd" in value for value in argv)


def test_a_qcow2_never_opens_its_backing_file(qemu: Path, tmp_path: Path) -> None:
    drive = drive_of(qemu_argv(BootRequest(tmp_path / "metal-amd64.qcow2"), qemu))
    assert "snapshot=on" in drive
    node = json.loads(drive.split("file=json:", 1)[1].replace(",,", ","))
    assert node["backing"] is None


@pytest.mark.parametrize("suffix", [".raw", ".raw.zst", ".raw.xz", ".raw.gz"])
def test_compressed_disks_are_unpacked_sparse_and_whole(
    qemu: Path, tmp_path: Path, suffix: str
) -> None:
    packers = {
        ".raw": lambda data: data,
        ".raw.zst": zstandard.compress,
        ".raw.xz": lzma.compress,
        ".raw.gz": gzip.compress,
    }
    path = tmp_path / f"metal-amd64{suffix}"
    path.write_bytes(packers[suffix](DATA))
    drive = drive_of(qemu_argv(BootRequest(path), qemu))
    node = json.loads(drive.split("file=json:", 1)[1].replace(",,", ","))
    assert Path(node["file"]["filename"]).read_bytes() == DATA


def test_what_cannot_be_booted_is_refused(qemu: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file that can be booted"):
        qemu_argv(BootRequest(tmp_path / "installer-amd64.tar"), qemu)
    with pytest.raises(InputError, match="no BIOS"):
        qemu_argv(BootRequest(tmp_path / "metal-arm64.iso", arch="arm64", firmware="bios"), qemu)
    with pytest.raises(InputError, match="there is no file"):
        boot.boot(BootRequest(tmp_path / "absent.iso"))


def test_missing_programs_are_named_with_their_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(HostError) as caught:
        qemu_argv(BootRequest(tmp_path / "metal-arm64.iso", arch="arm64"), tmp_path)
    assert caught.value.exit_code == 5
    assert "qemu-system-arm" in caught.value.hint


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_an_emulated_machine_does_not_live_by_the_hosts_clock(arch: boot.Arch) -> None:
    emulated = boot._machine(arch, "tcg")
    assert emulated[emulated.index("-icount") + 1] == "shift=auto"
    assert "-icount" not in boot._machine(arch, "kvm")  # QEMU refuses both together


def test_a_report_passes_when_nothing_is_missing() -> None:
    assert BootReport("text", (), "powered-off", 1.0).passed
    assert not BootReport("text", ("x",), "timeout", 1.0).passed
