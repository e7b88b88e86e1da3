"""Keyless signatures: an identity signed, and that can be shown long after its short certificate.

Obligations, in order, each against the trusted root file and nothing else (no network):

1. the certificate's key made the signature over the signed bytes;
2. what is signed speaks of this digest; the certificate is for signing code, and an authority of
   the root issued it;
3. a time is proven: by an RFC 3161 timestamp over the signature, or by a log's own clock;
4. the log entry is about this signature and verifies (where the policy wants one, or where its
   clock is to prove the time);
5. at every proven time the certificate and each authority above it were valid;
6. a CT log of the root has seen the certificate (unless the policy waives it);
7. the certificate names an identity and an issuer that the policy accepts.

sigstore-python is not used: it cannot verify the older form and public keys, ignores the periods
of trust of logs and authorities, and takes a second to import. It is the tests' second opinion.
"""

from __future__ import annotations

from datetime import datetime

from local_imager.events import printable
from local_imager.sources.acceptance import Acceptance, earliest
from local_imager.sources.candidates import Candidate
from local_imager.sources.certificate import (
    check_issued,
    check_profile,
    check_sct,
    identity_of,
    issuer_of,
    issuing_chain,
    load_certificate,
    signing_keys,
)
from local_imager.sources.expressions import EngineMissing, compiled
from local_imager.sources.logbody import Signed, check_body
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.timestamps import no_timestamp, verified_times
from local_imager.sources.tlog import LogEvidence, verify_entry
from local_imager.sources.trust import KeylessSigner
from local_imager.sources.trusted_root import TrustedRoot, load_trusted_root


def judge_keyless(candidate: Candidate, signer: KeylessSigner) -> Acceptance:
    """Check a candidate against a keyless rule; raises :class:`Rejected` with the one reason."""
    material = candidate.material
    if not material.certificate:
        raise Rejected(Reason.MATERIAL_MISMATCH, "signed with a key, an identity is wanted")
    root = load_trusted_root(signer.trusted_root)
    certificate = load_certificate(material.certificate)
    keys = signing_keys(certificate)
    signature = next(
        (s for s in candidate.signatures if any(k.verifies(s, candidate.data) for k in keys)), None
    )
    if signature is None:
        raise Rejected(Reason.SIGNATURE_INVALID, "not made by the certificate's key")
    candidate.check_claim()
    check_profile(certificate)
    # Who issued it does not hang on a time; told first, a forged certificate is called that.
    check_issued(certificate, root)
    stamped = verified_times(material.timestamps, signature, root)
    if signer.require_signed_timestamp and not stamped:
        raise no_timestamp(material.timestamps)
    signed = Signed(signature, material.certificate, candidate.data, candidate.payload)
    logged = _log_evidence(candidate, signed, signer, root, stamped)
    times = _proven_times(candidate, stamped, logged)
    chains = [issuing_chain(certificate, moment, root) for moment in times]
    if signer.require_sct:
        check_sct(certificate, chains[0][0], root)
    identity, issuer = identity_of(certificate), issuer_of(certificate)
    _check_identity(signer, identity, issuer)
    checked = ["signature", "statement about this digest", "certificate chain", "identity"]
    checked += ["log entry"] if logged else []
    checked += ["signed timestamp"] if stamped else []
    checked += ["certificate transparency"] if signer.require_sct else []
    return Acceptance(
        printable(f"{identity} ({issuer})", limit=400),
        tuple(checked),
        logged[0] if logged else None,
        root.digest,
        *earliest(stamped, logged),
    )


def _log_evidence(
    candidate: Candidate,
    signed: Signed,
    signer: KeylessSigner,
    root: TrustedRoot,
    stamped: tuple[datetime, ...],
) -> tuple[LogEvidence, ...]:
    """Return what the log entries prove; a faulty one is an error where entries are wanted."""
    entries = candidate.material.log_entries
    if signer.require_tlog and not entries:
        raise Rejected(Reason.TLOG_MISSING, "the policy wants a transparency log entry")
    shown = []
    for entry in entries:
        try:
            check_body(entry, signed)
            proven = stamped[0] if stamped else None
            shown.append(
                verify_entry(
                    entry, root, proof_required=candidate.proof_required, proven_time=proven
                )
            )
        except Rejected:
            if signer.require_tlog:
                raise
    return tuple(shown)


def _proven_times(
    candidate: Candidate, stamped: tuple[datetime, ...], logged: tuple[LogEvidence, ...]
) -> tuple[datetime, ...]:
    clocks = (evidence.integrated_time for evidence in logged)
    times = (*stamped, *(moment for moment in clocks if moment is not None))
    if not times:
        if candidate.material.timestamps:
            raise no_timestamp(candidate.material.timestamps)
        raise Rejected(Reason.TIME_UNPROVEN, "nothing proves when the signature was made")
    return times


def _check_identity(signer: KeylessSigner, identity: str, issuer: str) -> None:
    if not _fits(signer.issuer, signer.issuer_regexp, issuer):
        raise Rejected(Reason.ISSUER_MISMATCH, f"the issuer is {issuer[:120]!r}")
    if not _fits(signer.identity, signer.identity_regexp, identity):
        raise Rejected(Reason.IDENTITY_MISMATCH, f"the signer is {identity[:120]!r}")


def _fits(exact: str, expression: str, value: str) -> bool:
    """Compare as cosign does: equal, or a search with a Go regular expression."""
    if not expression:
        return bool(exact) and exact == value
    try:
        return compiled(expression).search(value) is not None
    except EngineMissing as error:
        raise Rejected(
            Reason.KEYLESS_UNSUPPORTED,
            "identity patterns need Go's regular expressions: install local-imager[keyless]",
        ) from error
    except ValueError as error:
        raise Rejected(Reason.IDENTITY_MISMATCH, f"{expression[:80]!r}: {error}") from error
