"""Signing keys: of the sizes that firmware and TPMs take, private, and never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from local_imager.build import keygen
from local_imager.build.keygen import PCR_KEY, UKI_CERTIFICATE, UKI_KEY, generate_secureboot_keys
from local_imager.errors import InputError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> keygen.SecureBootKeys:
    return generate_secureboot_keys(tmp_path_factory.mktemp("keys") / "new", common_name="My Fleet")


def load(path: Path) -> RSAPrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def test_key_sizes_and_form(keys: keygen.SecureBootKeys) -> None:
    assert load(keys.directory / UKI_KEY).key_size == 4096
    assert load(keys.directory / PCR_KEY).key_size == 2048
    # The imager's signer reads PKCS #1 only.
    assert b"BEGIN RSA PRIVATE KEY" in (keys.directory / UKI_KEY).read_bytes()


def test_the_certificate_is_the_keys_own(keys: keygen.SecureBootKeys) -> None:
    certificate = x509.load_pem_x509_certificate((keys.directory / UKI_CERTIFICATE).read_bytes())
    public = certificate.public_key()
    assert isinstance(public, RSAPublicKey)
    signature = load(keys.directory / UKI_KEY).sign(b"uki", padding.PKCS1v15(), hashes.SHA256())
    public.verify(signature, b"uki", padding.PKCS1v15(), hashes.SHA256())
    assert certificate.fingerprint(hashes.SHA256()).hex() == keys.certificate_sha256
    assert "My Fleet" in certificate.subject.rfc4514_string()
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days == 3650


def test_nobody_else_can_read_them(keys: keygen.SecureBootKeys) -> None:
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    assert len(keys.files) == 4
    for path in keys.files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def quick(common_name: str) -> dict[str, bytes]:
    names = (UKI_KEY, UKI_CERTIFICATE, keygen.UKI_CERTIFICATE_DER, PCR_KEY)
    return dict.fromkeys(names, common_name.encode())


@pytest.mark.parametrize("name", [UKI_KEY, UKI_CERTIFICATE, PCR_KEY])
def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(keygen, "_make", quick)
    (tmp_path / name).write_text("precious")
    with pytest.raises(InputError) as caught:
        generate_secureboot_keys(tmp_path)
    assert name in caught.value.message
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_a_dangling_link_is_no_place_for_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keygen, "_make", quick)
    (tmp_path / PCR_KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        generate_secureboot_keys(tmp_path)


def test_a_full_disk_leaves_no_half_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keygen, "_make", quick)
    real = keygen._write_private

    def fail_late(path: Path, data: bytes) -> None:
        if path.name == PCR_KEY:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(keygen, "_write_private", fail_late)
    with pytest.raises(OSError, match="No space"):
        generate_secureboot_keys(tmp_path)
    assert os.listdir(tmp_path) == []
