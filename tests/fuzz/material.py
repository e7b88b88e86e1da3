"""Genuine signatures of the fixtures, so that a harness gets behind the first check.

Each :class:`Genuine` is one bundle that verifies under :data:`SIGNERS`; whatever a harness accepts
has to be one of these again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_imager.oci.model import Digest
from local_imager.sources.bundle import Bundle, parse_bundle
from local_imager.sources.candidates import ANNOTATION_CERTIFICATE
from local_imager.sources.certificate import certificate_from_pem
from local_imager.sources.keys import load_pem_key
from local_imager.sources.logbody import Signed
from local_imager.sources.statement import Envelope
from local_imager.sources.trust import OFFICIAL_IDENTITY, OFFICIAL_ISSUER, KeylessSigner, KeySigner
from local_imager.sources.trusted_root import TrustedRoot, load_trusted_root

SIGFIX: Final = Path(__file__).parents[1] / "golden" / "sigfix"
ROOT_PATH: Final = SIGFIX / "trust" / "trusted_root.json"
ROOT: Final[TrustedRoot] = load_trusted_root(ROOT_PATH)

KEYLESS: Final = ("keyless-bundle-rekor1-tsa", "keyless-bundle-rekor2-tsa", "keyless-bundle-rekor1")
KEYED: Final = ("key-p256-bundle-tlog", "key-rsa2048-bundle-rekor1")
LEGACY: Final = (
    "keyless-legacy-rekor1-tsa",
    "key-p256-legacy-tlog",
    "key-p256-legacy",
    "layout-cosign-save",
)


def _key(name: str) -> KeySigner:
    pem = (SIGFIX / "keys" / f"{name}.pub").read_bytes()
    return KeySigner(load_pem_key(pem, "sha256", name), require_tlog=True, trusted_root=ROOT_PATH)


SIGNERS: Final[tuple[KeySigner | KeylessSigner, ...]] = (
    KeylessSigner(OFFICIAL_ISSUER, identity_regexp=OFFICIAL_IDENTITY, trusted_root=ROOT_PATH),
    _key("p256"),
    _key("rsa2048"),
)


@dataclass(frozen=True, slots=True)
class Genuine:
    """A bundle as the tools made it, and the image manifest that it signs."""

    data: bytes
    bundle: Bundle
    envelope: Envelope
    artifact: bytes

    @property
    def digest(self) -> Digest:
        """What the statement names."""
        return Digest.of(self.artifact)

    @property
    def signed(self) -> Signed:
        """The signature as log entries are compared with it."""
        verifier = self.bundle.certificate or next(
            signer.key.der
            for signer in SIGNERS
            if isinstance(signer, KeySigner)
            and signer.key.verifies(self.envelope.signatures[0], self.envelope.encoded)
        )
        signature, payload = self.envelope.signatures[0], self.envelope.untrusted_payload
        return Signed(signature, verifier, self.envelope.encoded, payload)


def blobs_of(layout: str) -> dict[Digest, bytes]:
    """Return every blob of a fixture."""
    folder = SIGFIX / "layouts" / layout / "blobs" / "sha256"
    return {Digest.of(data): data for data in (p.read_bytes() for p in sorted(folder.iterdir()))}


def _genuine(layout: str) -> Genuine:
    blobs = blobs_of(layout)
    data = next(blob for blob in blobs.values() if b'"dsseEnvelope"' in blob)
    bundle = parse_bundle(data)
    assert bundle.envelope is not None
    statement = json.loads(bundle.envelope.untrusted_payload)
    named = Digest(statement["subject"][0]["digest"]["sha256"])
    return Genuine(data, bundle, bundle.envelope, blobs[named])


def legacy_certificates() -> list[bytes]:
    """Return the certificates (DER) of the older form's fixtures."""
    texts = [blob for layout in LEGACY for blob in blobs_of(layout).values() if b'"layers"' in blob]
    layers = [layer for text in texts for layer in json.loads(text).get("layers", [])]
    pems = [layer.get("annotations", {}).get(ANNOTATION_CERTIFICATE, "") for layer in layers]
    return [certificate_from_pem(pem.encode()) for pem in pems if pem]


GENUINE: Final = tuple(_genuine(layout) for layout in (*KEYLESS, *KEYED))
