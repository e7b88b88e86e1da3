"""Files that other programs made, kept to be compared with: never verified, never a build input.

A foreign file is an artifact of its own type under a name that no image reference can have, so
nothing that looks for images, assets or builds finds it. What is being downloaded lies in
``unverified/`` and is continued after an interruption, as far as that can be done safely.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_imager.errors import InputError, SourceError, StoreError
from local_imager.oci import sparse
from local_imager.oci.durable import FileLock, explained, replace_file
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    ANNOTATION_TITLE,
    Descriptor,
    Digest,
    Manifest,
)
from local_imager.oci.seal import touch

FOREIGN_PREFIX: Final = "local-imager/foreign/"
ARTIFACT_FOREIGN: Final = "application/vnd.local-imager.foreign.v1"
ANNOTATION_ORIGIN: Final = "io.local-imager.foreign.origin"
# Fewer bytes than this are not worth a range request after a restart.
_KEEP_PARTIAL_BYTES: Final = 64 * 1024
_MAX_NOTE_BYTES: Final = 16 * 1024
_ZEROS: Final = bytes(sparse.CHUNK_BYTES)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A foreign file in the store; ``path`` is its blob (read only).

    ``place`` is its name without the prefix (``factory.talos.dev/ID/v1.13.0/metal-amd64.iso``),
    ``origin`` the address that it came from, without secrets.
    """

    place: str
    origin: str
    title: str
    manifest: Descriptor
    digest: Digest
    size_bytes: int
    media_type: str
    path: Path

    @property
    def name(self) -> str:
        """The name under which the store lists it."""
        return FOREIGN_PREFIX + self.place

    @property
    def short(self) -> str:
        """The place with long hexadecimal parts cut, for people."""
        return "/".join(_cut(part) for part in self.place.split("/"))

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``store ls --json`` prints."""
        return {
            "name": self.name,
            "origin": self.origin,
            "digest": str(self.digest),
            "size_bytes": self.size_bytes,
            "manifest_digest": str(self.manifest.digest),
            "verified": False,
        }


def _cut(part: str) -> str:
    digits = part.rpartition("@sha256:")[2]
    if len(digits) == 64 and set(digits) <= set("0123456789abcdef"):
        return part[: len(part) - 64 + _SHORT]
    return part


def is_foreign(entry: Descriptor) -> bool:
    """Return whether an entry of the index is a foreign file."""
    return entry.artifact_type == ARTIFACT_FOREIGN and entry.ref_name.startswith(FOREIGN_PREFIX)


def foreign_files(layout: Layout) -> tuple[ForeignFile, ...]:
    """Return all foreign files, ordered by name; what cannot be read is left out."""
    found = []
    for entry in layout.index().holding(ARTIFACT_FOREIGN):
        if is_foreign(entry):
            with contextlib.suppress(SourceError, StoreError):
                one = _foreign_of(layout, entry)
                found += [one] if one is not None else []
    return tuple(sorted(found, key=lambda one: one.place))


def find_foreign(layout: Layout, text: str) -> ForeignFile | None:
    """Return the one foreign file that a name means, None when none does.

    Accepts the name, the place, the shortened place that ``store ls`` shows, and the begin (8
    digits or more) of a digest. Raises :class:`InputError` when several fit.
    """
    entry = layout.resolve(FOREIGN_PREFIX + text.removeprefix(FOREIGN_PREFIX))
    if entry is not None and is_foreign(entry):
        return _foreign_of(layout, entry)
    digits = text.removeprefix("sha256:")
    hexadecimal = len(digits) >= 8 and set(digits) <= set("0123456789abcdef")
    found = [
        one
        for one in foreign_files(layout)
        if one.short == text or (hexadecimal and one.digest.hex.startswith(digits))
    ]
    if len({one.digest for one in found}) > 1:
        names = ", ".join(one.place for one in found[:5])
        raise InputError(f"{text!r} fits {len(found)} foreign files: {names}")
    return found[0] if found else None


def held_foreign(layout: Layout, place: str) -> ForeignFile | None:
    """Return the foreign file of a place if its bytes are there and intact; counts as a use."""
    entry = layout.resolve(FOREIGN_PREFIX + place)
    found = _foreign_of(layout, entry) if entry is not None and is_foreign(entry) else None
    if found is None or not layout.intact(found.digest, found.size_bytes):
        return None
    with contextlib.suppress(OSError):
        touch(found.path)
    return found


def _foreign_of(layout: Layout, entry: Descriptor) -> ForeignFile | None:
    if not layout.has(entry.digest):
        return None
    manifest = layout.read_manifest(entry)
    if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
        return None
    layer = manifest.layers[0]
    place = entry.ref_name.removeprefix(FOREIGN_PREFIX)
    return ForeignFile(
        place,
        manifest.annotations.get(ANNOTATION_ORIGIN, ""),
        manifest.annotations.get(ANNOTATION_TITLE, place.rpartition("/")[2]),
        Descriptor(entry.media_type, entry.digest, entry.size_bytes),
        layer.digest,
        layer.size_bytes,
        layer.media_type,
        layout.blob_path(layer.digest),
    )


def name_foreign(layout: Layout, place: str, layer: Descriptor, origin: str) -> ForeignFile:
    """Give a blob that is there the name of a foreign file; an older file of the place loses it.

    Raises :class:`StoreError`.
    """
    title = place.rpartition("/")[2]
    said = {ANNOTATION_TITLE: title, ANNOTATION_ORIGIN: origin}
    with layout.writing():
        entry = layout.put_artifact(ARTIFACT_FOREIGN, layer, annotations=said)
        plain = Descriptor(
            entry.media_type, entry.digest, entry.size_bytes, artifact_type=ARTIFACT_FOREIGN
        )
        layout.set_ref(FOREIGN_PREFIX + place, plain)
    path = layout.blob_path(layer.digest)
    plain = Descriptor(entry.media_type, entry.digest, entry.size_bytes)
    return ForeignFile(
        place, origin, title, plain, layer.digest, layer.size_bytes, layer.media_type, path
    )


@dataclass(frozen=True, slots=True)
class Version:
    """What a server said of the bytes that it is sending: they can be continued if it stays so.

    ``validator`` is a strong ETag or a Last-Modified date, empty for none; ``size_bytes`` is -1
    where no size was announced.
    """

    validator: str = ""
    size_bytes: int = -1


class ForeignWriter:
    """Takes the bytes of one foreign file; nothing is visible before :meth:`commit`."""

    def __init__(self, layout: Layout, handle: int, path: Path, max_bytes: int) -> None:
        self._layout, self._handle, self._path = layout, handle, path
        self._note = path.with_name(path.name + ".json")
        self._max_bytes = max_bytes
        self._hasher = sparse.Hasher()
        self.version = Version()
        self.committed = False

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        return self._hasher.size_bytes

    def resume(self) -> None:
        """Count what an earlier process left, if it can be continued; else begin anew.

        No digest is known that could tell damage. So bytes count only while the machine has not
        been started anew (a crash of it may lose what was written), and with a validator.
        """
        version = _read_note(self._note)
        present = os.fstat(self._handle).st_size
        if not version.validator or present > max(version.size_bytes, 0):
            self.restart(Version())
            return
        self.version = version
        sparse.walk(self._handle, present, self._count)

    def _count(self, _offset: int, chunk: memoryview | None, length: int) -> None:
        if chunk is None:
            self._hasher.hole(length)
        else:
            self._hasher.data(chunk)

    def restart(self, version: Version) -> None:
        """Forget the bytes; what comes next belongs to this version."""
        os.ftruncate(self._handle, 0)
        self._hasher = sparse.Hasher()
        self.version = version
        note = {"boot": _boot(), "validator": version.validator, "size_bytes": version.size_bytes}
        with explained(f"prepare a download to {self._layout.path}"):
            replace_file(self._note, json.dumps(note).encode())

    def write(self, data: bytes) -> None:
        """Append bytes; zeros become a hole. Raises :class:`SourceError` beyond the limit."""
        if self.offset + len(data) > self._max_bytes:
            raise SourceError(
                f"{self._path.name} grows beyond {self._max_bytes} bytes",
                hint="no boot file is that large",
                code="too-large",
            )
        if data != _ZEROS[: len(data)]:
            with explained(f"write a download to {self._layout.path}"):
                sparse.write_all(self._handle, data, self.offset)
        self._hasher.data(data)

    def commit(self, media_type: str) -> Descriptor:
        """Make the bytes a blob, still without a name; raises :class:`StoreError`."""
        with explained("keep a downloaded file"):
            os.ftruncate(self._handle, self.offset)
            # Nobody knows what is in it; a configuration with secrets may be.
            self._layout.adopt(self._handle, self._path, self._hasher.digest, private=True)
        self._note.unlink(missing_ok=True)
        self.committed = True
        return Descriptor(media_type, self._hasher.digest, self.offset)

    def give_up(self) -> None:
        """Remove the bytes that came."""
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


@contextlib.contextmanager
def foreign_writer(layout: Layout, key: str, *, max_bytes: int) -> Iterator[ForeignWriter]:
    """Yield the writer of a foreign file, one process at a time for each key (its place).

    Without a ``commit`` what came is kept for the next try, unless the disk is full.
    """
    name = "foreign-" + hashlib.sha256(key.encode()).hexdigest()[:40]
    with explained(f"prepare a download to {layout.path}"):
        layout.unverified_dir.mkdir(exist_ok=True)
        layout.locks_dir.mkdir(exist_ok=True)
        lock = FileLock(layout.locks_dir / f"blob-{name}").acquire()
    with lock:
        path = layout.unverified_dir / name
        with explained(f"prepare a download to {layout.path}"):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        writer = ForeignWriter(layout, handle, path, max_bytes)
        try:
            with explained("read an interrupted download"):
                writer.resume()
            yield writer
        except StoreError as error:
            if error.code == "disk-full" and not writer.committed:
                writer.give_up()
            raise
        finally:
            kept = os.fstat(handle).st_size >= _KEEP_PARTIAL_BYTES and writer.version.validator
            if not writer.committed and not kept:
                writer.give_up()
            os.close(handle)


def _read_note(path: Path) -> Version:
    try:
        with path.open("rb") as stream:
            note: Mapping[str, object] = json.loads(stream.read(_MAX_NOTE_BYTES))
        validator, size, boot = note["validator"], note["size_bytes"], note["boot"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Version()
    if not boot or boot != _boot() or not isinstance(validator, str) or not isinstance(size, int):
        return Version()
    return Version(validator, size)


def _boot() -> str:
    """Return what names the running kernel's life, empty where it cannot be read."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""
