"""The trusted root: a file that lists logs and authorities, read without any network.

Format: Sigstore ``trustedroot.proto`` as protobuf JSON. The file is configuration, so whatever is
wrong with it is a :class:`SettingsError`; only its public parts are kept, as plain values.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from local_imager.errors import SettingsError
from local_imager.sources.keys import HashName, PublicKey, key_from_der
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.rootfile import RootFile, default_root_file
from local_imager.sources.untrusted_json import (
    Document,
    bytes_field,
    malformed,
    object_field,
    objects_field,
    parse_object,
    text_field,
)

# The public instance's file has about 7 KiB and some ten authorities.
MAX_ROOT_BYTES: Final = 1024 * 1024
MAX_AUTHORITIES: Final = 64
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MAX_CHAIN: Final = 8
_MEDIA_TYPES: Final = frozenset(
    {
        "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    }
)


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when an authority is trusted; an open end is None."""

    start: datetime
    end: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Say whether the moment lies in the period, both ends included."""
        return self.start <= moment and (self.end is None or moment <= self.end)


@dataclass(frozen=True, slots=True)
class Log:
    """A transparency log (Rekor or CT): its id, key, host name and period of trust."""

    log_id: bytes
    key: PublicKey
    host: str
    period: Period


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority or timestamp authority: its chain (leaf first, DER) and period."""

    chain: tuple[bytes, ...]
    period: Period


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """Everything that a verification may lean on; ``digest`` is the SHA-256 of the file."""

    logs: tuple[Log, ...]
    ct_logs: tuple[Log, ...]
    certificate_authorities: tuple[Authority, ...]
    timestamp_authorities: tuple[Authority, ...]
    digest: str
    origin: str


def load_trusted_root(path: Path | None) -> TrustedRoot:
    """Read a trusted root file (None: the default, ``rootfile.default_root_file``).

    Raises :class:`SettingsError` for a file that cannot be used, :class:`Rejected` when there is
    none at all.
    """
    found = RootFile(path, "file") if path is not None else default_root_file()
    if found is None:
        raise Rejected(
            Reason.TRUSTED_ROOT,
            "no trusted root is at hand: install sigstore, or name one (trusted_root)",
        )
    return load_root_file(found)


def load_root_file(file: RootFile) -> TrustedRoot:
    """Read one root file; raises :class:`SettingsError` when it cannot be used."""
    root = _load(file.path)
    if file.digest and root.digest != file.digest:
        raise SettingsError(
            "the refreshed trusted root is not the one that was saved",
            hint=f"remove {file.path.parent}, or run `local-imager trust refresh`",
            source=str(file.path),
        )
    return root


@lru_cache(maxsize=8)
def _load(path: Path) -> TrustedRoot:
    # Read once per process: a verification never sees two versions of it.
    try:
        with path.open("rb") as file:
            untrusted_data = file.read(MAX_ROOT_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"the trusted root cannot be read: {error.strerror}",
            hint="name an existing trusted_root.json file",
            source=str(path),
        ) from error
    return parse_trusted_root(untrusted_data, str(path))


def parse_trusted_root(untrusted_data: bytes, origin: str) -> TrustedRoot:
    """Parse the file's bytes; raises :class:`SettingsError` that says what is wrong."""
    try:
        document = parse_object(untrusted_data, "trusted root", MAX_ROOT_BYTES)
        if text_field(document, "mediaType", "trusted root") not in _MEDIA_TYPES:
            raise malformed("trusted root", "is of an unknown version")
        return TrustedRoot(
            _logs(document, "tlogs"),
            _logs(document, "ctlogs"),
            _authorities(document, "certificateAuthorities"),
            _authorities(document, "timestampAuthorities"),
            f"sha256:{hashlib.sha256(untrusted_data).hexdigest()}",
            origin,
        )
    except Rejected as error:
        raise SettingsError(
            f"the trusted root cannot be used: {error.message}",
            hint="take it from the sigstore package or from the instance that signed",
            source=origin,
        ) from error


def _logs(document: Document, key: str) -> tuple[Log, ...]:
    return tuple(_log(item, key) for item in objects_field(document, key, key, MAX_AUTHORITIES))


def _log(document: Document, what: str) -> Log:
    public = object_field(document, "publicKey", what)
    der = bytes_field(public, "rawBytes", what, MAX_CERTIFICATE_BYTES)
    details = text_field(public, "keyDetails", what, "")
    try:
        key = key_from_der(der, _hash_of(details))
    except ValueError as error:
        raise malformed(what, f"has a key that cannot be used: {error}") from error
    log_id = hashlib.sha256(der).digest()
    if "logId" in document:
        log_id = bytes_field(object_field(document, "logId", what), "keyId", what, 64)
    try:
        host = urlsplit(text_field(document, "baseUrl", what, "")).hostname or ""
    except ValueError as error:
        raise malformed(what, "has a baseUrl that is no address") from error
    return Log(log_id, key, host, _period(public, what, open_start=False))


def _hash_of(key_details: str) -> HashName:
    """Read the hash out of a name such as ``PKIX_ECDSA_P384_SHA_384``."""
    match = re.search(r"SHA_?(256|384|512)$", key_details)
    names: dict[str, HashName] = {"256": "sha256", "384": "sha384", "512": "sha512"}
    return names[match[1]] if match else "sha256"


def _authorities(document: Document, key: str) -> tuple[Authority, ...]:
    found = []
    for item in objects_field(document, key, key, MAX_AUTHORITIES):
        chain = object_field(item, "certChain", key)
        certificates = objects_field(chain, "certificates", key, MAX_CHAIN)
        ders = [bytes_field(one, "rawBytes", key, MAX_CERTIFICATE_BYTES) for one in certificates]
        found.append(Authority(tuple(ders), _period(item, key, open_start=True)))
    return tuple(found)


def _period(document: Document, what: str, *, open_start: bool) -> Period:
    """Read ``validFor``; a log has to say since when, or it would be trusted since ever.

    So the public conformance suite wants it; certificates of authorities have dates of their own.
    """
    valid_for = object_field(document, "validFor", what) if "validFor" in document else {}
    since = "1970-01-01T00:00:00Z" if open_start else None
    start = _moment(text_field(valid_for, "start", what, since), what)
    end = _moment(text_field(valid_for, "end", what), what) if "end" in valid_for else None
    return Period(start, end)


def _moment(text: str, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise malformed(what, f"{text[:40]!r} is not a time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
