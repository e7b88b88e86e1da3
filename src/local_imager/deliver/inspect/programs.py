"""EFI programs as parts: sections, signatures, and the profiles of a unified kernel image."""

from __future__ import annotations

import hashlib
import itertools
from typing import Final

from local_imager.deliver.inspect.isorest import without_marker
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.recognise import text_of
from local_imager.deliver.inspect.rest import program_rest
from local_imager.deliver.inspect.volumes import Names, clean
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.authenticode import Signature, read_signatures
from local_imager.formats.pe import PeFile, PeSection, read_pe, section_source
from local_imager.formats.source import FormatError, Slice, Source
from local_imager.formats.uki import parse_os_release, read_uki

_PROFILE: Final = ".profile"
_MAGIC: Final = ".sdmagic"
_MARK: Final = "LoaderInfo: "
# Where GRUB keeps its modules and its first configuration.
_MODULES: Final = "mods"
_MAX_OVERLAPS: Final = 20
# GRUB's own are a few hundred kilobytes.
_MAX_MODULES_BYTES: Final = 4 << 20
# Of an optional header: from the checksum back to the alignment of sections in memory.
_ALIGNMENT_BEFORE_CHECKSUM: Final = 32 - 64


def open_program(walk: Walk, source: Source) -> Inside:
    """Return what an EFI program says and holds, also a unified kernel image.

    The sections from the second ``.profile`` on belong to a profile each (UAPI.5), which becomes a
    directory ``profile ID``; so do those of the first when it has others than that one.
    """
    pe = read_pe(source)
    facts: dict[str, Fact] = {
        "arch": pe.machine,
        "subsystem": pe.subsystem,
        "timestamp": pe.timestamp,
        "checksum": f"{pe.checksum:#x}",
        "image_base": f"{pe.image_base:#x}",
        "entry_point": f"{pe.entry_point:#x}",
        "rest": program_rest(source, pe),
    }
    facts |= _image_facts(source, pe)
    facts |= _overlaps(pe)
    groups = _profiles(pe.sections)
    names, behind = Names(), _behind(source, pe)
    parts = _sections(walk, source, groups[0], names, behind)
    for group in groups[1:]:
        inner = _sections(walk, source, group, Names(), behind)
        identifier = parse_os_release(inner[0].text or "").get("ID", "")
        name = names.unique(f"profile {clean(identifier)}" if identifier else "profile")
        parts.append(walk.leaf(name, "directory", children=tuple(inner)))
    parts += _signatures(walk, source, pe, names)
    return Inside(facts=facts, children=tuple(parts))


def _image_facts(source: Source, pe: PeFile) -> dict[str, Fact]:
    """Return what the sections say together: stub, profiles, and the signed TPM policies."""
    try:
        uki = read_uki(source, pe)
    except FormatError as error:
        return {"faults": (clean(error.message),)}
    if uki is None:
        magic = pe.section(_MAGIC)
        marked = text_of(section_source(source, magic)) if magic is not None else None
        return {"loader": clean(marked.strip("# \0").removeprefix(_MARK))} if marked else {}
    facts: dict[str, Fact] = {"image": uki.kind}
    if uki.stub:
        facts["stub"] = clean(uki.stub)
    policies = [policy for profile in uki.profiles for policy in profile.pcr_signatures]
    if policies:
        bound = {f"{p.bank}:{'+'.join(map(str, p.pcrs))}" for p in policies}
        facts["pcr_policies"] = tuple(sorted(bound))
        facts["pcr_verifies"] = all(policy.verifies for policy in policies)
    return facts


def _profiles(sections: tuple[PeSection, ...]) -> list[list[PeSection]]:
    """Return the image's own sections, then those of each profile that stands apart."""
    groups: list[list[PeSection]] = [[]]
    for section in sections:
        if section.name == _PROFILE:
            groups.append([])
        groups[-1].append(section)
    if len(groups) > 1 and len(groups[1]) == 1:
        groups[:2] = [groups[0] + groups[1]]
    return groups


def _overlaps(pe: PeFile) -> dict[str, Fact]:
    """Say where sections lie over each other in memory: one would hide the other there."""
    ordered = sorted(pe.sections, key=lambda one: one.address)
    rows = tuple(
        f"the sections {clean(one.name)} and {clean(after.name)} overlap in memory"
        for one, after in itertools.pairwise(ordered)
        if one.address + max(one.virtual_size_bytes, 1) > after.address
    )
    return {"overlaps": rows[:_MAX_OVERLAPS]} if rows else {}


def _behind(source: Source, pe: PeFile) -> frozenset[int]:
    """Return (by ``id``) those sections that lie in memory just behind all before
    them: their addresses follow from the sizes of these."""
    at = pe.checksum_offset + _ALIGNMENT_BEFORE_CHECKSUM
    unit = max(int.from_bytes(source.read(at, 4), "little"), 1)
    found, end = set(), 0
    for section in pe.sections:
        if end and section.address == end + -end % unit:
            found.add(id(section))
        end = max(end, section.address + max(section.virtual_size_bytes, section.size_bytes))
    return frozenset(found)


def _sections(
    walk: Walk,
    source: Source,
    sections: list[PeSection],
    names: Names,
    behind: frozenset[int],
) -> list[Part]:
    parts = []
    for section in sections:
        name = names.unique(section.name or "section")
        facts: dict[str, Fact] = {
            "address": f"{section.address:#x}",
            "virtual_size_bytes": section.virtual_size_bytes,
            "characteristics": f"{section.characteristics:#x}",
        }
        if id(section) in behind:
            facts["placed"] = "behind the others"
        content = section_source(source, section)
        if section.name == _MODULES:
            facts |= _marker_facts(content)
        parts.append(
            walk.part(content, name, place="pe-section", facts=facts, offset=section.offset)
        )
    return parts


def _marker_facts(content: Source) -> dict[str, Fact]:
    """Return the digest of GRUB's modules without the name of the marker that they search for."""
    if not 0 < content.size_bytes <= _MAX_MODULES_BYTES:
        return {}
    data = content.read(0, content.size_bytes)
    masked = without_marker(data)
    if masked == data:
        return {}
    return {"without_marker": f"sha256:{hashlib.sha256(masked).hexdigest()}"}


def _signatures(walk: Walk, source: Source, pe: PeFile, names: Names) -> list[Part]:
    if not pe.certificates:
        return []
    parts: list[Part] = []
    for signature in read_signatures(source, pe):
        content = Slice(source, signature.offset, signature.size_bytes)
        inside = Inside(facts=_signature_facts(signature), unread=clean(signature.fault))
        name = names.unique(f"signature {len(parts) + 1}")
        parts.append(walk.made(content, name, "pe-signature", inside, offset=signature.offset))
    return parts


def _signature_facts(signature: Signature) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "digest": f"{signature.digest_algorithm}:{signature.digest}",
        "digest_matches": signature.digest_matches,
        "verifies": signature.verifies,
    }
    if signature.signer is not None:
        signer = signature.signer
        facts |= {
            "signer": signer.subject,
            "issuer": signer.issuer,
            "serial": signer.serial,
            "not_before": signer.not_before,
            "not_after": signer.not_after,
            "certificate": f"sha256:{signer.sha256}",
        }
    return facts
