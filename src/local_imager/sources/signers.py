"""Judging one signature against one signer of the policy.

Every function returns an :class:`Acceptance` or raises :class:`Rejected` with the one reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from local_imager.sources.candidates import Candidate
from local_imager.sources.logbody import Signed, check_body
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.tlog import LogEvidence, verify_entry
from local_imager.sources.trust import KeylessSigner, KeySigner
from local_imager.sources.trusted_root import load_trusted_root

KEYLESS_EXPLANATION: Final = (
    "the policy wants a keyless signature, and this version of local-imager cannot verify these yet"
)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Who signed, and what was shown; ``trusted_root`` is the digest of the file leaned on."""

    signer: str
    checked: tuple[str, ...]
    log: LogEvidence | None = None
    trusted_root: str = ""

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for the evidence document."""
        document: dict[str, object] = {"signer": self.signer, "checked": list(self.checked)}
        if self.log is not None:
            document["log_entry"] = self.log.as_dict()
            document["trusted_root"] = self.trusted_root
        return document


def judge(candidate: Candidate, signer: KeySigner | KeylessSigner) -> Acceptance:
    """Check a candidate against the signer; raises :class:`Rejected`."""
    if isinstance(signer, KeylessSigner):
        raise Rejected(Reason.KEYLESS_UNSUPPORTED, KEYLESS_EXPLANATION)
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
    signed = Signed(signature, signer.key.der, candidate.data, candidate.payload)
    root = load_trusted_root(signer.trusted_root)
    entries = candidate.material.log_entries
    if not entries:
        raise Rejected(Reason.TLOG_MISSING, "the policy wants a transparency log entry")
    shown = []
    for entry in entries:
        check_body(entry, signed)
        shown.append(
            verify_entry(entry, root, proof_required=candidate.proof_required, proven_time=None)
        )
    return Acceptance(signer.key.key_id, (*checked, "log entry"), shown[0], root.digest)
