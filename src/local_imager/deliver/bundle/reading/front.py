"""The two members in front of a part: ``bundle.json`` and ``part.json``.

They say what has to follow, so without the first nothing of a file can be told, and a file that
does not begin with it is no bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from local_imager.deliver.bundle.form.manifest import (
    MAX_LABEL_BYTES,
    NEWER_FORMAT,
    parse_bundle,
    parse_label,
    render_label,
)
from local_imager.deliver.bundle.form.model import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    PART_NAME,
    Bundle,
    PartLabel,
)
from local_imager.deliver.bundle.form.tarform import BLOCK, member_header, padding
from local_imager.deliver.bundle.reading.faults import FaultList
from local_imager.deliver.bundle.reading.partstream import PartStream
from local_imager.deliver.bundle.reading.stray import (
    differing_bytes,
    parse_stray,
    slightly_damaged,
)
from local_imager.deliver.bundle.reading.taking import ended_early
from local_imager.errors import InputError, SourceError
from local_imager.oci.model import Digest

_SLIGHT_LABEL_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Front:
    """What a file says of itself; ``sound`` if both members are as they were written."""

    bundle: Bundle
    manifest: bytes
    label: PartLabel | None
    sound: bool


def read_front(stream: PartStream, name: str, faults: FaultList) -> Front | None:
    """Read both members; None when the manifest is of no use, which is a fault then.

    Raises :class:`InputError` (not-a-bundle, newer-format) and :class:`Ended`.
    """
    before = faults.count
    manifest = _manifest_bytes(stream, name, faults)
    if manifest is None:
        return None
    try:
        bundle = parse_bundle(manifest)
    except SourceError as error:
        if error.code == NEWER_FORMAT:  # not damaged, and there is nothing to copy once more
            raise InputError(
                f"{name}: {error.message}", hint=error.hint, code=NEWER_FORMAT
            ) from error
        hint = f" ({error.hint})" if error.hint else ""
        text = f"{error.message}{hint}; what follows it cannot be judged"
        faults.add("manifest", MANIFEST_NAME, text)
        return None
    label = _label(stream, bundle, Digest.of(manifest), faults)
    return Front(bundle, manifest, label, faults.count == before)


def _manifest_bytes(stream: PartStream, name: str, faults: FaultList) -> bytes | None:
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        if block.startswith(MANIFEST_NAME.encode()):
            raise ended_early(stream, MANIFEST_NAME, "in its first header")
        raise _no_bundle(stream, block, name)
    stray = parse_stray(block)
    size = stray.size_bytes
    wanted = member_header(MANIFEST_NAME, size if size is not None and size < 1 << 80 else 0)
    if block != wanted:
        own = stray.untrusted_name == MANIFEST_NAME
        if not own and (stray.readable or not slightly_damaged(block, wanted)):
            raise _no_bundle(stream, block, name)
        text = f"its header is damaged or another than a bundle's ({stray.differing(wanted)})"
        faults.add("header", MANIFEST_NAME, text)
    if size is None or size > MAX_MANIFEST_BYTES:
        told = "no size" if size is None else f"{size} bytes"
        text = f"its header states {told}; a manifest has at most {MAX_MANIFEST_BYTES}"
        faults.add("count", MANIFEST_NAME, text)
        return None
    return _content(stream, MANIFEST_NAME, size, faults)


def _content(stream: PartStream, member: str, size: int, faults: FaultList) -> bytes:
    data = stream.read(size)
    filling = stream.read(padding(size))
    if len(data) < size or len(filling) < padding(size):
        raise ended_early(stream, member, f"in {member}")
    if any(filling):
        faults.add("padding", member, "the bytes that fill up its last block are not zeros")
    return data


def _no_bundle(stream: PartStream, block: bytes, name: str) -> InputError:
    """Say what the file is instead, as far as its first bytes tell."""
    if stream.filler.problem is not None:
        return _not_a_bundle(f"{name} cannot be read as a bundle: {stream.filler.problem[1]}")
    if not block:
        return _not_a_bundle(f"{name} is empty")
    if block[257:262] == b"ustar":
        first = parse_stray(block).untrusted_name[:80]
        text = f"{name} is a tar archive but not a bundle: it begins with {first!r}"
        return _not_a_bundle(f"{text} and not with {MANIFEST_NAME}")
    if block.lstrip()[:1] == b"{":
        return _not_a_bundle(f"{name} is not a bundle: it looks like a JSON document")
    return _not_a_bundle(f"{name} is not a bundle: it begins neither as tar nor as zstd")


def _not_a_bundle(message: str) -> InputError:
    return InputError(
        message,
        hint="name the file that `local-imager bundle create` made, and not its signature; if it "
        "is that file, its first bytes were destroyed: copy it once more",
        code="not-a-bundle",
    )


def _label(
    stream: PartStream, bundle: Bundle, identity: Digest, faults: FaultList
) -> PartLabel | None:
    """Read ``part.json``; None if nobody can tell which part of the set the file is."""
    everything = tuple(item.name for item in bundle.items)
    count = len(bundle.parts)
    possible = [render_label(PartLabel(identity, n, count)) for n in range(1, count + 1)]
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        raise ended_early(stream, PART_NAME, "before its label")
    headers = {len(data): member_header(PART_NAME, len(data)) for data in possible}
    size, header = min(headers.items(), key=lambda one: differing_bytes(block, one[1]))
    if block != header:
        stray = parse_stray(block)
        own = stray.untrusted_name == PART_NAME
        if own and stray.readable and stray.size_bytes in headers:
            size = stray.size_bytes or 0
        elif (stray.readable and not own) or not slightly_damaged(block, header):
            _label_fault(faults, "the part's label does not follow the manifest", everything)
            stream.give_back(block)
            return PartLabel(identity, 1, 1) if count == 1 else None
        text = f"its header is damaged or another than a bundle's ({stray.differing(header)})"
        faults.add("header", PART_NAME, text, everything)
    untrusted_label = _content(stream, PART_NAME, min(size, MAX_LABEL_BYTES), faults)
    if untrusted_label in possible:
        return parse_label(untrusted_label)
    return _nearest(untrusted_label, possible, faults, everything)


def _nearest(
    untrusted_label: bytes,
    possible: list[bytes],
    faults: FaultList,
    everything: tuple[str, ...],
) -> PartLabel | None:
    """Say what is wrong with a label, and which one it was before a few bytes were damaged."""
    try:
        told = parse_label(untrusted_label)
    except SourceError as error:
        _label_fault(faults, error.message, everything)
    else:
        own = parse_label(possible[0])
        if told.set_digest != own.set_digest and told.count == own.count:
            text = (
                f"bundle.json has the digest {own.set_digest.short}… and the label of the part "
                f"names {told.set_digest.short}…: one of them was damaged or exchanged"
            )
            faults.add("manifest", MANIFEST_NAME, text, everything)
            return PartLabel(own.set_digest, told.number, told.count)
        text = f"it says part {told.number} of {told.count} of another set than the manifest's"
        _label_fault(faults, text, everything)
    like = [data for data in possible if len(data) == len(untrusted_label)]
    distances = sorted((differing_bytes(data, untrusted_label), data) for data in like)
    if not distances or distances[0][0] > _SLIGHT_LABEL_BYTES:
        return None
    if len(distances) > 1 and distances[0][0] == distances[1][0]:
        return None
    return parse_label(distances[0][1])


def _label_fault(faults: FaultList, text: str, affects: tuple[str, ...]) -> None:
    faults.add("label", PART_NAME, text, affects)
