"""Harnesses for the documents of signatures; what they accept must be a genuine one again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Final

from local_imager.oci.model import Digest
from local_imager.sources.blob import verify_blob
from local_imager.sources.bundle import parse_bundle
from local_imager.sources.checkpoint import verify_checkpoint
from local_imager.sources.logbody import check_body
from local_imager.sources.reasons import Rejected
from local_imager.sources.statement import (
    PAYLOAD_TYPE_IN_TOTO,
    PREDICATE_IMAGE_SIGNATURE,
    Envelope,
    check_simple_signing,
    check_statement,
    parse_envelope,
    predicate_of,
)
from local_imager.sources.timestamps import verified_times
from local_imager.sources.tlog import parse_legacy_entry, verify_entry
from local_imager.sources.untrusted_json import parse_object
from tests.fuzz.driver import Fault, Harness
from tests.fuzz.material import GENUINE, ROOT, SIGNERS

_DIGEST: Final = GENUINE[0].digest
# The first digest that stands in a payload is the one asked for.
_NAMED: Final = re.compile(rb"sha256:([0-9a-f]{64})")


def payload(data: bytes) -> None:
    """The simple signing payload; accepted only when any JSON reader sees this digest."""
    named = _NAMED.search(data)
    digest = Digest(named[1].decode()) if named else _DIGEST
    check_simple_signing(data, digest)
    if json.loads(data)["critical"]["image"]["docker-manifest-digest"] != str(digest):
        raise Fault("a payload about another image was accepted")


def statement(data: bytes) -> None:
    """A DSSE envelope, or the in-toto statement of one."""
    if b'"payloadType"' in data:
        envelope = parse_envelope(parse_object(data, "envelope", 1 << 20), "envelope")
        assert envelope.encoded.startswith(b"DSSEv1 ")
    else:
        envelope = Envelope(PAYLOAD_TYPE_IN_TOTO, data, (b"s",))
    predicate_of(envelope)
    check_statement(envelope, _DIGEST, PREDICATE_IMAGE_SIGNATURE)
    subjects = json.loads(envelope.untrusted_payload)["subject"]
    if _DIGEST.hex not in {subject["digest"].get("sha256") for subject in subjects}:
        raise Fault("a statement about another image was accepted")


def bundle(data: bytes) -> None:
    """A whole bundle against every signer; one that is accepted says what a genuine one says."""
    parsed = parse_bundle(data)
    said = parsed.envelope.untrusted_payload if parsed.envelope else b""
    fitting = [g for g in GENUINE if g.digest.hex.encode() in said] or GENUINE[:1]
    for signer in SIGNERS:
        try:
            verify_blob(fitting[0].artifact, data, signer, predicate_type=PREDICATE_IMAGE_SIGNATURE)
        except Rejected:
            continue
        genuine = {(g.envelope.encoded, g.bundle.certificate) for g in GENUINE}
        if parsed.envelope is None or (parsed.envelope.encoded, parsed.certificate) not in genuine:
            raise Fault("a bundle that nobody signed was accepted")


def logentry(data: bytes) -> None:
    """The log entry that the older form keeps in an annotation."""
    entry = parse_legacy_entry(data.decode("utf-8", "surrogateescape"))
    evidence = verify_entry(entry, ROOT, proof_required=False, proven_time=None)
    json.dumps(evidence.as_dict())


def logbody(data: bytes) -> None:
    """A log entry's body against genuine signatures, by the type that it says it has."""
    for genuine in GENUINE:
        entry = replace(genuine.bundle.log_entries[0], untrusted_body=data, kind="", version="")
        try:
            check_body(entry, genuine.signed)
        except Rejected:
            continue


def checkpoint(data: bytes) -> None:
    """A log's checkpoint; accepted only with the very text that the log signed."""
    note = data.decode("utf-8", "surrogateescape")
    for genuine in GENUINE:
        entry = genuine.bundle.log_entries[0]
        log = next(log for log in ROOT.logs if log.log_id == entry.log_id)
        assert entry.proof is not None
        try:
            verify_checkpoint(note, log, entry.proof.tree_size, entry.proof.root_hash)
        except Rejected:
            continue
        if note.partition("\n\n")[0] != entry.proof.checkpoint.partition("\n\n")[0]:
            raise Fault("a checkpoint that no log signed was accepted")


def timestamp(data: bytes) -> None:
    """An RFC 3161 response; accepted only with the time that the authority signed."""
    for genuine in GENUINE:
        if not genuine.bundle.timestamps:
            continue
        signature = genuine.envelope.signatures[0]
        times = verified_times((data,), signature, ROOT)
        if times and times != verified_times(genuine.bundle.timestamps, signature, ROOT):
            raise Fault("a timestamp that nobody signed was accepted")


HARNESSES: Final = (
    Harness("payload", payload, 4096),
    Harness("statement", statement),
    Harness("bundle", bundle),
    Harness("logentry", logentry),
    Harness("logbody", logbody),
    Harness("checkpoint", checkpoint, 4096),
    Harness("timestamp", timestamp),
)
