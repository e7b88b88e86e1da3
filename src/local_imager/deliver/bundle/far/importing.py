"""Importing bundles: every file is read once, then each bundle is completed and reported.

No network takes part. Several files may be the parts of one set, in any order, or bundles of
their own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.far.completing import Outcome, complete
from local_imager.deliver.bundle.far.handout import (
    carried_roots,
    put_root_in_force,
    write_documents,
)
from local_imager.deliver.bundle.far.intake import NothingToTake, PartIntake, SetIntake, Wishes
from local_imager.deliver.bundle.far.report import (
    FileReport,
    ImportReport,
    RootReport,
    keep_report,
    report_parts,
)
from local_imager.deliver.bundle.far.stager import Stager
from local_imager.deliver.bundle.form.model import Bundle
from local_imager.deliver.bundle.form.signing import read_signature, without_signatures
from local_imager.deliver.bundle.reading.reader import STANDARD_INPUT, open_part, read_part
from local_imager.errors import InputError, LocalImagerError
from local_imager.events import Event, EventSink, StepFinished, printable
from local_imager.oci.model import Digest
from local_imager.sources.rootfile import trust_dir
from local_imager.store.store import Store

STANDARD_INPUT_NAME: Final = "standard input"


@dataclass(frozen=True, slots=True)
class Handout:
    """What is wanted besides names in the store: a folder for documents, the root in force.

    ``force`` replaces other files of a document's name.
    """

    documents: Path | None = None
    force: bool = False
    keep_root: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of all files: one report for each bundle, and files of which nothing is known.

    Those were damaged where they say what they are.
    """

    reports: tuple[ImportReport, ...]
    unknown: tuple[FileReport, ...]


def import_files(
    paths: Sequence[str],
    store: Store | None,
    wishes: Wishes,
    sink: EventSink,
    *,
    signature: Path | None = None,
    handout: Handout | None = None,
) -> Imported:
    """Read bundles (``-`` is standard input) and make visible what policy and faults allow.

    ``store`` may be None for a dry run. ``signature`` names the signature file; without it the one
    beside a part counts. Raises :class:`InputError` for files that are no bundle,
    :class:`VerificationRefused` when the policy demands a signature that is not there or not
    right, :class:`HostError` (disk-full), :class:`StoreError`; then no item was named.
    """
    files = without_signatures(paths)
    if files.count(STANDARD_INPUT) > 1:
        raise InputError("standard input can be read only once", hint="give - once")
    for path in files:  # a name that was mistyped is told before an hour of reading
        if path != STANDARD_INPUT and not Path(path).exists():
            raise InputError(f"there is no file {printable(path)}", source=path)
    run = _Run(store, wishes, sink, handout or Handout(), _signatures(files, signature))
    with contextlib.closing(run):
        for number, path in enumerate(files):
            run.read(path, len(files) - number)
        return run.finish()


def _signatures(files: Sequence[str], given: Path | None) -> Callable[[str], bytes | None]:
    """Return what finds a file's signature: beside it, or beside another part of its name."""
    from local_imager.deliver.bundle.form.signing import signature_path

    def find(path: str) -> bytes | None:
        if given is not None:
            return read_signature((), given)
        if path == STANDARD_INPUT:
            return None
        name = signature_path(Path(path)).name
        parts = [Path(one) for one in files if one != STANDARD_INPUT]
        return read_signature([one for one in parts if signature_path(one).name == name])

    return find


@dataclass(frozen=True, slots=True)
class _ReadingSink:
    """Tells of a file that was left early, because nothing of it is wanted, as known already."""

    sink: EventSink
    part: PartIntake

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        if isinstance(event, StepFinished) and event.outcome == "failed" and self.part.left_early:
            event = replace(event, outcome="cached")
        self.sink.emit(event)


def _without_folder(error: LocalImagerError, folder: Path, word: str) -> LocalImagerError:
    """Return the error with a word for a folder of this machine: reports leave the site."""
    if "/" not in str(folder):
        return error
    told = copy.copy(error)
    told.message = error.message.replace(str(folder), word)
    told.hint = error.hint.replace(str(folder), word)
    return told


@dataclass
class _Run:
    """One command: the bundles met so far, by identity, and their files."""

    store: Store | None
    wishes: Wishes
    sink: EventSink
    handout: Handout
    find_signature: Callable[[str], bytes | None]
    sets: dict[Digest, SetIntake] = field(default_factory=dict)
    files: dict[Digest, list[FileReport]] = field(default_factory=dict)
    unknown: list[tuple[Digest | None, FileReport]] = field(default_factory=list)

    def close(self) -> None:
        """Forget the documents."""
        for intake in self.sets.values():
            intake.spool.close()

    def read(self, path: str, files_left: int) -> None:
        """Read one file to its end, or as far as anything of it is wanted."""
        name = STANDARD_INPUT_NAME if path == STANDARD_INPUT else printable(path, limit=300)
        told = name.rpartition("/")[2]  # reports leave the site: no folder of it is in them

        def open_set(bundle: Bundle, manifest: bytes, _name: str) -> SetIntake:
            return self._set(path, bundle, manifest)

        with open_part(path) as stream, self._stager() as stager:
            part = PartIntake(told, open_set, stager, files_left)
            try:
                reading = read_part(stream, name, part, _ReadingSink(self.sink, part))
            except NothingToTake:
                reading = None
        if stager is not None:
            stager.settled()
        label = part.label if reading is None else reading.label
        file = FileReport(
            told,
            label.number if label else 0,
            label.count if label else 0,
            whole=reading is not None,
        )
        if reading is not None:
            file = replace(
                file,
                bytes_read=reading.bytes_read,
                faults=reading.faults,
                more_faults=reading.more_faults,
            )
            if part.intake is not None and self.wishes.dry_run:
                part.intake.stock.saw(reading)
        if part.intake is not None:
            self.files[part.intake.digest].append(file)
        else:
            self.unknown.append((reading.manifest_digest if reading else None, file))

    @contextlib.contextmanager
    def _stager(self) -> Iterator[Stager | None]:
        if self.store is None or self.wishes.dry_run:
            yield None
            return
        with Stager(self.store.layout) as stager:
            yield stager

    def _set(self, path: str, bundle: Bundle, manifest: bytes) -> SetIntake:
        digest = Digest.of(manifest)
        if digest not in self.sets:
            intake = SetIntake(bundle, digest, self.store, self.wishes, self.sink)
            self.sets[digest], self.files[digest] = intake, []
            intake.check_signature(manifest, self.find_signature(path))
        return self.sets[digest]

    def finish(self) -> Imported:
        """Complete and report every bundle; a damaged file counts for the bundle it must be of."""
        unknown = []
        for digest, file in self.unknown:
            only = next(iter(self.sets)) if len(self.sets) == 1 else None
            known = digest if digest in self.sets else only
            if known is not None:
                self.files[known].append(file)
            else:
                unknown.append(file)
        return Imported(tuple(map(self._finish, self.sets.values())), tuple(unknown))

    def _finish(self, intake: SetIntake) -> ImportReport:
        files = tuple(self.files[intake.digest])
        outcomes = complete(intake, [fault for file in files for fault in file.faults])
        problems: list[LocalImagerError] = []
        written = self._written(intake, outcomes, problems)
        roots = self._roots(intake, outcomes, problems)
        signed = intake.signed_by.as_dict() if intake.signed_by is not None else None
        report = ImportReport(
            intake.digest,
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            self.wishes.dry_run,
            intake.bundle.facts,
            signed,
            intake.unvouched,
            files,
            outcomes,
            report_parts(intake),
            roots,
            written,
            tuple(problems),
        )
        if self.store is not None and not self.wishes.dry_run:
            keep_report(self.store.layout, report)
        return report

    def _written(
        self, intake: SetIntake, outcomes: tuple[Outcome, ...], problems: list[LocalImagerError]
    ) -> frozenset[str]:
        folder = self.handout.documents
        if folder is None or self.wishes.dry_run:
            return frozenset()
        try:
            return write_documents(intake, outcomes, folder, force=self.handout.force)
        except LocalImagerError as error:
            problems.append(_without_folder(error, folder, "DIR"))
            return frozenset()

    def _roots(
        self, intake: SetIntake, outcomes: tuple[Outcome, ...], problems: list[LocalImagerError]
    ) -> tuple[RootReport, ...]:
        try:
            if self.handout.keep_root and not self.wishes.dry_run:
                return put_root_in_force(intake, outcomes)
            return carried_roots(intake, outcomes)
        except LocalImagerError as error:
            problems.append(_without_folder(error, trust_dir(), "the folder of the trusted root"))
            return ()
