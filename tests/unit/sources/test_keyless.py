"""Keyless verification: a second opinion, no network, hostile certificates, missing parts."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify.policy import AnyOf, Identity
from sigstore.verify.verifier import Verifier

from local_imager.errors import LocalImagerError, VerificationRefused
from local_imager.sources import timestamps
from local_imager.sources.bundle import parse_bundle
from local_imager.sources.candidates import Candidate, Material
from local_imager.sources.certificate import (
    certificate_from_pem,
    identity_of,
    issuer_of,
    load_certificate,
)
from local_imager.sources.keyless import judge_keyless
from local_imager.sources.reasons import Rejected
from local_imager.sources.rootfile import packaged_file
from local_imager.sources.trust import OFFICIAL_IDENTITY, OFFICIAL_ISSUER, KeylessSigner
from local_imager.sources.trusted_root import load_trusted_root
from tests.unit.sources.test_sigfix import CASES, SIGFIX, verify

ROOT = SIGFIX / "trust" / "trusted_root.json"
SIGNER = KeylessSigner(OFFICIAL_ISSUER, "", "", OFFICIAL_IDENTITY, trusted_root=ROOT)
BY_NAME = {case["name"]: case for case in CASES}


def bundle_blob(layout: str) -> bytes:
    blobs = [p.read_bytes() for p in (SIGFIX / "layouts" / layout / "blobs/sha256").iterdir()]
    return min((blob for blob in blobs if b'"dsseEnvelope"' in blob), key=len)


def candidate_of(untrusted: bytes) -> Candidate:
    bundle = parse_bundle(untrusted)
    assert bundle.envelope is not None
    return Candidate(
        "bundle-v0.3",
        "test",
        bundle.envelope.signatures,
        bundle.envelope.encoded,
        bundle.envelope.untrusted_payload,
        lambda: None,
        None,  # type: ignore[arg-type]
        Material(bundle.certificate, bundle.log_entries, bundle.timestamps),
        proof_required=True,
    )


BUNDLES = ("keyless-bundle-rekor2-tsa", "keyless-bundle-rekor1", "keyless-bundle-rekor1-tsa")


def sigstore_says(untrusted: bytes) -> bool:
    """The answer of sigstore-python for the same bundle, signer identities given exactly."""
    identities = (
        "releases@siderolabs.com",
        "releasemgr-svc@talos-production.iam.gserviceaccount.com",
    )
    policy = AnyOf([Identity(identity=who, issuer=OFFICIAL_ISSUER) for who in identities])
    try:
        verifier = Verifier(trusted_root=TrustedRoot.from_file(str(ROOT)))
        verifier.verify_dsse(Bundle.from_json(untrusted), policy)
    except (SigstoreError, ValueError, TypeError, AttributeError):
        return False
    return True


def we_say(untrusted: bytes) -> bool:
    try:
        judge_keyless(candidate_of(untrusted), SIGNER)
    except LocalImagerError:
        return False
    return True


@pytest.mark.parametrize("name", BUNDLES)
def test_both_accept_what_is_untouched(name: str) -> None:
    assert sigstore_says(bundle_blob(name))
    assert we_say(bundle_blob(name))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(BUNDLES), data=st.data())
def test_what_we_accept_sigstore_accepts_too(name: str, data: st.DataObject) -> None:
    """Change one byte inside one of the bundle's binary fields: never laxer than the reference."""
    document = json.loads(bundle_blob(name))
    material = document["verificationMaterial"]
    entry = material["tlogEntries"][0]
    fields: list[tuple[Any, str]] = [
        (material["certificate"], "rawBytes"),
        (document["dsseEnvelope"], "payload"),
        (document["dsseEnvelope"]["signatures"][0], "sig"),
        (entry, "canonicalizedBody"),
        (entry["inclusionProof"], "rootHash"),
    ]
    for stamp in material.get("timestampVerificationData", {}).get("rfc3161Timestamps", []):
        fields.append((stamp, "signedTimestamp"))
    if "inclusionPromise" in entry:
        fields.append((entry["inclusionPromise"], "signedEntryTimestamp"))
    holder, key = data.draw(st.sampled_from(fields))
    raw = bytearray(base64.b64decode(holder[key]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    holder[key] = base64.b64encode(raw).decode()
    changed = json.dumps(document).encode()
    if we_say(changed):
        assert sigstore_says(changed)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(BUNDLES), data=st.data())
def test_hostile_certificates_only_get_answers(name: str, data: st.DataObject) -> None:
    original = parse_bundle(bundle_blob(name)).certificate
    der = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        if data.draw(st.booleans()):
            der[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            der[at:at] = data.draw(st.binary(max_size=8))
    try:
        certificate = load_certificate(bytes(der))
        identity_of(certificate)
        issuer_of(certificate)
    except Rejected as error:
        assert error.message
    document = json.loads(bundle_blob(name))
    document["verificationMaterial"]["certificate"]["rawBytes"] = base64.b64encode(der).decode()
    assert not we_say(json.dumps(document).encode()) or bytes(der) == original
    pem = base64.encodebytes(der).decode()
    with contextlib.suppress(Rejected):
        certificate_from_pem(
            f"-----BEGIN CERTIFICATE-----\n{pem}-----END CERTIFICATE-----\n".encode()
        )


def test_no_socket_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("verification opened a socket")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    for name in ("keyless-legacy-rekor1-tsa", "keyless-bundle-rekor2-tsa", "key-p256-bundle-tlog"):
        verify(BY_NAME[name], tmp_path)


def test_without_the_extra_it_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local_imager.sources import expressions

    expressions.compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(VerificationRefused) as caught:
        verify(BY_NAME["keyless-legacy-rekor1"], tmp_path)
    assert caught.value.code == "keyless-unsupported"
    assert "local-imager[keyless]" in caught.value.message
    expressions.compiled.cache_clear()


def test_without_a_timestamp_library_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(VerificationRefused) as caught:
        verify(BY_NAME["keyless-bundle-rekor2-tsa"], tmp_path)
    assert caught.value.code == "keyless-unsupported"
    verify(BY_NAME["keyless-bundle-rekor1"], tmp_path)
    verify(BY_NAME["key-p256-bundle-tlog"], tmp_path)


def test_the_packaged_root_is_found_without_importing_its_package() -> None:
    path = packaged_file("trusted_root.json")
    assert path is not None
    root = load_trusted_root(path)
    assert {log.host for log in root.logs} >= {"rekor.sigstore.dev"}
    assert len(root.certificate_authorities) >= 2


def test_the_same_timestamp_twice_is_refused() -> None:
    with pytest.raises(Rejected, match="twice"):
        timestamps.verified_times((b"a", b"a"), b"signature", load_trusted_root(ROOT))


def test_evidence_names_identity_time_log_and_root(tmp_path: Path) -> None:
    acceptance = judge_keyless(candidate_of(bundle_blob("keyless-bundle-rekor1-tsa")), SIGNER)
    document = acceptance.as_dict()
    assert document["signer"] == f"releases@siderolabs.com ({OFFICIAL_ISSUER})"
    assert str(document["signed_at"]).startswith("2026-11-21T")
    assert str(document["trusted_root"]).startswith("sha256:")
    assert json.loads(json.dumps(document))["log_entry"]["log"] == "rekor.alpha.example"
