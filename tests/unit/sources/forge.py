"""Makes small signed images for tests: real keys, real signatures, both forms, as OCI layouts."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_CONFIG,
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_LAYER_GZIP,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Platform,
    Reference,
)
from local_imager.sources.candidates import ANNOTATION_SIGNATURE, MEDIA_SIMPLE_SIGNING
from local_imager.sources.statement import (
    PAYLOAD_TYPE_IN_TOTO,
    PREDICATE_IMAGE_SIGNATURE,
    SIMPLE_SIGNING_TYPE,
    Envelope,
)
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries

REGISTRY = "upstream.test"
MEDIA_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
Files = Mapping[str, bytes]


def as_json(document: object) -> bytes:
    """Serialise compactly, keeping the order that was written."""
    return json.dumps(document, separators=(",", ":")).encode()


def tar_of(files: Files) -> bytes:
    """Make a tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Signing:
    """A throwaway ECDSA P-256 key that signs as cosign does."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def pem(self) -> str:
        """The public half."""
        public = self.key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, data: bytes) -> bytes:
        """Sign with SHA-256."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def policy(self, pattern: str = f"{REGISTRY}/**", **more: Any) -> TrustPolicy:
        """A policy that wants this key."""
        return policy_from_entries([{"pattern": pattern, "key": self.pem, **more}])

    def simple_payload(self, digest: Digest) -> bytes:
        """The payload of the older form."""
        critical = {
            "identity": {"docker-reference": f"{REGISTRY}/siderolabs/imager"},
            "image": {"docker-manifest-digest": str(digest)},
            "type": SIMPLE_SIGNING_TYPE,
        }
        return as_json({"critical": critical, "optional": None})

    def bundle(self, digest: Digest, predicate: str = PREDICATE_IMAGE_SIGNATURE) -> bytes:
        """A bundle of version 0.3 around a signed statement."""
        statement = as_json(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"digest": {"sha256": digest.hex}}],
                "predicateType": predicate,
                "predicate": {},
            }
        )
        signature = self.sign(Envelope(PAYLOAD_TYPE_IN_TOTO, statement, ()).encoded)
        return as_json(
            {
                "mediaType": MEDIA_BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": "test"}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(statement).decode(),
                    "payloadType": PAYLOAD_TYPE_IN_TOTO,
                    "signatures": [{"sig": base64.b64encode(signature).decode()}],
                },
            }
        )


class Forge:
    """An upstream in a layout directory that images and signatures are put into."""

    def __init__(self, path: Path, registry: str = REGISTRY) -> None:
        self.layout = Layout.create(path)
        self.registry = registry

    def reference(self, name: str, tag: str = "") -> Reference:
        """The full reference of an image of this upstream."""
        host, _, prefix = self.registry.partition("/")
        return Reference(host, f"{prefix}/{name}" if prefix else name, tag)

    def manifest(self, files: Files, arch: str = "amd64", *, subject: str = "") -> Descriptor:
        """Store a one-layer image; nothing names it yet."""
        layer = self.layout.put_bytes(gzip.compress(tar_of(files), mtime=0), MEDIA_LAYER_GZIP)
        config = self.layout.put_bytes(
            as_json({"architecture": arch, "os": "linux", "note": subject}), MEDIA_CONFIG
        )
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": config.as_dict(),
            "layers": [layer.as_dict()],
        }
        return self.layout.put_bytes(
            as_json(body), MEDIA_MANIFEST, platform=Platform("linux", arch)
        )

    def index(self, *children: Descriptor) -> Descriptor:
        """Store an index over images."""
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_INDEX,
            "manifests": [child.as_dict() for child in children],
        }
        return self.layout.put_bytes(as_json(body), MEDIA_INDEX)

    def image(self, name: str, tag: str, files: Files, arches: tuple[str, ...]) -> Descriptor:
        """Store and name an index with one image per architecture."""
        top = self.index(*(self.manifest(files, arch, subject=name) for arch in arches))
        self.layout.set_ref(str(self.reference(name, tag)), top)
        return top

    def sign_legacy(self, name: str, top: Descriptor, *keys: Signing) -> None:
        """Sign in the older form, one layer per key."""
        layers = []
        for key in keys:
            payload = key.simple_payload(top.digest)
            encoded = base64.b64encode(key.sign(payload)).decode()
            layer = self.layout.put_bytes(
                payload, MEDIA_SIMPLE_SIGNING, annotations={ANNOTATION_SIGNATURE: encoded}
            )
            layers.append(layer.as_dict())
        config = self.layout.put_bytes(b"{}", MEDIA_CONFIG)
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": config.as_dict(),
            "layers": layers,
        }
        manifest = self.layout.put_bytes(as_json(body), MEDIA_MANIFEST)
        tag = f"sha256-{top.digest.hex}.sig"
        self.layout.set_ref(str(self.reference(name, tag)), manifest)

    def sign_bundle(self, name: str, top: Descriptor, *bundles: bytes) -> None:
        """Attach bundles as referrers, listed under the fallback tag."""
        listed = []
        config = self.layout.put_bytes(b"{}", MEDIA_EMPTY)
        for bundle in bundles:
            layer = self.layout.put_bytes(bundle, MEDIA_BUNDLE)
            body = {
                "schemaVersion": 2,
                "mediaType": MEDIA_MANIFEST,
                "artifactType": MEDIA_BUNDLE,
                "config": config.as_dict(),
                "layers": [layer.as_dict()],
                "subject": Descriptor(top.media_type, top.digest, top.size_bytes).as_dict(),
            }
            listed.append(
                self.layout.put_bytes(as_json(body), MEDIA_MANIFEST, artifact_type=MEDIA_BUNDLE)
            )
        index = self.index(*listed)
        tag = f"sha256-{top.digest.hex}"
        self.layout.set_ref(str(self.reference(name, tag)), index)
