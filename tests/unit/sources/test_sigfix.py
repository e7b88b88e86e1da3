"""Every public-key case of the signature fixtures gets its answer, with the fitting reason."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any, Final

import pytest

from local_imager.errors import LocalImagerError, SettingsError, VerificationRefused
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Digest, Reference
from local_imager.sources.blob import verify_blob
from local_imager.sources.trust import AcceptUnverified, TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.verify import verify_image

SIGFIX: Final = Path(__file__).parents[2] / "golden" / "sigfix"
CASES: Final[list[dict[str, Any]]] = json.loads((SIGFIX / "cases.json").read_text())
BY_KEY: Final = [case for case in CASES if case["policy"]["type"] == "public_key"]

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


@pytest.mark.parametrize("case", BY_KEY, ids=lambda case: case["name"])
def test_public_key_case(case: dict[str, Any], tmp_path: Path) -> None:
    expected = case["expect"]
    if case["name"] in OTHERWISE:
        assert case["requirement"] == "recorded"
        expected = {"pass": "fail", "fail": "pass"}[expected]
    if expected == "pass":
        verify(case, tmp_path)
        return
    with pytest.raises((VerificationRefused, SettingsError)) as caught:
        verify(case, tmp_path)
    assert caught.value.code == REASONS[case["name"]]


def test_the_table_of_reasons_names_only_cases_that_exist() -> None:
    assert set(REASONS) <= {case["name"] for case in BY_KEY}


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
    case = next(case for case in BY_KEY if case["name"] == "key-p256-bundle")
    archive = tmp_path / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(SIGFIX / case["layout"], arcname=".")
    verify({**case, "layout": str(archive)}, tmp_path)
