"""Handing the documents of a bundle to a person: as files, and a trusted root as the one in force.

Nothing here is done unless it was asked for, and only with documents that somebody vouches for. A
policy is written out and never put in force.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.far.completing import Outcome
from local_imager.deliver.bundle.far.intake import SetIntake, key_of
from local_imager.deliver.bundle.far.report import RootReport
from local_imager.errors import InputError, NotFound, SourceError, VerificationRefused
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import explained, replace_file
from local_imager.oci.model import Digest
from local_imager.sources.rootfile import default_root_file, keep_root, trust_dir
from local_imager.sources.trusted_root import (
    MAX_ROOT_BYTES,
    Period,
    TrustedRoot,
    load_root_file,
    parse_trusted_root,
)

# The largest that a person is handed: locks and schematics have some KiB.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


def write_documents(
    intake: SetIntake, outcomes: Iterable[Outcome], folder: Path, *, force: bool
) -> frozenset[str]:
    """Write the carried documents to a folder, secret ones for their owner only; return names.

    A file that is there with the same bytes is left alone. Raises :class:`InputError` before
    anything is written when one is there with others (unless ``force``) or a name is no plain
    file name; :class:`StoreError`.
    """
    found = [one for one in outcomes if one.item.kind == "document" and one.state == "carried"]
    ready = [(one.item.name, *_content(intake, one)) for one in found]
    for name, data, _ in ready:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the document {name[:120]!r} has a name that is not written to a disk",
                hint="import without --documents; the maker of the bundle has to rename it",
                code="document-name",
            )
        if not force and _holds_other(folder / name, data):
            raise InputError(
                f"{folder / name} is there already with another content",
                hint="name another folder, or replace the files with --force",
                code="exists",
            )
    with explained(f"write documents to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data, secret in ready:
            if _holds_other(folder / name, data) or not (folder / name).exists():
                replace_file(folder / name, data, mode=_SECRET_MODE if secret else _PUBLIC_MODE)
            elif secret:
                (folder / name).chmod(_SECRET_MODE)
    return frozenset(name for name, _, _ in ready)


def _content(intake: SetIntake, outcome: Outcome) -> tuple[bytes, bool]:
    judged = intake.judged[key_of(outcome.item)]
    if judged.layer is None or intake.judge is None:
        raise NotFound(f"the document {outcome.item.name} was not judged")
    data = intake.judge.files.read(judged.layer.digest, MAX_FILE_BYTES)
    store = intake.store
    held = store is not None and store.layout.is_private(judged.layer.digest)
    return data, held or judged.layer.digest in judged.private


def _holds_other(path: Path, data: bytes) -> bool:
    """Return whether something else than a file with these bytes has the name."""
    if not os.path.lexists(path):
        return False
    if path.is_symlink():
        return True
    try:
        with os.fdopen(open_regular(path), "rb") as stream:
            return stream.read(len(data) + 1) != data
    except OSError:
        return True


def carried_roots(intake: SetIntake, outcomes: Sequence[Outcome]) -> tuple[RootReport, ...]:
    """Return the trusted root in force, and those that the bundle carries and somebody vouches for.

    What nobody vouches for was not looked at.
    """
    found = []
    force = default_root_file()
    if force is not None:
        found.append(RootReport(load_root_file(force).digest, "in force"))
    for outcome in _roots(outcomes):
        data, _ = _content(intake, outcome)
        found.append(RootReport(str(Digest.of(data)), "carried"))
    return tuple(found)


def _roots(outcomes: Iterable[Outcome]) -> list[Outcome]:
    from local_imager.deliver.bundle.form.words import ROLE_ROOT

    return [
        one
        for one in outcomes
        if ROLE_ROOT in one.item.roles and one.state == "carried" and not one.code
    ]


def put_root_in_force(intake: SetIntake, outcomes: Sequence[Outcome]) -> tuple[RootReport, ...]:
    """Let the bundle's trusted root count here from now on; return the roots as they are then.

    Raises :class:`VerificationRefused` when nobody vouches for the bundle by a rule, or the root
    trusts more of the past than the one in force does (a rollback); :class:`InputError` when it
    carries none, or one that cannot be read.
    """
    if intake.signed_by is None:
        raise VerificationRefused(
            f"the bundle's trusted root is not kept: {intake.unvouched}",
            hint="--keep-root needs a bundle signature that a rule of the policy accepts",
            code="unvouched",
        )
    found = _roots(outcomes)
    if not found:
        raise InputError(
            "the bundle carries no trusted root that could be kept",
            hint="leave --keep-root out; the root in force stays",
            code="no-root",
        )
    data, _ = _content(intake, found[0])
    if len(data) > MAX_ROOT_BYTES:
        raise SourceError("the bundle's trusted root is too large to be one", code="malformed")
    carried = parse_trusted_root(data, f"{found[0].item.name} of the bundle")
    before = default_root_file()
    if before is not None:
        refuse_rollback(load_root_file(before), carried)
    if before is None or load_root_file(before).digest != carried.digest:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        source = f"bundle {intake.digest.short}"
        keep_root(trust_dir(), data, source=source, fetched_at=now, versions={})
    return (RootReport(carried.digest, "in force"), RootReport(carried.digest, "carried", True))


def refuse_rollback(before: TrustedRoot, carried: TrustedRoot) -> None:
    """Refuse a root that forgets an authority, or trusts one for longer than the root before.

    A root that was carried over a gap has no TUF metadata with version numbers. But a newer root
    only adds authorities and ends their times, so one that takes such an end back is older.
    Raises :class:`VerificationRefused` (rollback).
    """
    now = _periods(carried)
    for name, period in _periods(before).items():
        found = now.get(name)
        if found is None:
            problem = f"does not know the {name[0]} {name[1][:16]}, which counts here"
        elif period.end is not None and (found.end is None or found.end > period.end):
            problem = f"trusts the {name[0]} {name[1][:16]} beyond {period.end:%Y-%m-%d}, its end"
        else:
            continue
        raise VerificationRefused(
            f"the bundle's trusted root {problem}: it is older than the one in force, or of "
            "another instance",
            hint="the root in force stays; make the bundle where `local-imager trust refresh` ran, "
            "or name another instance's root as trusted_root in a [[trust]] entry",
            code="rollback",
        )


def _periods(root: TrustedRoot) -> dict[tuple[str, str], Period]:
    found = {("transparency log", log.log_id.hex()): log.period for log in root.logs}
    found |= {("certificate log", log.log_id.hex()): log.period for log in root.ct_logs}
    for kind, authorities in (
        ("certificate authority", root.certificate_authorities),
        ("timestamp authority", root.timestamp_authorities),
    ):
        for one in authorities:
            found[kind, Digest.of(b"".join(one.chain)).hex] = one.period
    return found
