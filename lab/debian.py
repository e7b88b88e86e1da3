"""Debian packages on this host: what is missing, installing it, fetching without installing."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.console import LabError, run, say

HOST_PACKAGES: dict[str, dict[str, str]] = {
    "build": {
        "debootstrap": "makes the root file system of the imager image",
        "pigz": "compresses that file system on all cores",
        "xz-utils": "packs the initramfs",
    },
    "engine": {
        "docker.io": "the container engine (dockerd)",
        "iptables": "dockerd needs it to start",
    },
    "boot": {
        "qemu-system-x86": "boots what was built (amd64)",
        "ovmf": "UEFI firmware for it",
    },
    "clients": {
        "skopeo": "reads OCI layouts in tests",
        "umoci": "reads OCI layouts in tests",
        "docker-compose": "starts services for pytest-docker",
    },
    "inspect": {
        "binutils": "shows the sections of a UKI in tests",
        "cpio": "reads and writes archives of an initramfs in tests",
        "erofs-utils": "makes and checks erofs images in tests",
        "file": "tells in tests what kind of file was built",
        "gdisk": "checks partition tables in tests",
        "mtools": "reads EFI partitions in tests",
        "qemu-utils": "checks and compares disk images in tests",
        "sbsigntool": "checks secure boot signatures in tests",
        "squashfs-tools": "makes and lists squashfs images in tests",
        "xorriso": "reads ISO images in tests",
        "xz-utils": "unpacks what was built in tests",
        "zstd": "unpacks what was built in tests",
    },
    "filesystems": {
        "dosfstools": "makes FAT volumes in tests",
        "gdisk": "makes partition tables in tests",
        "mtools": "fills FAT volumes in tests",
        "qemu-utils": "makes disk images in tests",
        "xfsprogs": "makes XFS volumes in tests",
    },
}
"""Per purpose: Debian package and why it is needed."""

_PROGRAM_OF = {
    "binutils": "objdump",
    "docker.io": "dockerd",
    "dosfstools": "mkfs.fat",
    "erofs-utils": "mkfs.erofs",
    "gdisk": "sgdisk",
    "mtools": "mcopy",
    "qemu-system-x86": "qemu-system-x86_64",
    "qemu-utils": "qemu-img",
    "sbsigntool": "sbverify",
    "xfsprogs": "mkfs.xfs",
    "squashfs-tools": "mksquashfs",
    "xz-utils": "xz",
}


def _is_present(package: str) -> bool:
    if package == "ovmf":
        return Path("/usr/share/OVMF").is_dir()
    program = _PROGRAM_OF.get(package, package)
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(program, path=path) is not None


def missing_packages(purposes: Iterable[str]) -> dict[str, str]:
    """Return the packages for the purposes whose programs are not on this host, with reasons."""
    wanted: dict[str, str] = {}
    for purpose in purposes:
        wanted.update(HOST_PACKAGES[purpose])
    return {name: why for name, why in wanted.items() if not _is_present(name)}


def need_packages(purposes: Sequence[str]) -> None:
    """Install what is missing when root, in one call; otherwise raise LabError naming it.

    Processes that ask at the same time wait for each other: dpkg refuses the second one.
    """
    if missing_packages(purposes):
        with Path(tempfile.gettempdir(), f"local-imager-packages-{os.getuid()}").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _install(missing_packages(purposes))


def _install(missing: dict[str, str]) -> None:
    if not missing:
        return
    listing = ", ".join(f"{name} ({why})" for name, why in missing.items())
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"missing Debian packages: {listing}\n  as root: {command}")
    say(f"installing Debian packages: {listing}")
    # dpkg must not start the daemons that it installs: the lab starts its own, on private sockets.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if not _lists_present() or not _succeeds(install, env):
        run(["apt-get", "update"], env=env)
        run(install, env=env)


def _lists_present() -> bool:
    return any(Path("/var/lib/apt/lists").glob("*_Packages*"))


def _succeeds(argv: list[str], env: dict[str, str]) -> bool:
    return subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0


def download_host_package(package: str, target: Path) -> Path:
    """Fetch a package for this host without installing it, unpack it in `target`, return it."""
    target.mkdir(parents=True, exist_ok=True)
    if not _lists_present():
        run(["apt-get", "update"])
    # apt drops its rights for downloads and cannot write into a private folder then.
    run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], cwd=target)
    (archive,) = target.glob(f"{package}_*.deb")
    unpacked = target / "unpacked"
    run(["dpkg-deb", "-x", archive, unpacked])
    archive.unlink()
    return unpacked
