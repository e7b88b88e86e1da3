"""What the store knows of an asset, and how that is written into manifests and index entries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from local_imager.errors import InputError
from local_imager.oci.model import ANNOTATION_REF_NAME, Descriptor, Digest, Manifest

FORMAT_VERSION: Final = "1"
ANNOTATION_FORMAT: Final = "io.local-imager.store.format"
ARTIFACT_ASSET: Final = "application/vnd.local-imager.asset.v1"
ASSET_PREFIX: Final = "local-imager/asset/"

ANNOTATION_NAME: Final = "io.local-imager.asset.name"
ANNOTATION_SCHEMATIC: Final = "io.local-imager.schematic.id"
ANNOTATION_VERSION: Final = "io.local-imager.talos.version"
ANNOTATION_BUILD_KEY: Final = "io.local-imager.build-key"
ANNOTATION_PRIVATE: Final = "io.local-imager.private"
# What an index entry repeats of its manifest, so that ten thousand are listed without reading them.
ANNOTATION_FILE: Final = "io.local-imager.asset.digest"
ANNOTATION_SIZE: Final = "io.local-imager.asset.size"
_SIZE: Final = re.compile(r"[0-9]{1,15}")
_FILE: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """A finished file that is to be stored as an asset.

    ``build_key`` is the SHA-256 (hex) by which the same build is found again; ``private`` files
    hold secrets and are kept readable by their owner only.
    """

    schematic_id: str
    version: str
    asset: str
    build_key: str
    path: Path
    media_type: str = "application/octet-stream"
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    private: bool = False

    @property
    def name(self) -> str:
        """The asset's name in the store."""
        return asset_name(self.schematic_id, self.version, self.asset)

    def manifest_annotations(self) -> dict[str, str]:
        """Return what the manifest says; no times, so the same build gives the same manifest."""
        own = {
            ANNOTATION_NAME: self.asset,
            ANNOTATION_SCHEMATIC: self.schematic_id,
            ANNOTATION_VERSION: self.version,
            ANNOTATION_BUILD_KEY: self.build_key,
        }
        if self.private:
            own[ANNOTATION_PRIVATE] = "true"
        return {**self.annotations, **own}


@dataclass(frozen=True, slots=True)
class AttachedDocument:
    """A document that is attached to an asset when that is stored."""

    artifact_type: str
    data: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True, slots=True)
class StoredAsset:
    """An asset in the store; ``path`` is its blob (read only: export it, do not write to it)."""

    name: str
    schematic_id: str
    version: str
    asset: str
    build_key: str
    manifest: Descriptor
    digest: Digest
    size_bytes: int
    path: Path
    private: bool

    @property
    def manifest_digest(self) -> Digest:
        """Digest of the artifact manifest; what referrers are attached to."""
        return self.manifest.digest

    def entry(self) -> Descriptor:
        """Return the asset's entry in the index."""
        said = {
            ANNOTATION_REF_NAME: self.name,
            ANNOTATION_BUILD_KEY: self.build_key,
            ANNOTATION_FILE: str(self.digest),
            ANNOTATION_SIZE: str(self.size_bytes),
        }
        if self.private:
            said[ANNOTATION_PRIVATE] = "true"
        return replace(self.manifest, annotations=said, artifact_type=ARTIFACT_ASSET)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``store ls --json`` prints."""
        return {
            "name": self.name,
            "schematic_id": self.schematic_id,
            "version": self.version,
            "asset": self.asset,
            "digest": str(self.digest),
            "size_bytes": self.size_bytes,
            "build_key": self.build_key,
            "manifest_digest": str(self.manifest_digest),
            "private": self.private,
        }


def asset_name(schematic_id: str, version: str, asset: str) -> str:
    """Return the name under which the store lists an asset."""
    parts = (schematic_id, version, asset)
    if not all(part and "/" not in part and part.isprintable() for part in parts):
        raise InputError(f"{'/'.join(parts)[:200]!r} cannot be the name of an asset")
    return ASSET_PREFIX + "/".join(parts)


def stored_asset(entry: Descriptor, manifest: Manifest, path: Path) -> StoredAsset | None:
    """Return the asset that a manifest of ours describes, or None for any other manifest."""
    said = manifest.annotations
    if manifest.artifact_type != ARTIFACT_ASSET or len(manifest.layers) != 1:
        return None
    layer = manifest.layers[0]
    schematic_id = said.get(ANNOTATION_SCHEMATIC, "")
    version, asset = said.get(ANNOTATION_VERSION, ""), said.get(ANNOTATION_NAME, "")
    if not (schematic_id and version and asset):
        return None
    return StoredAsset(
        name=asset_name(schematic_id, version, asset),
        schematic_id=schematic_id,
        version=version,
        asset=asset,
        build_key=said.get(ANNOTATION_BUILD_KEY, ""),
        manifest=Descriptor(entry.media_type, entry.digest, entry.size_bytes),
        digest=layer.digest,
        size_bytes=layer.size_bytes,
        path=path,
        private=said.get(ANNOTATION_PRIVATE) == "true",
    )


def listed_asset(entry: Descriptor, blobs_dir: Path) -> StoredAsset | None:
    """Return the asset as its index entry tells of it, or None where that tells too little.

    For lists and searches: what is used or handed out is read from the manifest.
    """
    said = entry.annotations
    parts = entry.ref_name.removeprefix(ASSET_PREFIX).split("/")
    size, file = said.get(ANNOTATION_SIZE, ""), said.get(ANNOTATION_FILE, "")
    if len(parts) != 3 or not _SIZE.fullmatch(size) or not _FILE.fullmatch(file):
        return None
    digest, (schematic_id, version, asset) = Digest(file[7:]), parts
    return StoredAsset(
        entry.ref_name,
        schematic_id,
        version,
        asset,
        build_key=said.get(ANNOTATION_BUILD_KEY, ""),
        manifest=Descriptor(entry.media_type, entry.digest, entry.size_bytes),
        digest=digest,
        size_bytes=int(size),
        path=blobs_dir / digest.hex,
        private=said.get(ANNOTATION_PRIVATE) == "true",
    )
