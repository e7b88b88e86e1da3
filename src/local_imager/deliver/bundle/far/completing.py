"""Naming what arrived: items one by one, each only when every byte of it is in the store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.deliver.bundle.far.intake import SetIntake, key_of
from local_imager.deliver.bundle.far.judging import Judgement
from local_imager.deliver.bundle.far.naming import name_image, name_stored_asset
from local_imager.deliver.bundle.far.segments import drop_segments
from local_imager.deliver.bundle.far.stager import Stager
from local_imager.deliver.bundle.form.model import Item
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.errors import InputError, SourceError, VerificationRefused
from local_imager.events import Message, printable, step
from local_imager.oci.model import INDEX_TYPES, Digest
from local_imager.oci.names import attached_to
from local_imager.sources.memory import LogMemory
from local_imager.store.incoming import release
from local_imager.store.records import ASSET_PREFIX
from local_imager.store.store import Store

State = Literal[
    "imported",  # became visible now
    "present",  # was in the store already
    "ready",  # would be imported, were this no dry run
    "carried",  # a document that is in the bundle, for --documents
    "refused",  # the policy does not accept it, or it is not what it says
    "waiting",  # for other parts of the set
    "lacking",  # needs a blob that neither the bundle brings nor the store has
    "faulty",  # a fault of the files touches it
    "kept-back",  # nothing is wrong with it, but there are faults elsewhere
]
# An import is not over while an item is in one of these.
OPEN_STATES: Final[Collection[State]] = frozenset({"waiting", "lacking", "faulty", "kept-back"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item, and why.

    ``parts`` are the numbers of the parts that it waits for. ``replaces`` is the digest that the
    name stood for in the store before, empty when it was new or stands for the same.
    """

    item: Item
    size_bytes: int
    state: State
    code: str = ""
    message: str = ""
    hint: str = ""
    tried: tuple[str, ...] = ()
    signer: str = ""
    policy: str = ""
    unverified: bool = False
    parts: tuple[int, ...] = ()
    replaces: str = ""


def complete(intake: SetIntake, faults: Sequence[Fault]) -> tuple[Outcome, ...]:
    """Name every item that may be and is all there; return what became of each, in their order.

    With faults nothing is named, unless partial imports were asked for: then what no fault
    touches. When nothing is open any more the hold of the set goes. Raises :class:`StoreError`.
    """
    touched = {name for fault in faults for name in fault.affects}
    completer = _Completer(intake, bool(faults) and not intake.wishes.partial, touched)
    completer.stage_documents()
    outcomes = tuple(completer.outcome(item) for item in intake.bundle.items)
    if intake.store is not None and not intake.wishes.dry_run:
        if not any(outcome.state in OPEN_STATES for outcome in outcomes):
            pieces = [piece for part in intake.bundle.parts for piece in part if not piece.whole]
            drop_segments(intake.store.layout, pieces)
            release(intake.store.layout, intake.digest)
    return outcomes


class _Completer:
    def __init__(self, intake: SetIntake, kept_back: bool, touched: Collection[str]) -> None:
        self._intake, self._kept_back, self._touched = intake, kept_back, touched

    def stage_documents(self) -> None:
        """Bring the documents of all that gets its name to the disk together.

        One by one, as they are needed, each would wait for the disk.
        """
        intake = self._intake
        if intake.store is None or intake.wishes.dry_run or self._kept_back:
            return
        layout, spool, staged = intake.store.layout, intake.spool, set(self._lists())
        with Stager(layout) as stager:
            for judged in intake.pending():
                if judged.item.kind == "document" or self._missing(judged) is not None:
                    continue
                for blob in map(intake.bundle.by_digest.__getitem__, judged.item.blobs):
                    if blob.digest in staged or spool.size(blob.digest) is None:
                        continue
                    staged.add(blob.digest)
                    if not layout.intact(blob.digest, blob.size_bytes):
                        sink = stager.blob(blob, private=blob.digest in intake.private)
                        for chunk in spool.chunks(blob.digest, 0, blob.size_bytes):
                            sink.write(chunk)
                        sink.close(True)  # the reader checked it before it came into the spool
        stager.settled()

    def _lists(self) -> Iterator[Digest]:
        """Yield the bundle's lists of what is attached, which a store writes anew."""
        judge = self._intake.judge
        for entry in judge.source.entries if judge is not None else ():
            if attached_to(entry.ref_name) is not None and entry.media_type in INDEX_TYPES:
                yield entry.digest

    def outcome(self, item: Item) -> Outcome:
        judged = self._intake.judged.get(key_of(item))
        if judged is None:  # the file ended before its documents did
            judged = Judgement(item, "unreadable", "document", "its documents did not come")
        if judged.verdict == "refused":
            unasked = item.kind == "document" and not self._intake.wishes.documents
            return self._told(judged, "carried" if unasked else "refused")
        if judged.verdict == "unreadable":
            return self._told(judged, "faulty")
        if key_of(item) in self._intake.present and item.kind != "document":
            return self._told(judged, "present")
        if item.name in self._touched:
            return self._told(judged, "faulty", message="a fault of the files touches it")
        if self._kept_back:
            return self._told(judged, "kept-back", message="the files have faults elsewhere")
        return self._missing(judged) or self._named(judged)

    def _told(self, judged: Judgement, state: State, **more: object) -> Outcome:
        blobs = self._intake.bundle.by_digest
        found: dict[str, object] = {
            "code": judged.code,
            "message": judged.message,
            "hint": judged.hint,
            "tried": judged.tried,
            "signer": judged.signer,
            "policy": judged.policy,
            "unverified": judged.unverified,
        }
        size = sum(blobs[digest].size_bytes for digest in judged.item.blobs)
        return Outcome(judged.item, size, state, **{**found, **more})  # type: ignore[arg-type]

    def _missing(self, judged: Judgement) -> Outcome | None:
        """Say what is missing of an item; None when nothing is."""
        stock = self._intake.stock
        missing = [digest for digest in sorted(judged.needs) if not stock.can_have(digest)]
        parts: set[int] = set()
        for digest in missing:
            parts.update(stock.awaited_parts(digest))
            absent = stock.unobtainable(digest)
            if absent is not None:
                return self._told(judged, "lacking", code="lacking", **_lacking(absent))
        if not missing:
            return None
        return self._told(judged, "waiting", parts=tuple(sorted(parts)))

    def _named(self, judged: Judgement) -> Outcome:
        intake, item = self._intake, judged.item
        if intake.wishes.dry_run or intake.store is None:
            if item.kind == "document":
                return self._told(judged, "carried")
            return self._told(judged, "ready", replaces=self._replaced(item))
        try:
            if item.kind == "document":
                self._make(judged, intake.store)
                return self._told(judged, "carried")
            with step(intake.sink, "name", item.name.removeprefix(ASSET_PREFIX)):
                self._make(judged, intake.store)
                return self._name(judged, intake.store)
        except VerificationRefused as error:  # between judging and naming another image came
            return self._told(
                judged,
                "refused",
                code=error.code,
                message=printable(error.message),
                hint=printable(error.hint),
                tried=error.tried,
            )
        except (SourceError, InputError) as error:
            return self._told(
                judged,
                "faulty",
                code=error.code,
                message=printable(error.message),
                hint=printable(error.hint),
            )

    def _make(self, judged: Judgement, store: Store) -> None:
        intake = self._intake
        for digest in sorted(judged.needs):
            blob = intake.bundle.by_digest[digest]
            intake.stock.make(blob, store.layout, intake.sink, private=digest in intake.private)

    def _replaced(self, item: Item) -> str:
        """Return what the item's name stands for now, empty when for nothing or for the same."""
        store = self._intake.store
        held = store.layout.resolve(item.name) if store is not None else None
        if held is None or held.digest == item.descriptor.digest:
            return ""
        return str(held.digest)

    def _name(self, judged: Judgement, store: Store) -> Outcome:
        """Name it; a name that moves is told, though the policy accepted what it moves to."""
        intake, replaces = self._intake, self._replaced(judged.item)
        outcome = self._named_anew(judged, store, replaces)
        if replaces:
            name = printable(judged.item.name, limit=300)
            digest = judged.item.descriptor.digest
            text = f"{name} is {digest} now; it was {replaces} before"
            intake.sink.emit(Message(text, "warning"))
        return outcome

    def _named_anew(self, judged: Judgement, store: Store, replaces: str) -> Outcome:
        intake = self._intake
        assert intake.judge is not None  # noqa: S101 - it made the judgement
        if judged.item.kind == "asset":
            name_stored_asset(judged, intake.judge.files, store)
            return self._told(judged, "imported", replaces=replaces)
        image = name_image(
            judged,
            intake.judge.source,
            intake.judge.files,
            store,
            intake.wishes.policy,
            LogMemory(store.path, store.layout.locks_dir),
            intake.sink,
        )
        return self._told(
            judged, "imported", signer=image.signer, policy=image.policy, replaces=replaces
        )


def _lacking(absent: Digest) -> dict[str, str]:
    return {
        "message": f"the bundle does not carry {absent}, and the store does not have it",
        "hint": "the bundle leans on another store's inventory, or a collection took it since: "
        "make a new inventory here (`local-imager store inventory`) and a new bundle with it",
    }
