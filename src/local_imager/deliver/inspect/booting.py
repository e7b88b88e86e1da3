"""The ways in which a file boots, with the kernel command line that each loader passes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from local_imager.deliver.inspect.arguments import split_arguments
from local_imager.deliver.inspect.meaning import BootEntry
from local_imager.deliver.inspect.parts import Part
from local_imager.events import printable
from local_imager.formats.grub import MenuEntry, read_grub
from local_imager.formats.source import FormatError
from local_imager.formats.uki import parse_os_release

_UKI_FOLDER = ("efi", "linux")
_ENTRY_FOLDER = ("loader", "entries")


@dataclass(frozen=True, slots=True)
class Booting:
    """The entries in the order of their loaders, and sentences about what could not be told."""

    entries: tuple[BootEntry, ...]
    problems: tuple[str, ...] = ()


def boot_entries(tree: Part) -> Booting:
    """Return every way to boot that stands in the tree; the same one in two places counts once.

    systemd-boot finds unified kernel images in ``EFI/Linux`` and entries in ``loader/entries`` of a
    FAT volume (Boot Loader Specification); the copies that an ISO has in its own tree beside are
    the same files. GRUB's come from each ``grub.cfg``.
    """
    found: list[BootEntry] = []
    problems: list[str] = []
    for path, part in tree.walk():
        try:
            found.extend(_entries_of(path, part))
            problems.extend(_unclear(path, part))
        except FormatError as error:
            problems.append(f"{path}: {error.message}")
    unique: dict[tuple[str, str, tuple[str, ...]], BootEntry] = {}
    for entry in found:
        key = ("uki" if entry.loader != "grub" else "grub", entry.title, entry.kernel_arguments)
        known = unique.get(key)
        if known is None:
            unique[key] = entry
        elif known.loader == "uki" and entry.loader == "systemd-boot":
            unique[key] = entry
    order = {"systemd-boot": 0, "uki": 1, "grub": 2, "none": 3}
    return Booting(
        tuple(sorted(unique.values(), key=lambda entry: order[entry.loader])), tuple(problems)
    )


def _entries_of(path: str, part: Part) -> Iterator[BootEntry]:
    if content_of(part) == "uki":
        folders = tuple(name.lower() for name in path.split("/")[-3:-1])
        loader = "systemd-boot" if folders == _UKI_FOLDER else "uki"
        yield from (replace(entry, loader=loader) for entry in uki_entries(path, part))
    elif part.text is None:
        return
    elif part.name.lower() == "grub.cfg":
        yield from _grub(path, part.text)
    elif part.kind == "cmdline" and "/" not in path.removeprefix("content"):
        yield BootEntry("", "none", path, split_arguments(part.text))
    elif part.name.endswith(".conf"):
        folders = tuple(name.lower() for name in path.split("/")[-3:-1])
        if folders == _ENTRY_FOLDER:
            yield _systemd_entry(path, part)


def content_of(part: Part) -> str:
    """Return what a part is, also where it is a place (partition, section) that holds it."""
    return str(part.facts.get("content", part.kind))


def uki_entries(path: str, uki: Part) -> Iterator[BootEntry]:
    """Yield the entries of a unified kernel image, one for each of its profiles.

    A profile's own sections stand in for those of the image (UAPI.5, "multi-profile UKIs").
    """
    name = os_release(uki).get("PRETTY_NAME", "") or os_release(uki).get("NAME", "")
    base = _text(uki, ".cmdline")
    profiles = [part for part in uki.children if part.kind == "directory"]
    if uki.child(".profile") is not None or not profiles:
        profiles.insert(0, uki)
    for profile in profiles:
        said = parse_os_release(_text(profile, ".profile"))
        line = _text(profile, ".cmdline") or base
        title = said.get("TITLE", "")
        yield BootEntry(
            title=shown(f"{name} ({title})" if name and title else title or name),
            loader="uki",
            path=path,
            kernel_arguments=split_arguments(line),
            profile=shown(said.get("ID", "")),
        )


def os_release(uki: Part) -> dict[str, str]:
    """Return the fields of a unified kernel image's ``.osrel`` section."""
    return parse_os_release(_text(uki, ".osrel"))


def _text(part: Part, name: str) -> str:
    child = part.child(name)
    return child.text if child is not None and child.text is not None else ""


def _grub(path: str, text: str) -> Iterator[BootEntry]:
    config = read_grub(text.encode())
    chosen = config.default_entry
    entries = sorted(config.entries, key=lambda entry: entry is not chosen)
    for entry in entries:
        if entry.kernel:
            arguments = split_arguments(entry.command_line)
            yield BootEntry(_menu_title(entry), "grub", path, arguments)


def _unclear(path: str, part: Part) -> Iterator[str]:
    """Say which arguments are not known before GRUB runs."""
    if part.text is None or part.name.lower() != "grub.cfg":
        return
    for entry in read_grub(part.text.encode()).entries:
        if entry.kernel and entry.variables:
            names = ", ".join(f"${shown(name)}" for name in entry.variables[:8])
            yield f"{path}: GRUB fills in {names} of {_menu_title(entry)!r} when it runs"
        elif entry.kernel and entry.conditional:
            yield f"{path}: parts of {_menu_title(entry)!r} depend on conditions that GRUB checks"


def _menu_title(entry: MenuEntry) -> str:
    return shown(" > ".join((*entry.menu, entry.title)))


def _systemd_entry(path: str, part: Part) -> BootEntry:
    """Read an entry of the Boot Loader Specification, type 1: ``key value`` lines."""
    fields: dict[str, list[str]] = {}
    for line in (part.text or "").splitlines()[:1000]:
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            fields.setdefault(key, []).append(value.strip())
    options = " ".join(fields.get("options", ()))
    title = (fields.get("title") or [part.name])[0]
    return BootEntry(shown(title), "systemd-boot", path, split_arguments(options))


def shown(untrusted_text: str) -> str:
    """Return a short text of a file as it may be shown."""
    return printable(untrusted_text, limit=300)
