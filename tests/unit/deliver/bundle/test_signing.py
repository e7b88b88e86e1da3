"""Signing a manifest and judging it: keys, the signature's bytes, and every way to be refused."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from local_imager.deliver.bundle.signing import (
    SigningKey,
    check_signature,
    load_private_key,
    policy_with_key,
    read_signature,
    sign_manifest,
    signature_path,
    unvouched,
)
from local_imager.errors import InputError, SettingsError, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.model import Digest
from local_imager.sources.bundle import MAX_BUNDLE_BYTES, parse_bundle
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.trust import Origin, TrustPolicy, default_policy, override, tighten
from local_imager.sources.trust_entries import policy_from_entries
from tests.unit.sources.forge import Signing
from tests.unit.sources.test_sigfix import CASES, REASONS, SIGFIX

MANIFEST = b'{"bundle":"json"}'
KEYS: dict[str, PrivateKeyTypes] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ecdsa-p256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa-2048": rsa.generate_private_key(65537, 2048),
}


def pem(
    key: PrivateKeyTypes, form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes = b""
) -> bytes:
    sealed = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, sealed)


def public_pem(key: SigningKey) -> str:
    body = base64.encodebytes(key.public.der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def writing(data: bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "bundle.key"
        path.write_bytes(data)
        path.chmod(mode)
        return path

    return writing


@pytest.fixture
def key(write: Callable[[bytes], Path]) -> SigningKey:
    return load_private_key(write(pem(KEYS["ed25519"])))


def wants(key: SigningKey, **more: Any) -> TrustPolicy:
    entries = [{"pattern": BUNDLES, "key": public_pem(key), **more}]
    return policy_from_entries(entries, source="user.toml")


def asks(key: SigningKey) -> TrustPolicy:
    """A project's file that wants this key."""
    entries = [{"pattern": BUNDLES, "key": public_pem(key)}]
    return policy_from_entries(entries, origin=Origin.PROJECT_FILE, source="project.toml")


# -- private keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
def test_each_kind_of_key_signs_and_is_accepted(kind: str, write: Callable[[bytes], Path]) -> None:
    key = load_private_key(write(pem(KEYS[kind])))
    assert key.public.algorithm == kind
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), wants(key))
    assert signed is not None
    assert signed.signer == key.public.key_id
    assert signed.rule == "bundles (user-file)"


@pytest.mark.parametrize("kind", KEYS)
def test_the_signature_repeats(kind: str, write: Callable[[bytes], Path]) -> None:
    key = load_private_key(write(pem(KEYS[kind])))
    assert sign_manifest(MANIFEST, key) == sign_manifest(MANIFEST, key)


def test_an_openssl_without_repeatable_ecdsa_signs_all_the_same(
    write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    plain = ec.ECDSA

    def older(algorithm: Any, *, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("ECDSA with deterministic signature (RFC 6979)")
        return plain(algorithm)

    key = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    monkeypatch.setattr(ec, "ECDSA", older)
    assert check_signature(MANIFEST, sign_manifest(MANIFEST, key), wants(key)) is not None


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "rsa-2048"])
def test_the_older_pem_forms_are_read(kind: str, write: Callable[[bytes], Path]) -> None:
    data = pem(KEYS[kind], PrivateFormat.TraditionalOpenSSL)
    assert load_private_key(write(data)).public.algorithm == kind
    # What `openssl ecparam -genkey` writes has the curve's name in front.
    named = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert load_private_key(write(named + data)).public.algorithm == kind


def test_an_encrypted_key_opens_with_its_passphrase_only(write: Callable[[bytes], Path]) -> None:
    path = write(pem(KEYS["ed25519"], passphrase=b"correct horse"))
    assert load_private_key(path, lambda: b"correct horse").public.algorithm == "ed25519"
    for passphrase, words in ((None, "is encrypted"), (lambda: b"wrong", "does not open")):
        with pytest.raises(InputError, match=words) as caught:
            load_private_key(path, passphrase)
        assert caught.value.code == "key-passphrase"
        assert "LOCAL_IMAGER_KEY_PASSPHRASE" in caught.value.hint


def test_the_passphrase_is_asked_for_only_when_it_is_needed(
    write: Callable[[bytes], Path],
) -> None:
    def never() -> bytes:
        raise AssertionError("asked for a passphrase")

    load_private_key(write(pem(KEYS["ecdsa-p256"])), never)


def test_a_key_that_others_can_read_draws_a_warning(
    write: Callable[..., Path],
) -> None:
    for mode, count in ((0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)):
        sink = RecordingSink()
        load_private_key(write(pem(KEYS["ed25519"]), mode), sink=sink)
        warnings = [event for event in sink.events if isinstance(event, Message)]
        assert len(warnings) == count, oct(mode)
        assert all("chmod 600" in one.text and one.level == "warning" for one in warnings)


WEAK = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nc2VjcmV0\n", "cosign's own format"),
        (b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\nc2VjcmV0\n", "cosign's own format"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "OpenSSH"),
        (Signing().pem.encode(), "is a public key"),
        (pem(x25519.X25519PrivateKey.generate()), "not a private key that can sign"),
        (pem(WEAK), "not a private key that can sign"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "not a private key that can sign"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "not a private"),
        (b"", "not a private key"),
        (b"x" * 70_000, "not a private key"),
    ],
)
def test_what_cannot_sign_is_named_and_not_repeated(
    data: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_private_key(write(data), lambda: b"any")
    error = caught.value
    assert (error.exit_code, error.code) == (2, "key-format")
    assert error.hint
    assert "c2VjcmV0" not in f"{error} {error.as_dict()} {error.__cause__} {error.__context__}"


def test_a_missing_key_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_private_key(tmp_path / "none.key")


def test_a_key_shows_nothing_of_itself(key: SigningKey) -> None:
    secret = KEYS["ed25519"].private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    assert "Private" not in repr(key)
    assert secret not in repr(key).encode()
    assert repr(secret)[2:-1] not in repr(key)


# -- the signature's document -------------------------------------------------------------------


def test_the_signature_is_a_canonical_sigstore_bundle(key: SigningKey) -> None:
    data = sign_manifest(MANIFEST, key)
    document = json.loads(data)
    assert data == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = base64.b64encode(hashlib.sha256(MANIFEST).digest()).decode()
    hint = base64.b64encode(hashlib.sha256(key.public.der).digest()).decode()
    assert document == {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hint}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": document["messageSignature"]["signature"],
        },
    }
    parsed = parse_bundle(data)
    assert parsed.message is not None
    assert key.public.verifies(parsed.message.signature, MANIFEST)


def test_openssl_accepts_the_signature(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    key = load_private_key(write(pem(KEYS["ecdsa-p384"])))
    message = parse_bundle(sign_manifest(MANIFEST, key)).message
    assert message is not None
    for name, data in (("m", MANIFEST), ("s", message.signature), ("k", public_pem(key).encode())):
        (tmp_path / name).write_bytes(data)
    argv = ["openssl", "dgst", "-sha256", "-verify", "k", "-signature", "s", "m"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "Verified OK\n", done.stderr


@pytest.mark.parametrize(
    ("file", "signature"),
    [
        ("site.tar", "site.tar.sigstore.json"),
        ("site.tar.zst", "site.tar.sigstore.json"),
        ("site.part1of3.tar", "site.tar.sigstore.json"),
        ("site.part12of30.tar.zst", "site.tar.sigstore.json"),
        ("site.part1of2", "site.sigstore.json"),
        ("my.part1of2.copy.tar", "my.part1of2.copy.tar.sigstore.json"),
        ("partly.tar", "partly.tar.sigstore.json"),
        ("site", "site.sigstore.json"),
    ],
)
def test_one_name_for_the_signature_of_every_form(file: str, signature: str) -> None:
    assert signature_path(Path("/media/stick") / file) == Path("/media/stick") / signature


def test_the_signature_is_found_beside_any_part(tmp_path: Path) -> None:
    first, second = tmp_path / "1" / "site.part1of2.tar", tmp_path / "2" / "site.part2of2.tar.zst"
    second.parent.mkdir()
    assert read_signature([first, second]) is None
    assert read_signature([]) is None
    (tmp_path / "2" / "site.tar.sigstore.json").write_bytes(b"S")
    assert read_signature([first, second]) == b"S"


def test_a_signature_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    named = tmp_path / "other.json"
    (tmp_path / "site.tar.sigstore.json").write_bytes(b"S")
    with pytest.raises(InputError, match=r"there is no signature .*other\.json"):
        read_signature([tmp_path / "site.tar"], named)
    named.write_bytes(b"N")
    assert read_signature([tmp_path / "site.tar"], named) == b"N"
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_signature([tmp_path / "site.tar"], tmp_path)


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


def test_another_key(key: SigningKey, write: Callable[[bytes], Path]) -> None:
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


def test_of_several_rules_one_has_to_accept(
    key: SigningKey, write: Callable[[bytes], Path]
) -> None:
    other = load_private_key(write(pem(KEYS["ecdsa-p256"])))
    entries = [{"pattern": BUNDLES, "key": public_pem(one)} for one in (other, key)]
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), policy_from_entries(entries))
    assert signed is not None and signed.signer == key.public.key_id


def test_a_project_narrows(key: SigningKey, write: Callable[[bytes], Path]) -> None:
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
    key: SigningKey, write: Callable[[bytes], Path], tmp_path: Path
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


def test_the_public_half_in_pem_is_what_openssl_writes(key: SigningKey) -> None:
    written = (
        KEYS["ed25519"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert public_pem(key).encode() == written
