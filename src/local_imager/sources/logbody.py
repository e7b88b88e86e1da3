"""Whether a log entry is about the signature at hand, and not about some other one.

A log entry's body names the hash of what was signed, the signature, and the key or certificate.
A valid entry of another signature proves nothing here, so each of the three must agree.
Types and fields: Rekor ``pkg/types`` (hashedrekord 0.0.1, dsse 0.0.1, intoto 0.0.2) and
rekor-tiles (hashedrekord 0.0.2, dsse 0.0.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from local_imager.sources.certificate import certificate_from_pem
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.tlog import MAX_BODY_BYTES, LogEntry
from local_imager.sources.untrusted_json import (
    Document,
    bytes_field,
    decode_base64,
    malformed,
    object_field,
    objects_field,
    parse_object,
    text_field,
)

_MAX_FIELD_BYTES: Final = 64 * 1024
_HASHES: Final = {
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "SHA2_256": "sha256",
    "SHA2_384": "sha384",
    "SHA2_512": "sha512",
}


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature as it was verified.

    ``data`` are the bytes that the signature covers (for DSSE the pre-authentication encoding),
    ``payload`` the DSSE payload (None when there is no envelope), ``verifier_der`` the public key
    (SubjectPublicKeyInfo) or the certificate. ``data_digest`` stands in for ``data`` when only
    the artifact's SHA-256 is known.
    """

    signature: bytes
    verifier_der: bytes
    data: bytes | None = None
    payload: bytes | None = None
    data_digest: bytes = b""

    def digest(self, algorithm: str) -> bytes:
        """Return the hash of the signed bytes."""
        if self.data is not None:
            return hashlib.new(algorithm, self.data).digest()
        return self.data_digest if algorithm == "sha256" else b""


def _other(problem: str) -> Rejected:
    return Rejected(Reason.TLOG_OTHER_ENTRY, f"the log entry names {problem}")


def check_body(entry: LogEntry, signed: Signed) -> None:
    """Check that the entry's body describes this signature; raises :class:`Rejected`."""
    what = "log entry body"
    document = parse_object(entry.untrusted_body, what, MAX_BODY_BYTES)
    kind = text_field(document, "kind", what)
    version = text_field(document, "apiVersion", what)
    if entry.kind and (entry.kind, entry.version) != (kind, version):
        raise _other("another type than its body")
    checker = _CHECKERS.get((kind, version))
    if checker is None:
        raise Rejected(Reason.UNSUPPORTED_FORM, f"log entries of type {kind} {version}")
    checker(object_field(document, "spec", what), signed)


def _check_hashedrekord_1(spec: Document, signed: Signed) -> None:
    what = "hashedrekord entry"
    stated = object_field(object_field(spec, "data", what), "hash", what)
    _check_hash(stated, "value", signed, what, hex_text=True)
    signature = object_field(spec, "signature", what)
    _check_signature(bytes_field(signature, "content", what, _MAX_FIELD_BYTES), signed)
    public = object_field(signature, "publicKey", what)
    _check_pem(bytes_field(public, "content", what, _MAX_FIELD_BYTES), signed)


def _check_hashedrekord_2(spec: Document, signed: Signed) -> None:
    what = "hashedrekord entry"
    record = object_field(spec, "hashedRekordV002", what)
    _check_hash(object_field(record, "data", what), "digest", signed, what, hex_text=False)
    signature = object_field(record, "signature", what)
    _check_signature(bytes_field(signature, "content", what, _MAX_FIELD_BYTES), signed)
    _check_verifier(object_field(signature, "verifier", what), signed)


def _check_dsse_1(spec: Document, signed: Signed) -> None:
    what = "dsse entry"
    _check_payload_hash(object_field(spec, "payloadHash", what), "value", signed, hex_text=True)
    one = _only_one(objects_field(spec, "signatures", what, 8))
    _check_signature(bytes_field(one, "signature", what, _MAX_FIELD_BYTES), signed)
    _check_pem(bytes_field(one, "verifier", what, _MAX_FIELD_BYTES), signed)


def _check_dsse_2(spec: Document, signed: Signed) -> None:
    what = "dsse entry"
    record = object_field(spec, "dsseV002", what)
    _check_payload_hash(object_field(record, "payloadHash", what), "digest", signed, hex_text=False)
    one = _only_one(objects_field(record, "signatures", what, 8))
    _check_signature(bytes_field(one, "content", what, _MAX_FIELD_BYTES), signed)
    _check_verifier(object_field(one, "verifier", what), signed)


def _check_intoto_2(spec: Document, signed: Signed) -> None:
    what = "intoto entry"
    content = object_field(spec, "content", what)
    _check_payload_hash(object_field(content, "payloadHash", what), "value", signed, hex_text=True)
    envelope = object_field(content, "envelope", what)
    one = _only_one(objects_field(envelope, "signatures", what, 8))
    # This type encodes the signature twice: once as DSSE does, once as a field of the entry.
    outer = bytes_field(one, "sig", what, _MAX_FIELD_BYTES)
    _check_signature(decode_base64(outer.decode("ascii", "replace"), what, 4096), signed)
    _check_pem(bytes_field(one, "publicKey", what, _MAX_FIELD_BYTES), signed)


_CHECKERS: Final[dict[tuple[str, str], Callable[[Document, Signed], None]]] = {
    ("hashedrekord", "0.0.1"): _check_hashedrekord_1,
    ("hashedrekord", "0.0.2"): _check_hashedrekord_2,
    ("dsse", "0.0.1"): _check_dsse_1,
    ("dsse", "0.0.2"): _check_dsse_2,
    ("intoto", "0.0.2"): _check_intoto_2,
}


def _only_one(items: tuple[Document, ...]) -> Document:
    if len(items) != 1:
        raise _other(f"{len(items)} signatures instead of one")
    return items[0]


def _stated_hash(document: Document, key: str, what: str, hex_text: bool) -> tuple[str, bytes]:
    algorithm = _HASHES.get(text_field(document, "algorithm", what))
    if algorithm is None:
        raise Rejected(Reason.UNSUPPORTED_FORM, f"{what}: unknown hash algorithm")
    if not hex_text:
        return algorithm, bytes_field(document, key, what, 64)
    try:
        return algorithm, bytes.fromhex(text_field(document, key, what))
    except ValueError as error:
        raise malformed(what, "a hash is not hex") from error


def _check_hash(document: Document, key: str, signed: Signed, what: str, *, hex_text: bool) -> None:
    algorithm, stated = _stated_hash(document, key, what, hex_text)
    if stated != signed.digest(algorithm):
        raise _other("the hash of other bytes")


def _check_payload_hash(document: Document, key: str, signed: Signed, *, hex_text: bool) -> None:
    algorithm, stated = _stated_hash(document, key, "dsse entry", hex_text)
    if signed.payload is None or stated != hashlib.new(algorithm, signed.payload).digest():
        raise _other("the hash of another payload")


def _check_signature(stated: bytes, signed: Signed) -> None:
    if stated != signed.signature:
        raise _other("another signature")


def _check_verifier(document: Document, signed: Signed) -> None:
    what = "log entry verifier"
    if "publicKey" in document:
        holder = object_field(document, "publicKey", what)
    else:
        holder = object_field(document, "x509Certificate", what)
    if bytes_field(holder, "rawBytes", what, _MAX_FIELD_BYTES) != signed.verifier_der:
        raise _other("another key or certificate")


def _check_pem(untrusted_pem: bytes, signed: Signed) -> None:
    if _pem_to_der(untrusted_pem) != signed.verifier_der:
        raise _other("another key or certificate")


def _pem_to_der(untrusted_pem: bytes) -> bytes:
    """Return a certificate's DER, or a key's as SubjectPublicKeyInfo whatever its PEM label."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    if b"BEGIN CERTIFICATE" in untrusted_pem:
        return certificate_from_pem(untrusted_pem)
    try:
        key = load_pem_public_key(untrusted_pem)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise malformed("log entry body", "holds neither key nor certificate") from error
