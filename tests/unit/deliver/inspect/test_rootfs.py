"""The root file system inside an initramfs: where an initramfs by itself has Talos' version."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.limits import Digests
from local_imager.formats.source import BytesSource
from tests.diskfiles import tool
from tests.talosfiles import OS_RELEASE, cpio, elf, extensions_yaml


@pytest.fixture(scope="module", params=["squashfs", "erofs"])
def initramfs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    need_packages(["inspect"])
    folder: Path = tmp_path_factory.mktemp("rootfs")
    root, image = folder / "root", folder / "image"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text(OS_RELEASE)
    (root / "init").write_bytes(elf(183))
    (root / "usr").symlink_to("../..")
    if request.param == "squashfs":
        tool("mksquashfs", root, image, "-quiet", "-no-progress")
    else:
        tool("mkfs.erofs", "--quiet", image, root)
    listed = extensions_yaml([("gvisor", "1")])
    return cpio({"rootfs.sqsh": image.read_bytes(), "init": elf(183), "extensions.yaml": listed})


@pytest.mark.parametrize("digests", ["meaning", "parts", "all"])
def test_version_and_files(initramfs: bytes, digests: Digests) -> None:
    done = inspect_source(BytesSource(initramfs), "initramfs-arm64.xz", digests=digests)
    assert (done.meaning.talos_version, done.meaning.arch) == ("v1.13.0", "arm64")
    parts = dict(done.tree.walk())
    assert parts["segment 1/rootfs.sqsh/usr"].facts["link_target"] == "../.."
    assert bool(parts["segment 1/rootfs.sqsh/init"].digest) == (digests != "meaning")
    assert done.remake is not None
    assert done.remake.command.endswith("initramfs-arm64.xz --version v1.13.0")
