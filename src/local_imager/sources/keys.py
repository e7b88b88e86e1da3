"""Public keys: reading them, and checking one signature with one key.

A key is held as its SubjectPublicKeyInfo DER, so it is a plain value; the cryptography package is
loaded when a key is read or used, not before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, get_args

from local_imager.errors import SettingsError
from local_imager.events import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

HashName = Literal["sha256", "sha384", "sha512"]
HASH_NAMES: Final[tuple[HashName, ...]] = get_args(HashName)

# A PEM public key is at most about 2 KiB (RSA 8192); a larger file is not one.
MAX_KEY_FILE_BYTES: Final = 64 * 1024
# NIST SP 800-131A: RSA below 2048 bits is disallowed. Above 8192 one check costs too much time.
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
# An RSA 8192 signature has 1024 bytes, an ECDSA or Ed25519 one less than 150.
MAX_SIGNATURE_BYTES: Final = 4096
_CURVES: Final = {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384", "secp521r1": "ecdsa-p521"}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: ``der`` (SubjectPublicKeyInfo), its ``algorithm`` name, and the hash to use.

    ``hash_algorithm`` is what the policy says (the official factory's default is SHA-256 for
    every key); Ed25519 has no choice and ignores it.
    """

    der: bytes
    algorithm: str
    hash_algorithm: HashName = "sha256"

    @property
    def key_id(self) -> str:
        """``sha256:<hex>`` of the key's DER form: names the signer in evidence and messages."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    def verifies(self, untrusted_signature: bytes, data: bytes) -> bool:
        """Say whether this key made this signature over these bytes; never raises."""
        if not 0 < len(untrusted_signature) <= MAX_SIGNATURE_BYTES:
            return False
        return _verifies(_loaded(self.der), untrusted_signature, data, self.hash_algorithm)


def load_pem_key(untrusted_pem: bytes, hash_algorithm: str, source: str) -> PublicKey:
    """Read a PEM public key (``PUBLIC KEY`` or ``RSA PUBLIC KEY``).

    Accepts ECDSA P-256/P-384/P-521, RSA of 2048 to 8192 bits and Ed25519; raises
    :class:`SettingsError` for anything else, a private key or a shared secret among them.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in untrusted_pem:
        raise SettingsError(
            "the trust key is a private key",
            hint="give the public half, and keep the private one away from this machine",
            source=source,
        )
    name = next((name for name in HASH_NAMES if name == hash_algorithm), None)
    if name is None:
        raise SettingsError(
            f"{printable(hash_algorithm, limit=40)!r} is not a hash algorithm",
            hint=f"hash_algorithm is one of {', '.join(HASH_NAMES)}",
            source=source,
        )
    try:
        if len(untrusted_pem) > MAX_KEY_FILE_BYTES:
            raise ValueError("the file is too large")
        return key_from_loaded(load_pem_public_key(untrusted_pem), name)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            "the trust key is not a usable public key",
            hint="a PEM file with BEGIN PUBLIC KEY: ECDSA P-256/384/521, RSA 2048 or more, Ed25519",
            source=source,
        ) from error


def key_from_der(untrusted_der: bytes, hash_algorithm: HashName) -> PublicKey:
    """Read a DER public key (trusted root, certificate); raises :class:`ValueError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        return key_from_loaded(load_der_public_key(untrusted_der), hash_algorithm)
    except UnsupportedAlgorithm as error:
        raise ValueError("unsupported key algorithm") from error


def key_from_loaded(key: PublicKeyTypes, hash_algorithm: HashName) -> PublicKey:
    """Turn a loaded key into our value; raises :class:`ValueError` for kinds we do not accept."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = _CURVES.get(key.curve.name, "")
    elif isinstance(key, rsa.RSAPublicKey):
        fits = MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
        algorithm = f"rsa-{key.key_size}" if fits else ""
    else:
        algorithm = "ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else ""
    if not algorithm:
        raise ValueError("a kind or size of key that is not accepted")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(der, algorithm, hash_algorithm)


@lru_cache(maxsize=64)
def _loaded(der: bytes) -> PublicKeyTypes:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    return load_der_public_key(der)


def _hash(name: HashName) -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    if name == "sha256":
        return hashes.SHA256()
    return hashes.SHA384() if name == "sha384" else hashes.SHA512()


def _verifies(key: PublicKeyTypes, untrusted_signature: bytes, data: bytes, name: HashName) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(untrusted_signature, data, ec.ECDSA(_hash(name)))
        elif isinstance(key, rsa.RSAPublicKey):
            # PKCS#1 v1.5 is what cosign signs with; PSS is never used for images.
            key.verify(untrusted_signature, data, padding.PKCS1v15(), _hash(name))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(untrusted_signature, data)
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True
