"""Transparency log entries (Rekor v1 and v2): proof that a signature was made public, and when.

What is checked, and where the rule comes from:

1. the entry is of a log that the trusted root lists, in the time for which it is trusted;
2. its body is about *this* signature: same signed bytes, same signature, same key
   (``body.py``; Rekor types hashedrekord, dsse, intoto);
3. a promise (signed entry timestamp) verifies: Rekor v1, ECDSA over canonical JSON (RFC 8785);
4. an inclusion proof leads to the root hash (RFC 9162 section 2.1.3.2), and a checkpoint that the
   log signed states that root and size (C2SP signed-note and tlog-checkpoint).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from local_imager.oci.model import canonical_json
from local_imager.sources.checkpoint import verify_checkpoint
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.untrusted_json import (
    Document,
    bytes_field,
    decode_base64,
    holder_field,
    integer_field,
    malformed,
    object_field,
    only_keys,
    parse_object,
    text_field,
)

if TYPE_CHECKING:
    from local_imager.sources.trusted_root import Log, TrustedRoot

# A tree of 2^64 leaves has proofs of 64 hashes.
MAX_PROOF_HASHES: Final = 64
# An entry body holds a certificate or key, a signature and hashes: 2 to 10 KiB.
MAX_BODY_BYTES: Final = 256 * 1024
MAX_CHECKPOINT_BYTES: Final = 16 * 1024
MAX_ANNOTATION_BYTES: Final = 512 * 1024
_ID_BYTES: Final = 64
_HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A Merkle audit path: leaf ``log_index`` of a tree of ``tree_size``, and its checkpoint."""

    log_index: int
    tree_size: int
    root_hash: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry as it came with a signature: nothing of it is verified yet.

    ``integrated_time_s`` is seconds since 1970 (0: none), ``log_index`` the index over all shards.
    """

    log_id: bytes
    log_index: int
    integrated_time_s: int
    untrusted_body: bytes
    promise: bytes
    proof: InclusionProof | None
    kind: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """What a verified entry proves: which log, which index, and when (None: it has no clock).

    ``log_index`` is a number that the log vouches for: the promise covers the one over all shards,
    without a promise it is the one that the inclusion proof leads to.
    """

    host: str
    log_index: int
    integrated_time: datetime | None
    proofs: tuple[str, ...]
    log_id: bytes = b""

    @property
    def name(self) -> str:
        """Name of the log that two logs of one host do not share."""
        return f"{self.host or 'log'}#{self.log_id.hex()[:16]}"

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for the evidence document."""
        time = self.integrated_time.isoformat() if self.integrated_time else None
        return {
            "log": self.host,
            "log_id": self.log_id.hex(),
            "index": self.log_index,
            "integrated_time": time,
            "proofs": list(self.proofs),
        }


def parse_bundle_entry(document: Document) -> LogEntry:
    """Read one ``tlogEntries`` item of a bundle; raises :class:`Rejected`."""
    what = "log entry"
    allowed = (
        "logIndex",
        "logId",
        "kindVersion",
        "integratedTime",
        "inclusionPromise",
        "inclusionProof",
        "canonicalizedBody",
    )
    only_keys(document, allowed, what)
    kind = holder_field(document, "kindVersion", what, "kind", "version")
    promise = b""
    if "inclusionPromise" in document:
        holder = holder_field(document, "inclusionPromise", what, "signedEntryTimestamp")
        promise = bytes_field(holder, "signedEntryTimestamp", what, MAX_CHECKPOINT_BYTES)
    return LogEntry(
        log_id=bytes_field(
            holder_field(document, "logId", what, "keyId"), "keyId", what, _ID_BYTES
        ),
        log_index=integer_field(document, "logIndex", what),
        integrated_time_s=integer_field(document, "integratedTime", what),
        untrusted_body=bytes_field(document, "canonicalizedBody", what, MAX_BODY_BYTES),
        promise=promise,
        proof=_parse_proof(document) if "inclusionProof" in document else None,
        kind=text_field(kind, "kind", what),
        version=text_field(kind, "version", what),
    )


def _parse_proof(entry: Document) -> InclusionProof:
    what = "inclusion proof"
    document = object_field(entry, "inclusionProof", what)
    only_keys(document, ("logIndex", "rootHash", "treeSize", "hashes", "checkpoint"), what)
    hashes = document.get("hashes", [])
    if not isinstance(hashes, list) or not all(isinstance(item, str) for item in hashes):
        raise malformed(what, "hashes is not a list of texts")
    if len(hashes) > MAX_PROOF_HASHES:
        raise Rejected(Reason.TOO_LARGE, f"{what} has more than {MAX_PROOF_HASHES} hashes")
    checkpoint = ""
    if "checkpoint" in document:
        holder = holder_field(document, "checkpoint", what, "envelope")
        checkpoint = text_field(holder, "envelope", what)
    if len(checkpoint) > MAX_CHECKPOINT_BYTES:
        raise Rejected(Reason.TOO_LARGE, f"{what}: the checkpoint is too large")
    return InclusionProof(
        log_index=integer_field(document, "logIndex", what),
        tree_size=integer_field(document, "treeSize", what),
        root_hash=bytes_field(document, "rootHash", what, _HASH_BYTES),
        hashes=tuple(decode_base64(item, what, _HASH_BYTES) for item in hashes),
        checkpoint=checkpoint,
    )


def parse_legacy_entry(untrusted_annotation: str) -> LogEntry:
    """Read the ``dev.sigstore.cosign/bundle`` annotation of the older cosign form."""
    what = "log entry annotation"
    try:
        untrusted_data = untrusted_annotation.encode()
    except UnicodeEncodeError as error:
        raise malformed(what, "is not UTF-8") from error
    document = parse_object(untrusted_data, what, MAX_ANNOTATION_BYTES)
    only_keys(document, ("SignedEntryTimestamp", "Payload"), what)
    payload = object_field(document, "Payload", what)
    only_keys(payload, ("body", "integratedTime", "logIndex", "logID"), what)
    try:
        log_id = bytes.fromhex(text_field(payload, "logID", what))
    except ValueError as error:
        raise malformed(what, "logID is not hex") from error
    return LogEntry(
        log_id=log_id,
        log_index=integer_field(payload, "logIndex", what),
        integrated_time_s=integer_field(payload, "integratedTime", what),
        untrusted_body=bytes_field(payload, "body", what, MAX_BODY_BYTES),
        promise=bytes_field(document, "SignedEntryTimestamp", what, MAX_CHECKPOINT_BYTES),
        proof=None,
    )


def verify_entry(
    entry: LogEntry, root: TrustedRoot, *, proof_required: bool, proven_time: datetime | None
) -> LogEvidence:
    """Check that a log of the trusted root really took this entry; raises :class:`Rejected`.

    ``proof_required``: bundles of version 0.3 must carry an inclusion proof with a checkpoint.
    ``proven_time`` is a time shown by a signed timestamp, for logs that keep no clock.
    The body's agreement with the signature is the caller's check (``body.check_body``).
    """
    proofs: list[str] = []
    log = _find_log(entry, root)
    _check_period(entry, log, proven_time)
    if entry.promise:
        _check_promise(entry, log)
        proofs.append("signed entry timestamp")
    if entry.proof is not None:
        _check_inclusion(entry, entry.proof, log)
        proofs.append("inclusion proof with checkpoint")
    elif proof_required:
        raise Rejected(Reason.TLOG_INVALID, "the log entry has no inclusion proof")
    if not proofs:
        raise Rejected(Reason.TLOG_INVALID, "the log entry has neither promise nor proof")
    # Without the promise nobody vouches for the time that stands beside the entry.
    has_clock = bool(entry.promise and entry.integrated_time_s)
    time = _moment(entry.integrated_time_s) if has_clock else None
    # The index beside an entry without promise is nobody's word; the proof's index is proven.
    index = entry.proof.log_index if entry.proof and not entry.promise else entry.log_index
    return LogEvidence(log.host, index, time, tuple(proofs), entry.log_id)


def _find_log(entry: LogEntry, root: TrustedRoot) -> Log:
    log = next((log for log in root.logs if log.log_id == entry.log_id), None)
    if log is None:
        raise Rejected(
            Reason.TLOG_UNKNOWN, f"the log {entry.log_id.hex()[:16]} is not in the trusted root"
        )
    return log


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise malformed("log entry", "integratedTime is not a time") from error


def _check_period(entry: LogEntry, log: Log, proven_time: datetime | None) -> None:
    if entry.promise and entry.integrated_time_s:
        moment = _moment(entry.integrated_time_s)
    else:
        # No clock of its own and no timestamp: the log must be one that is trusted today.
        moment = proven_time or datetime.now(UTC)
    if not log.period.holds(moment):
        raise Rejected(
            Reason.TLOG_UNKNOWN, f"the log {log.host} was not trusted on {moment:%Y-%m-%d}"
        )


def _check_promise(entry: LogEntry, log: Log) -> None:
    import base64

    signed = canonical_json(
        {
            "body": base64.b64encode(entry.untrusted_body).decode(),
            "integratedTime": entry.integrated_time_s,
            "logID": entry.log_id.hex(),
            "logIndex": entry.log_index,
        }
    )
    if not log.key.verifies(entry.promise, signed):
        raise Rejected(Reason.TLOG_INVALID, "the signed entry timestamp does not verify")


def _check_inclusion(entry: LogEntry, proof: InclusionProof, log: Log) -> None:
    if not proof.checkpoint:
        raise Rejected(Reason.TLOG_INVALID, "the inclusion proof has no checkpoint")
    leaf = hashlib.sha256(b"\x00" + entry.untrusted_body).digest()
    if root_from_path(leaf, proof) != proof.root_hash:
        raise Rejected(Reason.TLOG_INVALID, "the inclusion proof does not lead to its root hash")
    verify_checkpoint(proof.checkpoint, log, proof.tree_size, proof.root_hash)


def root_from_path(leaf: bytes, proof: InclusionProof) -> bytes | None:
    """Compute the root that an audit path leads to, or None when its length is wrong.

    RFC 9162 section 2.1.3.2: walk from the leaf; ``fn`` is its index, ``sn`` the last index.
    """
    if proof.log_index >= proof.tree_size:
        return None
    fn, sn, node = proof.log_index, proof.tree_size - 1, leaf
    for sibling in proof.hashes:
        if sn == 0:
            return None
        if fn % 2 or fn == sn:
            node = hashlib.sha256(b"\x01" + sibling + node).digest()
            while fn and not fn % 2:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = hashlib.sha256(b"\x01" + node + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    return node if sn == 0 else None
