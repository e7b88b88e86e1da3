"""Making the delta of one blob against another, and seeing that the blob comes back from it.

Either the blob's own bytes are compared, or what gzip or zstd packed in it, if packing that again
gives the same blob.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from local_imager.deliver.bundle.deltas import content
from local_imager.deliver.bundle.deltas.content import Content
from local_imager.deliver.bundle.deltas.rebuild import base_content, method_name, restored
from local_imager.deliver.bundle.deltas.recompress import Codec, is_packed, likely_codecs
from local_imager.deliver.bundle.deltas.similar import Sample, take_sample
from local_imager.deliver.bundle.deltas.windows import MAX_GROWTH, Head, delta_windows, render_head
from local_imager.deliver.bundle.form.model import Blob
from local_imager.errors import SourceError
from local_imager.events import EventSink, Progress
from local_imager.oci import sparse
from local_imager.oci.durable import explained
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest

# A delta is worth its time and risk when it saves a third.
_MOST_SHARE: Final = 2 / 3
# Contents with less in common give no such delta.
_LEAST_LIKENESS: Final = 0.1
_SAMPLES_KEPT: Final = 8
_NOT_ALIKE: Final = "nothing that the far side has resembles it"
_NOT_REPEATED: Final = "its compression does not repeat here"
_NOT_BACK: Final = "its bytes did not come back from a delta"


@dataclass(frozen=True, slots=True)
class Delta:
    """A blob that travels as a difference; sizes in bytes."""

    blob: Digest
    base: Digest
    method: str
    size_bytes: int
    payload: Digest
    payload_bytes: int


class DeltaMaker:
    """Makes deltas, one after the other; where there is none, a sentence says why."""

    def __init__(self, layout: Layout, sink: EventSink) -> None:
        self._layout, self._sink = layout, sink
        self._sample = lru_cache(maxsize=_SAMPLES_KEPT)(self._take_sample)

    def make(self, blob: Blob, bases: Sequence[Digest]) -> Delta | str:
        """Return the delta of a blob against the one of the bases that it resembles most."""
        if not bases:
            return "the far side has no other version of it"
        try:
            with content.packed(self._layout, blob.digest) as own:
                if not is_packed(own.read_at(0, 4)):
                    return self._against(blob, bases, own, own, (None,))
                codecs = likely_codecs(own, lambda count: self._head(blob.digest, count))
                if not codecs:
                    return _NOT_REPEATED
                with content.unpacked(self._layout, blob.digest) as plain:
                    return self._against(blob, bases, own, plain, codecs)
        except SourceError as error:  # a blob that does not unpack
            return error.message

    def _head(self, blob: Digest, count: int) -> bytes:
        """Return the first bytes of what is packed in a blob."""
        head = bytearray()
        for chunk in content.unpacked_chunks(self._layout, blob):
            head += chunk
            if len(head) >= count:
                break
        return bytes(head[:count])

    def _against(
        self,
        blob: Blob,
        bases: Sequence[Digest],
        own: Content,
        plain: Content,
        codecs: Sequence[Codec | None],
    ) -> Delta | str:
        """Try the base that is most alike; ``plain`` is what the windows are made of."""
        method = method_name(codecs[0])
        sample = take_sample(plain.chunks())
        sound = [base for base in bases if self._layout.intact(base)]
        ranked = [(sample.share_in(self._sample(base, method)), base) for base in sound]
        likeness, base = max(ranked, key=lambda one: one[0], default=(0.0, blob.digest))
        if likeness < _LEAST_LIKENESS:
            return _NOT_ALIKE
        with contextlib.ExitStack() as stack:
            found = stack.enter_context(base_content(self._layout, base, method))
            if plain.size_bytes > MAX_GROWTH * found.size_bytes:
                return _NOT_ALIKE
            with explained("write a delta"):
                handle, path = stack.enter_context(self._layout.staged())
            most_bytes = int(blob.size_bytes * _MOST_SHARE)
            records = self._records(blob, plain, found, self._sample(base, method), codecs[0])
            payload_bytes = _write(handle, records, most_bytes)
            if payload_bytes is None:
                return "a delta would save less than a third"
            for method in map(method_name, codecs):
                if _comes_back(blob, own, found, handle, method):
                    payload = sparse.hash_handle(handle, payload_bytes)
                    private = any(map(self._layout.is_private, (blob.digest, base)))
                    self._layout.adopt(handle, path, payload, private=private)
                    return Delta(blob.digest, base, method, blob.size_bytes, payload, payload_bytes)
        return _NOT_BACK if codecs[0] is None else _NOT_REPEATED

    def _records(
        self, blob: Blob, plain: Content, base: Content, sample: Sample, codec: Codec | None
    ) -> Iterator[bytes]:
        library, header = ("", b"") if codec is None else (codec.library(), codec.header)
        yield render_head(Head(plain.size_bytes, base.size_bytes, library, header))
        done = 0
        for record, window_bytes in delta_windows(plain, base, sample):
            yield record
            done += window_bytes
            self._sink.emit(Progress("delta", blob.purpose, done, plain.size_bytes))

    def _take_sample(self, base: Digest, method: str) -> Sample:
        if method != method_name(None):
            return take_sample(content.unpacked_chunks(self._layout, base))
        with content.packed(self._layout, base) as found:
            return take_sample(found.chunks())


def _write(handle: int, records: Iterable[bytes], most_bytes: int) -> int | None:
    """Write a payload and return its size; None as soon as it is longer than is worth it."""
    done = 0
    for record in records:
        if done + len(record) > most_bytes:
            return None
        with explained("write a delta"):
            sparse.write_all(handle, record, done)
        done += len(record)
    return done


def _comes_back(blob: Blob, own: Content, base: Content, handle: int, method: str) -> bool:
    """Whether exactly the blob comes out of a payload; a wrong codec ends at its first byte."""
    sha, done = hashlib.sha256(), 0
    # With a wrong codec more may come out than the blob is long.
    with open(os.dup(handle), "rb") as stream, contextlib.suppress(SourceError):
        stream.seek(0)
        for chunk in restored(stream, method, base, blob.size_bytes):
            if own.read_at(done, len(chunk)) != chunk:
                return False
            sha.update(chunk)
            done += len(chunk)
    return Digest(sha.hexdigest()) == blob.digest
