"""Reading the parts of one set and keeping the little that plans are read from.

Segments of large blobs are hashed a second time, on their way past, as the blobs that they are to
give: each part is right by itself long before the far side puts them together. What is kept goes
with the check, so nothing waits for the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from local_imager.deliver.bundle.form.model import Blob, Bundle, Item, PartLabel, Piece
from local_imager.deliver.bundle.form.signing import SignedBy
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.deliver.bundle.reading.reception import PieceSink
from local_imager.errors import HostError, InputError
from local_imager.oci.durable import explained
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.sources.fetch import RESERVE_BYTES

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(slots=True)
class _Whole:
    """A blob that comes in segments, hashed as far as they came in order."""

    size_bytes: int
    hasher: _Hash = field(default_factory=hashlib.sha256)
    reached: int = 0

    def follows(self, piece: Piece) -> bool:
        """Whether these bytes go on where the ones before ended."""
        return piece.offset == self.reached


class Keeper:
    """Receives every part of one set (a :class:`Reception`).

    ``wants`` picks the images that are kept besides documents; ``judge`` is asked about the
    manifest once and may refuse it. What is kept lies in ``layout``, which nobody else uses.
    ``name`` is the file that is being read, for messages.
    """

    def __init__(
        self,
        layout: Layout,
        wants: Callable[[Bundle], Iterable[Item]],
        judge: Callable[[bytes], SignedBy | None],
    ) -> None:
        self._layout, self._wants, self._judge = layout, wants, judge
        self._whole: dict[Digest, _Whole] = {}
        self.name = ""
        self.bundle: Bundle | None = None
        self.set_digest: Digest | None = None
        self.signed_by: SignedBy | None = None
        self.index_bytes: bytes | None = None
        self.kept: frozenset[Digest] = frozenset()
        self.given: set[int] = set()

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        """Ask who vouches for it; raises :class:`InputError` for a part of another set."""
        if self.set_digest not in (None, label.set_digest):
            raise InputError(
                f"{self.name} belongs to another bundle than the files before it",
                hint="check one bundle at a time: all parts of it, and nothing else",
                code="another-bundle",
                source=self.name,
            )
        self.given.add(label.number)
        if self.bundle is not None:
            return
        self.signed_by = self._judge(manifest)
        self.bundle, self.set_digest = bundle, label.set_digest
        self.kept = frozenset(_kept(bundle, self._wants(bundle)))
        self._check_room(bundle)
        for part in bundle.parts:
            for piece in part:
                if not piece.whole:
                    size_bytes = bundle.by_digest[piece.blob].size_bytes
                    self._whole.setdefault(piece.blob, _Whole(size_bytes))

    def _check_room(self, bundle: Bundle) -> None:
        needed = sum(bundle.by_digest[digest].size_bytes for digest in self.kept)
        free = shutil.disk_usage(self._layout.path).free
        if needed + RESERVE_BYTES > free:
            raise HostError(
                f"the check needs {needed // 1024**2 + 1} MiB for documents and catalogues, "
                f"and {free // 1024**2} MiB are free in {tempfile.gettempdir()}",
                hint="free some space there, or name another folder in TMPDIR",
                code="disk-full",
            )

    def index(self, data: bytes) -> None:
        """Keep the index."""
        self.index_bytes = data

    def piece(self, blob: Blob, piece: Piece) -> PieceSink | None:
        """Keep what plans are read from; look at segments as parts of their blob."""
        wanted = blob.digest in self.kept and not self._layout.has(blob.digest)
        if piece.whole:
            return _KeptPiece(self._draft(blob.digest), self._named) if wanted else None
        whole = self._whole[blob.digest]
        if not whole.follows(piece):
            return None
        draft = self._draft(blob.digest) if wanted else None
        return _Segment(whole, _KeptPiece(draft, None, piece.offset) if draft else None)

    def _draft(self, digest: Digest) -> Path:
        """Where a blob is written before all of it is there."""
        self._layout.staging_dir.mkdir(exist_ok=True)
        return self._layout.staging_dir / digest.hex

    def _named(self, draft: Path) -> None:
        draft.rename(self._layout.blob_path(Digest(draft.name)))

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        """Nothing hangs on it here."""

    def join(self, here: Callable[[Digest], bool]) -> Iterator[Fault]:
        """Put kept blobs together; yield the blobs that their segments do not give.

        ``here`` says of a blob whether all its segments came intact.
        """
        if self.bundle is None:
            return
        for digest, whole in self._whole.items():
            if not here(digest):
                continue
            if whole.reached == whole.size_bytes and whole.hasher.hexdigest() == digest.hex:
                if digest in self.kept and not self._layout.has(digest):
                    self._named(self._draft(digest))
                continue
            if whole.reached < whole.size_bytes:
                raise InputError(
                    "the parts did not come in their order, so blobs that are cut could not be "
                    "proven whole",
                    hint="give the parts as files, or in the order of their numbers",
                )
            affects = tuple(item.name for item in self.bundle.items_with(digest))
            text = f"the segments are what the manifest says and do not give {digest}"
            yield Fault("manifest", f"segments/sha256/{digest.hex}", text, affects)


class _KeptPiece:
    """Writes a piece into its blob's draft; ``complete`` is told of a blob that is all there."""

    def __init__(
        self, draft: Path, complete: Callable[[Path], None] | None, offset: int = 0
    ) -> None:
        self._draft, self._complete, self._at = draft, complete, offset
        with explained(f"write {draft}"):
            self._handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes."""
        view = memoryview(data)
        with explained(f"write {self._draft}"):
            while view:
                count = os.pwrite(self._handle, view, self._at)
                view, self._at = view[count:], self._at + count

    def close(self, intact: bool) -> None:
        """End it."""
        os.close(self._handle)
        if intact and self._complete is not None:
            self._complete(self._draft)


class _Segment:
    """Hashes a segment as the next bytes of its blob, and hands it on where it is kept."""

    def __init__(self, whole: _Whole, kept: _KeptPiece | None) -> None:
        self._whole, self._kept, self._taken = whole, kept, 0
        self._before = whole.hasher.copy()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._whole.hasher.update(data)
        self._taken += len(data)
        if self._kept is not None:
            self._kept.write(data)

    def close(self, intact: bool) -> None:
        """Count them; a damaged segment leaves no trace, for another copy of it may come."""
        if intact:
            self._whole.reached += self._taken
        else:
            self._whole.hasher = self._before
        if self._kept is not None:
            self._kept.close(intact)


def _kept(bundle: Bundle, images: Iterable[Item]) -> Iterator[Digest]:
    for blob in bundle.blobs:
        if blob.document:
            yield blob.digest
    for item in (*(item for item in bundle.items if item.kind == "document"), *images):
        yield from item.blobs
