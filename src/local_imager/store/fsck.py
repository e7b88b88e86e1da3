"""Checking a store: every blob is hashed, every reference followed.

Not faults: files that dead processes left (they can be reclaimed), blobs without a name, and
platforms of an image that were never fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from local_imager.events import NULL_SINK, EventSink, Progress
from local_imager.oci import sparse
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import explained
from local_imager.oci.indexlines import Document
from local_imager.oci.model import ANNOTATION_REF_NAME, Digest
from local_imager.store.reach import reach
from local_imager.store.store import Store
from local_imager.store.workspace import disk_bytes, stale_workspaces

Kind = Literal["bytes", "size", "missing", "malformed", "foreign"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: ``subject`` is a digest or file name, ``needed_by`` a name."""

    kind: Kind
    subject: str
    text: str
    needed_by: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object of the report."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "text": self.text,
            "needed_by": self.needed_by,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check; ``reclaimable_bytes`` is what a collection could free."""

    faults: tuple[Fault, ...]
    blobs: int
    checked_bytes: int
    unnamed_blobs: int
    reclaimable_bytes: int
    repaired: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``store fsck --json`` prints."""
        return {
            "clean": self.clean,
            "faults": [fault.as_dict() for fault in self.faults],
            "blobs": self.blobs,
            "checked_bytes": self.checked_bytes,
            "unnamed_blobs": self.unnamed_blobs,
            "reclaimable_bytes": self.reclaimable_bytes,
            "repaired": list(self.repaired),
        }


def check(
    store: Store, *, repair: bool = False, jobs: int = 2, sink: EventSink = NULL_SINK
) -> Report:
    """Hash every blob and follow every name; with ``repair`` remove what is bad.

    A repair removes blobs with other bytes than their digest and takes names out of the index
    that are not complete any more: they are fetched or built again when asked for. The report
    says what was found before the repair. Raises :class:`StoreError`.
    """
    with explained("check the store"):
        if not repair:
            return _check(store, jobs, sink)
        with store.layout.alone():
            report = _check(store, jobs, sink)
            done = tuple(_repair(store, report.faults))
    return Report(
        report.faults,
        report.blobs,
        report.checked_bytes,
        report.unnamed_blobs,
        report.reclaimable_bytes,
        done,
    )


def _check(store: Store, jobs: int, sink: EventSink) -> Report:
    layout = store.layout
    present = {d.name: d.path for d in os.scandir(layout.blobs_dir)}
    foreign = [
        Fault("foreign", name, "is not named like a blob")
        for name in sorted(present)
        if len(name) != 64 or set(name) - set("0123456789abcdef")
    ]
    digests = sorted(Digest(name) for name in set(present) - {f.subject for f in foreign})
    found = reach(layout, layout.entries())
    sizes: dict[Digest, int] = {}
    faults = [*foreign, *_hash_all(store, digests, sizes, jobs, sink)]
    bad = {fault.subject for fault in faults}
    for digest, (descriptor, who) in found.needed.items():
        if digest in sizes and str(digest) not in bad and sizes[digest] != descriptor.size_bytes:
            text = f"has {sizes[digest]} bytes, {descriptor.size_bytes} are named"
            faults.append(Fault("size", str(digest), text, who))
    for digest, who in found.missing:
        faults.append(Fault("missing", str(digest), "is not there", who))
    for digest, why in found.malformed:
        if str(digest) not in bad:
            faults.append(Fault("malformed", str(digest), why))
    unnamed = [digest for digest in digests if digest not in found.needed]
    scraps = [*layout.stale_staging(), *stale_workspaces(store.work_dir)]
    reclaimable = sum(disk_bytes(layout.blob_path(d)) for d in unnamed)
    reclaimable += sum(disk_bytes(path) for path in scraps)
    return Report(tuple(faults), len(digests), sum(sizes.values()), len(unnamed), reclaimable)


def _hash_all(
    store: Store, digests: list[Digest], sizes: dict[Digest, int], jobs: int, sink: EventSink
) -> Iterator[Fault]:
    """Hash all blobs on several threads (hashing leaves the interpreter lock)."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        results = pool.map(lambda digest: _hash(store, digest), digests)
        for number, (digest, result) in enumerate(zip(digests, results, strict=True), 1):
            sink.emit(Progress("check", "blobs", number, len(digests)))
            if isinstance(result, str):
                yield Fault("bytes", str(digest), result)
            elif result is not None:
                sizes[digest] = result


def _hash(store: Store, digest: Digest) -> int | str | None:
    """Return the blob's size, what is wrong with it, or None when it went away meanwhile."""
    try:
        handle = open_regular(store.layout.blob_path(digest))
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        size_bytes = os.fstat(handle).st_size
        found = sparse.hash_handle(handle, size_bytes)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    finally:
        os.close(handle)
    return size_bytes if found == digest else f"has the bytes of {found}"


def _repair(store: Store, faults: Iterable[Fault]) -> Iterator[str]:
    layout = store.layout
    for fault in faults:
        if fault.kind in ("bytes", "malformed"):
            layout.blob_path(Digest.parse(fault.subject)).unlink(missing_ok=True)
            yield f"removed blob {fault.subject}"
    while True:
        found = reach(layout, layout.entries())
        wrong_size = {
            who
            for digest, (descriptor, who) in found.needed.items()
            if layout.blob_path(digest).stat().st_size != descriptor.size_bytes
        }
        incomplete = {who for _, who in found.missing} | wrong_size
        if not incomplete:
            return
        layout.rewrite_index(lambda document, names=incomplete: _forget(document, names))  # type: ignore[misc]
        for name in sorted(incomplete):
            yield f"took {name} out of the index: it was not complete"


def _forget(document: Document, names: set[str]) -> None:
    def who(entry: dict[str, Any]) -> str:
        named = (entry.get("annotations") or {}).get(ANNOTATION_REF_NAME, "")
        return str(named or entry["digest"])

    document["manifests"] = [e for e in document["manifests"] if who(e) not in names]
