"""Reads a tree of parts as Talos means it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from local_imager.deliver.inspect import extensions as listing
from local_imager.deliver.inspect.addons import is_addon
from local_imager.deliver.inspect.arguments import PLATFORM, meta_in, meta_key, values_of
from local_imager.deliver.inspect.booting import boot_entries, os_release, shown
from local_imager.deliver.inspect.imagerfacts import imager_facts
from local_imager.deliver.inspect.meaning import BootEntry, Kind, Meaning, Unknown
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.places import content_of, outside_of
from local_imager.deliver.inspect.signing import secure_boot_of
from local_imager.formats.uki import parse_os_release

_WRAPPERS: Final = frozenset({"compressed", "qcow2", "vhd", "vmdk"})
_DISKS: Final = frozenset({"disk", "qcow2", "vhd", "vmdk"})
# The label that says the version in Talos' own images.
_VERSION_LABEL: Final = "label alpha.talos.dev/version"
_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "disk": "disk",
        "iso": "iso",
        "uki": "uki",
        "kernel": "kernel",
        "initramfs": "initramfs",
        "cmdline": "cmdline",
        "oci-image": "image",
        "pe": "boot-loader",
        "meta": "meta",
        "fat": "volume",
        "xfs": "volume",
        "squashfs": "volume",
        "erofs": "volume",
        "tar": "volume",
    }
)
_VERSION: Final = re.compile(r"v?(\d{1,4}\.\d{1,4}\.\d{1,4}(?:-[0-9A-Za-z.-]{1,40})?)")
_NAMED_VERSION: Final = re.compile(
    r"(?:^[AB] - Talos |/EFI/Linux/Talos-)"
    r"(v\d{1,4}\.\d{1,4}\.\d{1,4}(?:-(?:alpha|beta|rc)\.\d{1,3})?)(?:$|~\d+\.efi$|\.efi$|\+)"
)
# What Talos' imager calls an ISO (pkg/imager/iso): the name, and what a label can hold of it.
_ISO_NAME: Final = re.compile(
    r"Talos-(?:SB-)?(v\d{1,4}\.\d{1,4}\.\d{1,4}(?:-[0-9A-Za-z.-]{1,40})?)"
)
_ISO_LABEL: Final = re.compile(
    r"TALOS_(?:SB_)?V(\d{1,4})_(\d{1,4})_(\d{1,4})(?:_(ALPHA|BETA|RC)_(\d{1,3}))?"
)
_ARCHES: Final = ("amd64", "arm64")
# Kinds that have a schematic, extensions or kernel arguments, so that their lack is worth a word.
_WITH_INITRAMFS: Final = frozenset({"disk", "iso", "uki", "initramfs", "installer"})
_MAX_PROBLEMS: Final = 50


@dataclass
class _Gathered:
    """What the parts say, before it is put together, with their paths."""

    releases: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    kernels: list[tuple[str, Part]] = field(default_factory=list)
    initramfs: list[str] = field(default_factory=list)
    lists: list[tuple[str, listing.Listed]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    problems: list[Unknown] = field(default_factory=list)
    started: list[Mapping[str, str]] = field(default_factory=list)

    def begin_with(self, starts: Iterable[str]) -> None:
        """Put first what lies in the parts that boot: of several systems in a file that counts."""
        is_other = outside_of(starts)
        self.releases.sort(key=lambda row: is_other(row[0]))
        self.kernels.sort(key=lambda row: is_other(row[0]))
        self.lists.sort(key=lambda row: is_other(row[0]))
        self.started = [release for path, release in self.releases if not is_other(path)]


def meaning_of(tree: Part) -> Meaning:
    """Return what a file means; what cannot be told is empty and named in ``unknown``."""
    content, packing = unwrapped(tree)
    kind = _KINDS.get(content.kind, "unknown")
    if kind == "image" and _is_installer(tree):
        kind = "installer"
    elif kind == "boot-loader" and is_addon(content):
        kind = "addon"
    boots = boot_entries(tree)
    found = _gathered(tree)
    found.begin_with(boots.starts)
    listed = _agreed(found)
    meta = _meta(found, boots.entries)
    release = _release(found)
    problems = [Unknown("boot", shown(text)) for text in boots.problems]
    version = _talos_version(release) or _version_in_label(tree)
    version = version or ("" if release else _version_in_names(tree, boots.entries))
    firmware = _firmware(kind, tree, boots.entries)
    meaning = Meaning(
        kind=kind,
        packing=packing,
        system=shown(release.get("PRETTY_NAME", "") or release.get("NAME", "")),
        talos_version=version,
        kernel_version=_kernel_version(found),
        arch=_arch(tree, found),
        platform=_platform(boots.entries),
        schematic_id=listed.schematic_id,
        schematic=listed.schematic,
        extensions=listed.extensions,
        boot_entries=boots.entries,
        meta=MappingProxyType(meta),
        secure_boot=secure_boot_of(tree),
        bios=firmware[0],
        uefi=firmware[1],
        size_bytes=tree.size_bytes,
        content_bytes=content.size_bytes,
        imager=MappingProxyType(imager_facts(tree, boots.starts)),
    )
    problems += [*found.problems, *_not_told(meaning, found), *_others(meaning, found)]
    return _with_unknown(meaning, problems)


def unwrapped(tree: Part) -> tuple[Part, tuple[str, ...]]:
    """Return the part that counts, and what is packed around it, outermost first."""
    part, packing = tree, []
    while (inner := _wrapped(part)) is not None:
        packing.append(str(part.facts.get("packing", part.kind)))
        part = inner
    return part, tuple(packing)


def _wrapped(part: Part) -> Part | None:
    """Return what a part only wraps: a stream, a disk's container, or the one disk of a tar."""
    if part.kind in _WRAPPERS:
        return part.children[0] if len(part.children) == 1 else None
    disks = [child for child in part.children if child.kind in _DISKS]
    if part.kind == "ova" and disks:
        return disks[0]
    return disks[0] if part.kind == "tar" and len(part.children) == len(disks) == 1 else None


def _gathered(tree: Part) -> _Gathered:
    found = _Gathered()
    for path, part in tree.walk():
        content = content_of(part)
        if part.unread:
            found.problems.append(Unknown(path or part.name, part.unread))
        if content == "uki":
            found.releases.append((path, os_release(part)))
        elif content == "kernel":
            found.kernels.append((path, part))
        elif content == "initramfs":
            found.initramfs.append(path)
        elif content == "meta":
            found.meta |= {
                str(child.facts["key"]): child.text or "" for child in reversed(part.children)
            }
        elif part.text is not None:
            _take_text(found, path, part)
    return found


def _take_text(found: _Gathered, path: str, part: Part) -> None:
    if part.name == listing.FILE_NAME and part.text is not None:
        listed = listing.read_extensions(part.text)
        found.lists.append((path, listed))
        if listed.problem:
            found.problems.append(Unknown("extensions", listed.problem))
    elif part.name == "os-release" and part.text is not None:
        found.releases.append((path, parse_os_release(part.text)))


def _agreed(found: _Gathered) -> listing.Listed:
    """Return the list of extensions, and say so when the file has several that differ."""
    if not found.lists:
        return listing.Listed()
    first = found.lists[0][1]
    for path, other in found.lists[1:]:
        if (other.extensions, other.schematic_id) != (first.extensions, first.schematic_id):
            why = f"{path} lists others than {found.lists[0][0]}"
            found.problems.append(Unknown("extensions", shown(why)))
            break
    return first


def _meta(found: _Gathered, entries: Iterable[BootEntry]) -> dict[str, str]:
    """Return the META values of the partition, else those that the kernel arguments carry."""
    if found.meta:
        return dict(sorted(found.meta.items(), key=lambda item: _number(item[0])))
    for entry in entries:
        values, problem = meta_in(entry.kernel_arguments)
        if problem:
            found.problems.append(Unknown("meta", problem))
        if values:
            return dict(values)
    return {}


def _number(key: str) -> int:
    try:
        return int(meta_key(key), 16)
    except ValueError:
        return 1 << 32


def _release(found: _Gathered) -> Mapping[str, str]:
    """Return what the system that boots calls itself; of several names in it that of Talos."""
    for releases in (found.started, [release for _, release in found.releases]):
        talos = (release for release in releases if release.get("ID") == "talos")
        release = next(talos, next((release for release in releases if release), {}))
        if release:
            return release
    return {}


def _talos_version(release: Mapping[str, str]) -> str:
    if release.get("ID") != "talos":
        return ""
    match = _VERSION.fullmatch(release.get("VERSION_ID", "") or release.get("VERSION", ""))
    return f"v{match[1]}" if match else ""


def _others(meaning: Meaning, found: _Gathered) -> Iterator[Unknown]:
    """Say which other versions of Talos the file holds, as a disk does after an upgrade."""
    versions = dict.fromkeys(_talos_version(release) for _, release in found.releases)
    others = [version for version in versions if version not in ("", meaning.talos_version)]
    if others and meaning.talos_version:
        named = ", ".join(others[:8])
        why = f"it holds {named} too; {meaning.talos_version} is what its first boot entry starts"
        yield Unknown("talos_version", why)


def _version_in_label(tree: Part) -> str:
    images = (part for _, part in tree.walk() if part.kind == "oci-image")
    matches = (_VERSION.fullmatch(str(image.facts.get(_VERSION_LABEL, ""))) for image in images)
    return next((f"v{match[1]}" for match in matches if match), "")


def _version_in_names(tree: Part, entries: Iterable[BootEntry]) -> str:
    """Return the version that Talos' imager writes into GRUB's titles and the names of UKIs and
    of ISOs.

    What Talos calls itself counts more, but the root file system of an older one may be packed in
    a way that is not looked into.
    """
    names = [entry.title for entry in entries if entry.loader == "grub"]
    names += [path for path, part in tree.walk() if content_of(part) == "uki"]
    matches = (_NAMED_VERSION.search(name) for name in names)
    named = next((match[1] for match in matches if match), "")
    return named or _version_of_iso(tree)


def _version_of_iso(tree: Part) -> str:
    for _, part in tree.walk():
        if part.kind != "iso":
            continue
        if name := _ISO_NAME.fullmatch(str(part.facts.get("volume_set_id", ""))):
            return name[1]
        if label := _ISO_LABEL.fullmatch(str(part.facts.get("label", ""))):
            stage = f"-{label[4].lower()}.{label[5]}" if label[4] else ""
            return f"v{label[1]}.{label[2]}.{label[3]}{stage}"
    return ""


def _kernel_version(found: _Gathered) -> str:
    versions = (str(kernel.facts.get("version", "")) for _, kernel in found.kernels)
    return next((version.partition(" ")[0] for version in versions if version), "")


def _arch(tree: Part, found: _Gathered) -> str:
    said = [str(part.facts.get("arch", "")) for _, part in found.kernels]
    said += [str(part.facts.get("arch", "")) for _, part in tree.walk() if part.kind != "kernel"]
    known = dict.fromkeys(arch for arch in said if arch in _ARCHES)
    return next(iter(known), next((arch for arch in said if arch), ""))


def _platform(entries: Iterable[BootEntry]) -> str:
    for entry in entries:
        platforms = values_of(entry.kernel_arguments, PLATFORM)
        if platforms:
            return shown(platforms[-1])
    return ""


def _is_installer(tree: Part) -> bool:
    """An installer carries what it installs below usr/install (Talos constants)."""
    return any(
        part.kind == "directory" and f"/{path}/".endswith("/usr/install/")
        for path, part in tree.walk()
    )


def _firmware(
    kind: Kind, tree: Part, entries: Iterable[BootEntry]
) -> tuple[bool | None, bool | None]:
    """Say whether a BIOS and whether UEFI can start it, as far as its kind has an answer."""
    if kind == "uki":
        return False, True
    if kind == "disk":
        programs = any(_is_default_program(path) for path, _ in tree.walk())
        code = any(part.kind == "unpartitioned" for _, part in tree.walk())
        grub = any(entry.loader == "grub" for entry in entries)
        return code and grub, programs
    if kind == "iso":
        rows = [part for _, part in tree.walk() if part.kind == "boot-entry"]
        platforms = [str(part.facts.get("platform", "")) for part in rows]
        if "" in platforms:  # the catalogue itself, which is damaged
            return None, None
        return "bios" in platforms, "uefi" in platforms
    return None, None


def _is_default_program(path: str) -> bool:
    """The name under which UEFI starts a disk that it does not know (UEFI, 3.5.1.1)."""
    folder, _, name = path.lower().rpartition("/")
    return folder.endswith("efi/boot") and name in ("bootx64.efi", "bootaa64.efi")


def _not_told(meaning: Meaning, found: _Gathered) -> Iterator[Unknown]:
    if meaning.kind == "kernel":
        yield Unknown("talos_version", "a kernel says the version of Linux only")
    elif meaning.kind in _WITH_INITRAMFS and not meaning.talos_version:
        if meaning.system:
            yield Unknown("talos_version", f"it calls itself {meaning.system}, which is not Talos")
        else:
            yield Unknown("talos_version", "nothing in it names the operating system")
    if meaning.kind in _WITH_INITRAMFS and not meaning.schematic_id and not found.problems:
        yield Unknown("schematic", _why_no_schematic(meaning, found))


def _why_no_schematic(meaning: Meaning, found: _Gathered) -> str:
    if not found.initramfs:
        return "it holds no initramfs that could be read"
    if meaning.extensions:
        return "its extensions do not include the virtual one that names the schematic"
    return "its initramfs lists no extensions, so no factory made it from a schematic"


def _with_unknown(meaning: Meaning, problems: list[Unknown]) -> Meaning:
    from dataclasses import replace

    unique = list(dict.fromkeys(problems))
    if len(unique) > _MAX_PROBLEMS:
        rest = len(unique) - _MAX_PROBLEMS
        unique = [*unique[:_MAX_PROBLEMS], Unknown("more", f"{rest} other parts cannot be read")]
    return replace(meaning, unknown=tuple(unique))
