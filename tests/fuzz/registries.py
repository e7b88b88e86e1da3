"""Harnesses for what registries say in headers: challenges, pages, ranges, redirects, waits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx

from local_imager.errors import LocalImagerError
from local_imager.oci import answers, transport
from local_imager.oci.auth import Authenticator, parse_challenges
from local_imager.oci.credentials import CredentialStore
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.registry import RegistryClient
from tests.fuzz.driver import Fault, Harness

HOST: Final = "registry.example"
ORIGIN: Final = f"https://{HOST}"
IMAGE: Final = Reference.parse(f"{HOST}/siderolabs/imager:v1.13.0")
BLOB: Final = bytes(range(200))
LAYER: Final = Descriptor.of(BLOB, "application/octet-stream")
NEXT_ANSWER: Final = b"\n--\n"
# Each answer costs one request; what an endless dialogue would do is another test's matter.
_MAX_ANSWERS: Final = 40
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _store() -> CredentialStore:
    store = CredentialStore({})
    store._config = {"auths": {HOST: {"username": "me", "password": "secret-word"}}}
    return store


def _header(data: bytes) -> bytes:
    """Return what an HTTP library lets through as the value of a header."""
    return re.sub(rb"[\0\r\n]", b"", data).strip(b" \t")


# One header at a time


def header(data: bytes) -> None:
    """One header's value; the first letter says which."""
    read = _HEADERS.get(data[:1], challenge)
    read(_header(data[1:]))


def challenge(value: bytes) -> None:
    """``WWW-Authenticate``, and the token server that is asked then."""
    text = httpx.Headers([(b"x", value)])["x"]
    for one in parse_challenges(text):
        if one.scheme not in ("bearer", "basic"):
            raise Fault(f"an unknown scheme: {one.scheme}")
    asked: list[str] = []

    def fetch(
        method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> httpx.Response:
        asked.append(str(httpx.Request(method, url, headers=dict(headers), data=form).url))
        return httpx.Response(200, json={"token": "good"})

    try:
        Authenticator(_store(), fetch).answer(ORIGIN, "siderolabs/imager", text, "")
    except httpx.InvalidURL:
        return  # the transport turns this into a refusal
    if any(urlsplit(url).scheme != "https" for url in asked):
        raise Fault(f"credentials in clear text: {asked}")


def link(value: bytes) -> None:
    """``Link``: the next page lies on the same host."""
    url = f"{ORIGIN}/v2/siderolabs/imager/tags/list?n=1000"
    response = httpx.Response(200, headers=[(b"Link", value)], request=httpx.Request("GET", url))
    target = answers.next_page(response, url)
    if target and httpx.URL(target).host != HOST:
        raise Fault(f"a page of another host: {target}")


def content_range(value: bytes) -> None:
    """``Content-Range`` and ``Content-Length`` of a part that begins at byte 100."""
    part, _, length = value.partition(b"|")
    headers = [(b"Content-Range", part), (b"Content-Length", length)]
    response = httpx.Response(206, headers=headers, request=httpx.Request("GET", f"{ORIGIN}/v2/"))
    if answers.bytes_to_skip(response, LAYER, 100, "a blob"):
        raise Fault("bytes of a part are skipped")


def location(value: bytes) -> None:
    """``Location``: a redirect of https leads to https, at a place that can be asked."""
    text = httpx.Headers([(b"x", value)])["x"]
    target = transport._redirect_target(f"{ORIGIN}/v2/siderolabs/imager/blobs/x", text)
    request = httpx.Request("GET", target)
    if request.url.scheme != "https" or not request.url.host:
        raise Fault(f"a redirect to {target}")
    transport.origin_of(target)


def retry_after(value: bytes) -> None:
    """``Retry-After``: seconds or a date."""
    text = httpx.Headers([(b"x", value)])["x"]
    if not math.isfinite(transport.retry_after_s(text)):
        raise Fault("an endless wait")


_HEADERS: Final = {
    b"c": challenge,
    b"l": link,
    b"r": content_range,
    b"p": location,
    b"w": retry_after,
}


# Whole dialogues


class _Body(httpx.SyncByteStream):
    """A body that breaks off when more was announced, and is cut off when less was."""

    def __init__(self, data: bytes, announced: str) -> None:
        self._data = data
        self._size = int(announced) if re.fullmatch(r"[0-9]{1,9}", announced) else len(data)

    def __iter__(self) -> Iterator[bytes]:
        data = self._data[: self._size]
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]
        if len(data) < self._size:
            raise httpx.RemoteProtocolError("the connection broke off")


class Hostile(httpx.BaseTransport):
    """Gives the fuzzer's answers in turn and watches what is asked of whom."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.asks_token = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the next answer; after the last, nothing is found."""
        if request.url.scheme != "https" or "cookie" in request.headers:
            raise Fault(f"asked {request.url} with {request.headers}")
        elsewhere = request.url.netloc != HOST.encode()
        if elsewhere and not self.asks_token and "authorization" in request.headers:
            raise Fault(f"credentials went to {request.url}")
        head, _, body = (self.answers.pop(0) if self.answers else b"404").partition(b"\n\n")
        status, *lines = head.split(b"\n")
        pairs = [(name, _header(value)) for name, _, value in (x.partition(b":") for x in lines)]
        headers = httpx.Headers([pair for pair in pairs if _NAME.fullmatch(pair[0])])
        code = int(status) if re.fullmatch(rb"[2-5][0-9][0-9]", status) else 200
        stream = _Body(body, headers.get("Content-Length", ""))
        return httpx.Response(code, headers=headers, stream=stream)


def _scripted_client() -> tuple[httpx.Client, Hostile]:
    """Return the client that is really used, over the hostile server instead of a socket."""
    client, server = transport._make_client(5.0), Hostile()
    client._transport, client._mounts = server, {}
    return client, server


_CLIENT, _SERVER = _scripted_client()


def dialogue(data: bytes) -> None:
    """Answers of a registry and its token server to one question; the first letter says which."""
    with patch.object(transport, "_make_client", return_value=_CLIENT):
        client = RegistryClient(ORIGIN, HOST, credentials=_store(), sleep=lambda _s: None)
    authenticator = client._transport._auth
    fetch = authenticator._fetch

    def watched(
        method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> httpx.Response:
        _SERVER.asks_token = True
        try:
            return fetch(method, url, headers, form)
        finally:
            _SERVER.asks_token = False

    authenticator._fetch = watched
    _SERVER.answers = data[1:].split(NEXT_ANSWER)[:_MAX_ANSWERS]
    _ask(client, data[:1])


def _ask(client: RegistryClient, question: bytes) -> None:
    if question == b"t":
        client.tags(IMAGE)
    elif question == b"r":
        client.referrers(IMAGE, Digest.of(b"subject"))
    elif question == b"d":
        client.manifest(IMAGE, Digest.of(b"{}"))
    elif question in (b"b", b"o"):
        offset, came = 100 if question == b"o" else 0, 0
        try:
            for chunk in client.blob(IMAGE, LAYER, offset):
                came += len(chunk)
        except LocalImagerError:
            if came > LAYER.size_bytes - offset:
                raise Fault("more bytes came than the descriptor has") from None
            raise
        if came != LAYER.size_bytes - offset:
            raise Fault(f"{came} bytes of a blob passed for all of it")
    else:
        client.resolve(IMAGE)


HARNESSES: Final = (Harness("header", header, 4096), Harness("dialogue", dialogue, 8192))
