"""Every case of the signature fixtures gets its answer, and each refusal the fitting reason."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any, Final

import pytest

from local_imager.errors import IntegrityError, LocalImagerError, SettingsError, VerificationRefused
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Digest, Reference
from local_imager.sources.blob import verify_blob
from local_imager.sources.trust import AcceptUnverified, TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.verify import verify_image

SIGFIX: Final = Path(__file__).parents[2] / "golden" / "sigfix"
CASES: Final[list[dict[str, Any]]] = json.loads((SIGFIX / "cases.json").read_text())

# Where our answer to a "recorded" case is not the recommended one, and why.
OTHERWISE: Final = {
    "payload-duplicate-keys-right-last": "two JSON readers see two different payloads",
    "dsse-predicate-type-other": "an attestation of another type is not an image signature",
    "legacy-valid-bundle-of-other-key": "the policy's key did sign this digest, in the older form",
}

REASONS: Final = {
    "key-p384-legacy-sha256-configured": "signature-invalid",
    "key-ed25519ph-legacy": "signature-invalid",
    "key-wrong-legacy": "signature-invalid",
    "key-wrong-bundle": "signature-invalid",
    "key-policy-on-keyless-signature": "material-mismatch",
    "key-policy-on-keyless-signature-bundle": "material-mismatch",
    "key-type-mismatch": "signature-invalid",
    "key-file-garbage": "settings-invalid",
    "key-file-hmac-secret": "settings-invalid",
    "copied-signature-legacy-key": "subject-mismatch",
    "copied-signature-bundle-key": "subject-mismatch",
    "tampered-payload-digest": "signature-invalid",
    "tampered-signature-legacy": "signature-invalid",
    "tampered-signature-bundle-key": "signature-invalid",
    "tampered-dsse-payload-key": "signature-invalid",
    "signature-manifest-zero-layers": "signature-missing",
    "signature-annotation-missing": "signature-missing",
    "signature-empty-string": "signature-missing",
    "dsse-no-signature": "signature-missing",
    "bundle-referrer-zero-layers": "signature-missing",
    "referrers-index-empty": "no-signature",
    "unsigned-image-key": "no-signature",
    "payload-wrong-critical-type": "payload-invalid",
    "payload-duplicate-keys-wrong-last": "payload-invalid",
    "payload-duplicate-keys-right-last": "payload-invalid",
    "payload-not-json": "payload-invalid",
    "payload-json-array": "payload-invalid",
    "payload-empty-object": "payload-invalid",
    "payload-null": "payload-invalid",
    "payload-empty": "payload-invalid",
    "payload-digest-sha512": "subject-mismatch",
    "payload-digest-no-algorithm": "subject-mismatch",
    "payload-digest-uppercase": "subject-mismatch",
    "payload-digest-of-tag-only": "subject-mismatch",
    "payload-media-type-unexpected": "unsupported-form",
    "signature-not-base64": "malformed",
    "oversized-signature-annotation": "too-large",
    "payload-blob-bytes-changed": "digest-mismatch",
    "bundle-blob-bytes-changed": "digest-mismatch",
    "bundle-blob-bytes-reordered": "digest-mismatch",
    "signature-manifest-bytes-changed": "digest-mismatch",
    "bundle-blob-missing": "missing-blob",
    "payload-blob-missing": "missing-blob",
    "referrers-index-points-to-missing-manifest": "missing-blob",
    "dsse-wrong-payload-type": "payload-type",
    "dsse-subject-digest-mismatch": "subject-mismatch",
    "dsse-subject-empty": "subject-mismatch",
    "dsse-payload-type-not-signed": "signature-invalid",
    "dsse-predicate-type-other": "predicate-mismatch",
    "bundle-unknown-version": "unsupported-form",
    "bundle-version-0.2-style": "unsupported-form",
    "bundle-message-signature": "unsupported-form",
    "bundle-media-type-missing": "malformed",
    "bundle-garbage-json": "malformed",
    "bundle-unknown-field": "malformed",
    "bundle-no-key-material": "malformed",
    "missing-set-legacy-key": "tlog-missing",
    "realworld-conformance-managed-key-wrong-key_fail": "settings-invalid",
    "keyless-bundle-github-workflow-other-repo": "identity-mismatch",
    "keyless-bundle-tsa-only-tlog-required": "tlog-missing",
    "index-signed-child-asked-bundle": "no-signature",
    "index-signed-child-asked-legacy": "no-signature",
    "child-signed-index-not": "no-signature",
    "attestation-wrong-predicate-type": "predicate-mismatch",
    "attestation-is-not-a-signature": "predicate-mismatch",
    "attestation-wrong-identity": "identity-mismatch",
    "identity-wrong": "identity-mismatch",
    "identity-lookalike-suffix": "identity-mismatch",
    "identity-lookalike-suffix-exact": "identity-mismatch",
    "identity-lookalike-prefix-community": "identity-mismatch",
    "identity-uppercase": "identity-mismatch",
    "identity-uppercase-exact": "identity-mismatch",
    "issuer-wrong": "issuer-mismatch",
    "issuer-trailing-slash": "issuer-mismatch",
    "issuer-prefix": "issuer-mismatch",
    "keyless-policy-on-key-signature": "material-mismatch",
    "copied-signature-bundle-keyless": "subject-mismatch",
    "tampered-dsse-payload": "signature-invalid",
    "tampered-signature-bundle": "signature-invalid",
    "tampered-certificate-legacy": "certificate-invalid",
    "swapped-certificate": "signature-invalid",
    "tampered-certificate-no-tlog": "certificate-invalid",
    "swapped-certificate-no-tlog": "signature-invalid",
    "untrusted-ca-bundle": "certificate-invalid",
    "untrusted-ca-in-trusted-root": "certificate-invalid",
    "sct-unknown-log": "sct-invalid",
    "expired-certificate-no-time-proof-bundle": "time-unproven",
    "expired-certificate-no-time-proof-legacy": "time-unproven",
    "missing-set-legacy": "tlog-missing",
    "bad-set-legacy": "tlog-invalid",
    "set-time-changed-legacy": "tlog-invalid",
    "set-of-another-signature-legacy": "tlog-other-entry",
    "trusted-root-rekor1-validity-past": "tlog-unknown",
    "trusted-root-garbage": "settings-invalid",
    "trusted-root-missing-file": "settings-invalid",
    "bundle-no-tlog-entry": "tlog-missing",
    "bundle-missing-inclusion-proof": "tlog-invalid",
    "bundle-rekor1-missing-set": "time-unproven",
    "bundle-broken-inclusion-proof": "tlog-invalid",
    "bundle-broken-checkpoint-signature": "tlog-invalid",
    "bundle-checkpoint-other-root": "tlog-invalid",
    "bundle-missing-checkpoint": "tlog-invalid",
    "bundle-wrong-log-index": "tlog-invalid",
    "bundle-bad-timestamp": "timestamp-invalid",
    "trusted-root-without-tsa": "timestamp-invalid",
    "trusted-root-other-rekor2-key": "tlog-invalid",
    "bundle-tlog-entry-of-another-signature": "tlog-other-entry",
    "unsigned-image": "no-signature",
    "image-manifest-bytes-changed": "integrity",
    "bundle-v03-with-certificate-chain": "malformed",
    "realworld-conformance-set-invalid-signature_fail": "tlog-invalid",
    "realworld-conformance-dsse-mismatch-envelope_fail": "tlog-other-entry",
    "realworld-conformance-checkpoint-wrong-roothash_fail": "tlog-invalid",
    "realworld-conformance-bundle-with-root-cert_fail": "certificate-invalid",
    "realworld-conformance-rekor2-no-timestamp_fail": "time-unproven",
    "realworld-conformance-invalid-ct-key_fail": "sct-invalid",
    "identity-wrong-legacy": "identity-mismatch",
    "identity-lookalike-suffix-bundle": "identity-mismatch",
    "identity-lookalike-suffix-exact-bundle": "identity-mismatch",
    "identity-lookalike-prefix-community-legacy": "identity-mismatch",
    "identity-uppercase-bundle": "identity-mismatch",
    "identity-empty-string": "settings-invalid",
    "keyless-policy-on-key-signature-legacy": "material-mismatch",
    "copied-signature-legacy-keyless": "subject-mismatch",
    "tampered-payload-digest-keyless": "signature-invalid",
    "tampered-certificate-bundle": "certificate-invalid",
    "sct-unknown-log-legacy": "sct-invalid",
    "bundle-broken-checkpoint-signature-rekor1": "tlog-invalid",
    "bundle-checkpoint-other-root-rekor2": "tlog-invalid",
    "bundle-timestamp-removed": "malformed",
    "bundle-tlog-entry-of-another-signature-rekor1": "tlog-other-entry",
    "bundle-v03-with-certificate-chain-rekor2": "malformed",
    "trusted-root-without-ca": "certificate-invalid",
    "trusted-root-without-rekor1": "tlog-unknown",
    "trusted-root-unknown-version": "settings-invalid",
    "identity-dot-is-any-not-escaped-here": "identity-mismatch",
    "timestamp-after-certificate-expiry": "certificate-invalid",
}


def policy_of(case: dict[str, Any]) -> TrustPolicy:
    """The case's policy as a trust entry."""
    fields = dict(case["policy"])
    for key in ("type", "predicate_type"):
        fields.pop(key, None)
    return policy_from_entries([{"pattern": "**", **fields}], base_dir=SIGFIX)


def open_layout(case: dict[str, Any], scratch: Path) -> LayoutSource:
    """Open the case's layout; the two compressed ones are unpacked first."""
    path = SIGFIX / case["layout"]
    if path.name.endswith(".tar.gz"):
        plain = scratch / "layout.tar"
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        path = plain
    return LayoutSource.open(path)


def verify(case: dict[str, Any], scratch: Path) -> None:
    """Verify what the case asks for."""
    policy = policy_of(case)
    if case["form"] == "bundle-file":
        signer = policy.rules[0].signer
        assert not isinstance(signer, AcceptUnverified)
        artifact = (SIGFIX / case["artifact"]).read_bytes()
        verify_blob(artifact, (SIGFIX / case["bundle"]).read_bytes(), signer)
        return
    source = open_layout(case, scratch)
    name = Reference.parse(case["image_ref"])
    reference = name.with_digest(Digest.parse(case["digest"]))
    predicate = case["policy"].get("predicate_type")
    more = {"predicate_type": predicate} if predicate else {}
    image = verify_image(source, reference, source.resolve(reference), policy, **more)
    assert image.digest == reference.digest
    assert not image.unverified
    json.dumps(dict(image.evidence))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any], tmp_path: Path) -> None:
    expected = case["expect"]
    if case["name"] in OTHERWISE:
        assert case["requirement"] == "recorded"
        expected = {"pass": "fail", "fail": "pass"}[expected]
    if expected == "pass":
        verify(case, tmp_path)
        return
    with pytest.raises((VerificationRefused, SettingsError, IntegrityError)) as caught:
        verify(case, tmp_path)
    assert caught.value.code == REASONS[case["name"]]


def test_the_table_of_reasons_names_only_cases_that_exist() -> None:
    assert set(REASONS) <= {case["name"] for case in CASES}


@pytest.mark.parametrize("path", sorted((SIGFIX / "layouts").glob("*")), ids=lambda p: p.name)
def test_any_layout_gets_a_clean_answer_under_any_key(path: Path, tmp_path: Path) -> None:
    """No layout of the set, whatever it holds, ends in anything but an answer."""
    layout: dict[str, Any] = {"layout": str(path)}
    digests = {case["digest"] for case in CASES if case["layout"] == f"layouts/{path.name}"}
    for key in ("p256", "rsa2048", "ed25519"):
        entry = {"pattern": "**", "key": f"keys/{key}.pub"}
        policy = policy_from_entries([entry], base_dir=SIGFIX)
        for digest in digests:
            reference = Reference.parse("registry.example/siderolabs/imager").with_digest(
                Digest.parse(digest)
            )
            try:
                source = open_layout(layout, tmp_path)
                verify_image(source, reference, source.resolve(reference), policy)
            except LocalImagerError as error:
                assert error.message


def test_a_layout_is_read_from_a_tar_too(tmp_path: Path) -> None:
    case = next(case for case in CASES if case["name"] == "key-p256-bundle")
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(SIGFIX / case["layout"], arcname=".")
    verify({**case, "layout": str(archive)}, tmp_path)
