"""Verifying a file against a Sigstore bundle, with the same signers as for images."""

from __future__ import annotations

from typing import Final

from local_imager.oci.model import Digest
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.bundle import Bundle, parse_bundle
from local_imager.sources.candidates import Candidate, Material
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.signers import judge
from local_imager.sources.statement import check_statement, predicate_of
from local_imager.sources.trust import KeylessSigner, KeySigner

# The whole file is under the signature, and Ed25519 needs it in memory at once.
MAX_ARTIFACT_BYTES: Final = 512 * 1024 * 1024


def verify_blob(
    artifact: bytes,
    untrusted_bundle: bytes,
    signer: KeySigner | KeylessSigner,
    *,
    predicate_type: str = "",
) -> Acceptance:
    """Check that a bundle signs this file; raises :class:`Rejected` with the one reason.

    A message signature covers the file's bytes; an attestation names its digest as a subject and,
    when ``predicate_type`` is given, must be of that type.
    """
    if len(artifact) > MAX_ARTIFACT_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"the file is larger than {MAX_ARTIFACT_BYTES} bytes")
    bundle = parse_bundle(untrusted_bundle)
    return judge(_candidate(bundle, artifact, predicate_type), signer)


def _candidate(bundle: Bundle, artifact: bytes, predicate_type: str) -> Candidate:
    digest = Digest.of(artifact)
    envelope, message = bundle.envelope, bundle.message

    def claim() -> None:
        if envelope is not None:
            wanted = predicate_type or predicate_of(envelope)
            check_statement(envelope, digest, wanted)
        elif message is not None and message.digest and message.digest.hex() != digest.hex:
            raise Rejected(Reason.SUBJECT_MISMATCH, "the bundle states another file's digest")

    if envelope is not None:
        signatures, data = envelope.signatures, envelope.encoded
        payload = envelope.untrusted_payload
    else:
        signatures, data, payload = ((message.signature,) if message else ()), artifact, None
    return Candidate(
        "bundle-v0.3" if bundle.version == "0.3" else "bundle-older",
        "file",
        signatures,
        data,
        payload,
        claim,
        digest,
        Material(bundle.certificate, bundle.log_entries, bundle.timestamps),
        # Versions 0.1 and 0.2 may rest on the log's promise alone.
        proof_required=bundle.version == "0.3",
    )
