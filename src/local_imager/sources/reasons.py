"""The stable reason codes of a refusal, and the exception that carries one.

A refusal names, for each signature that was found, one code from this table; the codes are part of
the ``--json`` output and do not change their meaning between versions.
"""

from __future__ import annotations

from enum import Enum

from local_imager.errors import VerificationRefused
from local_imager.events import printable


class Reason(Enum):
    """Why a signature (or a whole image) was not accepted: a stable code and what it means."""

    NO_POLICY = "no-policy", "no trust pattern matches the image's name"
    NO_SIGNATURE = "no-signature", "the image carries no signature of any known form"
    MALFORMED = "malformed", "the signature's documents cannot be read or break their format"
    DIGEST_MISMATCH = "digest-mismatch", "bytes do not match the digest or size that names them"
    MISSING_BLOB = "missing-blob", "a listed manifest or blob is not there"
    TOO_LARGE = "too-large", "a document or a count is over its ceiling"
    UNSUPPORTED_FORM = "unsupported-form", "a form or version of signature that is not accepted"
    SIGNATURE_MISSING = "signature-missing", "the document holds no signature value"
    SIGNATURE_INVALID = (
        "signature-invalid",
        "not made by the policy's key (or the certificate's) over these bytes",
    )
    MATERIAL_MISMATCH = (
        "material-mismatch",
        "signed by a certificate where a key is wanted, or the other way",
    )
    PAYLOAD_TYPE = "payload-type", "the signed payload is of another type"
    PAYLOAD_INVALID = "payload-invalid", "the signed payload is not what its type demands"
    SUBJECT_MISMATCH = "subject-mismatch", "the signed statement is about another image"
    PREDICATE_MISMATCH = "predicate-mismatch", "an attestation of another predicate type"
    TLOG_MISSING = "tlog-missing", "the policy wants a log entry and there is none"
    TLOG_INVALID = "tlog-invalid", "the log entry, its proof or its promise does not verify"
    TLOG_UNKNOWN = "tlog-unknown", "no log of the trusted root, in its valid time, made the entry"
    TLOG_OTHER_ENTRY = "tlog-other-entry", "the log entry belongs to another signature"
    TIMESTAMP_MISSING = "timestamp-missing", "the policy wants a signed timestamp: there is none"
    TIMESTAMP_INVALID = "timestamp-invalid", "the signed timestamp does not verify"
    TIME_UNPROVEN = "time-unproven", "nothing proves that the certificate was valid when it signed"
    CERTIFICATE_INVALID = (
        "certificate-invalid",
        "the certificate is not of the trusted root, or not valid then",
    )
    SCT_INVALID = "sct-invalid", "the certificate's transparency timestamp does not verify"
    IDENTITY_MISMATCH = "identity-mismatch", "signed by an identity that the policy does not name"
    ISSUER_MISMATCH = "issuer-mismatch", "the identity was vouched for by another issuer"
    KEYLESS_UNSUPPORTED = "keyless-unsupported", "a library for keyless checks is not installed"
    TRUSTED_ROOT = "trusted-root", "the trusted root is missing or cannot be used"
    THRESHOLD = "threshold", "fewer distinct signers than the policy wants"
    ROLLBACK = "rollback", "older than what was accepted before under the same name"
    UNVERIFIED = "unverified", "accepted by the policy without any verification"

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        self.meaning = meaning


class Rejected(VerificationRefused):
    """One signature (or document of one) was looked at and not accepted, for one reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(printable(detail, limit=400), code=reason.code)
        self.reason = reason
