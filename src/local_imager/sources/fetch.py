"""Bringing an image into the store: resolved once, verified first, then every blob by digest.

Order: tag to digest; signature gate; manifests of the wanted architectures; room on the disk;
blobs in parallel, each hashed while it is written; signatures; last the name. Whatever stops it,
the name is not there before everything that it stands for is.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from local_imager.errors import HostError, IntegrityError, Interrupted, SourceError
from local_imager.events import NULL_SINK, EventSink, Progress, step
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Digest, Index, Manifest, Reference, parse_manifest
from local_imager.oci.source import ImageSource, RawManifest
from local_imager.sources.evidence import keep_evidence
from local_imager.sources.held import entry_name, pick
from local_imager.sources.keep import keep_signatures
from local_imager.sources.memory import LogMemory
from local_imager.sources.parallel import run_all
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import VerifiedImage, verify_image

# Room that is left for manifests, the index and everybody else on the file system.
RESERVE_BYTES: Final = 64 * 1024**2
_PROGRESS_EVERY_S: Final = 0.1


def fetch_image(
    source: ImageSource,
    layout: Layout,
    reference: Reference,
    policy: TrustPolicy,
    *,
    arches: Sequence[str] = (),
    sink: EventSink = NULL_SINK,
    jobs: int = 4,
    stop: threading.Event | None = None,
    memory: LogMemory | None = None,
    name: str = "",
) -> VerifiedImage:
    """Fetch an image into the layout and return it verified; its evidence is kept with it.

    ``memory`` remembers which log entries were accepted before. ``arches`` are the architectures
    wanted of an index; empty means any one. ``stop`` ends the downloads early (and is set when one
    fails, so that what runs beside ends too). ``name`` is what the layout is to call the image,
    where that is not the reference. Raises :class:`NotFound`,
    :class:`VerificationRefused`, :class:`IntegrityError`, :class:`SourceError`,
    :class:`StoreError`, or :class:`HostError` when the disk has no room for it.
    """
    with step(sink, "resolve", str(reference)):
        descriptor = _resolve(source, reference)
    with step(sink, "verify", str(reference)):
        verified = verify_image(source, reference, descriptor, policy, sink=sink, memory=memory)
    with step(sink, "fetch", str(reference)):
        documents = _documents(source, reference, descriptor.digest, arches)
        blobs = tuple(_blobs_of(documents))
        _check_room(layout, blobs, reference)
        _Download(source, layout, reference, sink, stop or threading.Event()).run(blobs, jobs)
        with layout.writing():
            for raw in documents:
                layout.put_bytes(raw.untrusted_data, raw.media_type)
            keep_signatures(source, layout, reference, descriptor.digest, sink)
            layout.set_ref(name or entry_name(reference), documents[0].descriptor)
            keep_evidence(layout, verified, documents[0].descriptor)
    return verified


def _resolve(source: ImageSource, reference: Reference) -> Descriptor:
    descriptor = source.resolve(reference)
    if reference.digest is not None and descriptor.digest != reference.digest:
        raise IntegrityError(
            f"{source.location} answers {descriptor.digest} for {reference}",
            hint="the source is damaged or not honest; nothing of it was kept",
        )
    return descriptor


def _manifest(source: ImageSource, reference: Reference, digest: Digest) -> RawManifest:
    raw = source.manifest(reference, digest)
    if Digest.of(raw.untrusted_data) != digest:
        raise IntegrityError(f"a manifest of {reference} does not match its digest {digest}")
    return raw


def _documents(
    source: ImageSource, reference: Reference, digest: Digest, arches: Sequence[str]
) -> list[RawManifest]:
    """Return the image's own document first, then the manifests of the wanted architectures."""
    what = str(reference)
    documents = [_manifest(source, reference, digest)]
    top = parse_manifest(documents[0].untrusted_data, documents[0].media_type, what)
    if isinstance(top, Index):
        for entry in pick(top, arches, what):
            raw = _manifest(source, reference, entry.digest)
            child = parse_manifest(raw.untrusted_data, raw.media_type, what)
            if not isinstance(child, Manifest):
                raise SourceError(f"{what} is an index of indexes", code="malformed")
            documents.append(raw)
    return documents


def _blobs_of(documents: Sequence[RawManifest]) -> Iterator[Descriptor]:
    seen: set[Digest] = set()
    for raw in documents:
        parsed = parse_manifest(raw.untrusted_data, raw.media_type, "manifest")
        if isinstance(parsed, Manifest):
            for blob in (parsed.config, *parsed.layers):
                if blob.digest not in seen:
                    seen.add(blob.digest)
                    yield blob


def _check_room(layout: Layout, blobs: Sequence[Descriptor], reference: Reference) -> None:
    missing = sum(b.size_bytes for b in blobs if not layout.intact(b.digest, b.size_bytes))
    free = shutil.disk_usage(layout.path).free
    if missing and missing + RESERVE_BYTES > free:
        raise HostError(
            f"{reference} needs {missing // 1024**2 + 1} MiB more in the store, "
            f"and {free // 1024**2} MiB are free at {layout.path}",
            hint="free some space, run `local-imager store gc`, or choose another --store",
            code="disk-full",
        )


@dataclass(slots=True)
class _Download:
    """The parallel download of an image's blobs; progress is told for all of them together."""

    source: ImageSource
    layout: Layout
    reference: Reference
    sink: EventSink
    stop: threading.Event
    done: dict[Digest, int] = field(default_factory=dict)
    total: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    told_at: float = 0.0

    def run(self, blobs: Sequence[Descriptor], jobs: int) -> None:
        """Download all; the first failure (or Ctrl-C) stops the others and is raised."""
        self.total = sum(blob.size_bytes for blob in blobs)
        # Large ones first: the last to finish then is a small one.
        order = sorted(blobs, key=lambda blob: -blob.size_bytes)
        run_all([partial(self._one, blob) for blob in order], jobs, self.stop)

    def _one(self, blob: Descriptor) -> None:
        try:
            self.layout.download(blob, self._chunks(blob), on_progress=self._progress(blob))
        except IntegrityError as error:
            raise IntegrityError(
                f"{self.reference} is refused: a part of it was damaged or changed on its way "
                f"({error.message})",
                hint=error.hint,
                code=error.code,
            ) from error

    def _chunks(self, blob: Descriptor) -> Callable[[int], Iterator[bytes]]:
        def stream(offset: int) -> Iterator[bytes]:
            for chunk in self.source.blob(self.reference, blob, offset):
                if self.stop.is_set():
                    raise Interrupted("the download was stopped")
                yield chunk

        return stream

    def _progress(self, blob: Descriptor) -> Callable[[int], None]:
        def report(done: int) -> None:
            with self.lock:
                self.done[blob.digest] = done
                now, all_done = time.monotonic(), sum(self.done.values())
                if now - self.told_at < _PROGRESS_EVERY_S and all_done < self.total:
                    return
                self.told_at = now
            self.sink.emit(Progress("fetch", str(self.reference), all_done, self.total))

        return report
