"""Making what was judged and has arrived visible: one item at a time, each as a whole.

The item's name and the lists of all that is attached to it come in one replacement of the index.
"""

from __future__ import annotations

from collections.abc import Iterator

from local_imager.deliver.bundle.far.batch import IndexBatch
from local_imager.deliver.bundle.far.judging import Judgement
from local_imager.deliver.bundle.far.staged import StagedFiles
from local_imager.errors import NotFound, SourceError
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci.blobs import PRIVATE_MODE
from local_imager.oci.indexlines import Document, EntryChange
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Reference,
    parse_manifest,
)
from local_imager.oci.names import fallback_tag, find_referrers_list
from local_imager.sources.fetch import fetch_image
from local_imager.sources.held import is_complete
from local_imager.sources.keep import ATTACHED_SUFFIXES, keep_attached
from local_imager.sources.memory import LogMemory
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import VerifiedImage
from local_imager.store.store import Store, name_asset


def name_image(
    judged: Judgement,
    source: LayoutSource,
    files: StagedFiles,
    store: Store,
    policy: TrustPolicy,
    memory: LogMemory,
    sink: EventSink,
) -> VerifiedImage:
    """Verify an image once more and give it its name in the store, with all that is attached.

    Its blobs are there. Raises what :func:`~local_imager.sources.fetch.fetch_image` raises.
    """
    reference = Reference.parse(judged.item.name)
    outline = judged.outline
    if outline is None:
        raise NotFound(f"{judged.item.name} was not judged")
    inside = [one.digest for one in outline.attestations if files.size(one.digest) is not None]
    with store.layout.writing():  # no collection takes what has no name yet
        layout = IndexBatch(store.layout)
        keep_attached(source, layout, reference, outline.subjects, sink, inside=inside)
        # What there was to warn of was told when the image was judged.
        image = fetch_image(
            source,
            layout,
            reference,
            policy,
            arches=outline.arches,
            sink=NULL_SINK,
            jobs=1,
            memory=memory,
        )
        layout.flush()
    return image


def has_image(judged: Judgement, source: LayoutSource, layout: Layout) -> bool:
    """Return whether the store has the image under this name, whole, with what is attached."""
    item, outline = judged.item, judged.outline
    held = layout.resolve(item.name)
    if outline is None or held is None or held.digest != item.descriptor.digest:
        return False
    if not is_complete(layout, held, outline.arches):
        return False
    reference = Reference.parse(item.name)
    return all(_has_attached(source, layout, reference, one) for one in outline.subjects)


def _has_attached(
    source: LayoutSource, layout: Layout, reference: Reference, subject: Digest
) -> bool:
    carried = {one.digest for one in source.referrers(reference, subject)}
    if not carried <= _listed(layout, subject, reference.name):
        return False
    for suffix in ATTACHED_SUFFIXES:
        tagged = reference.with_tag(f"{fallback_tag(subject)}.{suffix}")
        try:
            wanted = source.resolve(tagged)
        except NotFound:
            continue
        held = layout.resolve(f"{tagged.name}:{tagged.tag}")
        if held is None or held.digest != wanted.digest:
            return False
    return True


def _listed(layout: Layout, subject: Digest, repository_name: str = "") -> set[Digest]:
    named = layout.index().holding(fallback_tag(subject))
    entry = find_referrers_list(named, subject, repository_name)
    if entry is None:
        return set()
    try:
        index = layout.read_manifest(entry)
    except SourceError:
        return set()
    return {one.digest for one in index.manifests} if isinstance(index, Index) else set()


def name_stored_asset(judged: Judgement, files: StagedFiles, store: Store) -> None:
    """Give an asset its name and its build key, and list what is attached, in one step.

    Its blobs besides documents are there. Raises :class:`StoreError`.
    """
    layout, entry = store.layout, judged.entry
    if entry is None:
        raise NotFound(f"{judged.item.name} was not judged")
    with layout.writing():
        for descriptor in (entry, *_inside(files, judged)):
            if descriptor.digest not in judged.needs:
                data = files.read(descriptor.digest, descriptor.size_bytes)
                private = descriptor.digest in judged.private
                layout.put_bytes(data, descriptor.media_type, private=private)
        for digest in judged.private & judged.needs:  # may have been there before, for all to read
            layout.blob_path(digest).chmod(PRIVATE_MODE)

        def edit(entries: list[Document]) -> list[Document]:
            entries = name_asset(entries, entry)
            for subject, found in judged.attached:
                name = fallback_tag(subject)
                entries = layout.list_attached(entries, name, found)
            return entries

        tags = [fallback_tag(subject) for subject, _ in judged.attached]
        layout.update_index(EntryChange((entry.ref_name, str(entry.digest), *tags), edit))


def _inside(files: StagedFiles, judged: Judgement) -> Iterator[Descriptor]:
    """Yield every document below an asset's entry: the manifests attached to it, small blobs."""
    manifests = [one for _, found in judged.attached for one in found]
    yield from manifests
    for descriptor in (judged.entry, *manifests):
        if descriptor is None:
            continue
        data = files.read(descriptor.digest, MAX_MANIFEST_BYTES)
        parsed = parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")
        if isinstance(parsed, Manifest):
            yield from (parsed.config, *parsed.layers)


def has_asset(judged: Judgement, layout: Layout) -> bool:
    """Return whether the store has the asset under this name, whole, with what is attached."""
    held = layout.resolve(judged.item.name)
    if held is None or held.digest != judged.item.descriptor.digest:
        return False
    if not all(layout.intact(digest) for digest in judged.needs):
        return False
    return all(
        {one.digest for one in found} <= _listed(layout, subject)
        for subject, found in judged.attached
    )
