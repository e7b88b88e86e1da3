"""HTTP to a registry: bounded, patient, and careful with credentials.

One request may take several tries (429, 5xx, transport faults) with growing pauses; redirects are
followed by hand so that an ``Authorization`` header never reaches another host and https never
becomes http; no cookies are kept.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from local_imager import __version__
from local_imager.errors import SourceError
from local_imager.events import NULL_SINK, EventSink, Message
from local_imager.oci.auth import Authenticator
from local_imager.oci.credentials import CredentialStore

MAX_TRIES: Final = 5
_MAX_UNREACHABLE_TRIES: Final = 2
_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 30.0
_MAX_REDIRECTS: Final = 5
RETRY_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_ERROR_BODY_BYTES: Final = 64 * 1024
_MAX_TOKEN_BODY_BYTES: Final = 1 << 20
# A manifest of 4 MiB over a slow line; a server that drips bytes must not hold us for hours.
_SMALL_BODY_S: Final = 120.0


class Transport:
    """Sends GET requests to one registry; safe for threads."""

    def __init__(
        self,
        *,
        credentials: CredentialStore | None = None,
        timeout_s: float = 30.0,
        sink: EventSink = NULL_SINK,
        sleep: Callable[[float], None] = time.sleep,
        retry_status: frozenset[int] = RETRY_STATUS,
    ) -> None:
        self._retry_status = retry_status
        self._client = _make_client(timeout_s)
        self._auth = Authenticator(credentials or CredentialStore(), self._fetch_token)
        self._timeout_s, self._sink, self._sleep = timeout_s, sink, sleep

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextlib.contextmanager
    def get(
        self, url: str, repository: str, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """Yield the open answer to a GET, after authentication, redirects and retries.

        The status is whatever came last (4xx and exhausted 5xx too). Raises :class:`SourceError`
        when no answer came or a redirect is not safe.
        """
        response = self._patiently(url, repository, headers)
        try:
            yield response
        finally:
            response.close()

    def post(self, url: str, data: bytes, content_type: str) -> httpx.Response:
        """Return the whole answer (64 KiB of it) to a POST, which is sent once to this address.

        Redirects are not followed. Raises :class:`SourceError` when no answer comes.
        """
        request = self._client.build_request(
            "POST", url, content=data, headers={"Content-Type": content_type}
        )
        try:
            response = self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise unreachable(url, error, self._timeout_s) from error
        try:
            body = read_error(response)
        finally:
            response.close()
        asked = response.headers.get("Retry-After", "")
        headers = {"Retry-After": asked} if asked and asked.isascii() else {}
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)

    def _patiently(self, url: str, repository: str, headers: Mapping[str, str]) -> httpx.Response:
        tries = 0
        while True:
            tries += 1
            try:
                response = self._authenticated(url, repository, headers)
            except httpx.TransportError as error:
                if tries >= _tries_for(error):
                    raise unreachable(url, error, self._timeout_s) from error
                self._pause(tries, url, str(error) or type(error).__name__)
                continue
            except (httpx.InvalidURL, httpx.DecodingError) as error:
                raise SourceError(f"{host_of(url)} gave an answer that is no HTTP") from error
            if response.status_code not in self._retry_status or tries >= MAX_TRIES:
                return response
            asked_s = retry_after_s(response.headers.get("Retry-After", ""))
            status = response.status_code
            response.close()
            self._pause(tries, url, f"status {status}", asked_s)

    def pause(self, tries: int, url: str, why: str) -> None:
        """Wait before the next try of something that broke off midway."""
        self._pause(tries, url, why)

    def _pause(self, tries: int, url: str, why: str, asked_s: float = 0.0) -> None:
        grown_s = _FIRST_PAUSE_S * 2 ** (tries - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        pause_s = min(max(grown_s, asked_s), _MAX_PAUSE_S)
        host = host_of(url)
        self._sink.emit(Message(f"{host}: {why}; trying again in {pause_s:.1f} s", level="warning"))
        self._sleep(pause_s)

    def _authenticated(
        self, url: str, repository: str, headers: Mapping[str, str]
    ) -> httpx.Response:
        origin = origin_of(url)
        known = self._auth.header(origin, repository)
        response = self._follow(url, {**headers, **_authorization(known)})
        if response.status_code != 401 or origin_of(str(response.url)) != origin:
            return response
        challenge = response.headers.get("WWW-Authenticate", "")
        fresh = self._auth.answer(origin, repository, challenge, known)
        if not fresh:
            return response
        response.close()
        return self._follow(url, {**headers, **_authorization(fresh)})

    def _follow(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        first, sent = origin_of(url), dict(headers)
        for _ in range(_MAX_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=sent)
            response = self._client.send(request, stream=True)
            target = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or not target:
                return response
            response.close()
            url = _redirect_target(url, target)
            if origin_of(url) != first:
                sent.pop("Authorization", None)
        raise SourceError(
            f"{host_of(url)} redirects in a circle (more than {_MAX_REDIRECTS} times)",
            hint="the registry or a proxy before it is not well configured",
        )

    def _fetch_token(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> httpx.Response:
        """Ask a token server; redirects are not followed, credentials are in the request."""
        request = self._client.build_request(
            method, url, headers=dict(headers), data=dict(form) if form else None
        )
        response = self._client.send(request, stream=True)
        try:
            body = read_small(response, _MAX_TOKEN_BODY_BYTES)
        finally:
            response.close()
        return httpx.Response(response.status_code, content=body)


def _make_client(timeout_s: float) -> httpx.Client:
    """Return a client that keeps no cookies and follows no redirects by itself.

    Proxies and certificate authorities come from the environment, as httpx reads it.
    """
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    try:
        return httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 15.0), pool=None),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": f"local-imager/{__version__}", "Accept-Encoding": "identity"},
        )
    except (ValueError, httpx.InvalidURL, ImportError, OSError) as error:
        raise SourceError(
            f"the proxy or certificate settings of this environment cannot be used: {error}",
            hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR",
        ) from error


def _authorization(value: str) -> dict[str, str]:
    return {"Authorization": value} if value else {}


def origin_of(url: str) -> str:
    """Return scheme and host with port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def host_of(url: str) -> str:
    """Return host and port of a URL, for messages (no user name, path or query)."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _redirect_target(url: str, untrusted_target: str) -> str:
    try:
        target = str(httpx.URL(url).join(untrusted_target))
        parts = urlsplit(target)
    except (httpx.InvalidURL, ValueError):
        parts = urlsplit("")
    downgrade = url.startswith("https:") and parts.scheme != "https"
    strange = parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc
    if strange or downgrade:
        raise SourceError(
            f"{host_of(url)} redirects to a place that is not safe to follow",
            hint="a redirect may not leave https" if downgrade else "",
        )
    return target


def read_small(response: httpx.Response, max_bytes: int) -> bytes:
    """Return an answer's body of at most ``max_bytes`` + 1 bytes, within a time limit.

    Raises :class:`SourceError` when it takes too long, ``httpx.TransportError`` when it breaks.
    """
    began, parts, size_bytes = time.monotonic(), [], 0
    for chunk in response.iter_raw(64 * 1024):
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            break
        if time.monotonic() - began > _SMALL_BODY_S:
            raise SourceError("the registry sends its answer too slowly", code="unreachable")
    return b"".join(parts)[: max_bytes + 1]


def read_error(response: httpx.Response) -> bytes:
    """Return what can be had of an error's body."""
    try:
        return read_small(response, _MAX_ERROR_BODY_BYTES)
    except (httpx.TransportError, SourceError):
        return b""


def retry_after_s(untrusted_value: str) -> float:
    """Read ``Retry-After`` (seconds or a date); nonsense counts as not given."""
    if untrusted_value.isascii() and untrusted_value.isdigit() and len(untrusted_value) < 8:
        return float(untrusted_value)
    try:
        return email.utils.parsedate_to_datetime(untrusted_value).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _tries_for(error: httpx.TransportError) -> int:
    """How often a fault is worth another try: not at all for TLS, once when nobody answers."""
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return 1
    if isinstance(error, httpx.ConnectError | httpx.TimeoutException | httpx.ProxyError):
        return _MAX_UNREACHABLE_TRIES
    return MAX_TRIES if not isinstance(error, httpx.UnsupportedProtocol) else 1


def unreachable(url: str, error: httpx.TransportError, timeout_s: float) -> SourceError:
    """Explain why a registry gave no answer."""
    host = host_of(url)
    offline = "without a network, read images from a layout, a bundle or a mirror (--from)"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceError(
                f"the certificate of {host} is not trusted: {cause.verify_message}",
                hint="for a private authority set SSL_CERT_FILE; check this machine's clock too",
                code="tls",
            )
        if isinstance(cause, ssl.SSLError):
            return SourceError(
                f"{host} does not speak TLS ({cause.reason or 'handshake failed'})",
                hint="if it is meant to be plain http, write http:// before the host "
                "or set upstream.plain_http",
                code="tls",
            )
    if isinstance(error, httpx.TimeoutException):
        text = f"{host} did not answer within {timeout_s:g} s"
        return SourceError(text, hint=f"check the network and proxy; {offline}", code="unreachable")
    return SourceError(
        f"{host} cannot be reached: {error}",
        hint=f"check the name, the network and proxy settings; {offline}",
        code="unreachable",
    )
