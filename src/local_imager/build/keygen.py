"""Makes the keys that sign secure boot assets, as ``talosctl gen secureboot`` does.

UKI: RSA 4096 with a self-signed certificate, which is what a machine's firmware enrols. PCR: RSA
2048, the largest that every TPM 2.0 can check. Names are those that profiles refer to.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_imager.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

UKI_KEY: Final = "uki-signing-key.pem"
UKI_CERTIFICATE: Final = "uki-signing-cert.pem"
UKI_CERTIFICATE_DER: Final = "uki-signing-cert.der"
PCR_KEY: Final = "pcr-signing-key.pem"
UKI_BITS: Final = 4096
PCR_BITS: Final = 2048
# As long as Talos' own certificate authorities.
VALIDITY: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class SecureBootKeys:
    """The files that were made, and the SHA-256 fingerprint of the certificate (hex)."""

    directory: Path
    files: tuple[Path, ...]
    certificate_sha256: str


def generate_secureboot_keys(
    directory: Path, *, common_name: str = "local-imager UKI signing key"
) -> SecureBootKeys:
    """Make a new set of keys in a directory, readable by the owner only (0600, directory 0700).

    Refuses to overwrite: raises :class:`InputError` when one of the files exists. Either all
    files are written or none is left.
    """
    names = (UKI_KEY, UKI_CERTIFICATE, UKI_CERTIFICATE_DER, PCR_KEY)
    present = [name for name in names if os.path.lexists(directory / name)]
    if present:
        raise InputError(
            f"there is a key already: {', '.join(present)}",
            source=str(directory),
            hint="machines that enrolled it stop booting without it; choose another directory",
            code="keys-exist",
        )
    contents = _make(common_name)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name in names:
            path = directory / name
            _write_private(path, contents[name])
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    from local_imager.oci.model import Digest

    return SecureBootKeys(directory, tuple(written), Digest.of(contents[UKI_CERTIFICATE_DER]).hex)


def _make(common_name: str) -> dict[str, bytes]:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding

    uki = rsa.generate_private_key(65537, UKI_BITS)
    pcr = rsa.generate_private_key(65537, PCR_BITS)
    certificate = _self_signed(uki, common_name)
    return {
        UKI_KEY: _pem(uki),
        UKI_CERTIFICATE: certificate.public_bytes(Encoding.PEM),
        UKI_CERTIFICATE_DER: certificate.public_bytes(Encoding.DER),
        PCR_KEY: _pem(pcr),
    }


def _self_signed(key: RSAPrivateKey, common_name: str) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, common_name),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _pem(key: RSAPrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    # PKCS #1, the form that the imager's signer reads.
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _write_private(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
