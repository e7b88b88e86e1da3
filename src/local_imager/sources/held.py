"""What the store holds of an image: under which name, and whether all of it is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from local_imager.errors import NotFound, SourceError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Index, Manifest, Reference, parse_manifest


def entry_name(reference: Reference) -> str:
    """Return the name in the store: a pinned image keeps its digest in the name.

    So the same tag in two catalogues with two digests stays two images.
    """
    return str(reference)


def held_descriptor(layout: Layout, reference: Reference) -> Descriptor | None:
    """Return the entry that the store has for a reference, complete or not; None if none."""
    entry = layout.resolve(entry_name(reference))
    if entry is None and reference.digest is not None and reference.tag:
        entry = layout.resolve(entry_name(reference.with_tag(reference.tag)))
    if entry is None or reference.digest not in (None, entry.digest):
        return None
    return Descriptor(entry.media_type, entry.digest, entry.size_bytes)


def name_held(layout: Layout, reference: Reference, name: str) -> None:
    """Let the layout call an image that it holds by another name, too; nothing for an empty name.

    Raises :class:`StoreError`.
    """
    entry = held_descriptor(layout, reference) if name else None
    known = layout.resolve(name) if entry is not None else None
    if entry is not None and (known is None or known.digest != entry.digest):
        layout.set_ref(name, entry)


def is_complete(layout: Layout, descriptor: Descriptor, arches: Sequence[str]) -> bool:
    """Say whether the layout holds every byte of these architectures, undamaged."""
    try:
        data = layout.read_blob(descriptor.digest, max_bytes=max(descriptor.size_bytes, 1))
        top = parse_manifest(data, descriptor.media_type, "manifest")
        for manifest in _children(layout, top, arches):
            for blob in (manifest.config, *manifest.layers):
                if not layout.intact(blob.digest, blob.size_bytes):
                    return False
    except SourceError:
        return False
    return True


def _children(layout: Layout, top: Index | Manifest, arches: Sequence[str]) -> Iterator[Manifest]:
    if isinstance(top, Manifest):
        yield top
        return
    wanted = arches
    if not wanted:
        # Any one will do: the first that was ever fetched.
        held = [e for e in _images_of(top) if layout.has(e.digest)]
        wanted = [e.platform.architecture for e in held[:1] if e.platform]
        if not wanted:
            raise NotFound("no architecture of the image is in the store")
    for entry in pick(top, wanted, "image"):
        manifest = layout.read_manifest(entry)
        if isinstance(manifest, Manifest):
            yield manifest


def _images_of(index: Index) -> list[Descriptor]:
    """Linux images of an index; build attestations carry the platform ``unknown``."""
    return [e for e in index.manifests if e.platform is not None and e.platform.os == "linux"]


def pick(index: Index, arches: Sequence[str], what: str) -> tuple[Descriptor, ...]:
    """Return an index's entries for these architectures; empty means the first linux one.

    Raises :class:`NotFound` that names what there is.
    """
    images = _images_of(index)
    if not arches:
        arches = [e.platform.architecture for e in images[:1] if e.platform]
    found = [index.for_platform("linux", arch) for arch in arches]
    if not found or None in found:
        have = ", ".join(sorted({e.platform.architecture for e in images if e.platform}))
        raise NotFound(
            f"{what} has no image for linux/{'+'.join(arches) or '(any)'}",
            hint=f"it has: {have or 'no linux image at all'}",
        )
    return tuple(entry for entry in found if entry is not None)
