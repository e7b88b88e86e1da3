"""Handing out parts of a layout: one image as a small layout of its own.

Blobs are hard linked, so an export costs no space and no time; across file systems they are
copied. Links are read-only (0444) and are meant for readers, such as a bind mount into a container.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Final

from local_imager.errors import NotFound, SourceError
from local_imager.oci import sparse
from local_imager.oci.durable import explained
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    load_json_object,
    parse_manifest,
)
from local_imager.oci.seal import touch

# What link(2) answers where there is no linking: other file system, no support, too many links.
NO_LINK: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


def sniff_media_type(untrusted_data: bytes, what: str) -> str:
    """Return the media type of a manifest that is known by digest only.

    The document's own ``mediaType``, else by its shape (old indexes carry none).
    Raises :class:`SourceError` when it is neither a manifest nor an index.
    """
    document = load_json_object(untrusted_data, what)
    declared = document.get("mediaType")
    if isinstance(declared, str) and declared in INDEX_TYPES | MANIFEST_TYPES:
        return declared
    if declared is None and "manifests" in document:
        return MEDIA_INDEX
    if declared is None and "layers" in document:
        return MEDIA_MANIFEST
    raise SourceError(f"{what} is not an image manifest or index", code="malformed")


def select_image(layout: Layout, digest: Digest, arch: str | None) -> tuple[Descriptor, Manifest]:
    """Return the linux image of an architecture below a digest, its platform set.

    The digest may be an index or an image itself. ``arch`` None takes the only image there is.
    Raises :class:`NotFound` when there is none (or more than one to choose from).
    """
    data = layout.read_blob(digest, max_bytes=MAX_MANIFEST_BYTES)
    media_type = sniff_media_type(data, f"manifest {digest}")
    parsed = parse_manifest(data, media_type, f"manifest {digest}")
    if isinstance(parsed, Manifest):
        platform = _platform_of(layout, parsed, arch)
        return Descriptor(media_type, digest, len(data), platform=platform), parsed
    entry = _child(parsed, arch)
    child = layout.read_manifest(entry)
    if not isinstance(child, Manifest):
        raise SourceError(f"{digest} is an index of indexes, which is not supported")
    platform = _platform_of(layout, child, arch)
    return Descriptor(entry.media_type, entry.digest, len(child.raw), platform=platform), child


def _child(index: Index, arch: str | None) -> Descriptor:
    if arch is not None:
        entry = index.for_platform("linux", arch)
        if entry is not None:
            return entry
    have = [e for e in index.manifests if e.platform is None or e.platform.os != "unknown"]
    if arch is None and len(have) == 1:
        return have[0]
    listed = ", ".join(
        f"{e.platform.os}/{e.platform.architecture}" for e in have if e.platform is not None
    )
    raise NotFound(
        f"index {index.digest} has no image for linux/{arch or '(any)'}",
        hint=f"it has: {listed or 'none'}",
    )


def _platform_of(layout: Layout, manifest: Manifest, arch: str | None) -> Platform:
    """Read the platform from the image's configuration and hold it against the wanted one."""
    data = layout.read_blob(manifest.config.digest, max_bytes=MAX_MANIFEST_BYTES)
    config = load_json_object(data, f"config {manifest.config.digest}")
    system, found = config.get("os") or "linux", config.get("architecture") or arch
    if not isinstance(system, str) or not isinstance(found, str):
        raise SourceError(f"image {manifest.digest} names no platform", code="malformed")
    if arch is not None and found != arch:
        raise NotFound(
            f"image {manifest.digest} is for {system}/{found}, not for linux/{arch}",
            hint="choose another architecture, or another image",
        )
    return Platform(system, found)


def export_image(layout: Layout, digest: Digest, arch: str | None, dest: Path) -> Descriptor:
    """Write a layout with exactly one image to ``dest``, its platform set on the index entry.

    The imager's ``ociPath`` needs it so. ``dest`` must not exist or be empty; directories are
    0755 and files readable by all, since a container reads them as another user. Returns the
    image's descriptor. Raises :class:`NotFound`, :class:`IntegrityError`, :class:`StoreError`.
    """
    entry, manifest = select_image(layout, digest, arch)
    with explained(f"write the image layout {dest}"):
        target = dest / "blobs" / "sha256"
        target.mkdir(parents=True, exist_ok=True)
        for folder in (dest, dest / "blobs", target):
            folder.chmod(0o755)
        note_use(layout, entry)
        for blob in (entry, manifest.config, *manifest.layers):
            if not layout.intact(blob.digest, blob.size_bytes):
                raise NotFound(
                    f"blob {blob.digest} of image {entry.digest} is not there or damaged"
                )
            link_or_copy(layout.blob_path(blob.digest), target / blob.digest.hex)
        index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [entry.as_dict()]}
        for name, document in (("index.json", index), ("oci-layout", _MARKER)):
            (dest / name).write_text(json.dumps(document))
            (dest / name).chmod(0o644)
    return entry


def note_use(layout: Layout, entry: Descriptor) -> None:
    """Let a collection by age know that an image was used, where notes can be kept."""
    with contextlib.suppress(OSError):
        touch(layout.blob_path(entry.digest))


_MARKER: Final = {"imageLayoutVersion": "1.0.0"}


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a blob to a name that a reader uses; copy it where linking is not possible."""
    if target.exists():
        return
    try:
        os.link(source, target)
        return
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    with source.open("rb") as reader, target.open("xb") as writer:
        if not sparse.clone(reader.fileno(), writer.fileno()):
            sparse.copy_sparse(reader.fileno(), writer.fileno())
        os.fchmod(writer.fileno(), 0o444)
