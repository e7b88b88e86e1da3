"""What a boot file means to a person who runs Talos: the values, and their JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal[
    "iso",
    "disk",
    "uki",
    "installer",
    "kernel",
    "initramfs",
    "cmdline",
    "image",  # a container image that is no installer
    "addon",  # a PE file that adds to a unified kernel image
    "boot-loader",  # any other PE file
    "volume",  # a file system or archive by itself
    "meta",
    "unknown",
]
SigningState = Literal["signed", "partly-signed", "unsigned", "broken", "not-applicable"]


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One way in which the file can be booted.

    ``loader`` is ``systemd-boot``, ``grub``, ``uki`` (started by the firmware itself) or ``none``
    (a kernel command line by itself); ``path`` is where in the file it stands.
    ``kernel_arguments`` are in the order in which the kernel gets them; those that addons (their
    paths) append are among them.
    """

    title: str
    loader: str
    path: str
    kernel_arguments: tuple[str, ...]
    profile: str = ""
    addons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the entry."""
        return {
            "title": self.title,
            "loader": self.loader,
            "path": self.path,
            "profile": self.profile or None,
            "kernel_arguments": list(self.kernel_arguments),
            "addons": list(self.addons),
        }


@dataclass(frozen=True, slots=True)
class Extension:
    """A system extension as its manifest names it; ``image`` is its file in the initramfs."""

    name: str
    version: str
    author: str = ""
    image: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object of the extension."""
        return {
            "name": self.name,
            "version": self.version,
            "author": self.author,
            "image": self.image,
        }


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """Whether firmware with Secure Boot would start it.

    ``signed`` is only said when every EFI program in the file carries a signature that fits its
    bytes; whose keys a machine trusts is up to the machine. ``signers`` are the subjects of the
    certificates of those that fit, ``not_fitting`` of those that do not (they signed something
    else). ``pcr_signed`` says that a UKI carries a signed TPM policy, ``enrols`` lists the key
    databases that systemd-boot would enrol.
    """

    state: SigningState = "not-applicable"
    signers: tuple[str, ...] = ()
    pcr_signed: bool = False
    enrols: tuple[str, ...] = ()
    enroll_keys: str = ""
    not_fitting: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "state": self.state,
            "signers": list(self.signers),
            "not_fitting": list(self.not_fitting),
            "pcr_signed": self.pcr_signed,
            "enrols": list(self.enrols),
            "enroll_keys": self.enroll_keys or None,
        }


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be told, and why."""

    what: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object."""
        return {"what": self.what, "why": self.why}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a file is to Talos; an empty string, tuple or mapping means "not there or not told".

    ``packing`` names what lies around it, outermost first (``zstd``, ``qcow2``). ``system`` is the
    operating system's own name for itself, also where it is not Talos. ``meta`` maps keys as Talos
    writes them (``0xa``) to values, wherever they stand (partition or kernel argument). ``imager``
    holds what shows which code made the file, as far as that is visible.
    """

    kind: Kind
    packing: tuple[str, ...] = ()
    system: str = ""
    talos_version: str = ""
    kernel_version: str = ""
    arch: str = ""
    platform: str = ""
    schematic_id: str = ""
    schematic: str | None = None
    extensions: tuple[Extension, ...] = ()
    boot_entries: tuple[BootEntry, ...] = ()
    meta: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    secure_boot: SecureBoot = SecureBoot()
    bios: bool | None = None
    uefi: bool | None = None
    size_bytes: int = 0
    content_bytes: int = 0
    imager: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unknown: tuple[Unknown, ...] = ()

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        """The kernel arguments of the first entry, which is what boots when nobody chooses."""
        return self.boot_entries[0].kernel_arguments if self.boot_entries else ()

    def as_dict(self) -> dict[str, Any]:
        """Return the stable JSON object (docs/inspect.md)."""
        return {
            "kind": self.kind,
            "packing": list(self.packing),
            "system": self.system or None,
            "talos_version": self.talos_version or None,
            "kernel_version": self.kernel_version or None,
            "arch": self.arch or None,
            "platform": self.platform or None,
            "schematic_id": self.schematic_id or None,
            "schematic": self.schematic,
            "extensions": [extension.as_dict() for extension in self.extensions],
            "kernel_arguments": list(self.kernel_arguments),
            "boot_entries": [entry.as_dict() for entry in self.boot_entries],
            "meta": dict(self.meta),
            "secure_boot": self.secure_boot.as_dict(),
            "boot": {"bios": self.bios, "uefi": self.uefi},
            "sizes": {"file_bytes": self.size_bytes, "content_bytes": self.content_bytes},
            "imager": dict(self.imager),
            "unknown": [unknown.as_dict() for unknown in self.unknown],
        }
