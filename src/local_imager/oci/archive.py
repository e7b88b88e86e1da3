"""One image as a tar stream that every container engine can load.

The archive carries ``manifest.json`` (docker-archive, read by Docker's classic image store and by
Podman) and ``index.json`` (OCI, read by the containerd image store) over the same blobs, as
``docker save`` writes it since version 25. The same image gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from typing import Any, Final

from local_imager.errors import IntegrityError
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import explained
from local_imager.oci.export import note_use, select_image
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    MEDIA_INDEX,
    Descriptor,
    Digest,
    canonical_json,
)
from local_imager.oci.names import ANNOTATION_CONTAINERD_NAME

_CHUNK_BYTES: Final = 1 << 20
_BLOCK: Final = 512


def stream_archive(layout: Layout, digest: Digest, arch: str | None, name: str) -> Iterator[bytes]:
    """Yield a tar of one image, tagged ``name`` (``repository:tag``) when it is loaded.

    ``digest`` is an index or an image; memory stays at one chunk. Every blob is hashed while it is
    sent: the stream breaks off with :class:`IntegrityError` rather than complete with other bytes.
    Raises :class:`NotFound` when the architecture or a blob is missing.
    """
    entry, manifest = select_image(layout, digest, arch)
    note_use(layout, entry)
    blobs = {b.digest: b for b in (entry, manifest.config, *manifest.layers)}
    documents = {
        "index.json": _oci_index(entry, name),
        "manifest.json": _docker_manifest(manifest.config, manifest.layers, name),
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }
    yield _header("blobs/", 0, tarfile.DIRTYPE)
    yield _header("blobs/sha256/", 0, tarfile.DIRTYPE)
    for blob in sorted(blobs.values(), key=lambda b: b.digest):
        yield _header(_place(blob.digest), blob.size_bytes)
        yield from _blob(layout, blob)
        yield bytes(-blob.size_bytes % _BLOCK)
    for path, document in documents.items():
        data = canonical_json(document)
        yield _header(path, len(data)) + data + bytes(-len(data) % _BLOCK)
    yield bytes(2 * _BLOCK)


def _place(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _docker_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], name: str
) -> list[dict[str, Any]]:
    return [
        {
            "Config": _place(config.digest),
            "RepoTags": [name] if name else [],
            "Layers": [_place(layer.digest) for layer in layers],
        }
    ]


def _oci_index(entry: Descriptor, name: str) -> dict[str, Any]:
    """Name the entry as containerd's importer wants it; it knows no short names."""
    document = entry.as_dict()
    if name:
        host = name.partition("/")[0]
        qualified = name if "." in host or (":" in host and "/" in name) else f"docker.io/{name}"
        document["annotations"] = {
            ANNOTATION_CONTAINERD_NAME: qualified,
            ANNOTATION_REF_NAME: name.rpartition(":")[2],
        }
    return {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [document]}


def _header(path: str, size_bytes: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.type = size_bytes, kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o444
    return info.tobuf(tarfile.PAX_FORMAT)


def _blob(layout: Layout, blob: Descriptor) -> Iterator[bytes]:
    hasher, left = hashlib.sha256(), blob.size_bytes
    with explained(f"read blob {blob.digest}"):
        handle = open_regular(layout.blob_path(blob.digest))
    with os.fdopen(handle, "rb") as stream:
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                break
            hasher.update(chunk)
            left -= len(chunk)
            if left:
                yield chunk
        # The last chunk is held back until the digest is known.
        if left or hasher.hexdigest() != blob.digest.hex:
            raise IntegrityError(
                f"blob {blob.digest} does not have the bytes of its digest",
                hint="`local-imager store fsck --repair` removes bad blobs; then fetch again",
            )
        if blob.size_bytes:
            yield chunk
