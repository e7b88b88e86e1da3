"""Addons of unified kernel images: what each adds to which command line (systemd-stub(7))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from local_imager.deliver.inspect.arguments import split_arguments
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.places import Place, content_of
from local_imager.events import printable

_GLOBAL = "loader/addons"
_SUFFIX = ".addon.efi"
_OWN = ".extra.d"
# Of one folder; every image of a volume may ask for them.
_MAX_ADDONS = 256
# The stub does not look for a folder with the count of tries that a loader put into the name.
_TRIES = re.compile(r"\+\d{1,9}(?:-\d{1,9})?(?=\.efi$)")


@dataclass(frozen=True, slots=True)
class Addon:
    """An addon at its place; ``arguments`` is what it appends."""

    place: Place
    arguments: tuple[str, ...]
    kernel_version: str = ""


def is_addon(part: Part) -> bool:
    """Whether a part is an EFI program that adds to a unified kernel image."""
    return content_of(part) == "pe" and part.facts.get("image") == "addon"


def arguments_of(addon: Part) -> tuple[str, ...]:
    """Return the kernel arguments that an addon brings."""
    return split_arguments(_text(addon, ".cmdline"))


class Addons:
    """All addons of a file, and which of them nothing takes."""

    def __init__(self, everything: Iterable[Place]) -> None:
        self._by_folder: dict[tuple[str, str], list[Addon]] = {}
        self._taken: set[str] = set()
        self._left_out: list[str] = []
        self._other_kernel: dict[str, str] = {}
        for place in everything:
            if is_addon(place.part) and place.path:
                version = _text(place.part, ".uname").strip("\0 \n")
                addon = Addon(place, arguments_of(place.part), version)
                self._by_folder.setdefault((place.volume, place.folder), []).append(addon)
        for addons in self._by_folder.values():
            addons.sort(key=lambda addon: addon.place.part.name)
            self._left_out += [addon.place.path for addon in addons[_MAX_ADDONS:]]
            del addons[_MAX_ADDONS:]

    def of(self, uki: Place) -> tuple[Addon, ...]:
        """Return the addons that the stub in a unified kernel image appends, in its order: those
        for all images of the volume, then its own, by name in each folder.

        One for another kernel (``.uname``) is left out, and so are all where the stub is not
        systemd's.
        """
        if not uki.part.facts.get("stub"):
            return ()
        own = dict.fromkeys((uki.inside, _TRIES.sub("", uki.inside)))
        folders = [_GLOBAL, *(f"{name}{_OWN}" for name in own)]
        kernel = _text(uki.part, ".uname").strip("\0 \n")
        found = []
        for folder in folders:
            for addon in self._by_folder.get((uki.volume, folder), ()):
                if not addon.place.inside.endswith(_SUFFIX):
                    continue
                if addon.kernel_version and kernel and addon.kernel_version != kernel:
                    self._other_kernel[addon.place.path] = addon.kernel_version
                    continue
                self._taken.add(addon.place.path)
                found.append(addon)
        return tuple(found)

    def problems(self) -> Iterator[str]:
        """Say which addons add nothing, after :meth:`of` was asked for every image."""
        if self._left_out:
            yield f"{self._left_out[0]}: so many addons in a folder are not told"
        for addons in self._by_folder.values():
            for addon in addons:
                path = addon.place.path
                if path in self._taken:
                    continue
                if path in self._other_kernel:
                    version = printable(self._other_kernel[path], limit=80)
                    yield f"{path}: an addon for another kernel, {version}, so it adds nothing"
                else:
                    yield f"{path}: an addon that no unified kernel image in the file takes"


def _text(part: Part, name: str) -> str:
    child = part.child(name)
    return child.text if child is not None and child.text is not None else ""
