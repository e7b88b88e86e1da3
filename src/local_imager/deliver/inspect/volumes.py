"""File systems and archives as parts: a directory tree with what each file is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from local_imager.deliver.inspect.limits import OutOfBudget
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.walking import Walk
from local_imager.events import printable
from local_imager.formats.entries import Entry, Volume
from local_imager.formats.source import FormatError, Source

_MAX_TEXT_CHARS: Final = 1024
# No file system has longer names; an archive may.
_MAX_NAME_CHARS: Final = 255
_MAX_COMPONENTS: Final = 64
# Signed updates of the variables of Secure Boot: a time, the head of a signature, and more.
_AUTH: Final = ".auth"
_AUTH_HEAD: Final = 40
_MAX_AUTH_BYTES: Final = 64 * 1024
# In the signature (PKCS#9, 1.2.840.113549.1.9): a SHA-256 over the time (.4), and a time (.5).
_OF_RUN: Final = re.compile(
    rb"(\x2a\x86\x48\x86\xf7\x0d\x01\x09(?:\x04\x31\x22\x04\x20(?=.{32})|\x05\x31\x0f\x17\x0d))"
    rb"(?:(?<=\x04\x20).{32}|(?<=\x17\x0d).{13})",
    re.DOTALL,
)
# The only file of a root file system that says something of the image as a whole.
_MEANT: Final = frozenset({"os-release"})
# The facts of a file that its other names need not have; see name_facts.
_OF_NAMES: Final = frozenset({"name_digest"})


def volume_parts(walk: Walk, volume: Volume, *, look: bool = True) -> tuple[Part, ...]:
    """Return what a volume holds as a tree of parts, directories sorted by name.

    ``look`` says whether the files are opened; where a volume is the machine's own root file
    system they are only named and hashed. Names are made printable and unique in their directory.
    """
    root = _Directory()
    for entry in volume.entries:
        root.add(entry)
    return _Tree(walk, volume, look).children(root)


class _Directory:
    """A directory while the tree is put together; it may be there only as a part of paths."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.folders: dict[str, _Directory] = {}
        self.others: list[tuple[str, Entry]] = []

    def add(self, entry: Entry) -> None:
        names = [name for name in entry.path.split("/") if name]
        if not names:
            return
        if len(names) > _MAX_COMPONENTS:
            raise FormatError(f"a path has more than {_MAX_COMPONENTS} directories")
        place = self
        for name in names[:-1]:
            place = place.folders.setdefault(name, _Directory())
        if entry.kind == "directory":
            place.folders.setdefault(names[-1], _Directory()).entry = entry
        else:
            place.others.append((names[-1], entry))


class _Tree:
    """Makes the parts of one volume; a file that has several names is read once."""

    def __init__(self, walk: Walk, volume: Volume, look: bool) -> None:
        self._walk, self._volume, self._look = walk, volume, look
        self._read: dict[int, Part] = {}

    def children(self, directory: _Directory) -> tuple[Part, ...]:
        named = Names()
        parts = []
        rows: list[tuple[str, _Directory | Entry]] = [
            *directory.folders.items(),
            *directory.others,
        ]
        for name, what in sorted(rows, key=lambda row: row[0]):
            unique = named.unique(name)
            if isinstance(what, Entry):
                parts.append(self._part(what, unique))
            else:
                facts = (entry_facts(what.entry) if what.entry else {}) | name_facts(name)
                with self._walk.deeper():
                    inner = self.children(what)
                part = self._walk.leaf(unique, "directory", facts=frozen(facts), children=inner)
                parts.append(part)
        return tuple(parts)

    def _part(self, entry: Entry, name: str) -> Part:
        walk, own = self._walk, entry_facts(entry) | name_facts(entry.name)
        facts = frozen(own)
        if entry.kind == "link":
            return walk.leaf(name, "link", facts=facts)
        if entry.kind != "file":
            return walk.leaf(name, "special", facts=facts)
        if not self._look and walk.digests == "meaning" and name not in _MEANT:
            return walk.leaf(name, "file", entry.size_bytes, facts=facts)
        # Only packed file systems: there reading is dear, and the number is the inode's place.
        same = self._read.get(entry.number) if not self._look else None
        if same is not None:
            walk.count(1)
            told = {key: value for key, value in same.facts.items() if key not in _OF_NAMES}
            return replace(same, name=name, facts=frozen(told | own))
        try:
            source = self._volume.open(entry)
            if self._look and name.endswith(_AUTH):
                facts = frozen(own | _auth_facts(source))
            part = walk.part(source, name, facts=facts, look=self._look, plain="file")
        except OutOfBudget:
            raise
        except FormatError as error:
            return walk.leaf(name, "file", entry.size_bytes, facts=facts, unread=error.message)
        self._read[entry.number] = part
        return part


def _auth_facts(source: Source) -> dict[str, Fact]:
    """Return the digest of a signed update of a UEFI variable without its times, and without the
    digest and the RSA signature over them (UEFI 2.10, 8.2.2: ``EFI_VARIABLE_AUTHENTICATION_2``)."""
    if not _AUTH_HEAD < source.size_bytes <= _MAX_AUTH_BYTES:
        return {}
    data = source.read(0, source.size_bytes)
    end = 16 + int.from_bytes(data[16:20], "little")
    for length in (256, 384, 512):
        begin = end - length
        tag = b"\x04\x82" + length.to_bytes(2, "big")
        if _AUTH_HEAD < begin and end <= len(data) and data[begin - 4 : begin] == tag:
            kept = bytes(16) + _OF_RUN.sub(rb"\1", data[16:begin]) + bytes(length) + data[end:]
            return {"without_signature": f"sha256:{hashlib.sha256(kept).hexdigest()}"}
    return {}


def entry_facts(entry: Entry) -> dict[str, Fact]:
    """Return the properties of an entry that count in a comparison."""
    facts: dict[str, Any] = {
        "mode": None if entry.mode is None else f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": entry.mtime,
        "link_target": None if entry.link_target is None else clean(entry.link_target),
        "attributes": entry.attributes or None,
    }
    target = entry.link_target or ""
    if clean(target) != target:
        facts["link_digest"] = _raw_digest(target)
    return {key: value for key, value in facts.items() if value is not None}


def name_facts(untrusted_name: str) -> dict[str, Fact]:
    """Return the digest of a name that is not shown as it is, so that no two look the same."""
    is_shown = printable(untrusted_name, limit=_MAX_NAME_CHARS) == untrusted_name
    return {} if is_shown else {"name_digest": _raw_digest(untrusted_name)}


def _raw_digest(untrusted_text: str) -> str:
    return f"sha256:{hashlib.sha256(ascii(untrusted_text).encode()).hexdigest()}"


class Names:
    """Gives the parts of one parent names that are printable and differ from each other."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken: dict[str, int] = dict.fromkeys(taken, 1)

    def unique(self, name: str) -> str:
        """Return the name, with a number when it is there already."""
        shown = (
            printable(name, limit=_MAX_NAME_CHARS).replace("/", "\N{REPLACEMENT CHARACTER}")
            or "(no name)"
        )
        number = self._taken[shown] = self._taken.get(shown, 0) + 1
        return shown if number == 1 else self.unique(f"{shown} ({number})")


def clean(untrusted_text: str) -> str:
    """Return text from a file as it may be shown: printable, and not endless."""
    return printable(untrusted_text, limit=_MAX_TEXT_CHARS)


def frozen(facts: Mapping[str, Fact]) -> MappingProxyType[str, Fact]:
    """Return facts as a part keeps them."""
    return MappingProxyType(dict(facts))
