"""Authenticode signatures and signed PCR policies: what holds, and what is wrong with the rest."""

import json
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from local_imager.formats.authenticode import Signature, read_signatures
from local_imager.formats.der import read_item
from local_imager.formats.pcrsig import MAX_DOCUMENT_BYTES, read_pcr_signatures
from local_imager.formats.pe import read_pe
from local_imager.formats.source import BytesSource, FormatError
from tests.pebytes import (
    UKI_SECTIONS,
    der,
    make_pe,
    oid,
    pcr_document,
    pkcs7,
    plain_hash,
    public_pem,
    sign_pe,
    signer,
    with_signatures,
)

_PLAIN = make_pe(UKI_SECTIONS)


def _read(data: bytes) -> tuple[Signature, ...]:
    source = BytesSource(data)
    return read_signatures(source, read_pe(source))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_good_signature_holds_and_says_who_made_it(kind: str, algorithm: str) -> None:
    by = signer(kind)
    [found] = _read(sign_pe(_PLAIN, by, algorithm))
    assert found.holds and found.fault == ""
    assert found.digest_algorithm == algorithm
    assert found.digest == plain_hash(_PLAIN, algorithm).hex()
    assert found.signer is not None and found.certificates == (found.signer,)
    assert found.signer.subject == found.signer.issuer == f"CN=test {kind}"
    assert found.signer.serial == "4d"
    assert found.signer.not_before == "2026-01-01T00:00:00+00:00"
    assert found.signer.sha256 == by.certificate.fingerprint(hashes.SHA256()).hex()


def test_a_signature_without_attributes_is_over_the_content_itself() -> None:
    signature = pkcs7(plain_hash(_PLAIN), signer(), attributes=False)
    [found] = _read(with_signatures(_PLAIN, signature))
    assert found.holds


def test_a_changed_file_is_not_what_was_signed() -> None:
    data = bytearray(sign_pe(_PLAIN, signer()))
    data[1500] ^= 1
    [found] = _read(bytes(data))
    assert found.verifies and not found.digest_matches and not found.holds


def test_a_signature_of_another_key_under_this_certificate_does_not_verify() -> None:
    good = pkcs7(plain_hash(_PLAIN), signer())
    broken = good[:-1] + bytes([good[-1] ^ 1])
    [found] = _read(with_signatures(_PLAIN, broken))
    assert found.digest_matches and not found.verifies and not found.holds
    assert found.fault == ""


def test_a_digest_put_in_place_of_the_signed_one_does_not_verify() -> None:
    """The attributes are still those that were signed, but not those of this content."""
    other = make_pe((*UKI_SECTIONS, (".more", b"x")))
    forged = pkcs7(plain_hash(other), signer())
    forged = forged.replace(plain_hash(other), plain_hash(_PLAIN))
    [found] = _read(with_signatures(_PLAIN, forged))
    assert found.digest_matches and not found.verifies


def test_several_signatures_are_told_in_their_order() -> None:
    first, second = (pkcs7(plain_hash(_PLAIN), signer(kind)) for kind in ("rsa", "ec"))
    found = _read(with_signatures(_PLAIN, first, second))
    assert [one.signer and one.signer.subject for one in found] == ["CN=test rsa", "CN=test ec"]
    assert all(one.holds for one in found)


def _without_certificate(signature: bytes) -> bytes:
    own = signer().certificate.public_bytes(serialization.Encoding.DER)
    other = signer("ec").certificate.public_bytes(serialization.Encoding.DER)
    return _wrapped(signature, der(0xA0, own), der(0xA0, other))


def _wrapped(signature: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a part of the signed data, with the lengths around it made right again."""
    kind, holder = read_item(signature).items()
    parts = b"".join(item.whole for item in holder.items()[0].items()).replace(old, new)
    return der(0x30, kind.whole, der(0xA0, der(0x30, parts)))


_GOOD = pkcs7(plain_hash(_PLAIN), signer())


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        (b"", "cut off"),
        (b"\x30\x80" + _GOOD[4:], "length"),
        (b"\x30\x84\xff\xff\xff\xff", "cut off"),
        (_GOOD[:-10], "cut off"),
        (der(0x30, oid("1.2.3"), der(0xA0, b"")), "not PKCS#7"),
        (der(0x30), "ends too early"),
        (_GOOD.replace(oid("1.3.6.1.4.1.311.2.1.4"), oid("1.3.6.1.4.1.311.2.1.5")), "over a PE"),
        (_GOOD.replace(oid("2.16.840.1.101.3.4.2.1"), oid("2.16.840.1.101.3.4.2.9")), "not known"),
        (_without_certificate(_GOOD), "signer's certificate is not"),
    ],
)
def test_a_signature_that_cannot_be_read_says_why(signature: bytes, says: str) -> None:
    [found] = _read(with_signatures(_PLAIN, signature))
    assert says in found.fault and not found.holds


def test_a_certificate_that_cannot_be_read_leaves_the_digest() -> None:
    own = signer().certificate.public_bytes(serialization.Encoding.DER)
    broken = own[:40] + bytes(len(own) - 40)
    [found] = _read(with_signatures(_PLAIN, _GOOD.replace(own, broken)))
    assert found.digest_matches and not found.verifies
    assert "certificate" in found.fault


def test_a_signature_of_another_kind_is_told() -> None:
    [found] = _read(with_signatures(_PLAIN, b"guid and data", kind=0x0EF1))
    assert found.fault == "a signature of kind 0x0ef1, not PKCS#7" and not found.holds


def test_a_name_cannot_forge_a_line_of_output() -> None:
    key = signer("ec").key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\nsigned\x1b[31m")])
    own = signer("ec").certificate
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(own.public_key()).not_valid_before(own.not_valid_before_utc)
    certificate = builder.not_valid_after(own.not_valid_after_utc).sign(key, hashes.SHA256())
    made = type(signer("ec"))(key, certificate)
    [found] = _read(sign_pe(_PLAIN, made))
    assert found.signer is not None and found.signer.subject.isprintable() and found.holds


# Signed PCR policies.


@pytest.mark.parametrize("bank", ["sha1", "sha256", "sha512"])
def test_a_signed_policy_is_checked_with_the_key_of_the_image(bank: str) -> None:
    by = signer()
    [found] = read_pcr_signatures(pcr_document(by, bank), public_pem(by))
    assert (found.bank, found.pcrs, found.key_fingerprint) == (bank, (11,), "ab" * 32)
    assert found.verifies is True
    [unchecked] = read_pcr_signatures(pcr_document(by, bank), None)
    assert unchecked.verifies is None and unchecked.policy == found.policy


def test_a_policy_that_was_changed_or_signed_by_another_does_not_verify() -> None:
    by = signer()
    document = json.loads(pcr_document(by))
    document["sha256"][0]["pol"] = "00" * 32
    [found] = read_pcr_signatures(json.dumps(document).encode(), public_pem(by))
    assert found.verifies is False
    [other] = read_pcr_signatures(pcr_document(by), public_pem(signer("ec")))
    assert other.verifies is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"sha256": {}}',
        b'{"sha256": [1]}',
        b'{"sha256": [{"pcrs": 11, "pol": "", "pkfp": "", "sig": ""}]}',
        b'{"sha256": [{"pcrs": [99], "pol": "", "pkfp": "", "sig": ""}]}',
        b'{"sha256": [{"pcrs": [11], "pol": "xx", "pkfp": "", "sig": ""}]}',
        b'{"sha256": [{"pcrs": [11], "pol": "", "pkfp": "", "sig": "*"}]}',
        b'{"sha256": [' + b",".join([b"{}"] * 100) + b"]}",
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
)
def test_another_shape_is_refused(document: bytes) -> None:
    with pytest.raises(FormatError, match="PCR signature document"):
        read_pcr_signatures(document, public_pem(signer()))


@pytest.mark.parametrize("key", [b"", b"-----BEGIN PUBLIC KEY-----", struct.pack("<I", 7)])
def test_a_key_that_cannot_be_read_is_refused(key: bytes) -> None:
    with pytest.raises(FormatError, match="key of the PCR"):
        read_pcr_signatures(pcr_document(signer()), key)
