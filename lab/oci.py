"""Writing an OCI image layout: blobs, image manifests, indexes, and the names in index.json."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.archives import Layer
from lab.place import EPOCH_S

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"

Descriptor = dict[str, Any]

_CREATED = datetime.fromtimestamp(EPOCH_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def hex_of(digest: str) -> str:
    """Return the 64 digits of ``sha256:…``."""
    return digest.removeprefix("sha256:")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a finished, never changing file; copy it where the file system cannot link."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@dataclass(slots=True)
class Layout:
    """An OCI image layout under construction, or one that is read."""

    root: Path
    entries: list[Descriptor] = field(default_factory=list)

    @classmethod
    def create(cls, root: Path) -> "Layout":
        """Start a layout in an empty folder."""
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> "Layout":
        """Read the names of an existing layout; OSError or ValueError when it is none."""
        index = json.loads((root / "index.json").read_text(encoding="utf-8"))
        return cls(root, index["manifests"])

    def save(self) -> None:
        """Write index.json, entries in order of their names."""
        self.entries.sort(key=lambda entry: str(entry["annotations"][REF_NAME]))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries}
        (self.root / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")

    def blob_path(self, digest: str) -> Path:
        return self.root / "blobs/sha256" / hex_of(digest)

    def put(self, media_type: str, content: bytes) -> Descriptor:
        """Store bytes as a blob and return its descriptor."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        path = self.blob_path(digest)
        if not path.exists():
            path.write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put_json(self, media_type: str, value: Mapping[str, Any]) -> Descriptor:
        """Store a JSON document as a blob."""
        return self.put(media_type, json.dumps(value, separators=(",", ":")).encode())

    def put_layer(self, layer: Layer) -> Descriptor:
        """Take a layer file into the layout by hard link."""
        link_or_copy(layer.path, self.blob_path(layer.digest))
        return {"mediaType": LAYER_GZIP, "digest": layer.digest, "size": layer.size_bytes}

    def put_image(
        self, arch: str, layers: Sequence[Layer], config: Mapping[str, Any] | None = None
    ) -> Descriptor:
        """Store an image of these layers; `config` is the part that tells how to run it.

        The descriptor names the platform, as an index needs it.
        """
        document = {
            "created": _CREATED,
            "architecture": arch,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": _CREATED, "created_by": "local-imager lab"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put_json(CONFIG, document),
            "layers": [self.put_layer(layer) for layer in layers],
        }
        platform = {"architecture": arch, "os": "linux"}
        return {**self.put_json(MANIFEST, manifest), "platform": platform}

    def put_index(self, manifests: Sequence[Descriptor]) -> Descriptor:
        """Store a multi-architecture index."""
        return self.put_json(
            INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        )

    def name(self, descriptor: Descriptor, reference: str) -> None:
        """Enter a manifest or index into index.json under its full name."""
        plain = {key: descriptor[key] for key in ("mediaType", "digest", "size")}
        self.entries.append({**plain, "annotations": {REF_NAME: reference}})

    def named(self) -> dict[str, Descriptor]:
        """Return the entries of index.json by name."""
        return {entry["annotations"][REF_NAME]: entry for entry in self.entries}

    def read(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return a manifest or index as JSON."""
        value: dict[str, Any] = json.loads(self.blob_path(descriptor["digest"]).read_bytes())
        return value

    def manifests_below(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        """Yield the manifest or index itself and every one that an index names."""
        yield descriptor
        if descriptor["mediaType"] == INDEX:
            for child in self.read(descriptor)["manifests"]:
                yield from self.manifests_below(child)

    def blobs_of(self, manifest: Descriptor) -> list[Descriptor]:
        """Return config and layers of an image manifest; an index has none."""
        if manifest["mediaType"] == INDEX:
            return []
        document = self.read(manifest)
        return [document["config"], *document["layers"]]
