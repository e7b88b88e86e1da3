"""Verifying a file against a Sigstore bundle, with the same signers as for images."""

from __future__ import annotations

from typing import Final

from local_imager.errors import VerificationRefused
from local_imager.oci.model import Digest
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.bundle import Bundle, parse_bundle
from local_imager.sources.candidates import Candidate, Material
from local_imager.sources.locate import UNNAMED
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.signers import judge
from local_imager.sources.statement import check_statement, predicate_of
from local_imager.sources.trial import Verdict, verdict_on
from local_imager.sources.trust import KeylessSigner, KeySigner, TrustPolicy

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
    return judge(candidate_of(bundle, artifact, predicate_type), signer)


def examine_blob(
    artifact: bytes, untrusted_bundle: bytes, policy: TrustPolicy, *, predicate_type: str = ""
) -> Verdict:
    """Ask a policy about a file: accepted by one of its rules, or the one reason why not.

    A file has no image name, so only rules count whose pattern covers every name. A threshold
    above one is never met: a bundle holds one signature.
    """
    try:
        groups = policy.groups_for(UNNAMED.name)
    except VerificationRefused as error:
        return Verdict("unknown", "file", reason=Reason.NO_POLICY, detail=error.message)
    try:
        if len(artifact) > MAX_ARTIFACT_BYTES:
            raise Rejected(Reason.TOO_LARGE, f"the file is larger than {MAX_ARTIFACT_BYTES} bytes")
        candidate = candidate_of(parse_bundle(untrusted_bundle), artifact, predicate_type)
    except Rejected as error:
        return Verdict("unknown", "file", reason=error.reason, detail=error.message)
    verdicts = []
    for group in groups:
        verdicts.append(verdict_on(candidate, group))
        wanted = max(rule.threshold for rule in group)
        if verdicts[-1].acceptance is None:
            return verdicts[-1]
        if wanted > 1:
            detail = f"1 of {wanted} signers that are wanted"
            return Verdict(candidate.form, "file", reason=Reason.THRESHOLD, detail=detail)
    return verdicts[0]


def candidate_of(bundle: Bundle, artifact: bytes, predicate_type: str = "") -> Candidate:
    """Return a file's signature ready to be judged; nothing of it is verified yet.

    ``predicate_type`` is what an attestation has to be of, anything when it is empty.
    """
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
