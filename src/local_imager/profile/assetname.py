"""Asset names: the factory's path names, such as ``metal-amd64.iso`` or ``aws-arm64.raw.xz``.

The grammar (``A`` is an architecture, ``P`` a platform, ``[S]`` an optional ``-secureboot``)::

    kernel-A            initramfs-A.xz       cmdline-P-A[S]
    P-A[S].iso          P-A[S]-uki.efi       [P-]installer-A[S].tar
    P-A[S].DISK[PACK]   DISK: raw qcow2 vhd ova   PACK: .tar.gz .gz .xz .zst

Accepted and refused as the factory does, except that a platform which does not exist is refused
(the factory lets it through, and crashes on two of them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from local_imager.errors import InputError
from local_imager.profile.model import ARCHES, Arch, Kind
from local_imager.profile.platforms import (
    COMPRESSIONS,
    DISK_FORMATS,
    PLATFORMS,
    QCOW2_OPTIONS,
    DiskFormat,
    OutFormat,
)

# iPXE's ${buildarch} says i386 on machines that boot 64-bit kernels.
_ARCH_ALIASES: Final[dict[str, Arch]] = {
    "amd64": "amd64",
    "x86_64": "amd64",
    "i386": "amd64",
    "arm64": "arm64",
}
# Names that other tools use; refused by the factory too, but with a better hint here.
_FOREIGN_ARCHES: Final = {"aarch64": "arm64", "x64": "amd64", "x86-64": "amd64", "x86": "amd64"}

_SECUREBOOT: Final = "-secureboot"
_CONTENT_TYPES: Final = {
    ".efi": "application/efi",
    ".gz": "application/gzip",
    ".iso": "application/x-iso9660-image",
    ".qcow2": "application/x-qemu-disk",
    ".xz": "application/x-xz",
}
_OPTION_OF_FORMAT: Final = {"qcow2": "cluster_size", "vhd": "subformat"}
# The longest name that exists has 48 characters; anything much longer is not a typing mistake.
_MAX_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class AssetName:
    """A parsed asset name; ``str()`` gives its one canonical spelling.

    ``given`` is the spelling that was parsed (``kernel-x86_64``), which does not take part in
    comparisons. ``disk_format`` is empty but for disk images.
    """

    kind: Kind
    platform: str
    arch: Arch
    secureboot: bool = False
    disk_format: DiskFormat | None = None
    out_format: OutFormat = "raw"
    given: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> AssetName:
        """Read an asset name; raises :class:`InputError` with the reason and the nearest names."""
        if len(text) > _MAX_CHARACTERS or not text.isprintable():
            raise _refused(text[:_MAX_CHARACTERS], "no asset has such a name")
        return _parse(text)

    def __str__(self) -> str:
        stem = f"{self.platform}-{self.arch}{_SECUREBOOT if self.secureboot else ''}"
        if self.kind == "kernel":
            return f"kernel-{self.arch}"
        if self.kind == "initramfs":
            return f"initramfs-{self.arch}.xz"
        if self.kind == "cmdline":
            return f"cmdline-{stem}"
        if self.kind == "iso":
            return f"{stem}.iso"
        if self.kind == "uki":
            return f"{stem}-uki.efi"
        if self.kind == "installer":
            prefix = "" if self.platform == "metal" else f"{self.platform}-"
            rest = stem.removeprefix(self.platform)
            return f"{prefix}installer{rest}.tar"
        pack = "" if self.out_format == "raw" else self.out_format
        return f"{stem}.{self.disk_format}{pack}"

    @property
    def content_type(self) -> str:
        """The media type under which the factory serves the asset."""
        name = str(self)
        dot = name.rfind(".")
        return _CONTENT_TYPES.get(name[dot:], "application/octet-stream")

    @property
    def output_name(self) -> str:
        """The file that the imager writes, before it compresses it."""
        if self.kind == "installer":
            return str(AssetName("installer", "metal", self.arch, self.secureboot))
        if self.kind == "initramfs":
            return f"initramfs-{self.platform}-{self.arch}.xz"
        if self.kind == "image":
            return str(self).removesuffix("" if self.out_format == "raw" else self.out_format)
        return str(self)

    @property
    def disk_bytes(self) -> int:
        """The size of the disk that the profile asks for; 0 where the asset is no disk image."""
        return PLATFORMS[self.platform].disk_bytes if self.kind == "image" else 0

    @property
    def disk_format_options(self) -> str:
        """The qemu-img options of the conversion; empty for none."""
        if self.kind != "image":
            return ""
        by_format = QCOW2_OPTIONS if self.disk_format == "qcow2" else ""
        return PLATFORMS[self.platform].disk_format_options or by_format

    @property
    def disk_format_fits(self) -> bool:
        """Whether qemu-img takes the platform's options for the disk format (else it fails)."""
        known = _OPTION_OF_FORMAT.get(self.disk_format or "", "")
        return not self.disk_format_options or self.disk_format_options.startswith(known)

    def start_profile(self) -> dict[str, Any]:
        """Return the imager profile that stands for this name alone, without a schematic."""
        output: dict[str, Any] = {"kind": self.kind}
        if self.kind == "image":
            options: dict[str, Any] = {"diskSize": self.disk_bytes, "diskFormat": self.disk_format}
            if self.disk_format_options:
                options["diskFormatOptions"] = self.disk_format_options
            output["imageOptions"] = options
        output["outFormat"] = self.out_format
        return {
            "arch": self.arch,
            "platform": self.platform,
            "secureboot": True if self.secureboot else None,
            "version": "",
            "input": {"kernel": {"path": ""}, "initramfs": {"path": ""}},
            "output": output,
        }


def installer_name(platform: str, arch: Arch, *, secureboot: bool) -> AssetName:
    """Return the installer that a registry path names; an empty platform stands for metal."""
    return AssetName("installer", _platform(platform or "metal", platform), arch, secureboot)


def _parse(text: str) -> AssetName:
    if text.startswith("kernel-"):
        return AssetName("kernel", "metal", _arch(text[7:], text), given=text)
    if text.startswith("cmdline-"):
        return _with_platform("cmdline", text[8:], text)
    if text.startswith("initramfs-") and text.endswith(".xz"):
        return AssetName("initramfs", "metal", _arch(text[10:-3], text), given=text)
    if text.endswith(".iso"):
        return _with_platform("iso", text[:-4], text)
    if text.endswith("-uki.efi"):
        return _with_platform("uki", text[:-8], text)
    if text.endswith(".tar") and "installer-" in text:
        return _parse_installer(text)
    return _parse_disk(text)


def _parse_installer(text: str) -> AssetName:
    before, _, rest = text[:-4].partition("installer-")
    platform = before.removesuffix("-") if before else "metal"
    secureboot = rest.endswith(_SECUREBOOT)
    arch = _arch(rest.removesuffix(_SECUREBOOT), text)
    if before and not before.endswith("-"):
        raise _refused(text, "no asset has such a name")
    return AssetName("installer", _platform(platform, text), arch, secureboot, given=text)


def _parse_disk(text: str) -> AssetName:
    out_format = next((pack for pack in COMPRESSIONS if text.endswith(pack)), None)
    rest = text if out_format is None else text.removesuffix(out_format)
    disk_format = next((name for name in DISK_FORMATS if rest.endswith("." + name)), None)
    if disk_format is None:
        raise _refused(text, "no asset has such a name")
    stem = rest.removesuffix("." + disk_format)
    return _with_platform("image", stem, text, disk_format, out_format or "raw")


def _with_platform(
    kind: Kind,
    stem: str,
    text: str,
    disk_format: DiskFormat | None = None,
    out_format: OutFormat = "raw",
) -> AssetName:
    """Read ``platform-arch[-secureboot]``; the platform digital-ocean has the only inner dash."""
    secureboot = stem.endswith(_SECUREBOOT)
    stem = stem.removesuffix(_SECUREBOOT)
    if stem.startswith("digital-ocean-"):
        platform, rest = "digital-ocean", stem.removeprefix("digital-ocean-")
    else:
        platform, dash, rest = stem.partition("-")
        if not dash:
            raise _refused(text, "it names no architecture" if stem else "it names no platform")
    _platform(platform, text)
    arch = _arch(rest, text)
    return AssetName(kind, platform, arch, secureboot, disk_format, out_format, given=text)


def _platform(name: str, text: str) -> str:
    if name not in PLATFORMS:
        raise _refused(text, f"there is no platform {name!r}" if name else "it names no platform")
    return name


def _arch(name: str, text: str) -> Arch:
    arch = _ARCH_ALIASES.get(name)
    if arch is not None:
        return arch
    board, dash, rest = name.rpartition("-")
    if dash and rest in _ARCH_ALIASES and text.startswith("metal-"):
        raise _refused(
            text,
            f"{name!r} is not an architecture",
            f"images of boards are made with an overlay in the schematic (here {board!r}?) "
            f"and have the plain name, {text.replace(name, rest)}",
        )
    foreign = _FOREIGN_ARCHES.get(name)
    hint = f"Talos calls {name} {foreign}" if foreign else ""
    raise _refused(text, f"{name!r} is not an architecture" if name else "it names none", hint)


def _refused(text: str, reason: str, hint: str = "") -> InputError:
    if not hint:
        close = nearest_names(text)
        hint = f"did you mean {', '.join(close)}?" if close else "for example metal-amd64.iso"
    return InputError(f"{text!r} is not an asset name: {reason}", hint=hint, code="asset-name")


@cache
def all_names() -> tuple[AssetName, ...]:
    """Return every asset name that exists, each once."""
    names: dict[AssetName, None] = {}
    for arch in ARCHES:
        names[AssetName("kernel", "metal", arch)] = None
        names[AssetName("initramfs", "metal", arch)] = None
        for platform in PLATFORMS:
            for secureboot in (False, True):
                names.update(dict.fromkeys(_names_of(platform, arch, secureboot)))
    return tuple(names)


def _names_of(platform: str, arch: Arch, secureboot: bool) -> list[AssetName]:
    kinds: tuple[Kind, ...] = ("iso", "uki", "cmdline", "installer")
    names = [AssetName(kind, platform, arch, secureboot) for kind in kinds]
    packs: tuple[OutFormat, ...] = ("raw", *COMPRESSIONS)
    for disk_format in DISK_FORMATS:
        names += [
            AssetName("image", platform, arch, secureboot, disk_format, pack) for pack in packs
        ]
    return names


def nearest_names(text: str, count: int = 3) -> list[str]:
    """Return the existing names that look most like ``text``, best first."""
    import difflib

    return difflib.get_close_matches(text.lower(), map(str, all_names()), n=count, cutoff=0.7)
