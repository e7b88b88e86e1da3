"""A bundle's documents while it is judged: a layout to read from, with nothing unpacked.

Documents (manifests, configs, signatures) go to one unnamed file, so that a bundle which is
refused leaves nothing behind, not even in the store. Together with what the store has already they
make the layout that the gate reads; of the store only blobs that the bundle names are shown.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.form.model import Blob, Bundle
from local_imager.deliver.bundle.form.tarform import LAYOUT_MARKER, LAYOUT_NAME
from local_imager.errors import HostError, IntegrityError, NotFound, SourceError
from local_imager.oci.blobs import BlobDir
from local_imager.oci.durable import explained
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.layoutfiles import DirectoryFiles
from local_imager.oci.model import Descriptor, Digest, Index, Reference
from local_imager.oci.names import fallback_tag
from local_imager.sources.fetch import RESERVE_BYTES

_CHUNK_BYTES: Final = 1 << 20


class Spool:
    """Documents in one file that has no name and goes with the process."""

    def __init__(self, folder: Path | None) -> None:
        """Open the file in this folder, else where temporary files lie; raises StoreError."""
        with explained("make room for the bundle's documents"):
            if folder is not None:
                folder.mkdir(exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._places: dict[Digest, tuple[int, int]] = {}
        self._end = 0

    def close(self) -> None:
        """Forget everything."""
        self._file.close()

    def check_room(self, documents: Iterable[Blob]) -> None:
        """See that these fit beside what is here; raises :class:`HostError` (disk-full)."""
        needed = sum(one.size_bytes for one in documents if one.digest not in self._places)
        free = shutil.disk_usage(self._folder).free
        if needed and needed + RESERVE_BYTES > free:
            raise HostError(
                f"the documents of the bundle need {needed // 1024**2 + 1} MiB while they are "
                f"judged, and {free // 1024**2} MiB are free in {self._folder}",
                hint="free some space there; nothing of the bundle was written",
                code="disk-full",
            )

    def size(self, digest: Digest) -> int | None:
        """Return a document's size, None when it is not here."""
        place = self._places.get(digest)
        return place[1] if place else None

    def chunks(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes of a document, at most ``length``; raises :class:`NotFound`."""
        if digest not in self._places:
            raise NotFound(f"the bundle's documents do not hold {digest}")
        begin, size_bytes = self._places[digest]
        end = begin + min(size_bytes, offset + length)
        position = begin + offset
        while position < end:
            with explained("read a document of the bundle"):
                chunk = os.pread(self._file.fileno(), min(_CHUNK_BYTES, end - position), position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk

    def sink(self, blob: Blob) -> SpooledDocument:
        """Take a document; it counts when it was intact."""
        return SpooledDocument(blob, self._append, self._keep)

    def _append(self, data: bytes | memoryview, offset: int) -> None:
        with explained("write a document of the bundle"):
            view, position = memoryview(data), self._end + offset
            while view:
                count = os.pwrite(self._file.fileno(), view, position)
                view, position = view[count:], position + count

    def _keep(self, digest: Digest, size_bytes: int) -> None:
        self._places[digest] = (self._end, size_bytes)
        self._end += size_bytes


class SpooledDocument:
    """The sink of one document; the next one overwrites it unless it was intact."""

    def __init__(
        self,
        blob: Blob,
        append: Callable[[bytes | memoryview, int], None],
        keep: Callable[[Digest, int], None],
    ) -> None:
        self._blob, self._append, self._keep = blob, append, keep
        self._taken = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._append(data, self._taken)
        self._taken += len(data)

    def close(self, intact: bool) -> None:
        """Let the document count when all of it came."""
        if intact and self._taken == self._blob.size_bytes:
            self._keep(self._blob.digest, self._taken)


class BundleSource(LayoutSource):
    """The images of a bundle; every name in its index is a full one, so each is found at once."""

    @cached_property
    def _by_name(self) -> Mapping[str, Descriptor]:
        return {entry.ref_name: entry for entry in self.entries}

    def resolve(self, reference: Reference) -> Descriptor:
        """Return the entry of a name, or a manifest by digest; raises :class:`NotFound`."""
        if reference.digest is not None:
            return super().resolve(reference)
        entry = self._by_name.get(f"{reference.name}:{reference.tag}")
        if entry is None:
            raise NotFound(f"{self.location} has no image {reference}")
        return entry

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what the bundle lists as attached: in the image's repository, else in none."""
        tag = fallback_tag(digest)
        listed = self._by_name.get(f"{reference.name}:{tag}") or self._by_name.get(tag)
        if listed is None:
            return ()
        index = self._parse(listed.digest)
        return index.manifests if isinstance(index, Index) else ()


class StagedFiles:
    """The files of a layout (:class:`~local_imager.oci.layoutfiles.LayoutFiles`) of a bundle.

    ``blobs`` is where the store's blobs lie, None for no store. Bytes from there are checked by
    whoever reads them, as with any layout.
    """

    def __init__(
        self, location: str, bundle: Bundle, index: bytes, spool: Spool, blobs: BlobDir | None
    ) -> None:
        self._location, self._bundle, self._index = location, bundle, index
        self._spool = spool
        self._held = DirectoryFiles(blobs.path) if blobs is not None else None

    @property
    def location(self) -> str:
        """The bundle, for messages."""
        return self._location

    def small(self, name: str, max_bytes: int) -> bytes:
        """Return ``oci-layout`` or ``index.json``."""
        data = LAYOUT_MARKER if name == LAYOUT_NAME else self._index
        return data[: max_bytes + 1]

    def size(self, digest: Digest) -> int | None:
        """Return a blob's size when the bundle names it and it is here."""
        size_bytes = self._spool.size(digest)
        if size_bytes is None and self._held is not None and digest in self._bundle.by_digest:
            size_bytes = self._held.size(digest)
        return size_bytes

    def chunks(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes of a blob; raises :class:`SourceError`."""
        if self._spool.size(digest) is not None:
            return self._spool.chunks(digest, offset, length)
        if self._held is None or digest not in self._bundle.by_digest:
            raise NotFound(f"{self._location} has no blob {digest}")
        return self._held.chunks(digest, offset, length)

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """Yield the blobs of the bundle that are here."""
        for digest in self._bundle.by_digest:
            size_bytes = self.size(digest)
            if size_bytes is not None:
                yield digest, size_bytes

    def read(self, digest: Digest, max_bytes: int) -> bytes:
        """Return a small blob's bytes, checked; raises :class:`SourceError`."""
        size_bytes = self.size(digest)
        if size_bytes is None:
            raise NotFound(f"{self._location} has no blob {digest}")
        if size_bytes > max_bytes:
            raise SourceError(f"blob {digest} is larger than {max_bytes} bytes", code="malformed")
        data = b"".join(self.chunks(digest, 0, max_bytes))
        if Digest.of(data) != digest:
            raise IntegrityError(f"blob {digest} does not have the bytes of its digest")
        return data
