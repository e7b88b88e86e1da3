"""Private keys of each kind, and policies that want them for bundles."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from local_imager.deliver.bundle.form.signing import (
    SigningKey,
)
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.trust import Origin, TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries

MANIFEST = b'{"bundle":"json"}'
KEYS: dict[str, PrivateKeyTypes] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ecdsa-p256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa-2048": rsa.generate_private_key(65537, 2048),
}


def pem(
    key: PrivateKeyTypes, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes = b""
) -> bytes:
    sealed = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, sealed)


def public_pem(key: SigningKey) -> str:
    body = base64.encodebytes(key.public.der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


def wants(key: SigningKey, **more: Any) -> TrustPolicy:
    entries = [{"pattern": BUNDLES, "key": public_pem(key), **more}]
    return policy_from_entries(entries, source="user.toml")


def asks(key: SigningKey) -> TrustPolicy:
    """A project's file that wants this key."""
    entries = [{"pattern": BUNDLES, "key": public_pem(key)}]
    return policy_from_entries(entries, origin=Origin.PROJECT_FILE, source="project.toml")


def key_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write a key into its file."""
    path = folder / "bundle.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path
