"""Removing what nothing needs any more: by reachability, by age, by size.

A collection keeps writers out while it works, gives blobs without a name a grace time (a download
names its blobs last), and takes names out of the index before it removes files, so that a kill at
any point leaves a clean store.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local_imager.errors import NotFound, SourceError, StoreError
from local_imager.oci.durable import FileLock, explained
from local_imager.oci.indexlines import Document
from local_imager.oci.model import ANNOTATION_REF_NAME, MEDIA_EMPTY, Descriptor, Digest
from local_imager.store.foreign import FOREIGN_PREFIX
from local_imager.store.incoming import held_blobs, is_incoming
from local_imager.store.intermediates import INITRAMFS_PREFIX
from local_imager.store.reach import is_superseded, reach, subject_of
from local_imager.store.records import ASSET_PREFIX
from local_imager.store.store import Store
from local_imager.store.workspace import clean_workspaces, disk_bytes, stale_workspaces

# A slow download names its blobs only when the last one is there.
GRACE_S: Final = 3600.0
_DAY_S: Final = 86_400.0
# What age and size let go: assets, and what can be made or fetched again for them.
_COLLECTED_PREFIXES: Final = (ASSET_PREFIX, FOREIGN_PREFIX, INITRAMFS_PREFIX)


@dataclass(frozen=True, slots=True)
class Rules:
    """What may go: ``keep_days`` and ``max_bytes`` apply to assets and foreign files, ``names``
    in any case.

    ``images`` lets both rules take source images too. ``grace_s`` protects young blobs that no
    name reaches.
    """

    keep_days: float | None = None
    max_bytes: int | None = None
    names: Collection[str] = ()
    images: bool = False
    grace_s: float = GRACE_S


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed (or would remove): names, blobs, other files, bytes on disk.

    ``held`` are the holds that stay: blobs of sets that did not arrive whole yet.
    """

    names: tuple[str, ...]
    blobs: tuple[Digest, ...]
    scraps: tuple[str, ...]
    freed_bytes: int
    kept_bytes: int
    dry_run: bool
    held: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``store gc --json`` prints."""
        return {
            "dry_run": self.dry_run,
            "names": list(self.names),
            "blobs": [str(digest) for digest in self.blobs],
            "scraps": list(self.scraps),
            "freed_bytes": self.freed_bytes,
            "kept_bytes": self.kept_bytes,
            "held": list(self.held),
        }


def collect(store: Store, rules: Rules | None = None, *, dry_run: bool = False) -> Collected:
    """Remove what the rules let go and nothing else needs; with ``dry_run`` only tell.

    Raises :class:`StoreError` (``busy``) while other processes write, :class:`NotFound` for a
    name in the rules that is not there.
    """
    rules = rules or Rules()
    if dry_run:
        return _collect(store, rules, dry_run=True)
    with store.layout.alone(), explained("collect what is not needed"):
        return _collect(store, rules, dry_run=False)


def _collect(store: Store, rules: Rules, *, dry_run: bool) -> Collected:
    layout = store.layout
    entries = layout.entries()
    unknown = set(rules.names) - {entry.ref_name for entry in entries}
    if unknown:
        raise NotFound(f"the store has nothing named {min(unknown)!r}")
    dropped = _dropped(store, entries, rules)
    staying = [entry for entry in entries if id(entry) not in dropped]
    needed = reach(layout, staying).needed
    # What was attached to something that goes, or is gone already, goes with it.
    subjects = {id(entry): subject_of(layout, entry) for entry in staying}
    gone = [
        entry
        for entry in entries
        if id(entry) in dropped
        or (subjects[id(entry)] is not None and subjects[id(entry)] not in needed)
    ]
    # Where nothing is let go the walk over ten thousand assets is not made twice.
    released = set(reach(layout, entries).needed) - set(needed) if dropped else set()
    blobs = list(_removable(store, set(needed), released, rules.grace_s))
    holds = [entry for entry in staying if is_incoming(entry)]
    scraps = list(_scraps(store, rules.grace_s, _awaited(store, holds)))
    freed = sum(size for _, size in blobs) + sum(disk_bytes(path) for path in scraps)
    if not dry_run:
        # What no name holds goes first: on a full disk it makes room to write the index.
        _remove_scraps(store, scraps)
        _remove_blobs(store, [digest for digest, _ in blobs if digest not in released])
        if gone:
            layout.rewrite_index(lambda document: _forget(document, gone))
        _remove_blobs(store, released & {digest for digest, _ in blobs})
        _remove_free_locks(store)
    return Collected(
        tuple(sorted(e.ref_name or str(e.digest) for e in gone)),
        tuple(digest for digest, _ in blobs),
        tuple(str(path.relative_to(store.path)) for path in scraps),
        freed,
        _disk_size(store, needed),
        dry_run,
        tuple(sorted(entry.ref_name for entry in holds)),
    )


def _dropped(store: Store, entries: tuple[Descriptor, ...], rules: Rules) -> set[int]:
    """Choose the entries that go (by ``id``): named in the rules, superseded, too old, too much."""
    gone = {id(e) for e in entries if e.ref_name in rules.names or is_superseded(e)}
    held = {id(e): _held_by(store, e) for e in entries if id(e) not in gone}
    candidates = [
        entry
        for entry in entries
        if entry.ref_name
        and id(entry) not in gone
        and subject_of(store.layout, entry) is None
        and (rules.images or entry.ref_name.startswith(_COLLECTED_PREFIXES))
    ]
    used_s = {id(entry): _last_use_s(store, held[id(entry)]) for entry in candidates}
    candidates.sort(key=lambda entry: used_s[id(entry)])
    if rules.keep_days is not None:
        limit_s = time.time() - rules.keep_days * _DAY_S
        gone |= {id(entry) for entry in candidates if used_s[id(entry)] < limit_s}
    if rules.max_bytes is not None:
        holders = Counter(
            digest for number, held_by in held.items() if number not in gone for digest in held_by
        )
        size = _disk_size(store, holders)
        for entry in (e for e in candidates if id(e) not in gone):
            if size <= rules.max_bytes:
                break
            gone.add(id(entry))
            holders.subtract(held[id(entry)])
            size -= _disk_size(store, [d for d in held[id(entry)] if holders[d] == 0])
    return gone


def _held_by(store: Store, entry: Descriptor) -> set[Digest]:
    """Return what an entry needs, but for the empty configuration, which all assets share."""
    needed = reach(store.layout, [entry]).needed
    return {digest for digest, (d, _) in needed.items() if d.media_type != MEDIA_EMPTY}


def _last_use_s(store: Store, digests: Collection[Digest]) -> float:
    """Return when any of the blobs was last used or written."""
    times = [0.0]
    for digest in digests:
        with contextlib.suppress(OSError):
            status = store.layout.blob_path(digest).stat()
            times.append(max(status.st_atime, status.st_mtime))
    return max(times)


def _disk_size(store: Store, digests: Collection[Digest]) -> int:
    return sum(disk_bytes(store.layout.blob_path(digest)) for digest in digests)


def _removable(
    store: Store, needed: set[Digest], released: set[Digest], grace_s: float
) -> Iterator[tuple[Digest, int]]:
    """Yield blobs that nothing needs, with the disk space that goes with them.

    Young ones stay, unless a name that goes in this very collection was all that held them.
    """
    young_s = time.time() - grace_s
    for path in sorted(store.layout.blobs_dir.iterdir()):
        digest = _digest_of(path)
        if digest is None or digest in needed:
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if digest in released or status.st_ctime < young_s:
                # An exported hard link keeps the space.
                yield digest, status.st_blocks * 512 if status.st_nlink == 1 else 0


def _remove_blobs(store: Store, digests: Collection[Digest]) -> None:
    for digest in digests:
        store.layout.blob_path(digest).unlink(missing_ok=True)


def _digest_of(path: Path) -> Digest | None:
    name = path.name
    return Digest(name) if len(name) == 64 and set(name) <= set("0123456789abcdef") else None


def _awaited(store: Store, holds: list[Descriptor]) -> set[str]:
    """Return the blobs (hex) that a hold lists and that are not there yet, or only in part."""
    awaited: set[str] = set()
    for entry in holds:
        with contextlib.suppress(SourceError, StoreError):
            awaited |= {blob.digest.hex for blob in held_blobs(store.layout, entry)}
    return {name for name in awaited if not store.layout.has(Digest(name))}


def _scraps(store: Store, grace_s: float, awaited: set[str]) -> Iterator[Path]:
    """Yield what dead processes left: staging, working directories, old partial downloads.

    Files in ``unverified/`` are named after their blob, whole or in segments; those of blobs that
    are awaited stay.
    """
    yield from store.layout.stale_staging()
    yield from stale_workspaces(store.work_dir)
    folder = store.layout.unverified_dir
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.partition(".")[0] in awaited:
            continue
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - max(grace_s, _DAY_S):
                yield path


def _remove_scraps(store: Store, scraps: list[Path]) -> None:
    store.layout.clean_staging()
    clean_workspaces(store.work_dir)
    for path in scraps:
        if path.parent != store.layout.unverified_dir:
            continue
        lock = FileLock(store.layout.locks_dir / f"blob-{path.name}")
        if lock.try_acquire():
            with lock:
                path.unlink(missing_ok=True)


def _remove_free_locks(store: Store) -> None:
    """Remove lock files of blobs and builds that nobody holds; they are made anew when needed."""
    for path in store.layout.locks_dir.iterdir():
        if path.name.startswith(("blob-", "build-")):
            lock = FileLock(path)
            if lock.try_acquire():
                with lock:
                    os.unlink(path)


def _forget(document: Document, gone: list[Descriptor]) -> None:
    def is_gone(entry: dict[str, Any]) -> bool:
        name = (entry.get("annotations") or {}).get(ANNOTATION_REF_NAME, "")
        return any(str(e.digest) == entry["digest"] and e.ref_name == name for e in gone)

    document["manifests"] = [entry for entry in document["manifests"] if not is_gone(entry)]
