"""Signed PCR policies: the ``.pcrsig`` section of a unified kernel image.

A JSON object: per bank of the TPM (``sha256`` …) a list of policies, each with the digest that a
TPM comes to (``pol``) and an RSA signature over it (systemd-measure(1)). The key is in
``.pcrpkey``. Whether the digest is the one of this image's sections is not computed again here.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from local_imager.events import printable
from local_imager.formats.source import FormatError

MAX_DOCUMENT_BYTES: Final = 256 * 1024
# Three banks with a handful of boot phases each are real.
MAX_POLICIES: Final = 64
# A TPM takes 4096 bits at most; a larger key would only cost time.
MAX_KEY_BITS: Final = 8192
_BANKS: Final = ("sha1", "sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class PcrSignature:
    """One signed policy: which registers (``pcrs``) of which ``bank`` it binds.

    ``policy`` and ``key_fingerprint`` are hexadecimal. ``verifies`` is None when there was no key
    to check the signature with.
    """

    bank: str
    pcrs: tuple[int, ...]
    policy: str
    key_fingerprint: str
    verifies: bool | None


def read_pcr_signatures(document: bytes, public_key: bytes | None) -> tuple[PcrSignature, ...]:
    """Read the policies, bank by bank, and check each with the key (PEM or DER; None: not at all).

    Raises :class:`FormatError` when the document has another shape or the key cannot be read.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise FormatError("the PCR signature document is too large")
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise FormatError("the PCR signature document is not JSON") from error
    if not isinstance(parsed, dict):
        raise _odd()
    key = None if public_key is None else _load_key(public_key)
    found: list[PcrSignature] = []
    for bank, policies in parsed.items():
        if not isinstance(policies, list) or len(found) + len(policies) > MAX_POLICIES:
            raise _odd()
        found += [_one(bank, policy, key) for policy in policies]
    return tuple(found)


def _odd() -> FormatError:
    return FormatError("the PCR signature document does not have the shape that one has")


def _one(bank: str, policy: object, key: Any) -> PcrSignature:
    if not isinstance(policy, dict):
        raise _odd()
    pcrs = policy.get("pcrs")
    texts = [policy.get(name) for name in ("pol", "pkfp", "sig")]
    if not isinstance(pcrs, list) or not all(isinstance(text, str) for text in texts):
        raise _odd()
    if len(pcrs) > 24 or not all(isinstance(pcr, int) and 0 <= pcr < 24 for pcr in pcrs):
        raise _odd()
    try:
        digest, fingerprint = bytes.fromhex(texts[0] or ""), bytes.fromhex(texts[1] or "")
        signature = base64.b64decode(texts[2] or "", validate=True)
    except (ValueError, binascii.Error) as error:
        raise _odd() from error
    verifies = None
    if key is not None and bank in _BANKS:
        verifies = _verifies(key, bank, digest, signature)
    return PcrSignature(printable(bank), tuple(pcrs), digest.hex(), fingerprint.hex(), verifies)


def _load_key(data: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization

    text = data.rstrip(b"\0")
    try:
        if text.startswith(b"-----"):
            return serialization.load_pem_public_key(text)
        return serialization.load_der_public_key(data)
    except Exception as error:  # ValueError, and of the library on odd bytes
        raise FormatError("the key of the PCR signatures cannot be read") from error


def _verifies(key: Any, bank: str, digest: bytes, signature: bytes) -> bool | None:
    """Check one signature; None for a key that no TPM takes.

    systemd signs with SHA-256 in every bank, Talos with the bank's own hash.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    if not isinstance(key, rsa.RSAPublicKey) or key.key_size > MAX_KEY_BITS:
        return None
    own: hashes.HashAlgorithm = {
        "sha1": hashes.SHA1(),  # noqa: S303 - a bank that TPMs have
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }[bank]
    for algorithm in (own, hashes.SHA256()):
        try:
            key.verify(signature, digest, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            continue
        except Exception as error:  # a key that the library does not take
            raise FormatError("the key of the PCR signatures cannot be used") from error
        return True
    return False
