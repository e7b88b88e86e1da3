"""Sigstore bundles: one JSON document that holds a signature and everything to check it with.

Format: ``sigstore_bundle.proto`` as protobuf JSON, which has no unknown fields. Images carry
version 0.3 in an OCI referrer; older versions are read for files only (``verify_blob``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from local_imager.sources.certificate import is_self_issued
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.statement import Envelope, parse_envelope
from local_imager.sources.tlog import LogEntry, parse_bundle_entry
from local_imager.sources.untrusted_json import (
    Document,
    bytes_field,
    holder_field,
    malformed,
    object_field,
    objects_field,
    only_keys,
    parse_object,
    text_field,
)

_VERSION: Final = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle"
    r"(?:\.v(0\.[1-3])\+json|\+json;version=(0\.[1-3]))"
)
# Signatures have 3 to 15 KiB; attestations carry their payload (base64 of at most 3 MiB) inside.
MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
# One log entry and one timestamp are usual; several authorities may be asked.
MAX_LOG_ENTRIES: Final = 8
MAX_TIMESTAMPS: Final = 8
_CERTIFICATE_BYTES: Final = 16 * 1024
_TIMESTAMP_BYTES: Final = 64 * 1024
_SIGNATURE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over an artifact's bytes; ``digest`` is a hint (SHA-256), not a promise."""

    signature: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A parsed bundle, nothing of it verified: version, who signed, what, and proofs of time.

    ``certificate`` is DER (empty when a plain key signed); exactly one of ``envelope`` and
    ``message`` is set.
    """

    version: str
    certificate: bytes
    key_hint: str
    log_entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...]
    envelope: Envelope | None
    message: MessageSignature | None


def parse_bundle(untrusted_data: bytes) -> Bundle:
    """Parse a bundle's bytes; raises :class:`Rejected` for anything that is not one."""
    what = "bundle"
    document = parse_object(untrusted_data, what, MAX_BUNDLE_BYTES)
    allowed = ("mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature")
    only_keys(document, allowed, what)
    media_type = text_field(document, "mediaType", what)
    match = _VERSION.fullmatch(media_type)
    if match is None:
        raise Rejected(Reason.UNSUPPORTED_FORM, f"bundle of the type {media_type[:80]!r}")
    version = match[1] or match[2]
    material = object_field(document, "verificationMaterial", what)
    certificate, hint = _signer(material, version)
    envelope, message = _content(document)
    return Bundle(
        version,
        certificate,
        hint,
        _log_entries(material),
        _timestamps(material),
        envelope,
        message,
    )


def _signer(material: Document, version: str) -> tuple[bytes, str]:
    what = "verification material"
    kinds = ("certificate", "x509CertificateChain", "publicKey")
    only_keys(material, (*kinds, "tlogEntries", "timestampVerificationData"), what)
    present = [kind for kind in kinds if kind in material]
    if len(present) != 1:
        raise malformed(what, "must name one key or certificate")
    if "publicKey" in material:
        holder = holder_field(material, "publicKey", what, "hint")
        return b"", text_field(holder, "hint", what, "")
    if "certificate" in material:
        return _certificate(object_field(material, "certificate", what)), ""
    if version == "0.3":
        # The chain belongs to the trusted root; one that travels along invites trust in it.
        raise malformed(what, "version 0.3 holds one certificate, not a chain")
    chain = holder_field(material, "x509CertificateChain", what, "certificates")
    certificates = objects_field(chain, "certificates", what, 8)
    if not certificates:
        raise malformed(what, "has an empty certificate chain")
    ders = [_certificate(one) for one in certificates]
    for der in ders[1:]:
        # A root that travels along asks to be trusted; the trusted root is a file of ours.
        if is_self_issued(der):
            raise Rejected(Reason.CERTIFICATE_INVALID, "the bundle brings its own root certificate")
    return ders[0], ""


def _certificate(holder: Document) -> bytes:
    only_keys(holder, ("rawBytes",), "certificate")
    return bytes_field(holder, "rawBytes", "certificate", _CERTIFICATE_BYTES)


def _content(document: Document) -> tuple[Envelope | None, MessageSignature | None]:
    if ("dsseEnvelope" in document) == ("messageSignature" in document):
        raise malformed("bundle", "must hold one envelope or one message signature")
    if "dsseEnvelope" in document:
        envelope = parse_envelope(object_field(document, "dsseEnvelope", "bundle"), "envelope")
        if len(envelope.signatures) != 1:
            raise malformed("bundle", "its envelope must hold exactly one signature")
        return envelope, None
    what = "message signature"
    message = object_field(document, "messageSignature", what)
    only_keys(message, ("messageDigest", "signature"), what)
    digest = b""
    if "messageDigest" in message:
        stated = holder_field(message, "messageDigest", what, "algorithm", "digest")
        if text_field(stated, "algorithm", what) == "SHA2_256":
            digest = bytes_field(stated, "digest", what, 64)
    signature = bytes_field(message, "signature", what, _SIGNATURE_BYTES)
    return None, MessageSignature(signature, digest)


def _log_entries(material: Document) -> tuple[LogEntry, ...]:
    entries = objects_field(material, "tlogEntries", "bundle", MAX_LOG_ENTRIES)
    return tuple(parse_bundle_entry(entry) for entry in entries)


def _timestamps(material: Document) -> tuple[bytes, ...]:
    what = "timestamps"
    if "timestampVerificationData" not in material:
        return ()
    holder = holder_field(material, "timestampVerificationData", what, "rfc3161Timestamps")
    items = objects_field(holder, "rfc3161Timestamps", what, MAX_TIMESTAMPS)
    for item in items:
        only_keys(item, ("signedTimestamp",), what)
    return tuple(bytes_field(one, "signedTimestamp", what, _TIMESTAMP_BYTES) for one in items)
