"""How a file could be made again: its schematic and the command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_imager.deliver.inspect.extensions import GENERATED
from local_imager.errors import InputError
from local_imager.schematic.model import Customization, MetaValue, Overlay, Schematic

if TYPE_CHECKING:
    from local_imager.deliver.inspect.meaning import Meaning
    from local_imager.profile.assetname import AssetName

SCHEMATIC_FILE: Final = "schematic.yaml"
# What Talos and its imager put on every command line by themselves, or for a platform (Talos
# pkg/machinery/kernel, pkg/imager, and KernelArgs of each platform); all else somebody asked for.
_OWN_ARGUMENTS: Final = frozenset(
    """
    talos.platform talos.config talos.environment talos.halt_if_installed talos.experimental.wipe
    talos.dashboard.disabled init_on_alloc slab_nomerge pti consoleblank nvme_core.io_timeout
    printk.devkmsg ima_template ima_appraise ima_hash selinux module.sig_enforce
    proc_mem.force_override lockdown console earlyprintk rootdelay net.ifnames
    sysctl.kernel.kexec_load_disabled BOOT_IMAGE
    """.split()
)
# Here Talos notes which boot loader a disk has (pkg/machinery/meta); no schematic asks for it.
_BOOTLOADER_KEY: Final = 0x11
_DISK_FORMATS: Final = {"qcow2": "qcow2", "vhd": "vhd", "ova": "ova"}
# Talos' imager adds it to the arguments of what it makes for Secure Boot, and to nothing else.
_LOCKED: Final = "lockdown=confidentiality"
# Stands in the command for a version that nothing in the file says.
_OPEN_VERSION: Final = "VERSION"
_PACKINGS: Final = {"gzip": ".gz", "xz": ".xz", "zstd": ".zst"}


@dataclass(frozen=True, slots=True)
class Remake:
    """The schematic and the command that make the file again.

    ``schematic`` is the text to write into the file that ``command`` names. ``guessed`` is empty
    when the file itself carries that text, else it says what the text was put together from.
    ``version`` is empty where the file does not say it; then it is left open in ``command``.
    """

    schematic: str
    schematic_id: str
    asset: str
    version: str
    command: str
    guessed: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "schematic": self.schematic,
            "schematic_id": self.schematic_id,
            "asset": self.asset,
            "version": self.version or None,
            "command": self.command,
            "guessed": self.guessed or None,
            "notes": list(self.notes),
        }


def remake_of(meaning: Meaning) -> Remake | None:
    """Return how to make a file again, or None for what is no asset of Talos.

    The schematic is the one that the file carries; where it carries none, one is put together from
    what can be seen, and called a guess unless its ID is the one in the file.
    """
    asset = asset_of(meaning)
    if asset is None or not (meaning.talos_version or _is_of_talos(meaning)):
        return None
    from local_imager.schematic.canonical import canonical_text, schematic_id

    notes = list(_notes(meaning))
    if meaning.schematic is not None:
        text, number, guessed = meaning.schematic, meaning.schematic_id, ""
    else:
        schematic = _guess(meaning)
        text, number = canonical_text(schematic), str(schematic_id(schematic))
        guessed = "" if number == meaning.schematic_id else _how_guessed(meaning)
    words = ["local-imager", "build", SCHEMATIC_FILE, str(asset), "--version"]
    command = shlex.join([*words, meaning.talos_version or _OPEN_VERSION])
    return Remake(text, number, str(asset), meaning.talos_version, command, guessed, tuple(notes))


def asset_of(meaning: Meaning) -> AssetName | None:
    """Return the name that an asset like this has at the factory, None when it is none."""
    from local_imager.profile.assetname import AssetName, installer_name

    if meaning.arch not in ("amd64", "arm64"):
        return None
    secure = _is_for_secure_boot(meaning)
    platform = meaning.platform or "metal"
    try:
        if meaning.kind == "installer":
            return installer_name(platform, meaning.arch, secureboot=secure)  # type: ignore[arg-type]
        stem = f"{platform}-{meaning.arch}{'-secureboot' if secure else ''}"
        names = {
            "iso": f"{stem}.iso",
            "uki": f"{stem}-uki.efi",
            "cmdline": f"cmdline-{stem}",
            "kernel": f"kernel-{meaning.arch}",
            "initramfs": f"initramfs-{meaning.arch}.xz",
            "disk": f"{stem}.{_disk_ending(meaning.packing)}",
        }
        return AssetName.parse(names[meaning.kind])
    except (InputError, KeyError):
        return None


def _is_of_talos(meaning: Meaning) -> bool:
    """Whether a file without a version is one of Talos: it has its schematic or its arguments."""
    return bool(meaning.schematic_id or meaning.platform) and not meaning.system


def _is_for_secure_boot(meaning: Meaning) -> bool:
    """Whether it was made for Secure Boot, also where it does not hold any more what it was."""
    state = meaning.secure_boot
    return (
        state.state in ("signed", "partly-signed", "broken")
        or state.pcr_signed
        or _is_locked(meaning)
    )


def _is_locked(meaning: Meaning) -> bool:
    """Whether the imager locked the kernel down, and not the schematic."""
    return _LOCKED in meaning.kernel_arguments and _LOCKED not in (meaning.schematic or "")


def _disk_ending(packing: Iterable[str]) -> str:
    layers = list(packing)
    disk = next((_DISK_FORMATS[layer] for layer in layers if layer in _DISK_FORMATS), "raw")
    around = [layer for layer in layers if layer in (*_PACKINGS, "tar")]
    if around == ["gzip", "tar"]:
        return f"{disk}.tar.gz"
    return disk + "".join(_PACKINGS.get(layer, f".{layer}") for layer in around)


def _guess(meaning: Meaning) -> Schematic:
    extensions = sorted(
        f"siderolabs/{extension.name}"
        for extension in meaning.extensions
        if extension.name not in GENERATED
    )
    return Schematic(
        Overlay(),
        Customization(
            extra_kernel_args=asked_for(meaning.kernel_arguments),
            meta=tuple(_meta(meaning)),
            official_extensions=tuple(extensions),
        ),
    )


def asked_for(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return the kernel arguments that neither Talos nor a platform sets by itself."""
    return tuple(word for word in arguments if word.partition("=")[0] not in _OWN_ARGUMENTS)


def _meta(meaning: Meaning) -> Iterable[MetaValue]:
    for key, value in meaning.meta.items():
        try:
            number = int(key, 16)
        except ValueError:
            continue
        if number != _BOOTLOADER_KEY:
            yield MetaValue(number, value)


def _how_guessed(meaning: Meaning) -> str:
    used = []
    if meaning.extensions:
        used.append("the names of its extensions")
    if meaning.kernel_arguments:
        used.append("the kernel arguments that Talos does not set by itself")
    if meaning.meta:
        used.append("its META values")
    source = ", ".join(used) or "nothing, for it shows no customization"
    return f"put together from {source}; overlays and consoles are not told apart in a file"


def _notes(meaning: Meaning) -> Iterable[str]:
    started = {one.path for one in meaning.boot_entries if one.loader == "systemd-boot"}
    if len(started) > 1:
        yield "of the systems in the file it makes the one that the first boot entry starts"
    if not meaning.platform and meaning.kind in ("disk", "iso", "uki", "installer"):
        yield "no kernel argument names a platform; metal is taken"
    if not meaning.talos_version:
        yield f"nothing in the file says the version of Talos: put it in place of {_OPEN_VERSION}"
    yield from _signing_notes(meaning)
    yield from _packing_notes(meaning)


def _signing_notes(meaning: Meaning) -> Iterable[str]:
    state = meaning.secure_boot
    if state.state == "broken" or state.not_fitting:
        yield "a signature does not fit: the file was altered, and what this makes is not equal"
    elif state.state == "partly-signed":
        yield "not all of its EFI programs are signed, which the asset has: it will not be equal"
    elif state.state == "signed":
        yield "signatures are equal only when they are made with the same keys"
    elif _is_for_secure_boot(meaning) and meaning.kind not in ("cmdline", "kernel", "initramfs"):
        yield "its signatures are gone, so what this makes is not equal to it"


def _packing_notes(meaning: Meaning) -> Iterable[str]:
    known = {*_DISK_FORMATS, *_PACKINGS, "tar", "vmdk"} if meaning.kind == "disk" else set()
    foreign = [layer for layer in meaning.packing if layer not in known]
    if foreign:
        yield f"the asset itself is not packed as {', '.join(foreign)}: that was packed afterwards"
