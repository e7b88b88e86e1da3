"""The ways in which a file boots, with the kernel command line that each loader passes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from local_imager.deliver.inspect.addons import Addons, arguments_of, is_addon
from local_imager.deliver.inspect.arguments import split_arguments
from local_imager.deliver.inspect.meaning import BootEntry
from local_imager.deliver.inspect.menu import MenuLine, chosen_first, default_of, in_menu_order
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.places import Place, content_of, is_whole, places
from local_imager.events import printable
from local_imager.formats.grub import MenuEntry, read_grub
from local_imager.formats.source import FormatError
from local_imager.formats.uki import parse_os_release

_UKI_FOLDER: Final = "efi/linux"
_ENTRY_FOLDER: Final = "loader/entries"
_CONF_FOLDER: Final = "loader"
# Of all entries together; a profile of a hundred bytes can have the arguments of its whole image.
_MAX_WORDS: Final = 400_000
# How GRUB names another disk or partition before a path.
_DEVICE: Final = re.compile(r"^\([^)]{0,80}\)")
_ORDER: Final = {"systemd-boot": 0, "uki": 1, "grub": 2, "none": 3}


@dataclass(frozen=True, slots=True)
class Booting:
    """The entries in the order of their loaders, and sentences about what could not be told.

    ``starts`` are the paths of the parts that the first entry boots from: image, kernel, initramfs.
    """

    entries: tuple[BootEntry, ...]
    problems: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry with what it is sorted and told apart by."""

    entry: BootEntry
    place: Place
    starts: tuple[str, ...] = ()
    line: MenuLine | None = None

    @property
    def likeness(self) -> tuple[object, ...]:
        """What the same entry at another place has in common with it."""
        loader = "grub" if self.entry.loader == "grub" else "uki"
        digest = "" if loader == "grub" else self.place.part.digest
        return loader, self.entry.title, self.entry.kernel_arguments, self.entry.profile, digest


def boot_entries(tree: Part) -> Booting:
    """Return every way to boot that stands in the tree; the same one in two places counts once.

    systemd-boot finds unified kernel images in ``EFI/Linux`` and entries in ``loader/entries`` of a
    FAT volume (Boot Loader Specification), and starts the one that its ``loader.conf`` names, else
    the newest. An ISO may have copies of them in its own tree, which UEFI does not read: they count
    only where the FAT volume has none of that name. GRUB's come from each ``grub.cfg``.
    """
    everything = list(places(tree))
    addons = Addons(everything)
    found: list[_Found] = []
    problems: list[str] = []
    words = 0
    for place in everything:
        try:
            for one in _entries_at(place, addons):
                words += len(one.entry.kernel_arguments) + len(one.entry.addons)
                if words > _MAX_WORDS:
                    break
                found.append(one)
            problems.extend(_unclear(place))
        except FormatError as error:
            problems.append(f"{place.path}: {error.message}")
        if words > _MAX_WORDS:
            problems.append(f"it has more boot entries than are told, from {place.path} on")
            break
    found, copies = _without_copies(found)
    found = _unique(found)
    managed = [(one.line, one) for one in found if one.line is not None]
    ordered, choice = _by_systemd_boot(managed, _default(everything))
    ordered += [one for one in found if one.line is None]
    ordered.sort(key=lambda one: _ORDER[one.entry.loader])
    said = (*problems, *copies, *choice, *addons.problems())
    starts = ordered[0].starts if ordered else ()
    return Booting(tuple(one.entry for one in ordered), said, starts)


def _entries_at(place: Place, addons: Addons) -> Iterator[_Found]:
    part = place.part
    if content_of(part) == "uki":
        yield from _images(place, addons)
    elif is_addon(part) and is_whole(place.path):
        yield _Found(BootEntry("", "none", place.path, arguments_of(part)), place)
    elif part.text is None:
        return
    elif part.name.lower() == "grub.cfg":
        yield from _grub(place, part.text)
    elif part.kind == "cmdline" and "/" not in place.path.removeprefix("content"):
        entry = BootEntry("", "none", place.path, split_arguments(part.text))
        yield _Found(entry, place)
    elif part.name.lower().endswith(".conf") and _is_in(place, _ENTRY_FOLDER):
        yield _systemd_entry(place)


def _is_in(place: Place, folder: str) -> bool:
    """Whether a loader looks for it there: in that folder of a FAT volume; elsewhere (an archive of
    one, a tree of an ISO) in one that ends so."""
    if place.volume_kind == "fat":
        return place.folder == folder
    return f"/{place.folder}".endswith(f"/{folder}")


def _images(place: Place, addons: Addons) -> Iterator[_Found]:
    """Yield a unified kernel image's entries with what addons append to them."""
    added = addons.of(place)
    more = tuple(word for addon in added for word in addon.arguments)
    names = tuple(addon.place.path for addon in added)
    release = os_release(place.part)
    is_managed = _is_in(place, _UKI_FOLDER)
    for number, entry in enumerate(uki_entries(place.path, place.part)):
        line = MenuLine(
            name=place.part.name,
            profile="" if number == 0 else entry.profile or str(number),
            sort_key=release.get("IMAGE_ID") or release.get("ID", ""),
            version=_first(release, "IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"),
        )
        entry = replace(
            entry,
            loader="systemd-boot" if is_managed else "uki",
            kernel_arguments=entry.kernel_arguments + more,
            addons=names,
        )
        yield _Found(entry, place, (place.path,), line if is_managed else None)


def _first(values: Mapping[str, str], *names: str) -> str:
    return next((values[name] for name in names if values.get(name)), "")


def _without_copies(found: Sequence[_Found]) -> tuple[list[_Found], list[str]]:
    """Leave out what an ISO's own tree has again, and say where that is not the same."""
    bootable: dict[str, Place] = {}
    for one in found:
        if one.line is not None and one.place.volume_kind == "fat":
            bootable.setdefault(one.place.inside, one.place)
    kept: list[_Found] = []
    said: dict[str, None] = {}
    for one in found:
        real = bootable.get(one.place.inside)
        if one.line is None or one.place.volume_kind != "iso" or real is None:
            kept.append(one)
        elif one.place.part.digest != real.part.digest:
            said[
                f"{one.place.path} is a copy that nothing boots, and not the same as {real.path}"
            ] = None
    return kept, list(said)


def _unique(found: Sequence[_Found]) -> list[_Found]:
    unique: dict[tuple[object, ...], _Found] = {}
    for one in found:
        known = unique.setdefault(one.likeness, one)
        if known.entry.loader == "uki" and one.entry.loader == "systemd-boot":
            unique[one.likeness] = one
    return list(unique.values())


def _default(everything: Sequence[Place]) -> str:
    """Return ``default`` of systemd-boot's loader.conf; that of a FAT volume counts first."""
    found = [
        place
        for place in everything
        if place.part.name.lower() == "loader.conf"
        and place.part.text
        and _is_in(place, _CONF_FOLDER)
    ]
    found.sort(key=lambda place: place.volume_kind != "fat")
    return default_of(found[0].part.text or "") if found else ""


def _by_systemd_boot(
    rows: Sequence[tuple[MenuLine, _Found]], default: str
) -> tuple[list[_Found], list[str]]:
    """Return the entries with the one first that starts by itself, and what is not sure of that."""
    ordered, has_default = chosen_first(in_menu_order(rows), default)
    entries = [one for _, one in ordered]
    said = []
    if rows and default.startswith("@"):
        said.append(f"loader.conf leaves to the firmware's variables what boots ({shown(default)})")
    elif rows and default and not has_default:
        said.append(f"the default of loader.conf, {shown(default)}, is none of the entries")
    if len({one.place.path for one in entries}) > 1:
        said.append(
            f"systemd-boot starts {entries[0].place.path} by itself, unless a variable of the "
            "firmware (LoaderEntryDefault, which Talos sets when it upgrades) names another"
        )
    return entries, said


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


def _grub(place: Place, text: str) -> Iterator[_Found]:
    config = read_grub(text.encode())
    chosen = config.default_entry
    entries = sorted(config.entries, key=lambda entry: entry is not chosen)
    for entry in entries:
        if entry.kernel:
            arguments = split_arguments(entry.command_line)
            told = BootEntry(_menu_title(entry), "grub", place.path, arguments)
            yield _Found(told, place, _files(place, (entry.kernel, *entry.initrds)))


def _files(place: Place, untrusted_names: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of what a loader's configuration names in its own volume."""
    prefix = f"{place.volume}/" if place.volume else ""
    found = (_DEVICE.sub("", name).replace("\\", "/").lstrip("/") for name in untrusted_names)
    return tuple(prefix + name for name in found if name)


def _unclear(place: Place) -> Iterator[str]:
    """Say which arguments are not known before GRUB runs."""
    path, part = place.path, place.part
    if part.text is None or part.name.lower() != "grub.cfg":
        return
    config = read_grub(part.text.encode())
    if config.entries and config.choice[1]:
        yield f"{path}: which entry GRUB starts by itself is not known, for {config.choice[1]}"
    for entry in config.entries:
        if entry.kernel and entry.variables:
            names = ", ".join(f"${shown(name)}" for name in entry.variables[:8])
            yield f"{path}: GRUB fills in {names} of {_menu_title(entry)!r} when it runs"
        elif entry.kernel and entry.conditional:
            yield f"{path}: parts of {_menu_title(entry)!r} depend on conditions that GRUB checks"


def _menu_title(entry: MenuEntry) -> str:
    return shown(" > ".join((*entry.menu, entry.title)))


def _systemd_entry(place: Place) -> _Found:
    """Read an entry of the Boot Loader Specification, type 1: ``key value`` lines."""
    part = place.part
    fields: dict[str, list[str]] = {}
    for text in (part.text or "").splitlines()[:1000]:
        key, *value = text.strip().split(None, 1)[:2] or [""]
        if key and not key.startswith("#"):
            fields.setdefault(key, []).append(value[0].strip() if value else "")
    options = " ".join(fields.get("options", ()))
    last = {key: values[-1] for key, values in fields.items()}
    title = (fields.get("title") or [part.name])[0]
    line = MenuLine(
        name=part.name,
        sort_key=last.get("sort-key", ""),
        version=last.get("version", ""),
        machine_id=last.get("machine-id", ""),
    )
    names = [name for key in ("uki", "efi", "linux", "initrd") for name in fields.get(key, ())]
    entry = BootEntry(shown(title), "systemd-boot", place.path, split_arguments(options))
    return _Found(entry, place, _files(place, names), line)


def shown(untrusted_text: str) -> str:
    """Return a short text of a file as it may be shown."""
    return printable(untrusted_text, limit=300)
