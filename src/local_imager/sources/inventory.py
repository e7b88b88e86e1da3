"""What the store holds of source images, and verifying it there again."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local_imager.errors import InputError, NotFound, SourceError
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor, Index, Manifest, Reference
from local_imager.oci.source import ImageSource
from local_imager.sources.memory import LogMemory
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import VerifiedImage, verify_image
from local_imager.store.store import Store


@dataclass(frozen=True, slots=True)
class HeldImage:
    """A source image in the store: ``arches`` are those whose every byte is there."""

    reference: Reference
    descriptor: Descriptor
    arches: tuple[str, ...]
    size_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object for reports."""
        return {
            "image": str(self.reference),
            "digest": str(self.descriptor.digest),
            "arches": list(self.arches),
            "size_bytes": self.size_bytes,
        }


class StoreSource:
    """The store read as a source; its index is parsed again only when it changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._opened: tuple[tuple[int, int, int], LayoutSource] | None = None

    def open(self) -> LayoutSource:
        """Return the source as the index is now; safe for several threads."""
        status = (self._path / "index.json").stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if self._opened is None or self._opened[0] != version:
                self._opened = (version, LayoutSource.open(self._path))
            return self._opened[1]


def held_images(store: Store) -> tuple[HeldImage, ...]:
    """Return the source images of the store by name; names that are no references are left out."""
    found = []
    for entry in store.images():
        try:
            reference = Reference.parse(entry.ref_name)
        except InputError:
            continue
        arches, size = _contents(store.layout, entry)
        found.append(HeldImage(reference, entry, arches, size))
    return tuple(found)


def _contents(layout: Layout, entry: Descriptor) -> tuple[tuple[str, ...], int]:
    arches, size = [], 0
    for arch, manifest in _manifests(layout, entry):
        blobs = (manifest.config, *manifest.layers)
        present = [blob for blob in blobs if layout.intact(blob.digest, blob.size_bytes)]
        size += sum(blob.size_bytes for blob in present)
        if len(present) == len(blobs):
            arches.append(arch)
    return tuple(arches), size


def _manifests(layout: Layout, entry: Descriptor) -> Iterator[tuple[str, Manifest]]:
    try:
        top = layout.read_manifest(entry)
    except SourceError:
        return
    if isinstance(top, Manifest):
        yield "any", top
        return
    for child in top.manifests:
        if child.platform is None or not layout.has(child.digest):
            continue
        if child.platform.os == "unknown":  # an attestation, which tells of one of the others
            continue
        try:
            manifest = layout.read_manifest(child)
        except SourceError:
            continue
        if not isinstance(manifest, Index):
            yield child.platform.architecture, manifest


def find_held(store: Store, name: str) -> HeldImage:
    """Return the image that a full name, a ``repository:tag`` or a digest means.

    Raises :class:`NotFound`, or :class:`InputError` when several fit.
    """
    images = held_images(store)
    exact = [image for image in images if str(image.reference) == name]
    found = exact or [image for image in images if _is_meant(image, name)]
    if len({image.descriptor.digest for image in found}) > 1:
        names = ", ".join(str(image.reference) for image in found[:5])
        raise InputError(f"{name!r} fits several images: {names}")
    if not found:
        raise NotFound(
            f"the store has no image {name!r}", hint="`local-imager sources list` shows all"
        )
    return found[0]


def _is_meant(image: HeldImage, name: str) -> bool:
    reference = image.reference
    spellings = {
        f"{reference.name}:{reference.tag}",
        f"{reference.repository}:{reference.tag}",
        f"{reference.name}@{image.descriptor.digest}",
        str(image.descriptor.digest),
    }
    return name in spellings


def verify_held(
    source: ImageSource,
    image: HeldImage,
    policy: TrustPolicy,
    sink: EventSink = NULL_SINK,
    memory: LogMemory | None = None,
) -> VerifiedImage:
    """Put an image of the store through the gate again; ``source`` is the store read alone."""
    return verify_image(source, image.reference, image.descriptor, policy, sink=sink, memory=memory)


def confirm_held(store: Store, policy: TrustPolicy, images: Iterable[VerifiedImage]) -> None:
    """Verify images once more from the store's bytes, right before they are used.

    Between obtaining and using them other processes had the store, and hours may have passed in a
    queue. Raises what :func:`verify_image` does.
    """
    source = LayoutSource.open(store.path)
    for digest, image in {image.digest: image for image in images}.items():
        pinned = image.reference.with_digest(digest)
        # What accepts unverified images warned when this one was obtained.
        verify_image(source, pinned, source.resolve(pinned), policy)
