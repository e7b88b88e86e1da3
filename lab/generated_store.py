"""A valid store of any number of assets in seconds, for the figures of a large one.

`python3 -m lab.generated_store FOLDER COUNT` makes one.

Every asset has a small file, a manifest, and the three referrers that a build leaves (schematic,
record, log) with their list, as the program writes them; only nothing is synced to the disk.
"""

import os
import sys
from pathlib import Path

from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    ANNOTATION_TITLE,
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    canonical_json,
)
from local_imager.oci.names import fallback_tag
from local_imager.oci.seal import seal
from local_imager.pipeline.factory import (
    ARTIFACT_BUILD_LOG,
    ARTIFACT_BUILD_RECORD,
    ARTIFACT_SCHEMATIC,
)
from local_imager.store.records import ARTIFACT_ASSET, AssetRecord, StoredAsset
from local_imager.store.store import Store

VERSIONS = ("v1.9.0", "v1.11.4", "v1.12.1", "v1.13.0")
ASSETS = (
    *("metal-amd64.iso", "metal-arm64.iso", "metal-amd64.raw.zst", "metal-arm64.raw.zst"),
    *("metal-amd64-uki.efi", "kernel-amd64", "initramfs-amd64.xz", "cmdline-metal-amd64"),
    *("installer-amd64.tar", "nocloud-amd64.raw.xz"),
)
REFERRERS = (
    (ARTIFACT_SCHEMATIC, "application/yaml"),
    (ARTIFACT_BUILD_RECORD, "application/json"),
    (ARTIFACT_BUILD_LOG, "text/plain"),
)


class _Blobs:
    """Writes blobs as the store does, but for the syncing."""

    def __init__(self, store: Store) -> None:
        self._folder = str(store.layout.blobs_dir)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(data, media_type)
        path = f"{self._folder}/{descriptor.digest.hex}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o444)
        try:
            os.write(handle, data)
            seal(handle, descriptor.digest)
        finally:
            os.close(handle)
        return descriptor

    def artifact(
        self,
        artifact_type: str,
        layer: Descriptor,
        config: Descriptor,
        annotations: dict[str, str],
        subject: Descriptor | None = None,
    ) -> Descriptor:
        body: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "artifactType": artifact_type,
            "config": config.as_dict(),
            "layers": [layer.as_dict()],
        }
        if annotations:
            body["annotations"] = annotations
        if subject is not None:
            body["subject"] = subject.as_dict()
        return self.put(canonical_json(body), MEDIA_MANIFEST)


def record_of(number: int, path: Path = Path("none")) -> AssetRecord:
    """Return what the store is told of the asset with this number; no two have the same name."""
    asset = ASSETS[number % len(ASSETS)]
    version = VERSIONS[number // len(ASSETS) % len(VERSIONS)]
    schematic = Digest.of(b"schematic %d" % (number // len(ASSETS) // len(VERSIONS))).hex
    key = Digest.of(b"key %d" % number).hex
    return AssetRecord(schematic, version, asset, key, path)


def fill(store: Store, count: int) -> None:
    """Put assets 0 to ``count`` - 1 with their referrers into an empty store."""
    blobs = _Blobs(store)
    config = blobs.put(b"{}", MEDIA_EMPTY)
    entries = []
    for number in range(count):
        record = record_of(number)
        layer = blobs.put(b"file %d" % number, record.media_type)
        titled = Descriptor(
            layer.media_type, layer.digest, layer.size_bytes, {ANNOTATION_TITLE: record.asset}
        )
        said = record.manifest_annotations()
        manifest = blobs.artifact(ARTIFACT_ASSET, titled, config, said)
        stored = StoredAsset(
            *(record.name, record.schematic_id, record.version, record.asset),
            *(record.build_key, manifest, layer.digest, layer.size_bytes),
            *(store.layout.blob_path(layer.digest), record.private),
        )
        entries.append(stored.entry().as_dict())
        attached = []
        for artifact_type, media_type in REFERRERS:
            document = blobs.put(f"{artifact_type} {number}".encode(), media_type)
            one = blobs.artifact(artifact_type, document, config, {}, manifest)
            attached.append({**one.as_dict(), "artifactType": artifact_type})
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": attached}
        listed = blobs.put(canonical_json(body), MEDIA_INDEX).as_dict()
        listed["annotations"] = {ANNOTATION_REF_NAME: fallback_tag(manifest.digest)}
        entries.append(listed)
    store.layout.update_index(lambda document: document["manifests"].extend(entries))


if __name__ == "__main__":
    fill(Store.open(Path(sys.argv[1])), int(sys.argv[2]))
