"""What an import did, as a value, as JSON and in the store.

The JSON object (``schema`` names its version; keys are sorted, so equal reports are equal bytes):

- ``schema``, ``tool`` (program and version), ``time`` (UTC), ``dry_run``;
- ``set``: SHA-256 of ``bundle.json``; ``facts``: what the bundle says of itself, for people;
- ``complete``: nothing of the set is outstanding; ``counts``: items by state;
- ``signed_by``: ``signer``, ``policy`` and ``evidence`` of the bundle's signature, or null;
  ``unvouched``: why nobody vouches for assets and documents, empty when somebody does;
- ``files``: ``name``, ``part``, ``parts``, ``bytes_read``, ``read`` (``whole``, or ``begin`` when
  all that it carries was in the store already), ``faults`` (see ``reading.faults``),
  ``more_faults``;
- ``items``: ``kind``, ``name``, ``digest``, ``size_bytes``, ``arches``, ``roles``, ``state`` (see
  ``far.completing``; a document that was written out has ``written``), ``signer`` and ``policy``
  that accepted, ``unverified``; of what was not taken ``code``, ``message``, ``hint``, ``tried``;
  ``waits_for``: numbers of parts; ``replaces``: the digest that the name stood for before, or
  empty;
- ``parts``: ``number``, ``state`` (``here``, ``missing``, ``not-needed``), ``items`` it holds;
- ``trusted_roots``: ``digest``, ``where`` (``in force``, ``carried``), ``kept`` by this import;
- ``problems``: ``code``, ``message``, ``hint`` of what was asked for beside the import and could
  not be done (documents written out, trusted root kept).

No host name and no path of this machine is in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from local_imager import __version__
from local_imager.deliver.bundle.far.completing import OPEN_STATES, Outcome
from local_imager.deliver.bundle.far.intake import SetIntake
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.errors import ExitCode, LocalImagerError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Digest

SCHEMA: Final = "application/vnd.local-imager.import-report.v1+json"
ARTIFACT_REPORT: Final = "application/vnd.local-imager.import-report.v1"
REPORT_PREFIX: Final = "local-imager/import/"

PartState = Literal["here", "missing", "not-needed"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file that was read: which part it is (0 when it does not say), and what is wrong.

    ``whole`` is False when only its begin had to be read.
    """

    name: str
    part: int = 0
    parts: int = 0
    bytes_read: int = 0
    whole: bool = True
    faults: tuple[Fault, ...] = ()
    more_faults: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the report."""
        return {
            "name": self.name,
            "part": self.part,
            "parts": self.parts,
            "bytes_read": self.bytes_read,
            "read": "whole" if self.whole else "begin",
            "faults": [fault.as_dict() for fault in self.faults],
            "more_faults": self.more_faults,
        }


@dataclass(frozen=True, slots=True)
class PartReport:
    """One part of the set: whether it has to come yet, and the items that need it."""

    number: int
    state: PartState
    items: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the report."""
        return {"number": self.number, "state": self.state, "items": list(self.items)}


@dataclass(frozen=True, slots=True)
class RootReport:
    """A trusted root: the one in force on this site, or one that the bundle carries."""

    digest: str
    where: Literal["in force", "carried"]
    kept: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the report."""
        return {"digest": self.digest, "where": self.where, "kept": self.kept}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """All that is worth knowing of one import; ``time`` is UTC in ISO 8601.

    ``written`` are the names of documents that were written out as files.
    """

    set_digest: Digest
    time: str
    dry_run: bool
    facts: Mapping[str, tuple[str, ...]]
    signed_by: Mapping[str, Any] | None
    unvouched: str
    files: tuple[FileReport, ...]
    outcomes: tuple[Outcome, ...]
    parts: tuple[PartReport, ...]
    roots: tuple[RootReport, ...] = ()
    written: frozenset[str] = frozenset()
    problems: tuple[LocalImagerError, ...] = ()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of all files."""
        return tuple(fault for file in self.files for fault in file.faults)

    @property
    def complete(self) -> bool:
        """Whether nothing of the set is outstanding (what was refused is not)."""
        return not any(outcome.state in OPEN_STATES for outcome in self.outcomes)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many images and assets are in which state."""
        found = Counter(one.state for one in self.outcomes if one.item.kind != "document")
        return dict(sorted(found.items()))

    @property
    def exit_code(self) -> ExitCode:
        """3 when anything was refused or damaged, 1 when something can never come, else 0."""
        states = {outcome.state for outcome in self.outcomes}
        if self.faults or states & {"refused", "faulty", "kept-back"}:
            return ExitCode.VERIFICATION_REFUSED
        if "lacking" in states:
            return ExitCode.FAILED
        return self.problems[0].exit_code if self.problems else ExitCode.OK

    def state_of(self, outcome: Outcome) -> str:
        """Return the word for what became of an item."""
        is_file = outcome.item.kind == "document" and outcome.item.name in self.written
        return "written" if is_file else outcome.state

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object; see the module's text."""
        return {
            "schema": SCHEMA,
            "tool": f"local-imager {__version__}",
            "time": self.time,
            "dry_run": self.dry_run,
            "set": str(self.set_digest),
            "facts": {name: list(values) for name, values in self.facts.items()},
            "complete": self.complete,
            "counts": dict(self.counts),
            "signed_by": dict(self.signed_by) if self.signed_by is not None else None,
            "unvouched": self.unvouched,
            "files": [file.as_dict() for file in self.files],
            "items": [self._item(outcome) for outcome in self.outcomes],
            "parts": [part.as_dict() for part in self.parts],
            "trusted_roots": [root.as_dict() for root in self.roots],
            "problems": [LocalImagerError.as_dict(one) for one in self.problems],
        }

    def _item(self, outcome: Outcome) -> dict[str, Any]:
        item = outcome.item
        return {
            "kind": item.kind,
            "name": item.name,
            "digest": str(item.descriptor.digest),
            "size_bytes": outcome.size_bytes,
            "arches": list(item.arches),
            "roles": list(item.roles),
            "state": self.state_of(outcome),
            "signer": outcome.signer,
            "policy": outcome.policy,
            "unverified": outcome.unverified,
            "code": outcome.code,
            "message": outcome.message,
            "hint": outcome.hint,
            "tried": list(outcome.tried),
            "waits_for": list(outcome.parts),
            "replaces": outcome.replaces,
        }

    def to_json(self) -> bytes:
        """Return the bytes of the JSON report; their SHA-256 stands on the page."""
        document = json.dumps(self.as_dict(), indent=1, sort_keys=True, ensure_ascii=False)
        return document.encode() + b"\n"


def report_parts(intake: SetIntake) -> tuple[PartReport, ...]:
    """Say of each part whether something of it has to come yet, and what it holds."""
    parts = []
    for number, pieces in enumerate(intake.bundle.parts, 1):
        state: PartState = "here"
        if any(map(intake.lacks, pieces)):
            state = "missing"
        elif not all(map(intake.stock.has_piece, pieces)):
            state = "not-needed"
        parts.append(PartReport(number, state, intake.bundle.names_in(number)))
    return tuple(parts)


def keep_report(layout: Layout, report: ImportReport) -> None:
    """Keep the JSON in the store as an artifact, the newest of each set; raises StoreError."""
    with layout.writing():
        layer = layout.put_bytes(report.to_json(), SCHEMA)
        artifact = layout.put_artifact(ARTIFACT_REPORT, layer)
        entry = Descriptor(
            artifact.media_type,
            artifact.digest,
            artifact.size_bytes,
            artifact_type=ARTIFACT_REPORT,
        )
        layout.set_ref(REPORT_PREFIX + report.set_digest.hex, entry)
