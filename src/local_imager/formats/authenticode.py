"""Authenticode signatures of PE files: who signed, what was signed, and whether it holds.

"Holds" means two things, told apart: the digest in the signature is that of this file, and the
signature verifies with the certificate that it carries. Whether anybody trusts that certificate
is the firmware's business. Structure: "Windows Authenticode Portable Executable Signature
Format" (2008) over PKCS#7 (RFC 2315).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from local_imager.events import printable
from local_imager.formats.der import (
    CONTEXT_0,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    SET,
    Item,
    read_item,
)
from local_imager.formats.pe import PKCS7_CERTIFICATE, PeCertificate, PeFile, authentihash
from local_imager.formats.source import FormatError, Source

if TYPE_CHECKING:
    from cryptography import x509

MAX_CERTIFICATES: Final = 32
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_SPC_INDIRECT_DATA: Final = "1.3.6.1.4.1.311.2.1.4"
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
_DIGESTS: Final = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate inside a signature; times are ISO 8601 in UTC, numbers hexadecimal."""

    subject: str
    issuer: str
    serial: str
    not_before: str
    not_after: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: ``digest`` (hex) is what it says of the file.

    ``digest_matches``: the file has that digest. ``verifies``: the signature is one of the
    signer's key over that digest. ``fault`` says in a sentence why it could not be read or
    checked, empty when it could; the rest is then as far as it was read.
    """

    offset: int
    size_bytes: int
    digest_algorithm: str = ""
    digest: str = ""
    digest_matches: bool = False
    verifies: bool = False
    signer: Certificate | None = None
    certificates: tuple[Certificate, ...] = ()
    fault: str = ""

    @property
    def holds(self) -> bool:
        """The file is what the signer signed."""
        return self.digest_matches and self.verifies


def read_signatures(source: Source, pe: PeFile) -> tuple[Signature, ...]:
    """Read and check every signature of a PE file, in the order of its certificate table.

    A signature that cannot be read is told by its ``fault``: the file around it may be sound.
    Raises :class:`FormatError` when the file itself cannot be hashed.
    """
    hashes: dict[str, str] = {}
    found = []
    for certificate in pe.certificates:
        signature = _read_one(source, certificate)
        algorithm = signature.digest_algorithm
        if signature.digest:
            if algorithm not in hashes:
                hashes[algorithm] = authentihash(source, pe, algorithm)
            matches = hmac.compare_digest(hashes[algorithm], signature.digest)
            signature = replace(signature, digest_matches=matches)
        found.append(signature)
    return tuple(found)


def _read_one(source: Source, entry: PeCertificate) -> Signature:
    signature = Signature(entry.offset, entry.size_bytes)
    if entry.kind != PKCS7_CERTIFICATE:
        return replace(signature, fault=f"a signature of kind {entry.kind:#06x}, not PKCS#7")
    try:
        return _parse(source.read(entry.offset, entry.size_bytes), signature)
    except FormatError as error:
        return replace(signature, fault=error.message)


def _parse(data: bytes, signature: Signature) -> Signature:
    """Read the PKCS#7 structure; raises :class:`FormatError` before there is a digest."""
    parts = _take(read_item(data).expect(SEQUENCE), 2)
    if parts[0].oid() != _SIGNED_DATA:
        raise FormatError("the signature is not PKCS#7 signed data")
    signed = _take(_take(parts[1].expect(CONTEXT_0), 1)[0].expect(SEQUENCE), 4)
    content, algorithm, digest = _indirect_data(signed[2])
    signature = replace(signature, digest_algorithm=algorithm, digest=digest)
    try:
        certificates = _certificates(signed)
        told = tuple(_told(certificate) for certificate in certificates)
        signature = replace(signature, certificates=told)
        infos = signed[-1].expect(SET).items()
        if len(infos) != 1:
            raise FormatError(f"the signature has {len(infos)} signers in place of one")
        info = _take(infos[0].expect(SEQUENCE), 5)
        signer = _signer(info[1], certificates)
        signature = replace(signature, signer=told[certificates.index(signer)])
        return replace(signature, verifies=_verifies(info, signer, content))
    except FormatError as error:
        return replace(signature, fault=error.message)


def _take(item: Item, at_least: int) -> tuple[Item, ...]:
    items = item.items()
    if len(items) < at_least:
        raise FormatError("the signature's structure ends too early")
    return items


def _indirect_data(encapsulated: Item) -> tuple[bytes, str, str]:
    """Return the signed content, the file's digest algorithm and its digest (hex)."""
    kind, wrapped = _take(encapsulated.expect(SEQUENCE), 2)[:2]
    if kind.oid() != _SPC_INDIRECT_DATA:
        raise FormatError("the signature is not over a PE file (no SpcIndirectDataContent)")
    content = _take(wrapped.expect(CONTEXT_0), 1)[0].expect(SEQUENCE)
    info = _take(_take(content, 2)[1].expect(SEQUENCE), 2)
    algorithm = _digest_name(info[0])
    digest = info[1].expect(OCTET_STRING).content
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise FormatError("the digest in the signature has the wrong length")
    return content.content, algorithm, digest.hex()


def _digest_name(algorithm: Item) -> str:
    oid = _take(algorithm.expect(SEQUENCE), 1)[0].oid()
    if oid not in _DIGESTS:
        raise FormatError(f"the signature uses a digest algorithm that is not known ({oid})")
    return _DIGESTS[oid]


def _certificates(signed: tuple[Item, ...]) -> list[x509.Certificate]:
    from cryptography import x509

    holders = [item for item in signed[3:-1] if item.tag == CONTEXT_0]
    encoded = [one for holder in holders for one in holder.items()]
    if len(encoded) > MAX_CERTIFICATES:
        raise FormatError(f"the signature carries {len(encoded)} certificates")
    try:
        return [x509.load_der_x509_certificate(one.whole) for one in encoded]
    except Exception as error:  # ValueError and, on odd bytes, others
        raise FormatError("a certificate in the signature cannot be read") from error


def _told(certificate: x509.Certificate) -> Certificate:
    from cryptography.hazmat.primitives import hashes

    try:
        return Certificate(
            subject=printable(certificate.subject.rfc4514_string()),
            issuer=printable(certificate.issuer.rfc4514_string()),
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc.isoformat(),
            not_after=certificate.not_valid_after_utc.isoformat(),
            sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        )
    except Exception as error:  # fields are decoded when asked for
        raise FormatError("a certificate in the signature cannot be read") from error


def _signer(identifier: Item, certificates: list[x509.Certificate]) -> x509.Certificate:
    """Return the certificate that the signer info names by issuer and serial number."""
    issuer, serial = _take(identifier.expect(SEQUENCE), 2)[:2]
    for certificate in certificates:
        if certificate.serial_number == serial.expect(INTEGER).integer():
            if certificate.issuer.public_bytes() == issuer.whole:
                return certificate
    raise FormatError("the signer's certificate is not in the signature")


def _verifies(info: tuple[Item, ...], signer: x509.Certificate, content: bytes) -> bool:
    algorithm = _digest_name(info[2])
    message, rest = content, info[3:]
    if rest[0].tag == CONTEXT_0:
        stated = _message_digest(rest[0])
        if not hmac.compare_digest(_hash(algorithm, content), stated):
            return False
        # What is signed is the set under its own tag, not under the one that it has here.
        message, rest = bytes([SET]) + rest[0].whole[1:], rest[1:]
    if len(rest) < 2:
        raise FormatError("the signature has no value")
    value = rest[1].expect(OCTET_STRING).content
    return _key_verifies(signer, value, message, algorithm)


def _hash(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _message_digest(attributes: Item) -> bytes:
    for attribute in attributes.items():
        kind, values = _take(attribute.expect(SEQUENCE), 2)[:2]
        if kind.oid() == _MESSAGE_DIGEST:
            return _take(values.expect(SET), 1)[0].expect(OCTET_STRING).content
    raise FormatError("the signature's attributes have no message digest")


def _key_verifies(signer: x509.Certificate, value: bytes, message: bytes, algorithm: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    digest: hashes.HashAlgorithm = {
        "sha1": hashes.SHA1(),  # noqa: S303 - what old signatures have, and only told
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }[algorithm]
    try:
        key = signer.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(value, message, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(value, message, ec.ECDSA(digest))
        else:
            raise FormatError("the signer's key is of a kind that is not checked")
    except InvalidSignature:
        return False
    except FormatError:
        raise
    except Exception as error:  # a key that the library does not take
        raise FormatError("the signer's key cannot be used") from error
    return True
