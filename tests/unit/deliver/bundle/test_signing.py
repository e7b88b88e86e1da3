"""Signing a manifest: private keys, the signature's document, and where it lies."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from local_imager.deliver.bundle.form.signing import (
    SigningKey,
    check_signature,
    load_private_key,
    read_signature,
    sign_manifest,
    signature_path,
)
from local_imager.errors import InputError
from local_imager.events import Message, RecordingSink
from local_imager.sources.bundle import parse_bundle
from tests.unit.deliver.bundle.signkeys import KEYS, MANIFEST, key_file, pem, public_pem, wants
from tests.unit.sources.forge import Signing

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(key_file, tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return load_private_key(key_file(tmp_path, pem(KEYS["ed25519"])))


# -- private keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
def test_each_kind_of_key_signs_and_is_accepted(kind: str, write: Write) -> None:
    key = load_private_key(write(pem(KEYS[kind])))
    assert key.public.algorithm == kind
    signed = check_signature(MANIFEST, sign_manifest(MANIFEST, key), wants(key))
    assert signed is not None
    assert signed.signer == key.public.key_id
    assert signed.rule == "bundles (user-file)"


@pytest.mark.parametrize("kind", KEYS)
def test_the_signature_repeats(kind: str, write: Write) -> None:
    key = load_private_key(write(pem(KEYS[kind])))
    assert sign_manifest(MANIFEST, key) == sign_manifest(MANIFEST, key)


def test_an_openssl_without_repeatable_ecdsa_signs_all_the_same(
    write: Write, monkeypatch: pytest.MonkeyPatch
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
def test_the_older_pem_forms_are_read(kind: str, write: Write) -> None:
    data = pem(KEYS[kind], PrivateFormat.TraditionalOpenSSL)
    assert load_private_key(write(data)).public.algorithm == kind
    # What `openssl ecparam -genkey` writes has the curve's name in front.
    named = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert load_private_key(write(named + data)).public.algorithm == kind


def test_an_encrypted_key_opens_with_its_passphrase_only(write: Write) -> None:
    path = write(pem(KEYS["ed25519"], passphrase=b"correct horse"))
    assert load_private_key(path, lambda: b"correct horse").public.algorithm == "ed25519"
    for passphrase, words in ((None, "is encrypted"), (lambda: b"wrong", "does not open")):
        with pytest.raises(InputError, match=words) as caught:
            load_private_key(path, passphrase)
        assert caught.value.code == "key-passphrase"
        assert "LOCAL_IMAGER_KEY_PASSPHRASE" in caught.value.hint


def test_the_passphrase_is_asked_for_only_when_it_is_needed(
    write: Write,
) -> None:
    def never() -> bytes:
        raise AssertionError("asked for a passphrase")

    load_private_key(write(pem(KEYS["ecdsa-p256"])), never)


def test_a_key_that_others_can_read_draws_a_warning(
    write: Write,
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
def test_what_cannot_sign_is_named_and_not_repeated(data: bytes, words: str, write: Write) -> None:
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


def test_openssl_accepts_the_signature(write: Write, tmp_path: Path) -> None:
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


def test_the_public_half_in_pem_is_what_openssl_writes(key: SigningKey) -> None:
    written = (
        KEYS["ed25519"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    assert public_pem(key).encode() == written
