"""The bundle cases of the public conformance suite for Sigstore clients, as far as they verify.

The twelve bundles of the fixtures run as they are. Of further cases of that suite only the rule is
taken; here each is made anew from these bundles, or signed with throwaway keys.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from local_imager.errors import LocalImagerError
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.blob import verify_blob
from local_imager.sources.trust import AcceptUnverified
from local_imager.sources.trust_entries import policy_from_entries
from tests.unit.sources.test_sigfix import CASES, REASONS, SIGFIX

PREFIX: Final = "realworld-conformance-"
BY_NAME: Final = {
    case["name"].removeprefix(PREFIX): case for case in CASES if case["name"].startswith(PREFIX)
}
V3: Final = "happy-path-v0.3-new-mediaType"
V1: Final = "happy-path-v0.1"
DSSE: Final = "happy-path-intoto-in-dsse-v3"
REKOR2: Final = "rekor2-dsse-happy-path"
KEYED: Final = "managed-key-happy-path"
Document = dict[str, Any]


def load(name: str) -> tuple[Document, Document]:
    """Return a case's bundle and its trusted root, to be changed."""
    case = BY_NAME[name]
    root = SIGFIX / case["policy"]["trusted_root"]
    return json.loads((SIGFIX / case["bundle"]).read_bytes()), json.loads(root.read_bytes())


def verify(
    name: str, folder: Path, bundle: Document | None = None, root: Document | None = None
) -> Acceptance:
    """Verify a case, with its bundle or its trusted root replaced."""
    case = BY_NAME[name]
    fields = {key: value for key, value in case["policy"].items() if key != "type"}
    if root is not None:
        # A root is read once per process: each changed one has a name of its own.
        path = folder / f"root-{len(list(folder.iterdir()))}.json"
        path.write_text(json.dumps(root))
        fields["trusted_root"] = str(path)
    signer = policy_from_entries([{"pattern": "**", **fields}], base_dir=SIGFIX).rules[0].signer
    assert not isinstance(signer, AcceptUnverified)
    data = (SIGFIX / case["bundle"]).read_bytes()
    if bundle is not None:
        data = json.dumps(bundle).encode()
    return verify_blob((SIGFIX / case["artifact"]).read_bytes(), data, signer)


def refused(code: str, *arguments: Any) -> None:
    """Check that the case is refused for this one reason."""
    with pytest.raises(LocalImagerError) as caught:
        verify(*arguments)
    assert caught.value.code == code, caught.value.message


def flipped(text: str, at: int = -1) -> str:
    """Change one bit of what a base64 text stands for."""
    data = bytearray(base64.b64decode(text))
    data[at] ^= 1
    return base64.b64encode(data).decode()


def entry_of(bundle: Document) -> Document:
    """The first log entry."""
    found: Document = bundle["verificationMaterial"]["tlogEntries"][0]
    return found


# The cases that lie in the fixtures.


def test_the_fixtures_hold_the_cases_that_are_meant() -> None:
    assert len(BY_NAME) == 12
    assert sum(name.endswith("_fail") for name in BY_NAME) == 7


@pytest.mark.parametrize("name", BY_NAME)
def test_case(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    assert case["expect"] == ("fail" if name.endswith("_fail") else "pass")
    if case["expect"] == "fail":
        refused(REASONS[case["name"]], name, tmp_path)
    else:
        acceptance = verify(name, tmp_path)
        assert acceptance.log is not None
        assert acceptance.trusted_root


# One thing changed in a bundle.


def test_another_artifact() -> None:
    case = BY_NAME[V3]
    fields = {key: value for key, value in case["policy"].items() if key != "type"}
    signer = policy_from_entries([{"pattern": "**", **fields}], base_dir=SIGFIX).rules[0].signer
    assert not isinstance(signer, AcceptUnverified)
    with pytest.raises(LocalImagerError) as caught:
        verify_blob(b"other", (SIGFIX / case["bundle"]).read_bytes(), signer)
    assert caught.value.code == "signature-invalid"


def _message_digest(bundle: Document) -> None:
    digest = bundle["messageSignature"]["messageDigest"]
    digest["digest"] = flipped(digest["digest"])


def _signature(bundle: Document) -> None:
    bundle["messageSignature"]["signature"] = flipped(bundle["messageSignature"]["signature"])


def _envelope_signature(bundle: Document) -> None:
    one = bundle["dsseEnvelope"]["signatures"][0]
    one["sig"] = flipped(one["sig"])


def _payload(bundle: Document) -> None:
    bundle["dsseEnvelope"]["payload"] = flipped(bundle["dsseEnvelope"]["payload"], 20)


def _promise(bundle: Document) -> None:
    promise = entry_of(bundle)["inclusionPromise"]
    promise["signedEntryTimestamp"] = flipped(promise["signedEntryTimestamp"])


def _integrated_time(bundle: Document) -> None:
    entry = entry_of(bundle)
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)


def _no_entry(bundle: Document) -> None:
    del bundle["verificationMaterial"]["tlogEntries"]


def _no_proof(bundle: Document) -> None:
    del entry_of(bundle)["inclusionProof"]


def _no_checkpoint(bundle: Document) -> None:
    del entry_of(bundle)["inclusionProof"]["checkpoint"]


def _proof_hash(bundle: Document) -> None:
    hashes_ = entry_of(bundle)["inclusionProof"]["hashes"]
    hashes_[0] = flipped(hashes_[0])


def _proof_index(bundle: Document) -> None:
    proof = entry_of(bundle)["inclusionProof"]
    proof["logIndex"] = str(int(proof["logIndex"]) - 1)


def _checkpoint_signature(bundle: Document) -> None:
    checkpoint = entry_of(bundle)["inclusionProof"]["checkpoint"]
    body, _, signatures = checkpoint["envelope"].partition("\n\n")
    lines = [line.rpartition(" ") for line in signatures.splitlines()]
    changed = "".join(f"{head} {flipped(encoded)}\n" for head, _, encoded in lines)
    checkpoint["envelope"] = f"{body}\n\n{changed}"


def _other_log(bundle: Document) -> None:
    entry_of(bundle)["logId"]["keyId"] = base64.b64encode(bytes(32)).decode()


def _no_timestamp(bundle: Document) -> None:
    del bundle["verificationMaterial"]["timestampVerificationData"]


def _timestamp(bundle: Document) -> None:
    stamps = bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    stamps[0]["signedTimestamp"] = flipped(stamps[0]["signedTimestamp"])


def _certificate(bundle: Document) -> None:
    certificate = bundle["verificationMaterial"]["certificate"]
    certificate["rawBytes"] = flipped(certificate["rawBytes"])


def _unknown_version(bundle: Document) -> None:
    bundle["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.9+json"


def _unknown_field(bundle: Document) -> None:
    bundle["verificationMaterial"]["more"] = {}


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        (V3, _message_digest, "subject-mismatch"),
        (KEYED, _message_digest, "subject-mismatch"),
        (V3, _signature, "signature-invalid"),
        (KEYED, _signature, "signature-invalid"),
        (DSSE, _envelope_signature, "signature-invalid"),
        (DSSE, _payload, "signature-invalid"),
        (REKOR2, _envelope_signature, "signature-invalid"),
        (REKOR2, _payload, "signature-invalid"),
        (V3, _promise, "tlog-invalid"),
        (V3, _integrated_time, "tlog-invalid"),
        (V1, _promise, "tlog-invalid"),
        (V3, _no_entry, "tlog-missing"),
        (KEYED, _no_entry, "tlog-missing"),
        (V3, _no_proof, "tlog-invalid"),
        (V3, _no_checkpoint, "tlog-invalid"),
        (V3, _proof_hash, "tlog-invalid"),
        (V3, _proof_index, "tlog-invalid"),
        (V3, _checkpoint_signature, "tlog-invalid"),
        (REKOR2, _checkpoint_signature, "tlog-invalid"),
        (V3, _other_log, "tlog-unknown"),
        (REKOR2, _no_timestamp, "time-unproven"),
        (REKOR2, _timestamp, "timestamp-invalid"),
        (V3, _certificate, "certificate-invalid"),
        (V3, _unknown_version, "unsupported-form"),
        (V3, _unknown_field, "malformed"),
    ],
)
def test_a_bundle_with_one_thing_changed(
    name: str, change: Callable[[Document], None], code: str, tmp_path: Path
) -> None:
    bundle, _ = load(name)
    change(bundle)
    refused(code, name, tmp_path, bundle)


def test_the_log_entry_of_another_signature(tmp_path: Path) -> None:
    """CVE-2022-36056: a valid entry proves nothing for a signature that it is not about."""
    bundle, other = load(V3)[0], load(DSSE)[0]
    bundle["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    refused("tlog-other-entry", V3, tmp_path, bundle)


def test_an_instance_that_the_root_does_not_know(tmp_path: Path) -> None:
    refused("certificate-invalid", REKOR2, tmp_path, None, load(V3)[1])


# One thing changed in the trusted root.


def _log_of(bundle: Document, root: Document) -> Document:
    wanted = entry_of(bundle)["logId"]["keyId"]
    found: Document = next(log for log in root["tlogs"] if log["logId"]["keyId"] == wanted)
    return found


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(("seconds", "accepted"), [(0, True), (-1, False)])
def test_the_end_of_a_logs_time_belongs_to_it(seconds: int, accepted: bool, tmp_path: Path) -> None:
    bundle, root = load(V3)
    entered = datetime.fromtimestamp(int(entry_of(bundle)["integratedTime"]), UTC)
    period = _log_of(bundle, root)["publicKey"]["validFor"]
    period["end"] = _text(entered + timedelta(seconds=seconds))
    if accepted:
        verify(V3, tmp_path, None, root)
    else:
        refused("tlog-unknown", V3, tmp_path, None, root)


def _stamped_at(folder: Path) -> datetime:
    moment = verify(REKOR2, folder).signed_at
    assert moment is not None
    return moment


@pytest.mark.parametrize(("seconds", "accepted"), [(0, True), (-1, False)])
def test_the_end_of_a_timestamp_authoritys_time_belongs_to_it(
    seconds: int, accepted: bool, tmp_path: Path
) -> None:
    _, root = load(REKOR2)
    end = _text(_stamped_at(tmp_path) + timedelta(seconds=seconds))
    for authority in root["timestampAuthorities"]:
        authority["validFor"]["end"] = end
    if accepted:
        verify(REKOR2, tmp_path, None, root)
        return
    refused("timestamp-invalid", REKOR2, tmp_path, None, root)
    # The time of an authority that did not make the timestamp cannot be borrowed.
    root["timestampAuthorities"].append(
        {"certChain": {"certificates": []}, "validFor": {"start": "2020-01-01T00:00:00Z"}}
    )
    refused("timestamp-invalid", REKOR2, tmp_path, None, root)


@pytest.mark.parametrize("missing", ["start", "validFor"])
def test_a_log_without_a_beginning_is_no_log(missing: str, tmp_path: Path) -> None:
    bundle, root = load(V3)
    key = _log_of(bundle, root)["publicKey"]
    del (key["validFor"] if missing == "start" else key)[missing]
    refused("settings-invalid", V3, tmp_path, None, root)


def decoy_of(genuine: x509.Certificate) -> bytes:
    """An authority of the same name with another key."""
    key = ec.generate_private_key(ec.SECP384R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(genuine.subject)
        .issuer_name(genuine.issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(genuine.not_valid_before_utc)
        .not_valid_after(genuine.not_valid_after_utc)
    )
    for extension in genuine.extensions:
        if isinstance(extension.value, x509.BasicConstraints | x509.KeyUsage):
            builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_two_authorities_of_one_name_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    """The SCT's issuer is the one whose key signed, not the first of that name."""
    _, root = load(V3)
    decoys = json.loads(json.dumps(root["certificateAuthorities"]))
    for authority in decoys:
        first = authority["certChain"]["certificates"][0]
        genuine = x509.load_der_x509_certificate(base64.b64decode(first["rawBytes"]))
        first["rawBytes"] = base64.b64encode(decoy_of(genuine)).decode()
        authority["certChain"]["certificates"] = [first]
    both = {**root, "certificateAuthorities": decoys + root["certificateAuthorities"]}
    verify(V3, tmp_path, None, both)
    refused("certificate-invalid", V3, tmp_path, None, {**root, "certificateAuthorities": decoys})
