"""One walk down a file: recognises, hashes and opens each part, within limits, each byte once.

The modules for families of formats (``disks``, ``boots``, ``images``, ``volumes``) get the walk
and give back what they found as an :class:`Inside`; ``tree`` says which of them opens what.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from local_imager.deliver.inspect.limits import Digests, Limits, OutOfBudget, Spent, charging
from local_imager.deliver.inspect.parts import Fact, Part, PartKind
from local_imager.deliver.inspect.recognise import program_facts, recognise, text_of
from local_imager.events import EventSink, Progress, StepFinished, StepStarted
from local_imager.formats.source import FormatError, Source, Spill, sha256_of, sparse_sha256_of

# Larger parts are hashed beside the walk, and only when all digests are asked for: these are disks
# and partitions of zeros, whose digest takes longer than all else together.
LARGE_BYTES: Final = 192 << 20
_HASHERS: Final = 2
# Streams that unpack to more than this show their progress.
_SHOWN_BYTES: Final = 256 << 20
_NO_FACTS: Final[Mapping[str, Fact]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Inside:
    """What a reader found in some bytes; ``kind`` replaces the recognised one when it is set."""

    facts: Mapping[str, Fact] = field(default_factory=lambda: _NO_FACTS)
    children: tuple[Part, ...] = ()
    text: str | None = None
    unread: str = ""
    kind: PartKind | None = None


class Shared:
    """A source that one thread hashes while another reads from it, one at a time."""

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, threading.Lock()
        self.size_bytes = source.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        with self._lock:
            return self._source.read(offset, length)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        runs = self._source.data_runs(offset, length)
        while True:
            with self._lock:
                run = next(runs, None)
            if run is None:
                return
            yield run


Opener = Callable[["Walk", Source], Inside]


class Walk:
    """The state of one inspection. Use as a context manager: it ends what hashes beside it."""

    def __init__(
        self,
        openers: Mapping[PartKind, Opener],
        limits: Limits,
        sink: EventSink,
        *,
        subject: str = "",
        digests: Digests = "all",
    ) -> None:
        self.digests = digests
        self._openers = openers
        self._spent = Spent(limits)
        self._sink = sink
        self._subject = subject
        self._depth = 0
        self._known: dict[tuple[str, bool], tuple[PartKind, Inside, int]] = {}
        self._pool = ThreadPoolExecutor(_HASHERS, thread_name_prefix="inspect-hash")

    @property
    def limits(self) -> Limits:
        """The ceilings of this inspection."""
        return self._spent.limits

    @property
    def reader_bytes(self) -> int:
        """What a reader may unpack by itself: more than the walk's own limit, which is to tell."""
        return self._spent.limits.stream_bytes + (64 << 20)

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def part(
        self,
        source: Source,
        name: str,
        *,
        place: PartKind | None = None,
        facts: Mapping[str, Fact] = _NO_FACTS,
        offset: int | None = None,
        look: bool = True,
        plain: PartKind = "data",
    ) -> Part:
        """Return the part that these bytes are, with everything inside.

        ``place`` is the kind of a part that is a place (a partition, a section): what lies in it
        is then told by the fact ``content``, and lends it its facts and children. Without ``look``
        the bytes are named and hashed, but not opened; ``plain`` is the kind of what nobody knows.
        A fault within becomes the part's
        ``unread``; only :class:`OutOfBudget` is raised.
        """
        self._spent.count_parts()
        digest = self._digest(source)
        early = "" if isinstance(digest, Future) else digest
        kind, inside = self._inside(source, early, look)
        settled = digest.result() if isinstance(digest, Future) else digest
        kind = plain if kind == "data" else kind
        said = dict(inside.facts) | dict(facts)
        if place is not None and kind not in ("data", "file", "document"):
            said["content"] = kind
        return Part(
            name=name,
            kind=place or kind,
            size_bytes=source.size_bytes,
            digest=settled,
            facts=MappingProxyType(said),
            children=inside.children,
            text=inside.text,
            unread=inside.unread,
            offset=offset,
        )

    def made(
        self,
        source: Source,
        name: str,
        kind: PartKind,
        inside: Inside,
        *,
        offset: int | None = None,
    ) -> Part:
        """Return a part whose insides were read already; its bytes are hashed."""
        self._spent.count_parts()
        digest = self._digest(source)
        return Part(
            name=name,
            kind=kind,
            size_bytes=source.size_bytes,
            digest=digest.result() if isinstance(digest, Future) else digest,
            facts=MappingProxyType(dict(inside.facts)),
            children=inside.children,
            text=inside.text,
            unread=inside.unread,
            offset=offset,
        )

    def leaf(self, name: str, kind: PartKind, size_bytes: int = 0, **more: object) -> Part:
        """Return a part without bytes or insides of its own (a link, a device), counted."""
        self._spent.count_parts()
        return replace(Part(name, kind, size_bytes), **more)  # type: ignore[arg-type]

    def count(self, number: int) -> None:
        """Charge work that makes parts later; see :meth:`Spent.count_parts`."""
        self._spent.count_parts(number)

    def kept(self, text: str | None) -> str | None:
        """Return a text that a part is to have, None when the tree has enough of them."""
        return self._spent.kept(text)

    @contextmanager
    def unpacked(self, chunks: Iterable[bytes]) -> Iterator[Source]:
        """Yield what a stream unpacks to, as bytes at offsets; given back at the end."""
        counted = self._shown(self._spent.counted(chunks))
        spill = Spill.of(counted, max_bytes=self.reader_bytes)
        try:
            yield Shared(spill)
        finally:
            spill.close()

    def _inside(self, source: Source, digest: str, look: bool) -> tuple[PartKind, Inside]:
        known = self._known.get((digest, look)) if digest else None
        if known is not None:
            self._spent.count_parts(known[2])
            return known[0], known[1]
        before = self._spent.parts
        kind = recognise(source)
        inside = self._open(source, kind) if look else Inside(text=self.kept(text_of(source)))
        kind = inside.kind or kind
        if digest:
            self._known[digest, look] = kind, inside, self._spent.parts - before
        return kind, inside

    def _open(self, source: Source, kind: PartKind) -> Inside:
        opener = self._openers.get(kind)
        if opener is None:
            return Inside(facts=program_facts(source), text=self.kept(text_of(source)))
        try:
            with self.deeper(), charging(self._spent):
                return opener(self, source)
        except OutOfBudget:
            raise
        except FormatError as error:
            return Inside(unread=error.message)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Hold while parts one level down are made; raises :class:`FormatError` when too deep."""
        if self._depth >= self._spent.limits.depth:
            raise FormatError(f"parts lie in each other more than {self._depth} deep")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _digest(self, source: Source) -> str | Future[str]:
        """Hash a part; a large one beside the walk, if at all.

        One that is too large for what is left has no digest; many small ones that claim more bytes
        than there is room for are no real file.
        """
        is_large = source.size_bytes > LARGE_BYTES
        if is_large and self.digests not in ("content", "all"):
            return ""
        if not self._spent.may_hash(source.size_bytes):
            if is_large:
                return ""
            raise OutOfBudget("its parts claim more bytes than any real one has")
        if is_large:
            hashed = sparse_sha256_of if self.digests == "content" else sha256_of
            return self._pool.submit(copy_context().run, hashed, source)
        return sha256_of(source)

    def _shown(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass a stream on; a long one is shown as the step ``read``, with what is unpacked."""
        import time

        done, told, began = 0, 0, time.monotonic()
        outcome = "failed"
        try:
            for chunk in chunks:
                done += len(chunk)
                if done - told >= _SHOWN_BYTES:
                    if not told:
                        self._sink.emit(StepStarted("read", self._subject))
                    told = done
                    self._sink.emit(Progress("read", self._subject, done))
                yield chunk
            outcome = "done"
        finally:
            if told:
                passed = time.monotonic() - began
                self._sink.emit(Progress("read", self._subject, done))
                self._sink.emit(StepFinished("read", self._subject, passed, outcome))  # type: ignore[arg-type]
