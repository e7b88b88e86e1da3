"""Small OCI images made on the spot, with the signature attachments that real ones carry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_LAYER_GZIP,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Platform,
    Reference,
    canonical_json,
)

REGISTRY = "registry.example"
IMAGE = Reference.parse(f"{REGISTRY}/siderolabs/imager:v1.13.0")
SINGLE = Reference.parse(f"{REGISTRY}/siderolabs/single:v1.0.0")
SIGNATURE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def layer_bytes(files: dict[str, bytes]) -> tuple[bytes, Digest]:
    """Return a compressed layer and the digest of it uncompressed (its diff ID)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    plain = buffer.getvalue()
    return gzip.compress(plain, mtime=0), Digest.of(plain)


def put_image(layout: Layout, arch: str, files: dict[str, bytes]) -> Descriptor:
    """Store a linux image of one layer; the descriptor names its platform."""
    data, diff_id = layer_bytes(files)
    layer = layout.put_bytes(data, MEDIA_LAYER_GZIP)
    config = {
        "architecture": arch,
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": layout.put_bytes(canonical_json(config), MEDIA_CONFIG).as_dict(),
        "layers": [layer.as_dict()],
    }
    return layout.put_bytes(
        canonical_json(manifest), MEDIA_MANIFEST, platform=Platform("linux", arch)
    )


def put_index(layout: Layout, manifests: list[Descriptor]) -> Descriptor:
    """Store an index over manifests."""
    document = {
        "schemaVersion": 2,
        "mediaType": MEDIA_INDEX,
        "manifests": [manifest.as_dict() for manifest in manifests],
    }
    return layout.put_bytes(canonical_json(document), MEDIA_INDEX)


@dataclass(frozen=True)
class Sample:
    """A layout with a signed two-platform image and a plain one-platform image."""

    layout: Layout
    index: Descriptor
    children: dict[str, Descriptor]
    single: Descriptor
    bundle: Descriptor
    legacy: Descriptor

    @property
    def path(self) -> Path:
        """The layout's directory."""
        return self.layout.path

    def layer_of(self, arch: str) -> Descriptor:
        """The one layer of a platform's image."""
        document = json.loads(self.layout.blob_path(self.children[arch].digest).read_bytes())
        layer = document["layers"][0]
        return Descriptor(layer["mediaType"], Digest.parse(layer["digest"]), layer["size"])


def make_sample(path: Path) -> Sample:
    """Make the sample layout; the same bytes each time."""
    layout = Layout.create(path)
    noise = bytes(range(256)) * 64
    children = {
        arch: put_image(layout, arch, {"hello": arch.encode(), "noise": noise * (number + 1)})
        for number, arch in enumerate(("amd64", "arm64"))
    }
    index = put_index(layout, list(children.values()))
    single = put_image(layout, "amd64", {"single": b"1"})
    layout.set_ref(str(IMAGE), index)
    layout.set_ref(str(SINGLE), single)
    bundle = layout.attach(index, SIGNATURE_TYPE, b'{"bundle":1}', SIGNATURE_TYPE)
    fallback = layout.resolve(f"sha256-{index.digest.hex}")
    assert fallback is not None
    layout.remove_ref(f"sha256-{index.digest.hex}")
    layout.set_ref(f"{IMAGE.name}:sha256-{index.digest.hex}", fallback)
    payload = canonical_json({"critical": {"image": {"docker-manifest-digest": str(index.digest)}}})
    legacy = layout.put_artifact(
        "", layout.put_bytes(payload, "application/vnd.dev.cosign.simplesigning.v1+json")
    )
    layout.set_ref(f"{IMAGE.name}:sha256-{index.digest.hex}.sig", legacy)
    return Sample(layout, index, children, single, bundle, legacy)


def tar_of(layout: Path, target: Path, prefix: str = "") -> Path:
    """Write the layout's own files as an uncompressed tar."""
    with tarfile.open(target, "w") as archive:
        for name in ("oci-layout", "index.json", "blobs"):
            archive.add(layout / name, prefix + name)
    return target
