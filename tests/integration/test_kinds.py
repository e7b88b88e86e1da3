"""Every kind of asset for both architectures, looked into with the usual programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.looking import (
    PortableExecutable,
    initramfs_files,
    iso_file,
    iso_names,
    kind_of,
    read_pe,
)
from tests.labfolder import MIDDLE, NEWEST, OLDEST, run
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs:
    - console=ttyS0,115200
    - e2e.marker=seen
  meta:
    - key: 12
      value: e2e-meta-value
  systemExtensions:
    officialExtensions:
      - siderolabs/hello-world-service
"""
KINDS = (
    "kernel-{arch}",
    "initramfs-{arch}.xz",
    "cmdline-metal-{arch}",
    "metal-{arch}-uki.efi",
    "metal-{arch}.iso",
    "installer-{arch}.tar",
)
EFI_NAME = {"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}
SETS = ((NEWEST, "amd64"), (NEWEST, "arm64"), (MIDDLE, "arm64"), (OLDEST, "amd64"))


class Built:
    """The assets of one version and architecture."""

    def __init__(self, version: str, arch: str, schematic_id: str, paths: dict[str, Path]) -> None:
        self.version, self.arch = version, arch
        self.schematic_id, self._paths = schematic_id, paths

    def path(self, pattern: str) -> Path:
        """Return a file by its asset name, ``{arch}`` filled in."""
        return self._paths[pattern.format(arch=self.arch)]


@pytest.fixture(scope="module")
def schematic(session_folder: Path) -> Path:
    path = session_folder / "kinds.yaml"
    path.write_text(SCHEMATIC)
    return path


@pytest.fixture(scope="module", params=SETS, ids=lambda pair: "-".join(pair))
def built(
    request: pytest.FixtureRequest, warm: Program, schematic: Path, programs: None
) -> Iterator[Built]:
    version, arch = request.param
    results = warm.build(schematic, *(kind.format(arch=arch) for kind in KINDS), version=version)
    schematic_id = warm("schematic", "id", schematic).expect(0).stdout.strip()
    assert {result["schematic_id"] for result in results} == {schematic_id}
    yield Built(
        version, arch, schematic_id, {result["asset"]: Path(result["path"]) for result in results}
    )


def test_the_checksum_beside_each_file_is_right(built: Built) -> None:
    for kind in KINDS:
        path = built.path(kind)
        run("sha256sum", "--check", "--status", f"{path.name}.sha256", cwd=path.parent)
        assert path.parts[-3:-1] == (built.schematic_id[:12], built.version)


def test_the_kernel_boots_its_architecture(built: Built) -> None:
    kind = kind_of(built.path("kernel-{arch}"))
    assert {"amd64": "x86 boot executable", "arm64": "ARM64 boot executable"}[built.arch] in kind


def test_the_initramfs_names_extension_and_schematic(built: Built) -> None:
    check_initramfs(built, built.path("initramfs-{arch}.xz").read_bytes())


def check_initramfs(built: Built, data: bytes) -> None:
    files = initramfs_files(data)
    listed = files["extensions.yaml"].decode()
    assert "hello-world-service" in listed
    assert built.schematic_id in listed
    layers = [name for name in files if name.endswith(".sqsh")]
    assert len(layers) >= 2  # the extension and the one that names the schematic


def test_the_command_line_has_the_arguments(built: Built) -> None:
    words = built.path("cmdline-metal-{arch}").read_text().split()
    assert words.count("e2e.marker=seen") == 1
    assert "talos.platform=metal" in words


def test_the_uki_holds_kernel_initramfs_and_arguments(built: Built) -> None:
    uki = read_pe(built.path("metal-{arch}-uki.efi").read_bytes())
    check_uki(built, uki)
    # The factory's own rule: before v1.10 a UKI has the arguments only for secure boot.
    assert ("e2e.marker=seen" in uki.kernel_args) == (built.version != OLDEST)
    assert uki.signature_bytes == 0


def check_uki(built: Built, uki: PortableExecutable) -> None:
    assert uki.arch == built.arch
    assert {".osrel", ".cmdline", ".linux", ".initrd", ".sbat"} <= set(uki.sections)
    assert "talos.platform=metal" in uki.kernel_args
    assert built.version in uki.sections[".osrel"].decode()
    check_initramfs(built, uki.sections[".initrd"])


def test_the_iso_boots_the_same_arguments(built: Built, tmp_path: Path) -> None:
    iso = built.path("metal-{arch}.iso")
    assert "bootable" in kind_of(iso)
    names = iso_names(iso)
    if built.version != OLDEST:
        uki = read_pe(iso_file(iso, f"/EFI/Linux/Talos-{built.version}.efi", tmp_path))
        check_uki(built, uki)
        assert "e2e.marker=seen" in uki.kernel_args
        assert f"/EFI/BOOT/{EFI_NAME[built.arch]}" in names
    if built.arch == "amd64":
        menu = iso_file(iso, "/boot/grub/grub.cfg", tmp_path).decode()
        assert "e2e.marker=seen" in menu
        check_initramfs(built, iso_file(iso, "/boot/initramfs.xz", tmp_path))
        assert "/boot/vmlinuz" in names


def test_the_installer_is_an_image_that_registries_take(built: Built) -> None:
    image = f"docker-archive:{built.path('installer-{arch}.tar')}"
    document = run("skopeo", "inspect", image)
    assert f'"Architecture": "{built.arch}"' in document
    config = run("skopeo", "inspect", "--config", image)
    assert built.version in document + config
