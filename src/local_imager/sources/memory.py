"""Rollback memory: the newest log entry that was ever accepted for a name and tag.

An old image keeps its valid signature for ever, so a registry can serve last year's image under
today's tag. A transparency log numbers its entries in the order they were made; when the image
behind a tag changes and the new one's entry is *older* than one accepted before, time ran
backwards. What is signed by a key without a log entry carries no such number, and nothing is
remembered of it. Pinned references (with a digest) are not looked at: there the name decides
nothing.

The memory is one JSON file in the store's directory, beside the layout's own files, so a garbage
collection does not touch it. Deleting it only forgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from local_imager.errors import StoreError
from local_imager.oci.durable import FileLock, explained, replace_file
from local_imager.oci.model import Digest, Reference
from local_imager.sources.acceptance import Acceptance

MEMORY_FILE: Final = "rollback-memory.json"
# 200 bytes a name; a store of ten thousand images stays far below.
MAX_MEMORY_BYTES: Final = 16 * 1024 * 1024
_VERSION: Final = 1

State = Literal["not-consulted", "no-log-entry", "pinned", "first", "newest", "older"]
_MEANINGS: Final[Mapping[State, str]] = {
    "not-consulted": "nothing was compared: no store takes part",
    "no-log-entry": "nothing can be compared: no log entry was verified for this signature",
    "pinned": "nothing was compared: the reference names a digest",
    "first": "the first log entry accepted for this name and tag",
    "newest": "no older than what was accepted before",
    "older": "OLDER than a log entry accepted before for this name and tag",
}


@dataclass(frozen=True, slots=True)
class Recollection:
    """How an image's log entries compare with the newest that were accepted for its name and tag.

    ``remembered`` and ``found`` are of the log that says so: index and time of its entries.
    """

    state: State
    log: str = ""
    remembered: Mapping[str, object] | None = None
    found: Mapping[str, object] | None = None

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for the evidence document."""
        document: dict[str, object] = {"state": self.state, "meaning": _MEANINGS[self.state]}
        if self.log:
            document |= {"log": self.log, "remembered": self.remembered, "found": self.found}
        return document

    def sentence(self, reference: Reference) -> str:
        """Say in words that time ran backwards."""
        before, now = self.remembered or {}, self.found or {}
        return (
            f"{reference} is signed by an OLDER entry of {self.log} "
            f"({now.get('index')}, {now.get('time') or 'no time'}) than the one accepted before "
            f"({before.get('index')}, {before.get('time') or 'no time'}): it was rolled back"
        )


class LogMemory:
    """The memory of one store; safe for many threads and processes."""

    def __init__(self, store_dir: Path, locks_dir: Path) -> None:
        self._path = store_dir / MEMORY_FILE
        self._lock = locks_dir / "rollback-memory"

    def compare(
        self, reference: Reference, digest: Digest, accepted: Sequence[Acceptance]
    ) -> Recollection:
        """Compare with what is remembered; raises :class:`StoreError` when it cannot be read."""
        entries = _entries_of(accepted, digest)
        if reference.digest is not None or not reference.tag:
            return Recollection("pinned")
        if not entries:
            return Recollection("no-log-entry")
        known = self._read().get(_name_of(reference), {})
        state: State = "first"
        for log, found in entries.items():
            remembered = known.get(log)
            if remembered is None:
                continue
            # The same image signed once more, and its older signature found first, is no rollback.
            same = remembered["digest"] == found["digest"]
            if found["index"] < remembered["index"] and not same:
                return Recollection("older", log, remembered, found)
            state = "newest"
        return Recollection(state)

    def remember(
        self, reference: Reference, digest: Digest, accepted: Sequence[Acceptance]
    ) -> None:
        """Keep the newest entry of each log; raises :class:`StoreError`."""
        entries = _entries_of(accepted, digest)
        if reference.digest is not None or not reference.tag or not entries:
            return
        name = _name_of(reference)
        if not _newer(self._read().get(name, {}), entries):
            return
        with explained(f"write {self._path}"), FileLock(self._lock).acquire():
            images = self._read()
            images.setdefault(name, {}).update(_newer(images.get(name, {}), entries))
            body = {"version": _VERSION, "images": images}
            replace_file(self._path, json.dumps(body, indent=1, sort_keys=True).encode())

    def _read(self) -> dict[str, dict[str, Any]]:
        with explained(f"read {self._path}"):
            try:
                with self._path.open("rb") as stream:
                    data = stream.read(MAX_MEMORY_BYTES + 1)
            except FileNotFoundError:
                return {}
        try:
            document = json.loads(data)
            if document["version"] != _VERSION or len(data) > MAX_MEMORY_BYTES:
                raise ValueError
            images: dict[str, dict[str, Any]] = document["images"]
            for logs in images.values():
                for entry in logs.values():
                    _ = (entry["digest"], int(entry["index"]), entry["time"])
            return images
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(
                f"{self._path} cannot be read: it is damaged or of a newer version",
                hint="remove it to forget which log entries were accepted before",
                code="memory-damaged",
            ) from error


def _name_of(reference: Reference) -> str:
    return f"{reference.name.lower()}:{reference.tag}"


def _entries_of(accepted: Sequence[Acceptance], digest: Digest) -> dict[str, dict[str, Any]]:
    """Return the newest entry of each log among the acceptances."""
    found: dict[str, dict[str, Any]] = {}
    for acceptance in accepted:
        log = acceptance.log
        if log is None or found.get(log.name, {"index": -1})["index"] >= log.log_index:
            continue
        time = log.integrated_time.isoformat() if log.integrated_time else None
        found[log.name] = {"digest": str(digest), "index": log.log_index, "time": time}
    return found


def _newer(known: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        log: entry
        for log, entry in entries.items()
        if log not in known or entry["index"] > known[log]["index"]
    }
