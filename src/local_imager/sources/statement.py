"""What a signature says: the payloads that are signed, and whether they speak of this image.

Two kinds exist. An in-toto statement inside a DSSE envelope (in-toto attestation spec v1, DSSE
protocol v1), and cosign's "simple signing" payload (containers/image atomic signature format).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from local_imager.oci.model import Digest
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.untrusted_json import (
    Document,
    bytes_field,
    malformed,
    object_field,
    objects_field,
    only_keys,
    parse_object,
    text_field,
)

PREDICATE_IMAGE_SIGNATURE: Final = "https://sigstore.dev/cosign/sign/v1"
PAYLOAD_TYPE_IN_TOTO: Final = "application/vnd.in-toto+json"
STATEMENT_TYPES: Final = frozenset(
    {"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"}
)
SIMPLE_SIGNING_TYPE: Final = "cosign container image signature"

# A signature's statement has some 300 bytes; provenance and SBOM attestations up to a few MiB.
MAX_PAYLOAD_BYTES: Final = 3 * 1024 * 1024
# A simple signing payload has 250 bytes; annotations in "optional" may add a few more.
MAX_SIMPLE_SIGNING_BYTES: Final = 64 * 1024
# One image per signature; provenance may name a handful of artifacts.
MAX_SUBJECTS: Final = 256
# The bundle format demands exactly one; the older attestation layer allows several.
MAX_ENVELOPE_SIGNATURES: Final = 8
_SIGNATURE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope: the untrusted payload, its declared type, and the signatures over both."""

    payload_type: str
    untrusted_payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def encoded(self) -> bytes:
        """The bytes that are signed: DSSE v1 pre-authentication encoding of type and payload."""
        kind, body = self.payload_type.encode(), self.untrusted_payload
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def parse_envelope(document: Document, what: str) -> Envelope:
    """Read a DSSE envelope object; raises :class:`Rejected`."""
    only_keys(document, ("payload", "payloadType", "signatures"), what)
    signatures = []
    for item in objects_field(document, "signatures", what, MAX_ENVELOPE_SIGNATURES):
        only_keys(item, ("sig", "keyid"), what)
        signatures.append(bytes_field(item, "sig", what, _SIGNATURE_BYTES))
    if not signatures or not all(signatures):
        raise Rejected(Reason.SIGNATURE_MISSING, f"{what} holds no signature")
    return Envelope(
        text_field(document, "payloadType", what),
        bytes_field(document, "payload", what, MAX_PAYLOAD_BYTES),
        tuple(signatures),
    )


def predicate_of(envelope: Envelope) -> str:
    """Return the predicate type that an envelope's statement names; raises :class:`Rejected`."""
    what = "in-toto statement"
    if envelope.payload_type != PAYLOAD_TYPE_IN_TOTO:
        raise Rejected(Reason.PAYLOAD_TYPE, f"the envelope holds {envelope.payload_type[:80]!r}")
    statement = parse_object(envelope.untrusted_payload, what, MAX_PAYLOAD_BYTES)
    return text_field(statement, "predicateType", what)


def check_statement(envelope: Envelope, digest: Digest, predicate_type: str) -> None:
    """Check that a *verified* envelope is a statement of this type about this digest.

    Raises :class:`Rejected` (payload-type, payload-invalid, predicate-mismatch, subject-mismatch).
    """
    what = "in-toto statement"
    if envelope.payload_type != PAYLOAD_TYPE_IN_TOTO:
        raise Rejected(Reason.PAYLOAD_TYPE, f"the envelope holds {envelope.payload_type[:80]!r}")
    statement = parse_object(envelope.untrusted_payload, what, MAX_PAYLOAD_BYTES)
    if text_field(statement, "_type", what) not in STATEMENT_TYPES:
        raise Rejected(Reason.PAYLOAD_INVALID, f"{what} has an unknown _type")
    if text_field(statement, "predicateType", what) != predicate_type:
        named = str(statement["predicateType"])[:120]
        raise Rejected(Reason.PREDICATE_MISMATCH, f"an attestation of {named!r} is no signature")
    subjects = objects_field(statement, "subject", what, MAX_SUBJECTS)
    if digest.hex not in {_subject_hex(subject, what) for subject in subjects}:
        raise Rejected(Reason.SUBJECT_MISMATCH, "the signed statement is about another digest")


def _subject_hex(subject: Document, what: str) -> str:
    digests = object_field(subject, "digest", what)
    if not all(isinstance(value, str) for value in digests.values()):
        raise malformed(what, "a subject's digest is not a text")
    return str(digests.get("sha256", ""))


def check_simple_signing(untrusted_payload: bytes, digest: Digest) -> None:
    """Check that a *verified* simple signing payload is a signature of this digest.

    ``docker-reference`` is not compared: mirrors and copies keep the signature and change the
    name, and the digest says it all. ``critical.type`` and duplicate keys are looked at, which
    cosign does not do. Raises :class:`Rejected` (payload-invalid, subject-mismatch).
    """
    what = "simple signing payload"
    try:
        document = parse_object(untrusted_payload, what, MAX_SIMPLE_SIGNING_BYTES)
        critical = object_field(document, "critical", what)
        image = object_field(critical, "image", what)
        named = text_field(image, "docker-manifest-digest", what)
        kind = text_field(critical, "type", what)
    except Rejected as error:
        raise Rejected(Reason.PAYLOAD_INVALID, error.message) from error
    if kind != SIMPLE_SIGNING_TYPE:
        raise Rejected(Reason.PAYLOAD_INVALID, f"{what} is of the type {kind[:80]!r}")
    if named != str(digest):
        raise Rejected(Reason.SUBJECT_MISMATCH, "the signed payload is about another digest")
