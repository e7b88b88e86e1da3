"""Compares two sides: inspects both, and gives the result with what is known of either."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from heapq import merge
from typing import TYPE_CHECKING, Final

from local_imager.deliver.compare.sides import Side
from local_imager.events import NULL_SINK, EventSink, step
from local_imager.oci.model import Descriptor, canonical_json

if TYPE_CHECKING:
    from local_imager.deliver.compare.verdict import Comparison, SideSummary
    from local_imager.deliver.inspect.inspection import Inspection
    from local_imager.formats.source import Source
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store

ARTIFACT_COMPARISON: Final = "application/vnd.local-imager.comparison.v1+json"
# One read each; a difference is often in the first.
_CHUNK_BYTES: Final = 1 << 20


def compare_sides(
    left: Side,
    right: Side,
    *,
    store: Store | None = None,
    limit: int | None = None,
    sink: EventSink = NULL_SINK,
) -> Comparison:
    """Return what two sides differ in.

    ``store`` is asked which build made either. Raises
    :class:`~local_imager.formats.source.FormatError` for a side that is damaged as a whole.
    """
    from local_imager.deliver.compare.bytesdiff import locator
    from local_imager.deliver.compare.walk import DEFAULT_LIMIT, Subject, compare_trees
    from local_imager.formats.source import FileSource

    with ExitStack() as stack, step(sink, "compare", left.name):
        sources = [stack.enter_context(FileSource(side.path)) for side in (left, right)]
        inspected = _inspected(sources[0], left, store, sink)
        # The same bytes are the same parts, also under another name.
        same = same_bytes(sources[0], sources[1])
        other = inspected if same else _inspected(sources[1], right, store, sink)
        comparison = compare_trees(
            Subject.of(inspected, left.asked),
            Subject.of(other, right.asked),
            limit=DEFAULT_LIMIT if limit is None else limit,
            locate=locator(sources[0], sources[1]),
        )
        first = _with_digest(comparison.left, sources[0])
        second = replace(comparison.right, digest=first.digest)
        if not same:
            second = _with_digest(comparison.right, sources[1])
        return replace(comparison, left=first, right=second)


def _with_digest(side: SideSummary, source: Source) -> SideSummary:
    """Return a side with its SHA-256: a large file was compared by what of it is no zero."""
    from local_imager.formats.source import sha256_of

    if not side.digest.startswith("sparse-"):
        return side
    return replace(side, digest=sha256_of(source))


def same_bytes(left: Source, right: Source) -> bool:
    """Return whether two files have the same bytes; what is a hole in both is not read."""
    if left.size_bytes != right.size_bytes:
        return False
    done = 0
    for begin, length in merge(*(side.data_runs(0, side.size_bytes) for side in (left, right))):
        for offset in range(max(begin, done), begin + length, _CHUNK_BYTES):
            size = min(_CHUNK_BYTES, begin + length - offset)
            if left.read(offset, size) != right.read(offset, size):
                return False
        done = max(done, begin + length)
    return True


def _inspected(source: Source, side: Side, store: Store | None, sink: EventSink) -> Inspection:
    from local_imager.deliver.inspect.inspection import inspect_source

    return inspect_source(source, side.name, sink=sink, store=store, digests="content")


def attach_comparison(store: Store, asset: StoredAsset, comparison: Comparison) -> Descriptor:
    """Attach a result to an asset of the store; the same result is attached once."""
    data = canonical_json(comparison.as_dict())
    return store.add_referrer(asset, ARTIFACT_COMPARISON, data, ARTIFACT_COMPARISON)
