"""RFC 3161 timestamps: an authority's word that a signature existed at a time.

The ASN.1 and PKCS#7 work is done by ``rfc3161-client`` (which sigstore-python uses as well); here
are the authority's period of trust and the binding to the signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.trusted_root import Authority, TrustedRoot


def verified_times(
    untrusted_responses: Sequence[bytes], signature: bytes, root: TrustedRoot
) -> tuple[datetime, ...]:
    """Return the times that authorities of the root attest for this signature.

    A response that does not verify is passed over: it proves nothing, and what needs a time asks
    for one (``no_timestamp`` says why there is none). Raises :class:`Rejected` when one cannot be
    read, or the same comes twice: a count is to be worth something.
    """
    if not untrusted_responses:
        return ()
    if len(set(untrusted_responses)) != len(untrusted_responses):
        raise Rejected(Reason.TIMESTAMP_INVALID, "the same signed timestamp comes twice")
    times = (_time(one, signature, root) for one in untrusted_responses)
    return tuple(time for time in times if time is not None)


def no_timestamp(untrusted_responses: Sequence[bytes]) -> Rejected:
    """Make the rejection for a signature that needs a signed timestamp and has none that counts."""
    from importlib.util import find_spec

    if not untrusted_responses:
        return Rejected(Reason.TIMESTAMP_MISSING, "there is no signed timestamp")
    if find_spec("rfc3161_client") is None:
        return Rejected(
            Reason.KEYLESS_UNSUPPORTED, "signed timestamps need local-imager[keyless] installed"
        )
    return Rejected(Reason.TIMESTAMP_INVALID, "its signed timestamp does not verify")


def _time(untrusted_response: bytes, signature: bytes, root: TrustedRoot) -> datetime | None:
    try:
        from rfc3161_client import VerificationError, decode_timestamp_response
    except ImportError:
        return None
    try:
        response = decode_timestamp_response(untrusted_response)
        moment = response.tst_info.gen_time.astimezone(UTC)
    except (ValueError, TypeError, VerificationError) as error:
        raise Rejected(Reason.MALFORMED, "a signed timestamp cannot be read") from error
    for authority in root.timestamp_authorities:
        if authority.period.holds(moment) and _attests(authority, response, signature):
            return moment
    return None


def _attests(authority: Authority, response: object, signature: bytes) -> bool:
    from cryptography import x509
    from rfc3161_client import TimeStampResponse, VerificationError, VerifierBuilder

    if len(authority.chain) < 2 or not isinstance(response, TimeStampResponse):
        return False
    try:
        leaf, *between, top = [x509.load_der_x509_certificate(der) for der in authority.chain]
        verifier = VerifierBuilder(
            tsa_certificate=leaf, intermediates=list(between), roots=[top]
        ).build()
        # What is stamped is the signature itself, in bundles and in the older form alike.
        return bool(verifier.verify_message(response, signature))
    except (VerificationError, ValueError, TypeError):
        return False
