"""Taking one bundle (or the parts of one set) into a store, up to the point where it has names.

Order: the signature over the manifest; the documents, kept apart; every item judged; room on the
disk; a hold, so that what comes now survives collections; then the layers of accepted items that
the store lacks, all others are only hashed. ``far.completing`` goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.bundle.far.judging import Judge, Judgement, QuietMemory
from local_imager.deliver.bundle.far.naming import has_asset, has_image
from local_imager.deliver.bundle.far.staged import Spool, StagedFiles
from local_imager.deliver.bundle.far.stager import Stager
from local_imager.deliver.bundle.far.stock import Stock
from local_imager.deliver.bundle.form.model import Blob, Bundle, Item, PartLabel, Piece
from local_imager.deliver.bundle.form.signing import SignedBy, check_signature, unvouched
from local_imager.deliver.bundle.reading.reception import PieceSink
from local_imager.errors import HostError, SourceError
from local_imager.events import EventSink
from local_imager.oci.model import Descriptor, Digest
from local_imager.sources.fetch import RESERVE_BYTES
from local_imager.sources.trust import TrustPolicy
from local_imager.store.incoming import MEDIA_HELD, held_note, hold
from local_imager.store.store import Store

UNSIGNED: Final = "nobody (--allow-unsigned-assets)"
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a person wants bundles to be taken in.

    ``partial``: name what no fault touches. ``unsigned_assets``: assets and documents count though
    nobody vouches for them. ``documents``: somebody wants the documents as files. ``dry_run``:
    only tell.
    """

    policy: TrustPolicy
    partial: bool = False
    unsigned_assets: bool = False
    documents: bool = False
    dry_run: bool = False


class NothingToTake(Exception):
    """All that a part carries is in the store: the rest of the file need not be read."""


def key_of(item: Item) -> Key:
    """Return what tells the items of a bundle apart."""
    return item.kind, item.name


class SetIntake:
    """What is known of one bundle over all files that came of it.

    ``store`` is None for a dry run without one. ``judged`` holds what was found of each item,
    ``present`` those that the store has already under their names.
    """

    def __init__(
        self, bundle: Bundle, digest: Digest, store: Store | None, wishes: Wishes, sink: EventSink
    ) -> None:
        self.bundle, self.digest, self.store = bundle, digest, store
        self.wishes, self.sink = wishes, sink
        self.stock = Stock(bundle, store.layout if store is not None else None)
        self.signed_by: SignedBy | None = None
        self._signature = b""
        self.judge: Judge | None = None
        self.judged: dict[Key, Judgement] = {}
        self.present: set[Key] = set()
        self.private: set[Digest] = set()
        self._wanted: dict[Digest, Blob] = {}
        self.spool = Spool(None if store is None or wishes.dry_run else store.layout.staging_dir)

    def check_signature(self, manifest: bytes, untrusted_signature: bytes | None) -> None:
        """Ask the policy about the bundle's signature; raises :class:`VerificationRefused`.

        For a part that came without one, the signature that came with another part is asked.
        """
        if untrusted_signature is None and self.store is not None:
            untrusted_signature = held_note(self.store.layout, self.digest)
        self.signed_by = check_signature(
            manifest, untrusted_signature, self.wishes.policy, self.sink
        )
        if self.signed_by is not None and untrusted_signature is not None:
            self._signature = untrusted_signature

    @property
    def unvouched(self) -> str:
        """Why nobody vouches for assets and documents; empty when somebody does."""
        return "" if self.signed_by is not None else unvouched(self.wishes.policy)

    @property
    def _voucher(self) -> tuple[str, str] | None:
        if self.signed_by is not None:
            return self.signed_by.signer, self.signed_by.rule
        return (UNSIGNED, "") if self.wishes.unsigned_assets else None

    def open_documents(self, location: str, index: bytes) -> None:
        """Take the index, so that the documents can be read as a layout.

        Raises :class:`SourceError` when it is none.
        """
        if self.judge is not None:
            return
        layout = self.store.layout if self.store is not None else None
        self.judge = Judge(
            self.bundle,
            StagedFiles(location, self.bundle, index, self.spool, layout),
            self.wishes.policy,
            self._voucher,
            self.unvouched,
            QuietMemory(layout.path, layout.locks_dir) if layout is not None else None,
            self.sink,
        )

    def judge_items(self) -> None:
        """Judge every item whose documents could not be read before, and note what is wanted."""
        for item in self.bundle.items:
            known = self.judged.get(key_of(item))
            if known is None or known.verdict == "unreadable":
                self._judge(item)
        for judged in self.pending():
            for digest in judged.needs:
                self._want(digest)

    def _judge(self, item: Item) -> None:
        if self.judge is None:
            judged = Judgement(item, "unreadable", "document", "the bundle's index is damaged")
        else:
            judged = self.judge.judge(item)
        self.judged[key_of(item)] = judged
        if judged.verdict == "accepted":
            self.private |= judged.private
            if self._is_present(judged):
                self.present.add(key_of(item))

    def _is_present(self, judged: Judgement) -> bool:
        if judged.item.kind == "document":  # has no name in a store
            return not (self.wishes.documents and judged.needs)
        if self.store is None or self.judge is None:
            return False
        try:
            if judged.item.kind == "image":
                return has_image(judged, self.judge.source, self.store.layout)
            return has_asset(judged, self.store.layout)
        except SourceError:
            return False

    def _want(self, digest: Digest) -> None:
        blob = self.bundle.by_digest[digest]
        self._wanted[digest] = blob
        if blob.rebuild is not None:
            payload = self.bundle.by_digest[blob.rebuild.payload]
            self._wanted[payload.digest] = payload
            if digest in self.private:
                self.private.add(payload.digest)

    def pending(self) -> Iterator[Judgement]:
        """Yield what is accepted and not in the store under its name."""
        for key, judged in self.judged.items():
            if judged.verdict == "accepted" and key not in self.present:
                yield judged

    def lacks(self, piece: Piece) -> bool:
        """Return whether a piece is wanted and not there."""
        return piece.blob in self._wanted and not self.stock.has_piece(piece)

    def make_room(self, numbers: Iterable[int]) -> None:
        """Hold what is wanted; raises :class:`HostError` when these parts do not fit.

        The hold names bases of what is rebuilt too, so that they stay until that is done.
        """
        if self.store is None:
            return
        layout = self.store.layout
        needed = self.stock.room_bytes(self._wanted.values(), numbers)
        free = shutil.disk_usage(layout.path).free
        if needed and needed + RESERVE_BYTES > free:
            raise HostError(
                f"the bundle needs {needed // 1024**2 + 1} MiB more in the store, "
                f"and {free // 1024**2} MiB are free at {layout.path}",
                hint="free some space, run `local-imager store gc`, or choose another --store; "
                "no layer of it was written",
                code="disk-full",
            )
        held = [_held(blob) for blob in self._wanted.values()]
        for blob in self._wanted.values():
            base = blob.rebuild.base if blob.rebuild is not None else None
            if base is not None and layout.has(base):
                held.append(Descriptor(MEDIA_HELD, base, layout.blob_path(base).stat().st_size))
        if held:
            hold(layout, self.digest, held, note=self._signature)


OpenSet = Callable[[Bundle, bytes, str], SetIntake]


def _held(blob: Blob) -> Descriptor:
    return Descriptor(MEDIA_HELD, blob.digest, blob.size_bytes)


class PartIntake:
    """The :class:`~.reception.Reception` of one file; which set it is of shows in its manifest."""

    def __init__(
        self, name: str, open_set: OpenSet, stager: Stager | None, files_left: int = 1
    ) -> None:
        self._name, self._open_set, self._stager = name, open_set, stager
        self._files_left = files_left
        self.intake: SetIntake | None = None
        self.label: PartLabel | None = None
        self.left_early = False

    @property
    def _set(self) -> SetIntake:
        assert self.intake is not None  # noqa: S101 - the reader calls opened() first
        return self.intake

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        """Find the set, have its signature judged, and see that its documents have room."""
        self.label = label
        self.intake = self._open_set(bundle, manifest, self._name)
        self.intake.spool.check_room(bundle.documents())

    def index(self, data: bytes) -> None:
        """Take the index of the layout."""
        self._set.open_documents(self._name, data)

    def piece(self, blob: Blob, piece: Piece) -> PieceSink | None:
        """Keep documents apart; take what is wanted of the layers."""
        intake = self._set
        if blob.document:
            return intake.spool.sink(blob) if intake.spool.size(blob.digest) is None else None
        if self._stager is None or not intake.lacks(piece):
            return None
        if piece.whole:
            return self._stager.blob(blob, private=blob.digest in intake.private)
        return self._stager.segment(piece)

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        """Judge every item; raises :class:`NothingToTake` when no layer of this file is wanted."""
        intake, label = self._set, self.label
        intake.judge_items()
        if intake.wishes.dry_run or label is None:
            return
        if not faulty and not any(map(intake.lacks, intake.bundle.parts[label.number - 1])):
            self.left_early = True
            raise NothingToTake
        # With as many files as there are parts all of them are on their way.
        every = self._files_left >= label.count
        intake.make_room(range(1, label.count + 1) if every else (label.number,))
