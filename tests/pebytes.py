"""Makes PE files, signatures and unified kernel images for tests, byte by byte."""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

ALIGNMENT: Final = 512
_HEADER_AT: Final = 0x80
Sections = Sequence[tuple[str, bytes]]
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def make_pe(sections: Sections, *, machine: int = 0x8664, wide: bool = True) -> bytes:
    """Return a PE32+ (or PE32) EFI application with these sections."""
    optional = 112 + 16 * 8 if wide else 96 + 16 * 8
    used = _HEADER_AT + 24 + optional + 40 * len(sections)
    headers = used + -used % ALIGNMENT
    table, body, address = b"", b"", 4096
    for name, content in sections:
        raw = len(content) + -len(content) % ALIGNMENT
        table += name.encode().ljust(8, b"\0")
        table += struct.pack("<IIII", len(content), address, raw, headers + len(body))
        table += struct.pack("<IIHHI", 0, 0, 0, 0, 0x40000040)
        body += content.ljust(raw, b"\0")
        address += raw + -raw % 4096
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", _HEADER_AT)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 7, 0, 0, optional, 0x22)
    head = struct.pack("<HBBIIIII", 0x20B if wide else 0x10B, 2, 0, 0, 0, 0, 4096, 4096)
    head += struct.pack("<Q", 0x10000) if wide else struct.pack("<II", 0, 0x10000)
    head += struct.pack("<IIHHHHHHIIII", 4096, ALIGNMENT, 0, 0, 0, 0, 0, 0, 0, address, headers, 0)
    head += struct.pack("<HH", 10, 0) + bytes(4 * (8 if wide else 4))
    head += struct.pack("<II", 0, 16) + bytes(16 * 8)
    return (dos.ljust(_HEADER_AT, b"\0") + coff + head + table).ljust(headers, b"\0") + body


def directory_offset(data: bytes) -> int:
    """Return where the entry of the certificate table lies in the headers."""
    wide = data[_HEADER_AT + 24 : _HEADER_AT + 26] == b"\x0b\x02"
    return _HEADER_AT + 24 + (112 if wide else 96) + 8 * 4


def plain_hash(data: bytes, algorithm: str = "sha256") -> bytes:
    """Return the image hash of a file whose sections lie one after the other, without signature."""
    data += bytes(-len(data) % 8)
    checksum, directory = _HEADER_AT + 24 + 64, directory_offset(data)
    hashed = data[:checksum] + data[checksum + 4 : directory] + data[directory + 8 :]
    return hashlib.new(algorithm, hashed).digest()


# DER, as far as a signature needs it.


def der(tag: int, *contents: bytes) -> bytes:
    """Return one ASN.1 value."""
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def oid(text: str) -> bytes:
    """Return an object identifier."""
    first, second, *rest = (int(number) for number in text.split("."))
    encoded = b""
    for number in (first * 40 + second, *rest):
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.insert(0, number & 0x7F | 0x80)
        encoded += bytes(digits)
    return der(0x06, encoded)


_DIGESTS: Final = {
    "sha1": ("1.3.14.3.2.26", hashes.SHA1()),
    "sha256": ("2.16.840.1.101.3.4.2.1", hashes.SHA256()),
    "sha512": ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
}


@dataclass(frozen=True)
class Signer:
    """A key with a certificate signed by itself."""

    key: Key
    certificate: x509.Certificate

    def sign(self, message: bytes, algorithm: str) -> bytes:
        """Return a signature over the message."""
        digest = _DIGESTS[algorithm][1]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(message, ec.ECDSA(digest))
        return self.key.sign(message, padding.PKCS1v15(), digest)


@cache
def signer(kind: str = "rsa") -> Signer:
    """Return a signer with a new key (``rsa`` or ``ec``), the same one on each call."""
    key: Key = ec.generate_private_key(ec.SECP256R1())
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {kind}")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(77)
    builder = builder.public_key(key.public_key()).not_valid_before(now)
    return Signer(key, builder.not_valid_after(now + timedelta(days=9)).sign(key, hashes.SHA256()))


def pkcs7(
    digest: bytes, by: Signer, algorithm: str = "sha256", *, attributes: bool = True
) -> bytes:
    """Return an Authenticode signature over an image hash."""
    name = der(0x30, oid(_DIGESTS[algorithm][0]), der(0x05))
    spc = der(0x30, oid("1.3.6.1.4.1.311.2.1.15"), der(0x30, der(0x03, b"\0")))
    content = spc + der(0x30, name, der(0x04, digest))
    signed, encoded = content, b""
    if attributes:
        stated = der(0x04, hashlib.new(algorithm, content).digest())
        values = der(0x30, oid("1.2.840.113549.1.9.4"), der(0x31, stated))
        kind = der(0x31, oid("1.3.6.1.4.1.311.2.1.4"))
        values = der(0x30, oid("1.2.840.113549.1.9.3"), kind) + values
        signed, encoded = der(0x31, values), der(0xA0, values)
    certificate = by.certificate
    serial = der(0x02, certificate.serial_number.to_bytes(1, "big"))
    identifier = der(0x30, certificate.issuer.public_bytes(), serial)
    value = der(0x04, by.sign(signed, algorithm))
    used = der(0x30, oid("1.2.840.113549.1.1.1"), der(0x05))
    info = der(0x30, der(0x02, b"\1"), identifier, name, encoded, used, value)
    parts = (
        der(0x02, b"\1"),
        der(0x31, name),
        der(0x30, oid("1.3.6.1.4.1.311.2.1.4"), der(0xA0, der(0x30, content))),
        der(0xA0, certificate.public_bytes(serialization.Encoding.DER)),
        der(0x31, info),
    )
    return der(0x30, oid("1.2.840.113549.1.7.2"), der(0xA0, der(0x30, *parts)))


def with_signatures(data: bytes, *signatures: bytes, kind: int = 2) -> bytes:
    """Return a PE file with a certificate table behind it."""
    padded = data + bytes(-len(data) % 8)
    table = b""
    for one in signatures:
        entry = struct.pack("<IHH", len(one) + 8, 0x0200, kind) + one
        table += entry + bytes(-len(entry) % 8)
    at = directory_offset(data)
    return padded[:at] + struct.pack("<II", len(padded), len(table)) + padded[at + 8 :] + table


def sign_pe(data: bytes, by: Signer, algorithm: str = "sha256") -> bytes:
    """Return the file signed by one."""
    return with_signatures(data, pkcs7(plain_hash(data, algorithm), by, algorithm))


def pcr_document(by: Signer, bank: str = "sha256") -> bytes:
    """Return a ``.pcrsig`` section with one policy."""
    policy = hashlib.new(bank, b"policy").digest()
    signature = b64encode(by.sign(policy, bank)).decode()
    one = {"pcrs": [11], "pkfp": "ab" * 32, "pol": policy.hex(), "sig": signature}
    return json.dumps({bank: [one]}).encode()


def public_pem(by: Signer) -> bytes:
    """Return a ``.pcrpkey`` section."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return by.key.public_key().public_bytes(serialization.Encoding.PEM, form)


UKI_SECTIONS: Final = (
    (".text", b"\xf4" * 11),
    (".sdmagic", b"#### LoaderInfo: systemd-stub 262.1-1 ####\0"),
    (".osrel", b'NAME="Talos"\nID=talos\nVERSION_ID=v1.13.0\n'),
    (".cmdline", b"talos.platform=metal console=ttyS0\n"),
    (".uname", b"6.18.24-talos"),
    (".linux", b"MZ kernel" * 100),
    (".initrd", b"initrd" * 100),
    (".profile", b"ID=main"),
)
