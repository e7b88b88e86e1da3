"""Verifying bundles: files are read once each, no store and no network take part.

Several files may be given, the parts of one set or of several bundles, in any order. What is
missing, damaged, exchanged or not signed as the policy demands is a value here, not an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local_imager.deliver.bundle.form.manifest import NEWER_FORMAT
from local_imager.deliver.bundle.form.model import Bundle, PartLabel
from local_imager.deliver.bundle.form.signing import (
    SignedBy,
    check_signature,
    read_signature,
    unvouched,
    without_signatures,
)
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.deliver.bundle.reading.reader import (
    STANDARD_INPUT,
    LookOnly,
    PartReading,
    open_part,
    read_part,
)
from local_imager.errors import InputError, VerificationRefused
from local_imager.events import EventSink, printable
from local_imager.oci.model import Digest
from local_imager.sources.trust import TrustPolicy

STANDARD_INPUT_NAME = "standard input"


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """One file: its faults, which part it is, and of which set; None as far as it cannot be told.

    ``path`` is as it was given, ``no_bundle`` says why it is no bundle at all.
    """

    path: str
    label: PartLabel | None = None
    identity: Digest | None = None
    faults: tuple[Fault, ...] = ()
    more_faults: int = 0
    bytes_read: int = 0
    no_bundle: InputError | None = None

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.no_bundle is None and not self.faults

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "file": self.path,
            "intact": self.intact,
            "set": str(self.identity) if self.identity else None,
            "part": self.label.number if self.label else None,
            "parts": self.label.count if self.label else None,
            "bytes_read": self.bytes_read,
            "faults": [fault.as_dict() for fault in self.faults],
            "more_faults": self.more_faults,
            "no_bundle": self.no_bundle.as_dict() if self.no_bundle else None,
        }


@dataclass(frozen=True, slots=True)
class MissingPart:
    """A part that is not there intact; ``items`` need something that only it has."""

    number: int
    items: tuple[str, ...]
    damaged: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``--json`` prints."""
        return {"part": self.number, "given_but_damaged": self.damaged, "items": list(self.items)}


@dataclass(frozen=True, slots=True)
class VerifiedSet:
    """One bundle: its files in the order of their parts, and who vouches for it.

    ``missing`` are the parts of which no intact file was given. ``signed_by`` is None where
    nobody vouches, ``note`` says why then; ``refusal`` is why the policy refuses it. ``signed``
    says whether a signature file came with it, whatever it is worth.
    """

    identity: Digest
    bundle: Bundle
    files: tuple[VerifiedFile, ...]
    missing: tuple[MissingPart, ...]
    signed_by: SignedBy | None = None
    refusal: VerificationRefused | None = None
    note: str = ""
    signed: bool = False

    @property
    def complete(self) -> bool:
        """Whether there is an intact file of every part."""
        return not self.missing

    @property
    def unharmed(self) -> int:
        """How many items no fault and no missing part touches."""
        touched = {name for file in self.files for fault in file.faults for name in fault.affects}
        touched.update(name for part in self.missing if not part.damaged for name in part.items)
        return sum(item.name not in touched for item in self.bundle.items)

    @property
    def duplicates(self) -> tuple[int, ...]:
        """The parts that were given more than once."""
        numbers = [file.label.number for file in self.files if file.label]
        return tuple(sorted({number for number in numbers if numbers.count(number) > 1}))

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``--json`` prints."""
        kinds = [item.kind for item in self.bundle.items]
        return {
            "set": str(self.identity),
            "parts": len(self.bundle.parts),
            "complete": self.complete,
            "items": {kind: kinds.count(kind) for kind in ("image", "asset", "document")},
            "size_bytes": carried_bytes(self.bundle),
            "files": [file.path for file in self.files],
            "missing_parts": [part.as_dict() for part in self.missing],
            "duplicate_parts": list(self.duplicates),
            "signed_by": self.signed_by.as_dict() if self.signed_by else None,
            "refused": self.refusal.as_dict() if self.refusal else None,
            "signature_given": self.signed,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """All that was found; files in the order in which they were given."""

    files: tuple[VerifiedFile, ...]
    sets: tuple[VerifiedSet, ...]

    @property
    def mixed(self) -> bool:
        """Whether parts of different sets were given as if they were one."""
        return len(self.sets) > 1 and not all(found.complete for found in self.sets)

    def good(self, *, incomplete: bool = False) -> bool:
        """Whether all is as it has to be; ``incomplete`` lets parts be missing that nobody gave."""
        return all(file.intact for file in self.files) and all(
            found.refusal is None
            and (incomplete or found.complete)
            and not any(part.damaged for part in found.missing)
            for found in self.sets
        )

    def as_dict(self, *, incomplete: bool = False) -> dict[str, Any]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "good": self.good(incomplete=incomplete),
            "mixed_sets": self.mixed,
            "sets": [found.as_dict() for found in self.sets],
            "files": [file.as_dict() for file in self.files],
        }


def carried_bytes(bundle: Bundle) -> int:
    """Return how many bytes the blobs have that travel."""
    return sum(blob.size_bytes for blob in bundle.blobs if blob.carried)


def verify_files(
    paths: Sequence[str], policy: TrustPolicy, sink: EventSink, *, signature: Path | None = None
) -> Verification:
    """Read every file once and judge what they are together.

    ``signature`` names the signature file; without it the one beside a part counts. Raises
    :class:`InputError` when a file cannot be opened, when none of them is a bundle, or when one
    was made by a newer version.
    """
    paths = without_signatures(paths)
    if paths.count(STANDARD_INPUT) > 1:
        raise InputError("standard input can be read only once", hint="give - once")
    found: dict[Digest, _Collected] = {}
    files = [_verify_file(path, found, sink) for path in paths]
    wrong = [file.no_bundle for file in files if file.no_bundle is not None]
    if len(wrong) == len(files):
        raise wrong[0]
    sets = tuple(
        _judge(
            identity, one, [file for file in files if file.identity == identity], policy, signature
        )
        for identity, one in found.items()
    )
    return Verification(tuple(files), sets)


@dataclass(slots=True)
class _Collected:
    """What is kept of a set: one manifest, however many parts repeat it."""

    bundle: Bundle
    manifest: bytes | None = field(default=None, repr=False)


class _Manifest(LookOnly):
    """Keeps the bytes that a signature is over."""

    def __init__(self) -> None:
        self.manifest: bytes | None = None

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        self.manifest = manifest


def _verify_file(path: str, found: dict[Digest, _Collected], sink: EventSink) -> VerifiedFile:
    name = STANDARD_INPUT_NAME if path == STANDARD_INPUT else printable(path, limit=300)
    kept = _Manifest()
    with open_part(path) as stream:
        try:
            reading = read_part(stream, name, kept, sink)
        except InputError as error:
            if error.code == NEWER_FORMAT:
                raise
            return VerifiedFile(path, no_bundle=error)
    if reading.bundle is not None and reading.manifest_digest is not None:
        one = found.setdefault(reading.manifest_digest, _Collected(reading.bundle))
        one.manifest = one.manifest or kept.manifest
    return _file(path, reading)


def _file(path: str, reading: PartReading) -> VerifiedFile:
    return VerifiedFile(
        path,
        reading.label,
        reading.manifest_digest,
        reading.faults,
        reading.more_faults,
        reading.bytes_read,
    )


def _judge(
    identity: Digest,
    one: _Collected,
    files: Sequence[VerifiedFile],
    policy: TrustPolicy,
    signature: Path | None,
) -> VerifiedSet:
    """Judge the files of one set and ask the policy about its manifest."""
    ordered = tuple(sorted(files, key=lambda file: file.label.number if file.label else 0))
    places = [Path(file.path) for file in files if file.path != STANDARD_INPUT]
    untrusted_signature = read_signature(places, signature)
    found = VerifiedSet(
        identity,
        one.bundle,
        ordered,
        tuple(_missing(one.bundle, ordered)),
        signed=untrusted_signature is not None,
    )
    if one.manifest is None:
        return replace(found, note="it was not looked at, since the manifest or label is damaged")
    try:
        signed_by = check_signature(one.manifest, untrusted_signature, policy)
    except VerificationRefused as refusal:
        return replace(found, refusal=refusal)
    return replace(found, signed_by=signed_by, note="" if signed_by else unvouched(policy))


def _missing(bundle: Bundle, files: Sequence[VerifiedFile]) -> list[MissingPart]:
    given = {file.label.number for file in files if file.label}
    intact = {file.label.number for file in files if file.label and file.intact}
    missing = []
    for number in range(1, len(bundle.parts) + 1):
        if number not in intact:
            missing.append(MissingPart(number, bundle.names_in(number), number in given))
    return missing
