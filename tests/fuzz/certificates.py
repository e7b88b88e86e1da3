"""Harnesses for certificates, keys and the trusted root."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from local_imager.sources.certificate import (
    certificate_from_pem,
    check_issued,
    check_profile,
    check_sct,
    identity_of,
    issuer_of,
    issuing_chain,
    load_certificate,
    signing_keys,
)
from local_imager.sources.keys import key_from_der, load_pem_key
from local_imager.sources.reasons import Rejected
from local_imager.sources.trusted_root import parse_trusted_root
from tests.fuzz.driver import Fault, Harness
from tests.fuzz.material import GENUINE, ROOT, legacy_certificates

_LEAVES: Final = [load_certificate(g.bundle.certificate) for g in GENUINE if g.bundle.certificate]
_GENUINE_TBS: Final = frozenset(
    certificate.tbs_certificate_bytes
    for certificate in (
        *_LEAVES,
        *map(load_certificate, legacy_certificates()),
        *(load_certificate(der) for one in ROOT.certificate_authorities for der in one.chain),
    )
)
_MOMENT: Final = _LEAVES[0].not_valid_before_utc


def certificate(data: bytes) -> None:
    """A certificate or key, PEM or DER; one that an authority issued is a genuine one."""
    der = data
    if data.startswith(b"-----BEGIN PUBLIC KEY") or data.startswith(b"-----BEGIN RSA"):
        load_pem_key(data, "sha256", "fuzz")
        return
    if data.startswith(b"-----"):
        der = certificate_from_pem(data)
    loaded = load_certificate(der)
    for question in (check_profile, identity_of, issuer_of, signing_keys):
        try:
            question(loaded)
        except Rejected:
            continue
    try:
        check_sct(loaded, load_certificate(ROOT.certificate_authorities[0].chain[0]), ROOT)
    except Rejected:
        pass
    check_issued(loaded, ROOT)
    if loaded.tbs_certificate_bytes not in _GENUINE_TBS:
        raise Fault("a certificate that no authority issued was accepted")
    issuing_chain(loaded, _MOMENT, ROOT)


def key(data: bytes) -> None:
    """A public key as the trusted root keeps it (DER)."""
    try:
        loaded = key_from_der(data, "sha256")
    except ValueError:  # as documented there
        return
    if loaded.verifies(GENUINE[0].envelope.signatures[0], b"other bytes"):
        raise Fault("a signature over other bytes was accepted")


def root(data: bytes) -> None:
    """A trusted root file, and leaning on whatever it lists."""
    parsed = parse_trusted_root(data, "fuzz")
    now = datetime.now(UTC)
    for listed in (*parsed.logs, *parsed.ct_logs):
        listed.period.holds(now)
        listed.key.verifies(b"s", b"data")
    for leaf in _LEAVES:
        issuing_chain(leaf, _MOMENT, parsed)


HARNESSES: Final = (
    Harness("certificate", certificate),
    Harness("key", key, 4096),
    Harness("root", root),
)
