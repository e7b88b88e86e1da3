"""Judging a bundle's signature: who vouches, who only narrows, and every way to be refused."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.form.signing import (
    SigningKey,
    check_signature,
    load_private_key,
    policy_with_key,
    sign_manifest,
    unvouched,
)
from local_imager.errors import SettingsError, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.model import Digest
from local_imager.sources.bundle import MAX_BUNDLE_BYTES
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.trust import TrustPolicy, default_policy, override, tighten
from local_imager.sources.trust_entries import policy_from_entries
from tests.unit.deliver.bundle.signkeys import (
    KEYS,
    MANIFEST,
    asks,
    key_file,
    pem,
    public_pem,
    wants,
)
from tests.unit.sources.forge import Signing
from tests.unit.sources.test_sigfix import CASES, REASONS, SIGFIX

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(key_file, tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return load_private_key(key_file(tmp_path, pem(KEYS["ed25519"])))


# -- judging it ---------------------------------------------------------------------------------


def refused(manifest: bytes, signature: bytes | None, policy: TrustPolicy) -> VerificationRefused:
    with pytest.raises(VerificationRefused) as caught:
        check_signature(manifest, signature, policy)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value


def test_the_evidence_says_what_was_shown(key: SigningKey) -> None:
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), wants(key))
    assert signed is not None
    assert signed.as_dict() == {
        "signer": key.public.key_id,
        "policy": "bundles (user-file)",
        "evidence": {
            "manifest": str(Digest.of(MANIFEST)),
            "accepted_by": [
                {
                    "rule": "bundles (user-file)",
                    "wants": f"a signature of the ed25519 key {key.public.key_id[:19]}…",
                    "signer": key.public.key_id,
                    "checked": ["signature", "statement about this digest"],
                }
            ],
        },
    }


def test_nothing_is_demanded_where_no_rule_is(key: SigningKey) -> None:
    for policy in (default_policy(), policy_from_entries([{"pattern": "**", "key": KEY_PEM}])):
        assert check_signature(MANIFEST, None, policy) is None
        assert check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy) is None
        assert check_signature(MANIFEST, b"no bundle at all", policy) is None
        assert "there is no rule for bundles" in unvouched(policy)
        assert 'pattern = "bundles"' in unvouched(policy)


KEY_PEM = Signing().pem


def test_a_rule_demands_the_file(key: SigningKey) -> None:
    error = refused(MANIFEST, None, wants(key))
    assert error.code == "no-signature"
    assert "no signature file came with it" in error.message
    assert "bundles (user-file) wants a signature of the ed25519 key" in error.message
    assert "--signature" in error.hint


def test_another_key(key: SigningKey, write: Write) -> None:
    other = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    error = refused(MANIFEST, sign_manifest(MANIFEST, other), wants(key))
    assert error.code == "signature-invalid"
    assert "not made by the policy's key" in error.message


def test_other_bytes(key: SigningKey) -> None:
    error = refused(MANIFEST + b" ", sign_manifest(MANIFEST, key), wants(key))
    assert error.code == "subject-mismatch"
    assert "of another bundle" in error.message


def test_other_bytes_with_a_digest_to_match(key: SigningKey) -> None:
    document = json.loads(sign_manifest(MANIFEST, key))
    changed = MANIFEST + b" "
    digest = base64.b64encode(hashlib.sha256(changed).digest()).decode()
    document["messageSignature"]["messageDigest"]["digest"] = digest
    assert refused(changed, json.dumps(document).encode(), wants(key)).code == "signature-invalid"
    del document["messageSignature"]["messageDigest"]
    assert refused(changed, json.dumps(document).encode(), wants(key)).code == "signature-invalid"
    assert check_signature(MANIFEST, json.dumps(document).encode(), wants(key)) is not None


def test_bytes_that_are_no_signature(key: SigningKey) -> None:
    good = sign_manifest(MANIFEST, key)
    policy = wants(key)
    assert refused(MANIFEST, b"", policy).code == "malformed"
    assert refused(MANIFEST, good[:-1], policy).code == "malformed"
    assert refused(MANIFEST, good + b"{}", policy).code == "malformed"
    assert refused(MANIFEST, b" " * (MAX_BUNDLE_BYTES + 1), policy).code == "too-large"
    older = good.replace(b"v0.3", b"v0.2")
    assert refused(MANIFEST, older, policy).code == "unsupported-form"


def test_an_attestation_about_the_manifest_is_no_signature_of_it() -> None:
    signing = Signing()
    policy = policy_from_entries([{"pattern": BUNDLES, "key": signing.pem}])
    attestation = signing.bundle(Digest.of(MANIFEST), "https://slsa.dev/provenance/v1")
    error = refused(MANIFEST, attestation, policy)
    assert error.code == "unsupported-form"
    assert "attestation" in error.message


def test_a_key_where_an_identity_is_wanted(key: SigningKey) -> None:
    policy = policy_from_entries([{"pattern": BUNDLES, "issuer": "https://i", "identity": "me@x"}])
    assert refused(MANIFEST, sign_manifest(MANIFEST, key), policy).code == "material-mismatch"


# Signatures of files by others: an identity with a log entry, and a managed key.
OF_OTHERS = [
    case
    for case in CASES
    if case["form"] == "bundle-file"
    and b"messageSignature" in (SIGFIX / case["bundle"]).read_bytes()
    and b"v0.3+json" in (SIGFIX / case["bundle"]).read_bytes()
    and REASONS.get(case["name"]) != "settings-invalid"
]


@pytest.mark.parametrize("case", OF_OTHERS, ids=lambda case: case["name"])
def test_signatures_of_other_tools_over_a_file(case: dict[str, Any]) -> None:
    rule = {name: value for name, value in case["policy"].items() if name != "type"}
    policy = policy_from_entries([{"pattern": BUNDLES, **rule}], base_dir=SIGFIX)
    artifact = (SIGFIX / case["artifact"]).read_bytes()
    signature = (SIGFIX / case["bundle"]).read_bytes()
    if case["expect"] == "pass":
        signed = check_signature(artifact, signature, policy)
        assert signed is not None
        assert rule.get("identity", "sha256:") in signed.signer
        assert refused(artifact + b" ", signature, policy).code == "subject-mismatch"
    else:
        assert refused(artifact, signature, policy).code == REASONS[case["name"]]


def test_both_an_identity_and_a_key_of_others_were_looked_at() -> None:
    kinds = {"key" in case["policy"] for case in OF_OTHERS if case["expect"] == "pass"}
    assert kinds == {True, False}


def test_a_log_entry_can_be_demanded(key: SigningKey) -> None:
    policy = wants(key, require_tlog=True)
    assert refused(MANIFEST, sign_manifest(MANIFEST, key), policy).code == "tlog-missing"


def test_of_several_rules_one_has_to_accept(key: SigningKey, write: Write) -> None:
    other = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    entries = [{"pattern": BUNDLES, "key": public_pem(one)} for one in (other, key)]
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy_from_entries(entries))
    assert signed is not None and signed.signer == key.public.key_id


def test_a_project_narrows(key: SigningKey, write: Write) -> None:
    other = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    agreeing = tighten(wants(key), asks(key))
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), agreeing)
    assert signed is not None
    accepted = signed.evidence["accepted_by"]
    assert isinstance(accepted, list) and len(accepted) == 2
    error = refused(MANIFEST, sign_manifest(MANIFEST, key), tighten(wants(key), asks(other)))
    assert "bundles (project-file) wants" in error.message


def test_a_project_alone_demands_and_does_not_vouch(key: SigningKey) -> None:
    policy = tighten(default_policy(), asks(key))
    assert refused(MANIFEST, None, policy).code == "no-signature"
    assert check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy) is None
    assert "signed as project.toml demands" in unvouched(policy)
    assert "only narrows" in unvouched(policy)


def test_accept_unverified_demands_nothing_warns_and_does_not_vouch(key: SigningKey) -> None:
    loose = policy_from_entries(
        [{"pattern": BUNDLES, "accept_unverified": True}], source="user.toml"
    )
    for signature in (None, b"rubbish", sign_manifest(MANIFEST, key)):
        sink = RecordingSink()
        assert check_signature(MANIFEST, signature, loose, sink) is None
        (event,) = sink.events
        assert isinstance(event, Message) and event.level == "warning"
        assert event.text == unvouched(loose)
        assert "accept_unverified for bundles in user.toml" in event.text
    # A project's file that demands one is heard all the same.
    assert refused(MANIFEST, None, tighten(loose, asks(key))).code == "no-signature"


def test_beside_accept_unverified_a_signature_still_vouches(key: SigningKey) -> None:
    entries = [
        {"pattern": BUNDLES, "accept_unverified": True},
        {"pattern": BUNDLES, "key": public_pem(key)},
    ]
    policy, sink = policy_from_entries(entries), RecordingSink()
    assert check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy, sink) is not None
    assert sink.events == []
    assert check_signature(MANIFEST, None, policy, sink) is None
    assert len(sink.events) == 1


def test_a_key_that_is_named_stands_for_the_rules_of_bundles_only(
    key: SigningKey, write: Write, tmp_path: Path
) -> None:
    other = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    (tmp_path / "far.pub").write_text(public_pem(key))
    images = policy_from_entries([{"pattern": "a.b/**", "key": KEY_PEM}])
    policy = policy_with_key(override(images, wants(other)), tmp_path / "far.pub")
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy)
    assert signed is not None and signed.rule == "bundles (flags)"
    refused(MANIFEST, sign_manifest(MANIFEST, other), policy)
    assert policy.groups_for("a.b/c") == images.groups_for("a.b/c")
    with pytest.raises(SettingsError, match="private key"):
        policy_with_key(images, write(pem(KEYS["ed25519"])))
