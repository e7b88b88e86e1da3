"""Judging one signature against one signer of the policy.

Every function returns an :class:`Acceptance` or raises :class:`Rejected` with the one reason.
"""

from __future__ import annotations

from local_imager.sources.acceptance import Acceptance, earliest
from local_imager.sources.candidates import Candidate
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.trust import KeylessSigner, KeySigner


def judge(candidate: Candidate, signer: KeySigner | KeylessSigner) -> Acceptance:
    """Check a candidate against the signer; raises :class:`Rejected`."""
    if isinstance(signer, KeylessSigner):
        from local_imager.sources.keyless import judge_keyless

        return judge_keyless(candidate, signer)
    return _judge_key(candidate, signer)


def _judge_key(candidate: Candidate, signer: KeySigner) -> Acceptance:
    if candidate.material.certificate and candidate.form == "bundle-v0.3":
        raise Rejected(Reason.MATERIAL_MISMATCH, "signed with a certificate, a key is wanted")
    made_by_key = (s for s in candidate.signatures if signer.key.verifies(s, candidate.data))
    signature = next(made_by_key, None)
    if signature is None:
        if candidate.material.certificate:
            raise Rejected(Reason.MATERIAL_MISMATCH, "signed with a certificate, a key is wanted")
        raise Rejected(Reason.SIGNATURE_INVALID, "not made by the policy's key over these bytes")
    candidate.check_claim()
    checked = ("signature", "statement about this digest")
    if not signer.require_tlog:
        return Acceptance(signer.key.key_id, checked)
    return _logged(candidate, signer, signature, checked)


def _logged(
    candidate: Candidate, signer: KeySigner, signature: bytes, checked: tuple[str, ...]
) -> Acceptance:
    """Check the log entries of what a key has signed, where the policy wants them."""
    from local_imager.sources.logbody import Signed, check_body
    from local_imager.sources.timestamps import verified_times
    from local_imager.sources.tlog import verify_entry
    from local_imager.sources.trusted_root import load_trusted_root

    signed = Signed(signature, signer.key.der, candidate.data, candidate.payload)
    root = load_trusted_root(signer.trusted_root)
    entries = candidate.material.log_entries
    if not entries:
        raise Rejected(Reason.TLOG_MISSING, "the policy wants a transparency log entry")
    # A log without a clock is judged by the time of a signed timestamp, where there is one.
    stamped = verified_times(candidate.material.timestamps, signature, root)
    shown = []
    for entry in entries:
        check_body(entry, signed)
        shown.append(
            verify_entry(
                entry,
                root,
                proof_required=candidate.proof_required,
                proven_time=stamped[0] if stamped else None,
            )
        )
    return Acceptance(
        signer.key.key_id,
        (*checked, "log entry"),
        shown[0],
        root.digest,
        *earliest(stamped, shown),
    )
