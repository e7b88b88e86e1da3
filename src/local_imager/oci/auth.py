"""Answers to a registry's authentication challenge: Bearer tokens and Basic.

Rules: distribution-spec's token authentication (realm, service, scope) and RFC 7235 challenges.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from local_imager.errors import SourceError
from local_imager.oci.credentials import Credentials, CredentialStore

if TYPE_CHECKING:
    import httpx

_PARAMETER: Final = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME: Final = re.compile(r"(?:^|,)\s*(Bearer|Basic)\b\s*", re.IGNORECASE)
_MAX_HEADER_CHARS: Final = 8192
_MAX_TOKEN_BYTES: Final = 1 << 20
# The token spec's default lifetime, and how long before its end a token is not used any more.
_DEFAULT_LIFETIME_S: Final = 60
_MARGIN_S: Final = 10

# ``fetch(method, url, headers, form)`` sends one request without redirects to other hosts.
Fetch = Callable[[str, str, Mapping[str, str], Mapping[str, str] | None], "httpx.Response"]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(untrusted_header: str) -> tuple[Challenge, ...]:
    """Read a ``WWW-Authenticate`` header; schemes other than Bearer and Basic are passed over."""
    header = untrusted_header[:_MAX_HEADER_CHARS]
    starts = list(_SCHEME.finditer(header))
    challenges = []
    for number, match in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(header)
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
            for name, quoted, bare in _PARAMETER.findall(header[match.end() : end])
        }
        challenges.append(Challenge(match[1].lower(), parameters))
    return tuple(challenges)


class Authenticator:
    """Keeps the tokens of one client; safe for threads."""

    def __init__(self, store: CredentialStore, fetch: Fetch) -> None:
        self._store, self._fetch = store, fetch
        self._lock = threading.Lock()
        self._headers: dict[tuple[str, str], tuple[str, float]] = {}

    def header(self, origin: str, repository: str) -> str:
        """Return the ``Authorization`` value known for this origin and repository, or nothing."""
        with self._lock:
            value, until = self._headers.get((origin, repository), ("", 0.0))
        return value if time.monotonic() < until else ""

    def answer(self, origin: str, repository: str, untrusted_challenge: str, refused: str) -> str:
        """Get and keep an ``Authorization`` value for a challenge, or return nothing.

        ``refused`` is the value that was just refused: what another thread got meanwhile is used.
        Raises :class:`SourceError` when the token server fails or is not safe to talk to.
        """
        with self._lock:
            value, until = self._headers.get((origin, repository), ("", 0.0))
            if value and value != refused and time.monotonic() < until:
                return value
            host = urlsplit(origin).netloc
            credentials = self._store.find(host, repository)
            value, lifetime_s = self._get(origin, repository, untrusted_challenge, credentials)
            if value:
                until = time.monotonic() + max(lifetime_s - _MARGIN_S, _MARGIN_S)
                self._headers[(origin, repository)] = (value, until)
            return value

    def _get(
        self, origin: str, repository: str, challenge: str, credentials: Credentials | None
    ) -> tuple[str, float]:
        offered = {one.scheme: one.parameters for one in parse_challenges(challenge)}
        if "bearer" in offered:
            parameters = dict(offered["bearer"])
            parameters.setdefault("scope", f"repository:{repository}:pull")
            parameters["realm"] = _safe_realm(origin, parameters.get("realm", ""))
            return self._token(parameters, credentials)
        if "basic" in offered and credentials is not None and credentials.username:
            return credentials.basic(), float("inf")
        return "", 0.0

    def _token(
        self, parameters: Mapping[str, str], credentials: Credentials | None
    ) -> tuple[str, float]:
        realm = parameters["realm"]
        wanted = {k: parameters[k] for k in ("service", "scope") if parameters.get(k)}
        if credentials is not None and credentials.identity_token:
            secret = {"refresh_token": credentials.identity_token, "client_id": "local-imager"}
            form = {**wanted, "grant_type": "refresh_token", **secret}
            response = self._fetch("POST", realm, {}, form)
        else:
            headers = {"Authorization": credentials.basic()} if credentials is not None else {}
            response = self._fetch("GET", _with_query(realm, wanted), headers, None)
            refused = response.status_code in (401, 403)
            if refused and credentials is not None and credentials.optional:
                # A CI job's token often has no rights on packages that everybody may read.
                response = self._fetch("GET", _with_query(realm, wanted), {}, None)
        if response.status_code in (401, 403):
            whose = f"the credentials from {credentials.origin}" if credentials else "anonymous use"
            raise SourceError(
                f"the token server {urlsplit(realm).netloc} refused {whose}",
                hint="`docker login` to that registry again, or check the token's rights",
                code="unauthorized",
            )
        return _read_token(response.status_code, response.content, realm)


def _with_query(url: str, parameters: Mapping[str, str]) -> str:
    import httpx

    return str(httpx.URL(url).copy_merge_params(dict(parameters)))


def _safe_realm(origin: str, untrusted_realm: str) -> str:
    """Return the address of a token server, as it will be asked.

    Raises :class:`SourceError` for none, and for one that would see credentials in clear text,
    unless the registry itself is asked so.
    """
    import httpx

    try:
        there = httpx.URL(untrusted_realm)
    except httpx.InvalidURL:
        there = httpx.URL("")
    safe = there.scheme == "https" or (there.scheme == "http" and origin.startswith("http:"))
    if not safe or not there.host or there.userinfo:
        raise SourceError(
            f"{origin} sends to the token server {untrusted_realm[:200]!r}, "
            "which is not safe to ask",
            hint="the registry or something between is not well configured",
            code="unauthorized",
        )
    return str(there)


def _read_token(status: int, untrusted_body: bytes, realm: str) -> tuple[str, float]:
    try:
        if status != 200 or len(untrusted_body) > _MAX_TOKEN_BYTES:
            raise ValueError(f"status {status}")
        document = json.loads(untrusted_body)
        token = document.get("token") or document.get("access_token")
        lifetime_s = float(document.get("expires_in") or _DEFAULT_LIFETIME_S)
        if not math.isfinite(lifetime_s):
            raise ValueError("no lifetime in it")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ValueError("no token in it")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SourceError(
            f"the token server {urlsplit(realm).netloc} gave no usable answer ({error})",
            hint="try again later; if it stays, the registry is not well configured",
            code="unauthorized",
        ) from None
    return f"Bearer {token}", lifetime_s
