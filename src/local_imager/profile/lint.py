"""All that is worth knowing about a schematic before it is built: what fails, what has no effect.

Two kinds of findings: those of the schematic by itself (kernel arguments, META, extensions), and
those of each asset of a version (``effects``). Nothing is built and nothing is fetched.
"""

from __future__ import annotations

import base64
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.customize import (
    WITH_EXTENSIONS,
    WITH_META,
    check_combination,
    takes_kernel_args,
)
from local_imager.profile.effects import (
    ARGS,
    EMBEDDED,
    ENROLL_KEYS,
    EXTENSIONS,
    META,
    OVERLAY,
    SECTOR_SIZE,
    Finding,
    Severity,
    effects,
)
from local_imager.profile.model import Catalogue
from local_imager.profile.platforms import BOARDS
from local_imager.profile.quirks import MIN_TALOS, Feature, Quirks
from local_imager.profile.resolve import RENAMED, find_extension, find_overlay
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import ENROLL_KEYS as KNOWN_ENROLL_KEYS
from local_imager.schematic.model import MetaValue, Schematic

_SECTOR_SIZES: Final = (512, 4096)

# Talos keeps two copies of a 256 KiB record, with a 40 byte frame, in the META partition.
_META_RECORD_BYTES: Final = 256 * 1024 - 40
_META_ENTRY_BYTES: Final = 8  # tag and length of each value
_META_NETWORK: Final = 0x0A
_META_OF_TALOS: Final = {
    0x06: "the upgrade in progress",
    0x07: "the staged upgrade's image",
    0x08: "the staged upgrade's options",
    0x09: "the encryption of STATE",
    0x11: "the boot loader of the disk",
}
# COMMAND_LINE_SIZE of Linux on x86 and arm64; Talos and overlays add some 500 characters.
_COMMAND_LINE_CHARACTERS: Final = 2048
_COMMAND_LINE_OWN: Final = 500
_GZIP_ABOVE_BYTES: Final = 256

# An extension without which the guests of a hypervisor cannot be stopped or seen from outside.
_GUEST_AGENTS: Final = {
    "nocloud": ("siderolabs/qemu-guest-agent", "Proxmox and other QEMU hosts"),
    "vmware": ("siderolabs/vmtoolsd-guest-agent", "vSphere"),
}


def lint(
    schematic: Schematic,
    version: TalosVersion,
    assets: Iterable[AssetName],
    catalogue: Catalogue | None,
) -> list[Finding]:
    """Return the findings, errors first, each once; an empty list means that all takes effect.

    Without a catalogue the names of extensions and overlays are not looked up.
    """
    assets = tuple(assets)
    found: dict[Finding, None] = {}
    if version < MIN_TALOS:
        found[_f("error", "version", f"images can be made from Talos {MIN_TALOS} on")] = None
    parts = (
        _kernel_args(schematic),
        _meta(schematic),
        _extensions(schematic, catalogue, assets),
        _overlay(schematic, version, catalogue, assets),
        _other(schematic),
    )
    for part in parts:
        found.update(dict.fromkeys(part))
    for asset in assets:
        found.update(dict.fromkeys(_combination(schematic, version, asset)))
        found.update(dict.fromkeys(_of_asset(schematic, version, asset)))
        found.update(dict.fromkeys(effects(schematic, version, asset)))
    order = ("error", "warning", "info")
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _f(severity: Severity, field: str, message: str, asset: AssetName | None = None) -> Finding:
    name = "" if asset is None else asset.given or str(asset)
    return Finding(severity, field, name, message)


def _kernel_args(schematic: Schematic) -> Iterator[Finding]:
    args = schematic.customization.extra_kernel_args
    for arg, count in Counter(args).items():
        shown = _shown(arg)
        if count > 1:
            yield _f("warning", ARGS, f"{shown} stands there {count} times")
        if not arg.strip():
            yield _f("warning", ARGS, "an empty argument has no effect")
        elif len(arg.split()) > 1 and '"' not in arg:
            yield _f("warning", ARGS, f"{shown} has a space in it: the kernel sees two arguments")
    for index, arg in enumerate(args):
        if not _removes(arg):
            continue
        removed = [other for other in args[:index] if _is_removed(other, arg)]
        for other in removed:
            yield _f("warning", ARGS, f"{_shown(arg)} removes the {_shown(other)} before it")


def _shown(arg: str) -> str:
    """Return an argument without its value, which may be secret."""
    key, equals, _ = arg.partition("=")
    return repr(key + ("=…" if equals else ""))


def _removes(arg: str) -> bool:
    return len(arg) > 1 and arg.startswith("-")


def _is_removed(other: str, removal: str) -> bool:
    wanted = removal[1:]
    return other == wanted or ("=" not in wanted and other.partition("=")[0] == wanted)


def _meta(schematic: Schematic) -> Iterator[Finding]:
    values = schematic.customization.meta
    for key, count in Counter(item.key for item in values).items():
        if count > 1:
            yield _f(
                "warning", META, f"key {key:#x} stands there {count} times; the last one counts"
            )
        if key in _META_OF_TALOS:
            yield _f("warning", META, f"key {key:#x} is Talos' own: {_META_OF_TALOS[key]}")
    size = sum(len(item.value.encode()) + _META_ENTRY_BYTES for item in values)
    if size > _META_RECORD_BYTES:
        yield _f(
            "error", META, f"the values take {size} bytes, and META holds {_META_RECORD_BYTES}"
        )


def _extensions(
    schematic: Schematic, catalogue: Catalogue | None, assets: tuple[AssetName, ...]
) -> Iterator[Finding]:
    names = schematic.customization.official_extensions
    for name, count in Counter(names).items():
        if count > 1:
            yield _f("warning", EXTENSIONS, f"{name} stands there {count} times; once is enough")
        if catalogue is None:
            yield from _extension_by_itself(name)
            continue
        try:
            entry = find_extension(catalogue, name)
        except PlanError as error:
            looked_up = not assets or any(asset.kind in WITH_EXTENSIONS for asset in assets)
            severity: Severity = "error" if looked_up else "warning"
            yield _f(severity, EXTENSIONS, f"{error.message}; {error.hint}")
            continue
        if entry.name != name:
            yield _f("info", EXTENSIONS, f"{name} is called {entry.name} in {catalogue.version}")
            if entry.name in names:
                yield _f("warning", EXTENSIONS, f"{name} and {entry.name} are the same extension")


def _extension_by_itself(name: str) -> Iterator[Finding]:
    if "/" not in name:
        yield _f("warning", EXTENSIONS, f"official extensions have full names: siderolabs/{name}?")
    elif name in RENAMED:
        yield _f("info", EXTENSIONS, f"{name} is called {RENAMED[name]} in later versions")


def _overlay(
    schematic: Schematic,
    version: TalosVersion,
    catalogue: Catalogue | None,
    assets: tuple[AssetName, ...],
) -> Iterator[Finding]:
    overlay = schematic.overlay
    if not overlay.name:
        if overlay.image or overlay.options:
            yield _f("warning", OVERLAY, "an overlay without a name has no effect")
        return
    board = next((board for board in BOARDS if board.overlay == overlay.name), None)
    if board is not None and version < board.min_version:
        yield _f("warning", OVERLAY, f"{board.label} is supported from {board.min_version} on")
    if catalogue is not None and Quirks.of(version).has(Feature.OVERLAY):
        try:
            entry = find_overlay(catalogue, overlay.name)
        except PlanError as error:
            yield _f("error", OVERLAY, f"{error.message}; {error.hint}")
            return
        if entry.image != overlay.image:
            yield _f("info", OVERLAY, f"the image that counts is {entry.image}, from the catalogue")
    for asset in assets:
        if board is not None and asset.arch != "arm64" and asset.kind in WITH_EXTENSIONS:
            yield _f("warning", OVERLAY, f"{board.label} is an arm64 machine", asset)


def _other(schematic: Schematic) -> Iterator[Finding]:
    custom = schematic.customization
    if custom.sector_size and custom.sector_size not in _SECTOR_SIZES:
        yield _f("warning", SECTOR_SIZE, "disks have sectors of 512 or 4096 bytes")
    enroll_keys = custom.secureboot.enroll_keys
    if enroll_keys and enroll_keys.lower() not in KNOWN_ENROLL_KEYS:
        yield _f("error", ENROLL_KEYS, f"it is one of {', '.join(KNOWN_ENROLL_KEYS)}")
    embedded = custom.embedded_machine_configuration
    if embedded and not embedded.strip():
        yield _f("warning", EMBEDDED, "the configuration is empty")


def _combination(
    schematic: Schematic, version: TalosVersion, asset: AssetName
) -> Iterator[Finding]:
    """Report what planning would refuse."""
    fields = {"embedded-config-unsupported": EMBEDDED, "overlay-unsupported": OVERLAY}
    try:
        check_combination(schematic, version, asset)
    except PlanError as error:
        if error.code in fields:  # the third reason, enrollKeys, is no matter of the asset
            yield _f("error", fields[error.code], f"{error.message}; {error.hint}", asset)
    if asset.secureboot and not Quirks.of(version).has(Feature.UKI):
        yield _f(
            "error", "version", f"Talos {version} has no secure boot; that came with v1.5.0", asset
        )


def _of_asset(schematic: Schematic, version: TalosVersion, asset: AssetName) -> Iterator[Finding]:
    custom = schematic.customization
    if asset.kind in WITH_META:
        if asset.platform != "metal" and any(item.key == _META_NETWORK for item in custom.meta):
            yield _f(
                "warning",
                META,
                f"only the platform metal reads its network from key {_META_NETWORK:#x}",
                asset,
            )
        if asset.kind != "image":
            yield from _length(schematic, version, asset)
    takes_args = takes_kernel_args(asset, Quirks.of(version))
    for arg in custom.extra_kernel_args:
        key, _, value = arg.partition("=")
        if key == "talos.platform" and value != asset.platform and takes_args:
            yield _f("warning", ARGS, f"talos.platform turns {asset.platform} off", asset)
    agent, where = _GUEST_AGENTS.get(asset.platform, ("", ""))
    names = {RENAMED.get(name, name) for name in custom.official_extensions}
    if agent and asset.kind in WITH_EXTENSIONS and agent not in names:
        yield _f("info", EXTENSIONS, f"{where} see and stop the machine through {agent}", asset)


def _length(schematic: Schematic, version: TalosVersion, asset: AssetName) -> Iterator[Finding]:
    """Check the length of the command line, on which META values travel but to a disk image."""
    custom = schematic.customization
    characters = sum(len(arg) + 1 for arg in custom.extra_kernel_args) + _COMMAND_LINE_OWN
    if custom.meta:
        characters += _encoded_meta(custom.meta, Quirks.of(version))
    if characters > _COMMAND_LINE_CHARACTERS:
        yield _f(
            "warning",
            META if custom.meta else ARGS,
            f"the command line has about {characters} characters, "
            f"and the kernel reads {_COMMAND_LINE_CHARACTERS}",
            asset,
        )


def _encoded_meta(values: tuple[MetaValue, ...], quirks: Quirks) -> int:
    """Return how many characters the values take on the command line, as Talos encodes them."""
    raw = ";".join(f"{item.key:#x}={item.value}" for item in values).encode()
    if quirks.has(Feature.COMPRESSED_META) and len(raw) > _GZIP_ABOVE_BYTES:
        raw = gzip.compress(raw, 9)
    return len(base64.b64encode(raw)) + len(" talos.environment=INSTALLER_META_BASE64=")
