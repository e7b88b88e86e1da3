"""What differs between two schematics, in plain words, and why their IDs differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.schematic.goyaml.scalarstyle import Style, represent
from local_imager.schematic.goyaml.values import mapping_items
from local_imager.schematic.model import Customization, MetaValue, Schematic

Kind = Literal["added", "removed", "changed", "reordered"]

MASK: Final = "(hidden)"
_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference from the first schematic to the second.

    ``path`` names the field as in the file; ``before`` and ``after`` are values in words, empty
    where there is none; ``text`` is the sentence for people.
    """

    kind: Kind
    path: str
    before: str
    after: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Return the difference as the object that ``--json`` prints."""
        return {
            "kind": self.kind,
            "path": self.path,
            "before": self.before,
            "after": self.after,
            "text": self.text,
        }


def diff_schematics(
    first: Schematic, second: Schematic, *, show_secrets: bool = False
) -> list[Difference]:
    """Return the differences in the order of the canonical text; none when the IDs are equal.

    Values that may be secrets (embedded configuration, values of kernel arguments, META values)
    are masked unless ``show_secrets`` is set. What is compared is what the ID depends on, so
    comments, quotes and the order of keys in a file make no difference.
    """
    differ = _Differ(show_secrets)
    differ.overlay(first, second)
    differ.customization(first.customization, second.customization)
    return differ.found


class _Differ:
    def __init__(self, show_secrets: bool) -> None:
        self.found: list[Difference] = []
        self._show_secrets = show_secrets

    def overlay(self, first: Schematic, second: Schematic) -> None:
        a, b = first.overlay, second.overlay
        self._text("overlay.image", a.image, b.image)
        self._text("overlay.name", a.name, b.name)
        self._value("overlay.options", a.options, b.options)

    def customization(self, a: Customization, b: Customization) -> None:
        self._embedded(a.embedded_machine_configuration, b.embedded_machine_configuration)
        self._list(
            "customization.extraKernelArgs",
            "kernel argument",
            a.extra_kernel_args,
            b.extra_kernel_args,
            secret=True,
        )
        self._meta(a.meta, b.meta)
        self._list(
            "customization.systemExtensions.officialExtensions",
            "extension",
            a.official_extensions,
            b.official_extensions,
        )
        self._text("customization.bootloader", a.bootloader, b.bootloader)
        self._text(
            "customization.secureboot.enrollKeys",
            a.secureboot.enroll_keys,
            b.secureboot.enroll_keys,
        )
        self._text(
            "customization.secureboot.includeWellKnownCertificates",
            "true" if a.secureboot.include_well_known_certificates else "",
            "true" if b.secureboot.include_well_known_certificates else "",
        )
        self._text(
            "customization.diskImage.sectorSize",
            str(a.sector_size or ""),
            str(b.sector_size or ""),
        )

    def _embedded(self, a: str, b: str) -> None:
        path = "customization.embeddedMachineConfiguration"
        if self._show_secrets or a == b:
            self._text(path, a, b)
            return
        before, after = (f"{len(text.splitlines())} lines" if text else "" for text in (a, b))
        if a and b:
            text = f"the embedded machine configuration differs ({before}, now {after})"
            self._add("changed", path, before, after, text)
        else:
            self._text(path, before, after)

    def _text(self, path: str, a: str, b: str) -> None:
        if a == b:
            return
        before, after = _shown(a), _shown(b)
        if not a:
            self._add("added", path, "", after, f"{path} is set to {after}")
        elif not b:
            self._add("removed", path, before, "", f"{path} is no longer set (was {before})")
        else:
            self._add("changed", path, before, after, f"{path} changes from {before} to {after}")

    def _list(
        self, path: str, noun: str, a: Sequence[str], b: Sequence[str], *, secret: bool = False
    ) -> None:
        """Compare two lists whose order counts."""
        removed, added = Counter(a) - Counter(b), Counter(b) - Counter(a)
        for item in _in_order(a, removed):
            before = self._item(item, secret)
            self._add("removed", path, before, "", f"{noun} removed: {before}")
        for item in _in_order(b, added):
            after = self._item(item, secret)
            self._add("added", path, "", after, f"{noun} added: {after}")
        if _in_order(a, Counter(a) & Counter(b)) != _in_order(b, Counter(a) & Counter(b)):
            before, after = (
                ", ".join(self._item(item, secret) for item in items) for items in (a, b)
            )
            self._add(
                "reordered",
                path,
                before,
                after,
                f"{path}: the same {noun}s stand in another order; the ID depends on the order",
            )

    def _meta(self, a: Sequence[MetaValue], b: Sequence[MetaValue]) -> None:
        path = "customization.meta"
        before = {item.key: item.value for item in a}
        after = {item.key: item.value for item in b}
        if len(before) < len(a) or len(after) < len(b):
            # A key that is given twice has no single value to compare.
            self._list(path, "META entry", _meta_texts(a), _meta_texts(b), secret=True)
            return
        for key in [*before, *(key for key in after if key not in before)]:
            name, place = f"META value 0x{key:x}", f"{path}[{key}]"
            old, new = (self._secret(values.get(key, "")) for values in (before, after))
            if key not in after:
                self._add("removed", place, old, "", f"{name} is no longer set (was {old})")
            elif key not in before:
                self._add("added", place, "", new, f"{name} is set to {new}")
            elif before[key] != after[key]:
                self._add("changed", place, old, new, f"{name} changes from {old} to {new}")
        common = [item.key for item in a if item.key in after]
        if common != [item.key for item in b if item.key in before]:
            text = f"{path}: the entries stand in another order; the ID depends on the order"
            self._add("reordered", path, "", "", text)

    def _value(self, path: str, a: object, b: object) -> None:
        """Compare free-form values; mappings are compared key by key."""
        if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            for index, items in enumerate(zip(a, b, strict=True)):
                self._value(f"{path}[{index}]", *items)
            return
        a_items, b_items = mapping_items(a), mapping_items(b)
        if a_items is None or b_items is None:
            if _fingerprint(a) != _fingerprint(b):
                self._leaf(path, a, b)
            return
        a_map = {_fingerprint(key): (key, value) for key, value in a_items}
        b_map = {_fingerprint(key): (key, value) for key, value in b_items}
        for mark in [*a_map, *(mark for mark in b_map if mark not in a_map)]:
            key = (a_map.get(mark) or b_map[mark])[0]
            place = f"{path}.{_shown(represent(key).text)}"
            if mark not in b_map:
                before = _words(a_map[mark][1])
                self._add("removed", place, before, "", f"{place} is removed (was {before})")
            elif mark not in a_map:
                after = _words(b_map[mark][1])
                self._add("added", place, "", after, f"{place} is set to {after}")
            else:
                self._value(place, a_map[mark][1], b_map[mark][1])

    def _leaf(self, path: str, a: object, b: object) -> None:
        before, after = _words(a), _words(b)
        text = f"{path} changes from {before} to {after}"
        self._add("changed", path, before, after, text)

    def _item(self, text: str, secret: bool) -> str:
        """Return a list item in words: of a kernel argument only the name is no secret."""
        name, equals, value = text.partition("=")
        if not secret or not equals or self._show_secrets:
            return _shown(text)
        return f"{_shown(name)}={self._secret(value)}"

    def _secret(self, text: str) -> str:
        return _shown(text) if self._show_secrets or not text else MASK

    def _add(self, kind: Kind, path: str, before: str, after: str, text: str) -> None:
        self.found.append(Difference(kind, path, before, after, text))


def _words(value: object) -> str:
    items = mapping_items(value)
    if items is not None:
        return f"a mapping ({len(items)} keys)"
    if isinstance(value, list | tuple):
        return f"a list ({len(value)} items)"
    scalar = represent(value)
    return _shown(scalar.text) if scalar.style is Style.PLAIN else repr(_cut(scalar.text))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _shown(text: str) -> str:
    cut = _cut(text)
    return cut if cut and cut.isprintable() else repr(cut)


def _in_order(items: Iterable[str], wanted: Counter[str]) -> list[str]:
    """Return the items that are wanted, in order and as often as they are wanted."""
    left = Counter(wanted)
    found = []
    for item in items:
        if left[item] > 0:
            left[item] -= 1
            found.append(item)
    return found


def _meta_texts(values: Iterable[MetaValue]) -> list[str]:
    return [f"0x{value.key:x}={value.value}" for value in values]


def _fingerprint(value: object) -> str:
    """Return text that is equal exactly when the canonical text of both values is equal."""
    from local_imager.schematic.goyaml.emitter import emit

    return emit([("", value)])
