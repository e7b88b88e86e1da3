"""An image of a registry as one file to compare: fetched whole, kept as a foreign archive.

Nothing of it is run or built from, so an image that no policy accepts is fetched too; the answer
says which of both it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from local_imager.deliver.compare.address import is_loopback
from local_imager.errors import (
    HostError,
    IntegrityError,
    LocalImagerError,
    NotFound,
    SourceError,
    VerificationRefused,
)
from local_imager.events import EventSink, Message, step
from local_imager.oci.model import Descriptor, Digest, Index, Manifest, Reference, parse_manifest
from local_imager.store.foreign import (
    ForeignFile,
    Version,
    foreign_files,
    foreign_writer,
    held_foreign,
    name_foreign,
)

if TYPE_CHECKING:
    from local_imager.oci.source import ImageSource
    from local_imager.settings import Settings
    from local_imager.store.store import Store

# Far above any installer (120 MB); an image is fetched without knowing what it is.
MAX_BYTES: Final = 8 * 1024**3
_RESERVE_BYTES: Final = 64 * 1024**2
MEDIA_ARCHIVE: Final = "application/x-tar"


def fetch_image(
    reference: Reference,
    store: Store,
    settings: Settings,
    *,
    arch: str,
    sink: EventSink,
    offline: bool = False,
) -> tuple[ForeignFile, str]:
    """Return an image as an archive in the store, and who vouches for it (a sentence).

    Of an index the image for ``arch`` is taken. Raises :class:`NotFound`, :class:`SourceError`,
    :class:`IntegrityError`, :class:`HostError` without room, :class:`StoreError`.
    """
    if offline:
        return _held_offline(reference, store), "unverified: offline no signature was looked for"
    source = _source_of(reference, settings, sink)
    with step(sink, "resolve", str(reference)):
        descriptor = source.resolve(reference)
    if reference.digest is not None and descriptor.digest != reference.digest:
        raise IntegrityError(f"{source.location} answers {descriptor.digest} for {reference}")
    trust = _trust_in(source, reference, descriptor, settings, sink)
    image, manifest, found_arch = _image_of(source, reference, descriptor, arch)
    title = f"{reference.repository.rpartition('/')[2]}-{found_arch or 'image'}.tar"
    place = f"{reference.name}@{image.digest}/{title}"
    known = held_foreign(store.layout, place)
    if known is not None:
        sink.emit(Message(f"{known.short}: from the store, fetched before"))
        return known, trust
    with step(sink, "fetch", str(reference)):
        _check_room(manifest, store, reference)
        for blob in {b.digest: b for b in (manifest.config, *manifest.layers)}.values():
            store.download(
                blob, _chunks(source, reference, blob), sink=sink, subject=str(reference)
            )
        store.layout.put_bytes(manifest.raw, manifest.media_type)
        return _pack(store, image.digest, place, str(reference)), trust


def _pack(store: Store, digest: Digest, place: str, origin: str) -> ForeignFile:
    from local_imager.oci.archive import stream_archive

    with foreign_writer(store.layout, place, max_bytes=2 * MAX_BYTES) as writer:
        writer.restart(Version())
        for chunk in stream_archive(store.layout, digest, None, ""):
            writer.write(chunk)
        return name_foreign(store.layout, place, writer.commit(MEDIA_ARCHIVE), origin)


def _held_offline(reference: Reference, store: Store) -> ForeignFile:
    for one in foreign_files(store.layout):
        if one.origin == str(reference) or one.place.startswith(f"{reference}/"):
            return one
    raise NotFound(
        f"the store has no {reference} to compare with, and offline nothing is fetched",
        hint="run the command once without --offline",
    )


def _source_of(reference: Reference, settings: Settings, sink: EventSink) -> ImageSource:
    """Return where the image is read: the settings' source for their names, else its registry."""
    from local_imager.oci.open import open_source

    own = reference.name.startswith(settings.registry + "/")
    return open_source(
        settings.source if own else "",
        registry=settings.registry if own else reference.registry,
        plain_http=settings.plain_http or is_loopback(reference.registry),
        mirrors=settings.mirrors,
        timeout_s=settings.answer_timeout_s,
        sink=sink,
    )


def _trust_in(
    source: ImageSource,
    reference: Reference,
    descriptor: Descriptor,
    settings: Settings,
    sink: EventSink,
) -> str:
    """Say whether the policy of the settings accepts the image; a refusal is an answer, too."""
    from local_imager.sources.trust_entries import policy_from_settings
    from local_imager.sources.verify import verify_image

    policy = policy_from_settings(settings.trust)
    try:
        image = verify_image(source, reference, descriptor, policy, sink=sink)
    except VerificationRefused as error:
        return f"unverified: {error.message}"
    except LocalImagerError as error:
        if isinstance(error, IntegrityError):
            raise
        return f"unverified: its signatures cannot be read ({error.message})"
    if image.unverified:
        return f"unverified: the policy {image.policy} accepts it without a signature"
    return f"verified, signed by {image.signer}"


def _image_of(
    source: ImageSource, reference: Reference, top: Descriptor, arch: str
) -> tuple[Descriptor, Manifest, str]:
    """Return the image itself: of an index the one for the architecture, or the only one."""
    raw = source.manifest(reference, top.digest)
    parsed = parse_manifest(raw.untrusted_data, raw.media_type, str(reference))
    if isinstance(parsed, Manifest):
        return raw.descriptor, parsed, ""
    chosen = _choose(parsed, arch, reference)
    child = source.manifest(reference, chosen.digest)
    image = parse_manifest(child.untrusted_data, child.media_type, str(reference))
    if not isinstance(image, Manifest):
        raise SourceError(f"{reference} is an index of indexes", code="malformed")
    return child.descriptor, image, chosen.platform.architecture if chosen.platform else ""


def _choose(index: Index, arch: str, reference: Reference) -> Descriptor:
    images = [e for e in index.manifests if e.platform is not None and e.platform.os == "linux"]
    fits = [e for e in images if e.platform is not None and e.platform.architecture == arch]
    if fits or len(images) == 1:
        return (fits or images)[0]
    have = ", ".join(e.platform.architecture for e in images if e.platform is not None)
    raise NotFound(
        f"{reference} has no image for linux/{arch}",
        hint=f"it has: {have or 'no linux image at all'}; --arch chooses",
    )


def _check_room(manifest: Manifest, store: Store, reference: Reference) -> None:
    size = manifest.config.size_bytes + sum(layer.size_bytes for layer in manifest.layers)
    if size > MAX_BYTES:
        raise SourceError(
            f"{reference} has {size} bytes: no installer is that large", code="too-large"
        )
    free = shutil.disk_usage(store.path).free
    if 2 * size + _RESERVE_BYTES > free:
        raise HostError(
            f"{reference} needs {2 * size // 1024**2 + 1} MiB in the store, "
            f"and {free // 1024**2} MiB are free at {store.path}",
            hint="free some space, run `local-imager store gc`, or choose another --store",
            code="disk-full",
        )


def _chunks(
    source: ImageSource, reference: Reference, blob: Descriptor
) -> Callable[[int], Iterator[bytes]]:
    return lambda offset: source.blob(reference, blob, offset)
