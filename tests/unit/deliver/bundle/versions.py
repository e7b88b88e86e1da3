"""Two versions of an image: the far side has the old one, the near store has both."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from local_imager.deliver.bundle.deltas.delta import DeltaPlan, plan_delta
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Blob, Item
from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_LAYER_TAR,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Platform,
    canonical_json,
)

KIB = 1024
MIB = 1024 * KIB
# Blobs of the tests are large when they are larger than this (in the program: 1 MiB).
LARGE_BYTES = 64 * KIB
REPOSITORY = "registry.example/siderolabs/imager"
OLD = f"{REPOSITORY}:v1.12.1"
NEW = f"{REPOSITORY}:v1.13.0"
# RFC 1952: deflate, a time, made by an unknown system; FNAME adds a name.
GZIP_HEADER = b"\x1f\x8b\x08\x00" + b"\x01\x02\x03\x04" + b"\x00\xff"
GZIP_HEADER_WITH_NAME = b"\x1f\x8b\x08\x08" + bytes(4) + b"\x02\x03" + b"layer.tar\0"


def content(seed: int, size_bytes: int = 200 * KIB) -> bytes:
    """Return bytes of which each half is alike in all: numbers as text, and noise."""
    noise = random.Random(seed)
    text = b"".join(b"%016x\n" % noise.getrandbits(40) for _ in range(size_bytes // 34))
    return text + noise.randbytes(size_bytes - len(text))


def next_version(old: bytes) -> bytes:
    """Return the same with something put in, something taken out and something changed."""
    third = len(old) // 3
    return old[: third - 777] + b"put in " * 99 + old[third:-100] + bytes(200) + old[-50:]


def gzipped(plain: bytes, level: int = 6, header: bytes = GZIP_HEADER) -> bytes:
    """Return what zlib makes at this level, as one member behind this header."""
    engine = zlib.compressobj(level, zlib.DEFLATED, -15)
    packed = engine.compress(plain) + engine.flush()
    trailer = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return header + packed + trailer


def flushed_gzip(plain: bytes) -> bytes:
    """Return what a packer makes that cuts its input, as those that use many cores do."""
    engine = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = b""
    for begin in range(0, len(plain), 100_000):
        packed += engine.compress(plain[begin : begin + 100_000])
        packed += engine.flush(zlib.Z_SYNC_FLUSH)
    packed += engine.flush()
    trailer = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return GZIP_HEADER + packed + trailer


def zstded(plain: bytes, level: int = 3, *, checksum: bool = True, size: bool = True) -> bytes:
    """Return one zstd frame, made as a stream."""
    engine = zstandard.ZstdCompressor(
        level=level, write_checksum=checksum, write_content_size=size
    ).compressobj(**({"size": len(plain)} if size else {}))
    return engine.compress(plain) + engine.flush()


def put_layers(layout: Layout, layers: Sequence[bytes], arch: str = "amd64") -> Descriptor:
    """Store an image of these layers, whatever they hold."""
    config = layout.put_bytes(canonical_json({"architecture": arch, "os": "linux"}), MEDIA_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": config.as_dict(),
        "layers": [layout.put_bytes(data, MEDIA_LAYER_TAR).as_dict() for data in layers],
    }
    platform = Platform("linux", arch)
    return layout.put_bytes(canonical_json(manifest), MEDIA_MANIFEST, platform=platform)


@dataclass(frozen=True)
class Sides:
    """The near store, with what the far side has in it and what is to travel."""

    near: Layout
    far: Layout

    @classmethod
    def make(cls, folder: Path) -> Sides:
        """Make two empty stores."""
        return cls(Layout.create(folder / "near"), Layout.create(folder / "far"))

    def both_have(self, layers: Sequence[bytes], name: str = OLD, arch: str = "amd64") -> None:
        """Put an image into both stores."""
        for layout in (self.near, self.far):
            layout.set_ref(name, put_layers(layout, layers, arch))

    def near_has(
        self, layers: Sequence[bytes], name: str = NEW, arch: str = "amd64"
    ) -> tuple[Item, tuple[Blob, ...]]:
        """Put an image into the near store; return its item and blobs, documents first."""
        entry = put_layers(self.near, layers, arch)
        self.near.set_ref(name, entry)
        manifest = self.near.read_manifest(entry)
        documents = [
            Blob(one.digest, one.size_bytes, "document", document=True)
            for one in (entry, manifest.config)  # type: ignore[union-attr]
        ]
        carried = [
            Blob(Digest.of(data), len(data), f"layer {number}")
            for number, data in enumerate(layers)
        ]
        blobs = (*sorted(documents, key=lambda blob: blob.digest), *carried)
        return Item("image", name, entry, tuple(blob.digest for blob in blobs)), blobs

    def inventory(self) -> Inventory:
        """Return what the far side has."""
        return Inventory(
            {Digest(path.name): path.stat().st_size for path in self.far.blobs_dir.iterdir()}
        )

    def plan(self, layers: Sequence[bytes], name: str = NEW, arch: str = "amd64") -> DeltaPlan:
        """Plan to carry an image that the far side lacks."""
        item, blobs = self.near_has(layers, name, arch)
        return plan_delta(blobs, [item], self.near, self.inventory())

    def carry(self, digest: Digest) -> None:
        """Bring a blob of the near store over."""
        self.far.put_bytes(self.near.blob_path(digest).read_bytes(), "")


def index_of(layout: Layout, *children: Descriptor) -> Descriptor:
    """Store an index over manifests."""
    document = {
        "schemaVersion": 2,
        "mediaType": MEDIA_INDEX,
        "manifests": [child.as_dict() for child in children],
    }
    return layout.put_bytes(canonical_json(document), MEDIA_INDEX)
