"""The root file system of the imager image, and boot assets of both architectures from Debian."""

import hashlib
import lzma
import re
import subprocess
from pathlib import Path
from typing import Any

from lab.archives import Entry, Layer, write_layer
from lab.console import LabError, run
from lab.place import ARCHITECTURES, EPOCH_S
from lab.sid import in_root, make_sid, package_versions
from lab.steps import remove_tree

IMAGER_PACKAGES = (
    "xorriso mtools dosfstools xfsprogs e2fsprogs gdisk qemu-utils tar xz-utils zstd pigz kmod "
    "cpio binutils squashfs-tools erofs-utils grub-efi-amd64-bin grub-pc-bin grub2-common "
    "util-linux efibootmgr parted systemd-boot-efi open-vmdk"
).split()
"""What imagers of all versions call; sid's, because Debian 12's are too old for v1.13."""

ARM64_GRUB = "grub-efi-arm64-bin"

_LEFT_OUT = (
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./var/tmp/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "./usr/share/info/*",
    "./usr/sbin/policy-rc.d",
    "./dev/*",
    "./etc/machine-id",
    "./var/cache/ldconfig/aux-cache",
)

_EFI_NAME = {"amd64": "x64", "arm64": "aa64"}
BOOT_MODULES = ("loop", "squashfs")


def make_rootfs(folder: Path) -> dict[str, Any]:
    """Make the sid root in `folder`/root and its layer; return layer and package versions."""
    root, log = folder / "root", folder / "log"
    make_sid(root, IMAGER_PACKAGES, log)
    (root / "tmp").chmod(0o1777)
    arm64_grub = add_arm64_grub(root, log)
    layer = pack_tree(root, folder / "layer.tar.gz")
    return {"layer": layer_facts(layer), "packages": package_versions(root, log) | arm64_grub}


def add_arm64_grub(root: Path, log: Path) -> dict[str, str]:
    """Add GRUB's modules for arm64, which Debian packages for arm64 hosts only."""
    in_root(root, ["sh", "-ec", f"cd /var/tmp && apt-get download {ARM64_GRUB}:arm64"], log)
    (archive,) = (root / "var/tmp").glob(f"{ARM64_GRUB}_*.deb")
    unpacked = root / "var/tmp/arm64-grub"
    run(["dpkg-deb", "-x", archive, unpacked], log=log)
    (unpacked / "usr/lib/grub/arm64-efi").rename(root / "usr/lib/grub/arm64-efi")
    version = run(["dpkg-deb", "-W", "--showformat=${Version}", archive])
    remove_tree(unpacked)
    archive.unlink()
    return {f"{ARM64_GRUB}:arm64": version}


def pack_tree(root: Path, target: Path) -> Layer:
    """Pack a folder as a gzip layer, in order of names and with the lab's time stamp."""
    argv = ["tar", "-C", str(root), "--sort=name", f"--mtime=@{EPOCH_S}", "--numeric-owner"]
    argv += [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    inner = hashlib.sha256()
    with (
        target.open("wb") as out,
        subprocess.Popen([*argv, "-c", "."], stdout=subprocess.PIPE) as tar,
        subprocess.Popen(["pigz", "-n", "-6"], stdin=subprocess.PIPE, stdout=out) as pack,
    ):
        assert tar.stdout is not None and pack.stdin is not None
        while chunk := tar.stdout.read(1 << 20):
            inner.update(chunk)
            pack.stdin.write(chunk)
        pack.stdin.close()
    if tar.returncode or pack.returncode:
        raise LabError(f"packing {root} failed (tar {tar.returncode}, pigz {pack.returncode})")
    return Layer(target, file_digest(target), f"sha256:{inner.hexdigest()}", target.stat().st_size)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as ``sha256:…``."""
    with path.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def layer_facts(layer: Layer) -> dict[str, Any]:
    """Return a layer as JSON values; the file is kept by name, next to the facts."""
    return {
        "file": layer.path.name,
        "digest": layer.digest,
        "diff_id": layer.diff_id,
        "size_bytes": layer.size_bytes,
    }


def layer_from_facts(folder: Path, facts: dict[str, Any]) -> Layer:
    """Return the layer that `layer_facts` described."""
    return Layer(folder / facts["file"], facts["digest"], facts["diff_id"], facts["size_bytes"])


def make_boot_assets(root: Path, folder: Path) -> dict[str, Any]:
    """Collect kernel, EFI programs, busybox and kernel modules of both architectures.

    They are Debian's own, fetched by the sid root's apt. `folder` gets `<arch>-<name>` files and
    the layer with /usr/install/<arch>/{vmlinuz,systemd-boot.efi,systemd-stub.efi}.
    """
    log = folder / "log"
    packages: dict[str, str] = {}
    modules: dict[str, list[str]] = {}
    entries: list[Entry] = []
    for arch in ARCHITECTURES:
        unpacked = folder / f"unpacked-{arch}"
        packages |= _fetch_packages(root, arch, unpacked, log)
        modules[arch] = _collect(unpacked, arch, folder)
        remove_tree(unpacked)
        for name in ("vmlinuz", "systemd-boot.efi", "systemd-stub.efi"):
            path = folder / f"{arch}-{name}"
            entries.append(Entry(f"usr/install/{arch}/{name}", path))
    layer = write_layer(folder / "layer.tar.gz", entries)
    return {
        "layer": layer_facts(layer),
        "packages": packages,
        "modules": modules,
        "files": {path.name: file_digest(path) for path in sorted(folder.glob("*-*"))},
    }


def _fetch_packages(root: Path, arch: str, unpacked: Path, log: Path) -> dict[str, str]:
    depends = in_root(root, ["apt-cache", "depends", f"linux-image-cloud-{arch}:{arch}"], log)
    found = re.search(r"Depends: linux-image-(\S+?)(:\w+)?$", depends, re.MULTILINE)
    if found is None:
        raise LabError(f"Debian sid names no kernel image for {arch}")
    kernel = found.group(1)
    image = f"linux-image-{kernel}"
    parts = in_root(root, ["apt-cache", "depends", f"{image}:{arch}"], log)
    # Until 2026 one package held all of it; since then kernel and modules lie in two.
    names = [f"linux-binary-{kernel}", f"linux-modules-{kernel}"]
    if names[0] not in parts:
        names = [image]
    names += ["busybox-static", "systemd-boot-efi"]
    inside = f"/var/tmp/lab-{arch}"
    downloads = root / inside[1:]
    downloads.mkdir(parents=True, exist_ok=True)
    qualified = " ".join(f"{name}:{arch}" for name in names)
    in_root(root, ["sh", "-ec", f"cd {inside} && apt-get download {qualified}"], log)
    versions = {}
    for archive in sorted(downloads.glob("*.deb")):
        run(["dpkg-deb", "-x", archive, unpacked], log=log)
        field = run(
            ["dpkg-deb", "-W", "--showformat=${Package}:${Architecture} ${Version}", archive]
        )
        name, version = field.split(" ", 1)
        versions[name] = version
        archive.unlink()
    return versions


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise LabError(f"no {pattern} in the packages unpacked in {folder}")
    return found[0]


def _collect(unpacked: Path, arch: str, folder: Path) -> list[str]:
    efi = _EFI_NAME[arch]
    wanted = {
        "vmlinuz": "vmlinuz*",
        "systemd-boot.efi": f"systemd-boot{efi}.efi",
        "systemd-stub.efi": f"linux{efi}.efi.stub",
        "busybox": "busybox",
    }
    for name, pattern in wanted.items():
        _one(unpacked, pattern).replace(folder / f"{arch}-{name}")
    return _collect_modules(unpacked, arch, folder)


def _collect_modules(unpacked: Path, arch: str, folder: Path) -> list[str]:
    """Write the wanted modules and what they depend on, unpacked; return them in load order."""
    ordered: list[str] = []

    def add(name: str) -> None:
        if name in ordered:
            return
        paths = [p for p in unpacked.rglob(f"{name.replace('_', '[-_]')}.ko*") if p.is_file()]
        if not paths:
            return  # built into the kernel
        raw = paths[0].read_bytes()
        if paths[0].suffix == ".xz":
            raw = lzma.decompress(raw)
        found = re.search(rb"\0depends=([^\0]*)\0", raw)
        for dependency in filter(None, (found.group(1).decode() if found else "").split(",")):
            add(dependency)
        (folder / f"{arch}-{name}.ko").write_bytes(raw)
        ordered.append(name)

    for module in BOOT_MODULES:
        add(module)
    return ordered
