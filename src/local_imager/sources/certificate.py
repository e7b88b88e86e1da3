"""Fulcio's signing certificates: who is named, who vouched, and whether the chain holds.

Profile: Sigstore "Certificate specification" (fulcio ``docs/certificate-specification.md``);
precertificate timestamps: RFC 6962 section 3.2.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from local_imager.sources.keys import HashName, PublicKey, key_from_loaded
from local_imager.sources.reasons import Reason, Rejected

if TYPE_CHECKING:
    from cryptography import x509

    from local_imager.sources.trusted_root import Authority, TrustedRoot

_ISSUER_V2: Final = "1.3.6.1.4.1.57264.1.8"
_ISSUER_V1: Final = "1.3.6.1.4.1.57264.1.1"
_MILLISECOND: Final = timedelta(milliseconds=1)
_OTHER_NAME: Final = "1.3.6.1.4.1.57264.1.7"
# cosign's keys are P-256; other clients hash as the curve suggests, older ones with SHA-256.
_HASHES: Final[dict[str, tuple[HashName, ...]]] = {
    "ecdsa-p384": ("sha384", "sha256"),
    "ecdsa-p521": ("sha512", "sha256"),
}


def _invalid(problem: str) -> Rejected:
    return Rejected(Reason.CERTIFICATE_INVALID, f"the signing certificate {problem}")


def certificate_faults() -> tuple[type[Exception], ...]:
    """Return what the x509 parser raises for bytes that are no proper certificate."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    )


def load_certificate(untrusted_der: bytes) -> x509.Certificate:
    """Parse a certificate with all that is looked at later; raises :class:`Rejected`."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(untrusted_der)
        # The library parses these when they are asked for; here a fault is caught.
        list(certificate.extensions)
        certificate.public_key()
        _ = (certificate.issuer, certificate.subject)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        return certificate
    except certificate_faults() as error:
        raise Rejected(Reason.MALFORMED, "the certificate cannot be read") from error


def certificate_from_pem(untrusted_pem: bytes) -> bytes:
    """Return the DER form of a PEM certificate; raises :class:`Rejected`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return x509.load_pem_x509_certificate(untrusted_pem).public_bytes(Encoding.DER)
    except certificate_faults() as error:
        raise Rejected(Reason.MALFORMED, "the certificate cannot be read") from error


def is_self_issued(untrusted_der: bytes) -> bool:
    """Say whether a certificate names itself as issuer; raises :class:`Rejected` if unreadable."""
    certificate = load_certificate(untrusted_der)
    return certificate.issuer == certificate.subject


def signing_keys(certificate: x509.Certificate) -> tuple[PublicKey, ...]:
    """Return the certificate's key, once per hash that a signer may have used with it."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = key_from_loaded(certificate.public_key(), "sha256")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid("has a key that is not accepted") from error
    names = _HASHES.get(key.algorithm, ("sha256",))
    return tuple(PublicKey(key.der, key.algorithm, name) for name in names)


def check_issued(certificate: x509.Certificate, root: TrustedRoot) -> None:
    """Check that some authority of the root signed the certificate, whenever that was."""
    for authority in root.certificate_authorities:
        chain = _authority_chain(authority)
        if chain and _links(chain, certificate):
            return
    raise _invalid("does not chain to an authority of the trusted root")


def check_profile(certificate: x509.Certificate) -> None:
    """Check that the certificate is for signing code and is no authority itself."""
    from cryptography import x509

    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise _invalid("does not say what it may be used for") from error
    purposes = _purposes(certificate)
    signs_code = purposes is not None and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in purposes
    if not usage.digital_signature or not signs_code:
        raise _invalid("is not meant for signing code")
    if _unknown_critical(certificate):
        raise _invalid("has a critical extension that is not known")
    if _is_authority(certificate):
        raise _invalid("is an authority's")


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def issuing_chain(
    certificate: x509.Certificate, moment: datetime, root: TrustedRoot
) -> tuple[x509.Certificate, ...]:
    """Return the authorities that vouch for a certificate at a moment, nearest first.

    Each link's signature, names and validity are checked, up to the last certificate that the
    trusted root lists for that authority; nothing that came with the signature is used.
    """
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise Rejected(
            Reason.CERTIFICATE_INVALID,
            f"the signing certificate was not valid at {moment:%Y-%m-%d %H:%M:%S} UTC",
        )
    for authority in root.certificate_authorities:
        chain = _authority_chain(authority)
        if chain and authority.period.holds(moment) and _vouches(chain, certificate, moment):
            return chain
    raise _invalid("does not chain to an authority of the trusted root")


def _authority_chain(authority: Authority) -> tuple[x509.Certificate, ...]:
    return tuple(load_certificate(der) for der in authority.chain)


def _vouches(chain: tuple[x509.Certificate, ...], leaf: x509.Certificate, moment: datetime) -> bool:
    valid = (one.not_valid_before_utc <= moment <= one.not_valid_after_utc for one in chain)
    return all(valid) and _links(chain, leaf)


def _links(chain: tuple[x509.Certificate, ...], leaf: x509.Certificate) -> bool:
    """Say whether each certificate is signed by the next, and each of these may sign others."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    below = leaf
    for depth, authority in enumerate(chain):
        if not _may_issue(authority, depth):
            return False
        try:
            below.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            return False
        below = authority
    return True


def _may_issue(authority: x509.Certificate, authorities_below: int) -> bool:
    from cryptography import x509

    try:
        extensions = authority.extensions
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    short = basic.path_length is not None and basic.path_length < authorities_below
    if not basic.ca or not usage.key_cert_sign or short or _unknown_critical(authority):
        return False
    # Fulcio's intermediates are limited to code signing; one limited to something else is not ours.
    purposes = _purposes(authority)
    return purposes is None or x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in purposes


def _purposes(certificate: x509.Certificate) -> x509.ExtendedKeyUsage | None:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _unknown_critical(certificate: x509.Certificate) -> bool:
    """Whether it has a critical extension that is not looked at here (RFC 5280, 4.2)."""
    from cryptography import x509

    known = (x509.KeyUsage, x509.ExtendedKeyUsage, x509.BasicConstraints)
    looked_at = (*known, x509.SubjectAlternativeName)
    return any(e.critical and not isinstance(e.value, looked_at) for e in certificate.extensions)


def check_sct(certificate: x509.Certificate, issuer: x509.Certificate, root: TrustedRoot) -> None:
    """Check that a CT log of the trusted root has seen the certificate before it was issued."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(
            x509.PrecertificateSignedCertificateTimestamps
        ).value
    except x509.ExtensionNotFound as error:
        raise Rejected(Reason.SCT_INVALID, "the certificate carries no SCT") from error
    spki = key_der(issuer)
    try:
        seen = any(_sct_verifies(sct, certificate, spki, root) for sct in found)
    except (ValueError, OverflowError) as error:
        raise Rejected(Reason.SCT_INVALID, "an SCT cannot be read") from error
    if not seen:
        raise Rejected(Reason.SCT_INVALID, "no SCT of a trusted CT log verifies")


def key_der(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sct_verifies(
    sct: x509.certificate_transparency.SignedCertificateTimestamp,
    certificate: x509.Certificate,
    issuer_spki: bytes,
    root: TrustedRoot,
) -> bool:
    # The library gives a naive time that means UTC.
    moment = sct.timestamp.replace(tzinfo=UTC)
    log = next((log for log in root.ct_logs if log.log_id == sct.log_id), None)
    if log is None or not log.period.holds(moment):
        return False
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND
    tbs = certificate.tbs_precertificate_bytes
    signed = b"".join(
        (
            b"\0\0",  # version 1, type certificate_timestamp
            milliseconds.to_bytes(8, "big"),
            b"\0\1",  # entry type precert_entry
            hashlib.sha256(issuer_spki).digest(),
            len(tbs).to_bytes(3, "big"),
            tbs,
            len(sct.extension_bytes).to_bytes(2, "big"),
            sct.extension_bytes,
        )
    )
    return log.key.verifies(sct.signature, signed)


def identity_of(certificate: x509.Certificate) -> str:
    """Return the one identity that the certificate names: e-mail, URI, or Fulcio's user name."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise _invalid("names no identity") from error
    if len(list(names)) != 1:
        raise _invalid("names more or less than one identity")
    (name,) = names
    if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id.dotted_string == _OTHER_NAME:
        return _utf8_string(name.value)
    raise _invalid("names an identity of an unknown kind")


def issuer_of(certificate: x509.Certificate) -> str:
    """Return the OIDC issuer that vouched for the identity; both spellings have to agree."""
    from cryptography import x509

    found = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    issuers = set()
    if _ISSUER_V2 in found:
        issuers.add(_utf8_string(found[_ISSUER_V2]))
    if _ISSUER_V1 in found:
        issuers.add(found[_ISSUER_V1].decode("utf-8", "replace"))
    if len(issuers) != 1:
        raise _invalid("does not name one issuer of the identity")
    return issuers.pop()


def _utf8_string(untrusted_der: bytes) -> str:
    """Read a DER UTF8String; no other ASN.1 is needed here."""
    body = untrusted_der[2:]
    length = untrusted_der[1] if len(untrusted_der) >= 2 else -1
    if length & 0x80 and length > 0:
        count = length & 0x7F
        body, length = body[count:], int.from_bytes(body[:count], "big") if count <= 2 else -1
    if untrusted_der[:1] != b"\x0c" or length != len(body):
        raise _invalid("has an extension that cannot be read")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _invalid("has an extension that cannot be read") from error
