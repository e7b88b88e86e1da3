"""Unified kernel images: what the sections of such a PE file mean.

https://uapi-group.org/specifications/specs/unified_kernel_image/ and systemd-stub(7). An addon is
the same without a kernel: it adds to the command line or brings a device tree or an initrd.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from local_imager.formats.pcrsig import MAX_DOCUMENT_BYTES, PcrSignature, read_pcr_signatures
from local_imager.formats.pe import PeFile, PeSection, section_source
from local_imager.formats.source import FormatError, Source

# The stub's own limit for profiles is 256; a real image has two or three.
MAX_PROFILES: Final = 64
# A kernel takes at most 64 KiB of command line on any architecture.
MAX_TEXT_BYTES: Final = 64 * 1024

# What makes a PE file without kernel an addon; .ucode and .initrd may be all that it holds.
_ADDING: Final = frozenset({".cmdline", ".dtb", ".dtbauto", ".ucode", ".initrd", ".efifw"})
# The marker that systemd's stubs carry in .sdmagic.
_STUB_MARK: Final = b"#### LoaderInfo: systemd-"


@dataclass(frozen=True, slots=True)
class UkiProfile:
    """One way to start the image; ``id`` and ``title`` are empty when the file gives none.

    ``sections`` are those that are in force for it: its own, and those of the base that it does
    not replace. ``command_line`` is what the kernel gets when the firmware passes nothing else;
    None without a ``.cmdline`` section. ``os_release`` and ``kernel_version`` are what the image
    says of itself. ``pcr_signatures`` are checked with its own ``.pcrpkey``.
    """

    id: str = ""
    title: str = ""
    sections: tuple[PeSection, ...] = ()
    command_line: str | None = None
    os_release: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    kernel_version: str = ""
    pcr_signatures: tuple[PcrSignature, ...] = ()

    def section(self, name: str) -> PeSection | None:
        """Return the section that is in force under this name, or None."""
        return next((section for section in self.sections if section.name == name), None)


@dataclass(frozen=True, slots=True)
class Uki:
    """A unified kernel image or an addon to one; there is always at least one profile.

    ``stub`` is the text that systemd's stub carries about itself, empty when it is another.
    """

    kind: Literal["uki", "addon"]
    profiles: tuple[UkiProfile, ...]
    stub: str = ""


def read_uki(source: Source, pe: PeFile) -> Uki | None:
    """Tell what the sections mean; None when the file is neither such an image nor an addon.

    Raises :class:`FormatError` for texts that are too large and for too many profiles.
    """
    names = {section.name for section in pe.sections}
    if {".linux", ".cmdline"} <= names or {".linux", ".initrd"} <= names:
        kind: Literal["uki", "addon"] = "uki"
    elif ".sdmagic" in names and ".linux" not in names and names & _ADDING:
        kind = "addon"
    else:
        return None
    groups = _groups(pe)
    base, own = groups[0], groups[1:]
    profiles = [_profile(source, _in_force(base, group)) for group in own]
    if not own:
        profiles = [_profile(source, base)]
    magic = _text(source, pe.section(".sdmagic")).encode()
    stub = magic[len(b"#### LoaderInfo: ") :] if magic.startswith(_STUB_MARK) else b""
    return Uki(kind, tuple(profiles), stub.removesuffix(b" ####").decode())


def _groups(pe: PeFile) -> list[list[PeSection]]:
    """Return the sections of the base, then those from each ``.profile`` on."""
    groups: list[list[PeSection]] = [[]]
    for section in pe.sections:
        if section.name == ".profile":
            if len(groups) > MAX_PROFILES:
                raise FormatError(f"the image has more than {MAX_PROFILES} profiles")
            groups.append([])
        groups[-1].append(section)
    return groups


def _in_force(base: list[PeSection], own: list[PeSection]) -> list[PeSection]:
    replaced = {section.name for section in own}
    return [section for section in base if section.name not in replaced] + own


def _profile(source: Source, sections: list[PeSection]) -> UkiProfile:
    first: dict[str, PeSection] = {}
    for section in sections:
        first.setdefault(section.name, section)
    described = parse_os_release(_text(source, first.get(".profile")))
    command_line = _text(source, first.get(".cmdline")) if ".cmdline" in first else None
    return UkiProfile(
        id=described.get("ID", ""),
        title=described.get("TITLE", ""),
        sections=tuple(sections),
        command_line=command_line,
        os_release=MappingProxyType(parse_os_release(_text(source, first.get(".osrel")))),
        kernel_version=_text(source, first.get(".uname")),
        pcr_signatures=_pcr_signatures(source, first),
    )


def _pcr_signatures(source: Source, sections: Mapping[str, PeSection]) -> tuple[PcrSignature, ...]:
    if ".pcrsig" not in sections:
        return ()
    document = _bytes(source, sections[".pcrsig"], MAX_DOCUMENT_BYTES)
    key = sections.get(".pcrpkey")
    return read_pcr_signatures(
        document.rstrip(b"\0"), None if key is None else _bytes(source, key, MAX_TEXT_BYTES)
    )


def _bytes(source: Source, section: PeSection, limit: int) -> bytes:
    if section.size_bytes > limit:
        raise FormatError(f"the section {section.name} has {section.size_bytes} bytes")
    return section_source(source, section).read(0, section.size_bytes)


def _text(source: Source, section: PeSection | None) -> str:
    """Return a section as text, without what ends it: zeros, blanks and line ends."""
    if section is None:
        return ""
    data = _bytes(source, section, MAX_TEXT_BYTES)
    return data.split(b"\0")[0].decode("utf-8", "replace").rstrip()


def parse_os_release(text: str) -> dict[str, str]:
    """Read ``KEY=value`` lines as in os-release(5); what is no such line is passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or not key.isidentifier():
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[key] = value
    return values
