"""What keeps what: the blobs that names reach, and what is attached to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from local_imager.errors import SourceError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Digest,
    Index,
)
from local_imager.oci.names import attached_to
from local_imager.store.incoming import MEDIA_HELD, is_incoming
from local_imager.store.records import ANNOTATION_BUILD_KEY


@dataclass(slots=True)
class Reach:
    """The descriptors reached (with who needs them) and the faults met on the way."""

    needed: dict[Digest, tuple[Descriptor, str]] = field(default_factory=dict)
    missing: list[tuple[Digest, str]] = field(default_factory=list)
    malformed: list[tuple[Digest, str]] = field(default_factory=list)


def subject_of(layout: Layout, entry: Descriptor) -> Digest | None:
    """Return the manifest that an entry belongs to and without which it is of no use."""
    attached = attached_to(entry.ref_name)
    if attached is not None:
        return attached[0]
    if entry.ref_name or entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        return None
    try:
        subject = layout.read_manifest(entry).subject
    except (SourceError, StoreError):
        return None
    return subject.digest if subject is not None else None


def is_superseded(entry: Descriptor) -> bool:
    """Return whether an entry is a build whose name went to a newer one."""
    return not entry.ref_name and ANNOTATION_BUILD_KEY in entry.annotations


def reach(layout: Layout, entries: Iterable[Descriptor]) -> Reach:
    """Walk from the entries to everything that they need.

    An entry that belongs to another manifest (a signature, a build record) counts only when that
    manifest is reached. Children of an index that were never fetched are not missing: a store
    keeps the platforms that were asked for. Of what a hold lists (:mod:`.incoming`) counts what is
    there in the size listed.
    """
    found = Reach()
    waiting: list[tuple[Descriptor, Digest]] = []
    holds: list[Descriptor] = []
    for entry in entries:
        subject = subject_of(layout, entry)
        if is_incoming(entry):
            holds.append(entry)
        elif subject is None:
            _walk(layout, entry, entry.ref_name or str(entry.digest), found)
        else:
            waiting.append((entry, subject))
    while True:  # what is attached may itself have something attached
        ready = [pair for pair in waiting if pair[1] in found.needed]
        if not ready:
            break
        waiting = [pair for pair in waiting if pair[1] not in found.needed]
        for entry, _ in ready:
            _walk(layout, entry, entry.ref_name or str(entry.digest), found)
    for entry in holds:  # last, so that a blob is told of under the name that it has already
        _walk_hold(layout, entry, found)
    return found


def _walk_hold(layout: Layout, entry: Descriptor, found: Reach) -> None:
    """Reach a hold's own documents, and what is there of the blobs that it lists.

    A size that is not the blob's own holds nothing, so that no hold makes a sound blob a fault.
    """
    own = Reach()
    _walk(layout, entry, entry.ref_name, own)
    for digest, (descriptor, who) in own.needed.items():
        if descriptor.media_type != MEDIA_HELD or _has_size(layout, descriptor):
            found.needed.setdefault(digest, (descriptor, who))
    found.missing += [(digest, who) for digest, who in own.missing if digest == entry.digest]
    found.malformed += own.malformed


def _has_size(layout: Layout, descriptor: Descriptor) -> bool:
    try:
        return layout.blob_path(descriptor.digest).stat().st_size == descriptor.size_bytes
    except OSError:
        return False


def _walk(layout: Layout, entry: Descriptor, who: str, found: Reach) -> None:
    stack = [(entry, who)]
    while stack:
        descriptor, why = stack.pop()
        if descriptor.digest in found.needed:
            continue
        if not layout.has(descriptor.digest):
            found.missing.append((descriptor.digest, why))
            continue
        found.needed[descriptor.digest] = (descriptor, why)
        if descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES:
            try:
                stack += [(child, why) for child in _children(layout, descriptor)]
            except (SourceError, StoreError) as error:
                found.malformed.append((descriptor.digest, error.message))


def _children(layout: Layout, descriptor: Descriptor) -> Iterator[Descriptor]:
    parsed = layout.read_manifest(descriptor)
    if isinstance(parsed, Index):
        yield from (child for child in parsed.manifests if layout.has(child.digest))
    else:
        yield parsed.config
        yield from parsed.layers
