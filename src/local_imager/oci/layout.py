"""An OCI image layout directory: blobs, and an index that names them, both written atomically.

Format: OCI image-spec 1.1, image-layout. Beside the standard's own files the directory holds
``staging/``, ``unverified/`` and ``locks/`` while it is written to; other tools pass them over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

from local_imager.errors import NotFound, SourceError, StoreError
from local_imager.oci import blobwriter
from local_imager.oci.blobs import BlobDir, open_regular
from local_imager.oci.durable import FileLock, explained, replace_file
from local_imager.oci.indexlines import (
    MAX_ENTRIES,
    MAX_INDEX_BYTES,
    Change,
    Document,
    EntryChange,
    IndexLines,
)
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    MAX_MANIFEST_BYTES,
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Index,
    Manifest,
    canonical_json,
    load_json_object,
    parse_descriptor,
    parse_manifest,
)
from local_imager.oci.names import fallback_tag, find_referrers_list

EMPTY_CONFIG: Final = b"{}"
_LAYOUT_FILE: Final = "oci-layout"
_LAYOUT_BYTES: Final = b'{"imageLayoutVersion":"1.0.0"}'
_NAMED: Final = re.compile(f'"{re.escape(ANNOTATION_REF_NAME)}": "[^"]'.encode())


def check_layout_marker(untrusted_data: bytes, what: str) -> None:
    """Check the ``oci-layout`` file; raises :class:`SourceError` for another version."""
    document = load_json_object(untrusted_data, f"{what}: {_LAYOUT_FILE}", max_bytes=4096)
    version = document.get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise SourceError(
            f"{what} has the unsupported layout version {version!r}", code="malformed"
        )


class Layout(BlobDir):
    """A layout that can be read and written by many threads and processes at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._cached: tuple[tuple[int, int, int], IndexLines] | None = None

    @classmethod
    def open(cls, path: Path) -> Layout:
        """Open an existing layout for reading and writing.

        Raises :class:`NotFound` when the directory is none, :class:`SourceError` when its files
        are damaged.
        """
        layout = cls(path)
        if not os.path.isfile(path / _LAYOUT_FILE):
            raise NotFound(
                f"{path} is not an OCI image layout", hint="it has no file named oci-layout"
            )
        check_layout_marker(layout._read_small(_LAYOUT_FILE, 4096), str(path))
        layout.index()
        return layout

    @classmethod
    def create(cls, path: Path, *, annotations: Mapping[str, str] | None = None) -> Layout:
        """Make a layout, or complete one whose making was interrupted; then open it.

        Raises :class:`StoreError` when the directory holds foreign files or cannot be written.
        """
        layout = cls(path)
        with explained(f"make the layout {path}"):
            path.mkdir(parents=True, exist_ok=True)
            if not os.path.exists(path / _LAYOUT_FILE):
                layout._refuse_foreign_files()
                layout.blobs_dir.mkdir(parents=True, exist_ok=True)
                layout.locks_dir.mkdir(exist_ok=True)
                with FileLock(layout.locks_dir / "index").acquire():
                    if not (path / "index.json").exists():
                        empty: Document = {"schemaVersion": 2, "mediaType": MEDIA_INDEX}
                        empty["manifests"] = []
                        if annotations:
                            empty["annotations"] = dict(annotations)
                        replace_file(path / "index.json", IndexLines.of(empty).data)
                    replace_file(path / _LAYOUT_FILE, _LAYOUT_BYTES)
        return cls.open(path)

    def _refuse_foreign_files(self) -> None:
        own = {"blobs", "index.json", "locks", "staging", "unverified"}
        names = os.listdir(self.path)
        if _LAYOUT_FILE in names:
            return  # another process has just completed it
        foreign = [name for name in names if name not in own and not name.startswith(".")]
        if foreign:
            raise StoreError(
                f"{self.path} is not empty and not an OCI layout (it holds {foreign[0]!r})",
                hint="choose an empty or new directory",
            )

    def _read_small(self, name: str, max_bytes: int) -> bytes:
        with explained(f"read {self.path / name}"):
            with os.fdopen(open_regular(self.path / name), "rb") as stream:
                # Room for what is there: room for all that may be there costs milliseconds.
                size_bytes = os.fstat(stream.fileno()).st_size
                return stream.read(min(size_bytes, max_bytes) + 1)

    def index(self) -> IndexLines:
        """Return the index as it is now; raises :class:`SourceError` for a damaged one."""
        version = self._index_version()
        cached = self._cached
        if cached is None or cached[0] != version:
            data = self._read_small("index.json", MAX_INDEX_BYTES)
            cached = (version, IndexLines.read(data, f"{self.path}/index.json"))
            self._cached = cached
        return cached[1]

    def _index_version(self) -> tuple[int, int, int]:
        """Every change replaces the file, so another state is another inode or time."""
        with explained(f"read {self.path}/index.json"):
            status = os.stat(self.path / "index.json")
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def document(self) -> Document:
        """Return ``index.json`` as it is now, as a document of its own."""
        return self.index().document()

    def entries(self) -> tuple[Descriptor, ...]:
        """Return all entries of ``index.json`` as they are now."""
        return self.index().entries()

    def resolve(self, name: str) -> Descriptor | None:
        """Return the entry with exactly this ``ref.name``, or None; the last one wins."""
        found = reversed(self.index().holding(name))
        return next((entry for entry in found if entry.ref_name == name), None)

    def update_index(self, *changes: Change) -> None:
        """Make changes of the index, alone and in their order, and replace the file at once.

        Raises :class:`StoreError`; then the index is as it was.
        """
        with self.writing():
            self.rewrite_index(*changes)

    def rewrite_index(self, *changes: Change) -> None:
        """Do what ``update_index`` does, for a caller that holds the layout with ``alone``."""
        with explained(f"update {self.path}/index.json"):
            with FileLock(self.locks_dir / "index").acquire():
                index = self.index()
                for change in changes:
                    index = index.edited(change)
                self._refuse_unreadable(index)
                self.staging_dir.mkdir(exist_ok=True)
                replace_file(self.path / "index.json", index.data, staging_dir=self.staging_dir)
                self._cached = (self._index_version(), index)

    def _refuse_unreadable(self, index: IndexLines) -> None:
        """Refuse to write what no reader, this program among them, would take again."""
        if len(index.data) > MAX_INDEX_BYTES or index.count > MAX_ENTRIES:
            raise StoreError(
                f"{self.path} is full: its index would have {index.count} entries in "
                f"{len(index.data)} bytes",
                hint="`local-imager store gc` removes what is not needed any more",
                code="index-full",
            )

    def set_ref(self, name: str, descriptor: Descriptor) -> None:
        """Let a name stand for a blob that is there; an older entry of that name goes.

        Raises :class:`StoreError` when the blob is not there.
        """
        entry = replace(
            descriptor, annotations={**descriptor.annotations, ANNOTATION_REF_NAME: name}
        )

        def edit(entries: list[Document]) -> list[Document]:
            if not self.has(descriptor.digest):
                raise StoreError(f"{name} cannot name {descriptor.digest}: the blob is not there")
            return [*_without(entries, name), entry.as_dict()]

        self.update_index(EntryChange((name,), edit))

    def remove_ref(self, name: str) -> bool:
        """Take a name out of the index (its blobs stay until a collection); False if unknown."""
        if self.resolve(name) is None:
            return False
        self.update_index(EntryChange((name,), lambda entries: _without(entries, name)))
        return True

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """Return a manifest or index of this layout, digest-checked and parsed."""
        data = self.read_blob(descriptor.digest, max_bytes=MAX_MANIFEST_BYTES)
        return parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests attached to a digest: the referrers list, else by ``subject``."""
        index = self.index()
        listed = find_referrers_list(index.holding(fallback_tag(digest)), digest)
        found: list[Descriptor] = []
        if listed is not None:
            parsed = self.read_manifest(listed)
            found = list(parsed.manifests) if isinstance(parsed, Index) else []
        else:
            for entry in index.lacking(_NAMED):
                if self.has(entry.digest):
                    subject = self.read_manifest(entry).subject
                    if subject is not None and subject.digest == digest:
                        found.append(entry)
        return tuple(e for e in found if artifact_type in ("", e.artifact_type))

    def attach(
        self,
        subject: Descriptor,
        artifact_type: str,
        data: bytes,
        media_type: str,
        *,
        annotations: Mapping[str, str] | None = None,
        private: bool = False,
        list_name: str = "",
    ) -> Descriptor:
        """Store bytes as a one-layer artifact whose subject is a manifest of this layout.

        It is listed under the fallback tag ``sha256-<hex>``, as in a registry without referrers
        API, or under ``list_name`` (a repository with that tag). Returns the artifact's descriptor.
        """
        layer = self.put_bytes(data, media_type, private=private)
        artifact = self.put_artifact(artifact_type, layer, annotations=annotations, subject=subject)
        name = list_name or fallback_tag(subject.digest)
        self.update_index(
            EntryChange((name,), lambda entries: self.list_attached(entries, name, [artifact]))
        )
        return artifact

    def list_attached(
        self, entries: list[Document], name: str, artifacts: Sequence[Descriptor]
    ) -> list[Document]:
        """Return the entries with artifacts added to the list of this name; its blob is written.

        What the list had before stays. For use in a change of the index.
        """
        old = next((entry for entry in entries if ref_name_of(entry) == name), None)
        listed = list(self._index_document(old).get("manifests", [])) if old is not None else []
        new = {str(artifact.digest) for artifact in artifacts}
        listed = [entry for entry in listed if entry.get("digest") not in new]
        listed += [artifact.as_dict() for artifact in artifacts]
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": listed}
        entry = self.put_bytes(
            canonical_json(body), MEDIA_INDEX, annotations={ANNOTATION_REF_NAME: name}
        )
        return [*_without(entries, name), entry.as_dict()]

    def _index_document(self, entry: Document) -> Document:
        digest = parse_descriptor(entry, "index.json").digest
        data = self.read_blob(digest, max_bytes=MAX_MANIFEST_BYTES)
        return load_json_object(data, f"referrers list {digest}")

    def put_artifact(
        self,
        artifact_type: str,
        *layers: Descriptor,
        annotations: Mapping[str, str] | None = None,
        subject: Descriptor | None = None,
    ) -> Descriptor:
        """Store an artifact manifest (image-spec 1.1, empty config) over some layers, unnamed."""
        self.put_bytes(EMPTY_CONFIG, MEDIA_EMPTY)
        return self.put_bytes(
            artifact_manifest(artifact_type, *layers, annotations=annotations, subject=subject),
            MEDIA_MANIFEST,
            artifact_type=artifact_type,
            annotations=dict(annotations or {}),
        )

    def blob_writer(
        self, wanted: Descriptor | None = None, *, private: bool = False
    ) -> AbstractContextManager[blobwriter.BlobWriter]:
        """Write a blob piece by piece; see :func:`local_imager.oci.blobwriter.blob_writer`."""
        return blobwriter.blob_writer(self, wanted, private=private)

    def download(
        self,
        wanted: Descriptor,
        chunks: blobwriter.Chunks,
        *,
        on_progress: blobwriter.OnProgress | None = None,
    ) -> Descriptor:
        """Bring a blob here unless it is; see :func:`local_imager.oci.blobwriter.download`."""
        return blobwriter.download(self, wanted, chunks, on_progress=on_progress)


def artifact_manifest(
    artifact_type: str,
    *layers: Descriptor,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
) -> bytes:
    """Return an artifact manifest (image-spec 1.1, empty config) over some layers."""
    body: Document = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor.of(EMPTY_CONFIG, MEDIA_EMPTY).as_dict(),
        "layers": [layer.as_dict() for layer in layers],
    }
    if annotations:
        body["annotations"] = dict(annotations)
    if subject is not None:
        plain = Descriptor(subject.media_type, subject.digest, subject.size_bytes)
        body["subject"] = plain.as_dict()
    return canonical_json(body)


def ref_name_of(entry: Document) -> str:
    """Return the name of an entry as it stands in the index, or an empty string."""
    return str((entry.get("annotations") or {}).get(ANNOTATION_REF_NAME, ""))


def _without(entries: list[Document], name: str) -> list[Document]:
    return [entry for entry in entries if ref_name_of(entry) != name]
