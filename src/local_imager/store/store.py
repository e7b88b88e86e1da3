"""The content-addressed store: an OCI layout that also knows assets, builds and their locks.

Beside the layout's own files it holds ``work/`` (build directories) and says its format version in
the annotation ``io.local-imager.store.format`` of ``index.json``.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from local_imager.errors import InputError, NotFound, StoreError
from local_imager.events import NULL_SINK, EventSink, Progress
from local_imager.oci.blobwriter import Chunks
from local_imager.oci.durable import explained
from local_imager.oci.indexlines import ATTACHED_LINE, LINE_BEGIN, Document, EntryChange
from local_imager.oci.layout import EMPTY_CONFIG, Layout, artifact_manifest, ref_name_of
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    ANNOTATION_TITLE,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Manifest,
)
from local_imager.oci.names import fallback_tag
from local_imager.oci.seal import touch
from local_imager.store import exporting, locks, workspace
from local_imager.store.records import (
    ANNOTATION_BUILD_KEY,
    ANNOTATION_FORMAT,
    ARTIFACT_ASSET,
    ASSET_PREFIX,
    FORMAT_VERSION,
    AssetRecord,
    AttachedDocument,
    StoredAsset,
    listed_asset,
    stored_asset,
)

_PROGRESS_EVERY_S: Final = 0.1
_CLEAN_EVERY_S: Final = 600.0
# Digits of a digest or build key that are taken for one.
_MIN_PREFIX: Final = 8
# How an older program wrote an asset: its entry does not tell the file's digest, which comes first.
_WITHOUT_FILE: Final = f'"annotations": {{"{ANNOTATION_BUILD_KEY}": "'.encode()
# Lines that are surely no source image: with the type of an artifact, or attached to a digest.
_NO_IMAGE: Final = re.compile(LINE_BEGIN + rb'"artifactType": "[^"]|' + ATTACHED_LINE)


class Store:
    """The store in one directory; safe for many processes at once."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.path = layout.path
        self.work_dir = layout.path / "work"

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> Store:
        """Open the store, making it when it is not there and ``create`` is set.

        Raises :class:`StoreError` when the place is a file, cannot be written, belongs to another
        layout or to a newer program; :class:`NotFound` when it is missing and not to be made.
        """
        if os.path.exists(path) and not os.path.isdir(path):
            raise StoreError(f"{path} is a file, not a store", hint="give a directory (--store)")
        if os.path.isfile(path / "oci-layout") or not create:
            layout = Layout.open(path)
        else:
            layout = Layout.create(path, annotations={ANNOTATION_FORMAT: FORMAT_VERSION})
        _check_format(layout)
        store = cls(layout)
        with explained(f"prepare the store {path}"):
            store.work_dir.mkdir(exist_ok=True)
            layout.locks_dir.mkdir(exist_ok=True)
        store._clean_up_now_and_then()
        return store

    def _clean_up_now_and_then(self) -> None:
        """Remove what dead processes left; at most every ten minutes, for it reads directories."""
        stamp = self.layout.locks_dir / "cleaned"
        with contextlib.suppress(OSError):
            if stamp.exists() and time.time() - stamp.stat().st_mtime < _CLEAN_EVERY_S:
                return
            stamp.touch()
            self.layout.clean_staging()
            workspace.clean_workspaces(self.work_dir)

    def download(
        self,
        descriptor: Descriptor,
        chunks: Chunks,
        *,
        sink: EventSink = NULL_SINK,
        subject: str = "",
    ) -> Descriptor:
        """Bring a blob into the store unless it is there intact; resumes, checks size and digest.

        ``chunks(offset)`` streams it from a byte offset. Progress events have the step ``fetch``.
        Two processes that want one blob fetch it once.
        """
        what, last = subject or descriptor.digest.short, 0.0

        def report(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_EVERY_S or done == descriptor.size_bytes:
                last = now
                sink.emit(Progress("fetch", what, done, descriptor.size_bytes))

        return self.layout.download(descriptor, chunks, on_progress=report)

    def put_asset(
        self,
        record: AssetRecord,
        *,
        move: bool = True,
        documents: Callable[[Digest], Iterable[AttachedDocument]] | None = None,
    ) -> StoredAsset:
        """Store a finished file as an asset under its name and build key; returns what is stored.

        ``documents`` is given the file's digest and returns what is attached to the asset; all of
        it becomes visible in one step. An older asset of the same name loses the name, and can
        still be found by its build key until a collection. Raises :class:`StoreError`; then
        nothing of it is visible.
        """
        with self.layout.writing():
            layer = self.layout.put_file(
                record.path,
                record.media_type,
                move=move,
                private=record.private,
                annotations={ANNOTATION_TITLE: record.asset},
            )
            said = record.manifest_annotations()
            data = artifact_manifest(ARTIFACT_ASSET, layer, annotations=said)
            manifest = Descriptor.of(data, MEDIA_MANIFEST)
            stored = StoredAsset(
                *(record.name, record.schematic_id, record.version, record.asset),
                *(record.build_key, manifest, layer.digest, layer.size_bytes),
                *(self.layout.blob_path(layer.digest), record.private),
            )
            attached = list(documents(layer.digest)) if documents is not None else []
            artifacts = self._put_documents(stored, data, attached)
            entry, tag = stored.entry(), fallback_tag(manifest.digest)

            def edit(entries: list[Document]) -> list[Document]:
                named = name_asset(entries, entry)
                return self.layout.list_attached(named, tag, artifacts) if artifacts else named

            self.layout.update_index(EntryChange((entry.ref_name, manifest.digest.hex), edit))
        return stored

    def _put_documents(
        self, asset: StoredAsset, manifest: bytes, attached: Sequence[AttachedDocument]
    ) -> list[Descriptor]:
        """Write an asset's manifest and its documents in one go; return the documents' entries."""
        public, own, artifacts = [EMPTY_CONFIG, manifest], [], []
        for one in attached:
            layer = Descriptor.of(one.data, one.media_type)
            data = artifact_manifest(one.artifact_type, layer, subject=asset.manifest)
            own.append(one.data)
            public.append(data)
            artifacts.append(Descriptor.of(data, MEDIA_MANIFEST, artifact_type=one.artifact_type))
        self.layout.put_all(own, private=asset.private)
        self.layout.put_all(public)
        return artifacts

    def add_referrer(
        self,
        subject: StoredAsset | Descriptor,
        artifact_type: str,
        data: bytes,
        media_type: str,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Attach a document (build record, build log) to an asset or another manifest.

        What is attached to a private asset is private too.
        """
        private = isinstance(subject, StoredAsset) and subject.private
        target = subject.manifest if isinstance(subject, StoredAsset) else subject
        with self.layout.writing():
            return self.layout.attach(
                target, artifact_type, data, media_type, annotations=annotations, private=private
            )

    def read_referrers(self, asset: StoredAsset, artifact_type: str) -> tuple[bytes, ...]:
        """Return the documents of a type that are attached to an asset, oldest first."""
        documents = []
        for descriptor in self.layout.referrers(asset.manifest_digest, artifact_type):
            manifest = self.layout.read_manifest(descriptor)
            if isinstance(manifest, Manifest) and manifest.layers:
                layer = manifest.layers[0]
                documents.append(self.layout.read_blob(layer.digest, max_bytes=layer.size_bytes))
        return tuple(documents)

    def find_build(self, build_key: str) -> StoredAsset | None:
        """Return the asset with this build key if its file is there and intact, else None.

        Counts as a use of it. Quick: the file is hashed only when it may have been written to.
        """
        for entry in reversed(self.layout.index().holding(build_key)):
            if entry.annotations.get(ANNOTATION_BUILD_KEY) != build_key:
                continue
            asset = self._asset_of(entry)
            if asset is not None and self.layout.intact(asset.digest, asset.size_bytes):
                with contextlib.suppress(OSError):
                    touch(asset.path)
                return asset
        return None

    def assets(self) -> tuple[StoredAsset, ...]:
        """Return all named assets, ordered by name, as the index tells of them."""
        return self._listed(self.layout.index().holding(ARTIFACT_ASSET))

    def _listed(self, entries: Iterable[Descriptor]) -> tuple[StoredAsset, ...]:
        """Return those that are named assets; manifests are read of what older programs stored."""
        blobs = str(self.layout.blobs_dir)
        found = []
        for entry in entries:
            if not entry.ref_name or entry.artifact_type != ARTIFACT_ASSET:
                continue
            asset = listed_asset(entry, self.layout.blobs_dir)
            if asset is None:
                asset = self._asset_of(entry)
            elif not os.path.isfile(f"{blobs}/{entry.digest.hex}"):
                continue
            if asset is not None:
                found.append(asset)
        return tuple(sorted(found, key=lambda asset: asset.name))

    def images(self) -> tuple[Descriptor, ...]:
        """Return the entries of all named source images, attached signatures not counted."""
        from local_imager.oci.names import attached_to

        entries = self.layout.index().lacking(_NO_IMAGE)
        named = (e for e in entries if e.ref_name and not e.artifact_type)
        found = (e for e in named if attached_to(e.ref_name) is None)
        return tuple(sorted(found, key=lambda e: e.ref_name))

    def show(self, name: str) -> StoredAsset:
        """Return the one asset that a name means.

        Accepts the full name, ``schematic/version/asset`` with the schematic ID shortened, or the
        begin (8 digits or more) of a digest or build key. Raises :class:`InputError` when several
        fit and :class:`NotFound` when none does.
        """
        found = [asset for asset in self._candidates(name) if _is_meant(asset, name)]
        exact = [asset for asset in found if asset.name == name]
        if len(exact or found) == 1:
            meant = (exact or found)[0]
            asset = self._asset_of(meant.entry())
            if asset is None:
                raise NotFound(f"{meant.name} was removed, or its manifest is not one of an asset")
            return asset
        if found:
            names = ", ".join(asset.name for asset in found[:5])
            raise InputError(f"{name!r} fits {len(found)} assets: {names}")
        raise NotFound(f"the store has no asset {name!r}", hint="`local-imager store ls` lists all")

    def _candidates(self, name: str) -> tuple[StoredAsset, ...]:
        """Return all assets that can be meant, and some that cannot."""
        index, parts = self.layout.index(), name.split("/")
        if len(parts) > 1:
            text = ASSET_PREFIX + parts[0] if len(parts) == 3 else name
            return self._listed(index.holding(text))
        prefix = name.removeprefix("sha256:")
        if len(prefix) < _MIN_PREFIX:
            return ()
        if index.contains(_WITHOUT_FILE):
            return self.assets()
        digest, key = ("digest", f"sha256:{prefix}"), (ANNOTATION_BUILD_KEY, prefix)
        return self._listed(index.beginning(digest, key))

    def remove(self, name: str) -> bool:
        """Take a name (asset or image) out of the store; its blobs go at the next collection."""
        return self.layout.remove_ref(name)

    def _asset_of(self, entry: Descriptor) -> StoredAsset | None:
        if entry.artifact_type != ARTIFACT_ASSET or not self.layout.has(entry.digest):
            return None
        manifest = self.layout.read_manifest(entry)
        if not isinstance(manifest, Manifest) or not manifest.layers:
            return None
        return stored_asset(entry, manifest, self.layout.blob_path(manifest.layers[0].digest))

    def export(
        self, asset: StoredAsset, dest: Path, *, hard_link: bool = True, overwrite: bool = False
    ) -> exporting.Exported:
        """Export an asset to a file, with its checksum beside; see :mod:`.exporting`."""
        return exporting.export_file(asset, dest, hard_link=hard_link, overwrite=overwrite)

    def build_lock(
        self, build_key: str, *, sink: EventSink = NULL_SINK, what: str = ""
    ) -> contextlib.AbstractContextManager[bool]:
        """Hold the lock of one build key over all processes; yields whether it was waited for."""
        return locks.build_lock(self.layout.locks_dir, build_key, sink, what)

    def build_slot(
        self, limit: int, *, sink: EventSink = NULL_SINK
    ) -> contextlib.AbstractContextManager[int]:
        """Hold one of ``limit`` build slots over all processes that use this store."""
        return locks.build_slot(self.layout.locks_dir, limit, sink)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield an empty directory in the store's file system, removed at the end.

        What killed builds left goes first: a raw disk of theirs may be what fills the disk.
        """
        workspace.clean_workspaces(self.work_dir)
        with workspace.workspace(self.work_dir) as path:
            yield path


def _check_format(layout: Layout) -> None:
    """Refuse what this program would misread; format 1 is the first, so none is migrated."""
    annotations = layout.index().head.get("annotations") or {}
    found = annotations.get(ANNOTATION_FORMAT) if isinstance(annotations, dict) else None
    if found is None:
        raise StoreError(
            f"{layout.path} is an OCI layout, but not a store of this program",
            hint="choose another directory for the store (--store); a layout can be a source",
            code="store-format",
        )
    if found != FORMAT_VERSION:
        raise StoreError(
            f"{layout.path} has the store format {str(found)[:20]!r}, "
            f"this program knows {FORMAT_VERSION!r}",
            hint="it was made by a newer local-imager: use that one, or another directory",
            code="store-format",
        )


def name_asset(entries: list[Document], entry: Descriptor) -> list[Document]:
    """Enter an asset; another build that had its name stays, unnamed, under its build key."""
    kept: list[Document] = []
    for other in entries:
        if other.get("digest") == str(entry.digest):
            continue
        if ref_name_of(other) == entry.ref_name:
            said = {k: v for k, v in other["annotations"].items() if k != ANNOTATION_REF_NAME}
            other = {**other, "annotations": said}
        kept.append(other)
    return [*kept, entry.as_dict()]


def _is_meant(asset: StoredAsset, name: str) -> bool:
    if name == asset.name:
        return True
    parts = name.split("/")
    if len(parts) == 3:
        schematic, version, file = parts
        return asset.schematic_id.startswith(schematic) and (version, file) == (
            asset.version,
            asset.asset,
        )
    prefix = name.removeprefix("sha256:")
    keys: Iterable[str] = (asset.digest.hex, asset.manifest_digest.hex, asset.build_key)
    return len(prefix) >= _MIN_PREFIX and any(key.startswith(prefix) for key in keys)
