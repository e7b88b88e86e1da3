"""Registries that fail, lie or never end: each gives a clear error, and nothing unbounded."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from local_imager.errors import IntegrityError, LocalImagerError, NotFound, SourceError
from local_imager.events import RecordingSink
from local_imager.oci.credentials import CredentialStore
from local_imager.oci.model import (
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Reference,
    canonical_json,
)
from local_imager.oci.registry import RegistryClient
from tests.scriptedhttp import Ask, Script, Scripted, scripted_server

IMAGE = Reference.parse("registry.example/siderolabs/imager:v1.13.0")
BLOB = bytes(range(256)) * 4096
LAYER = Descriptor.of(BLOB, "application/octet-stream")
MANIFEST = canonical_json(
    {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": Descriptor.of(b"{}", "application/json").as_dict(),
        "layers": [LAYER.as_dict()],
    }
)
Served = Callable[[Script], Scripted]


def client_of(server: Scripted, timeout_s: float = 5.0) -> RegistryClient:
    store = CredentialStore({"DOCKER_CONFIG": "/nonexistent"})
    return RegistryClient(
        server.url,
        "registry.example",
        credentials=store,
        timeout_s=timeout_s,
        sleep=lambda _s: None,
    )


def manifest_answer(ask: Ask, **more: str) -> None:
    ask.reply(200, MANIFEST, {"Content-Type": MEDIA_MANIFEST, **more})


def refused(script: Script, kind: type[LocalImagerError], timeout_s: float = 5.0) -> Scripted:
    """Resolve against the script, which must fail with this kind; return the error's server."""
    with scripted_server(script) as server:
        with pytest.raises(kind) as caught:
            client_of(server, timeout_s).resolve(IMAGE)
        assert type(caught.value) is kind
        server.requests.append((f"{caught.value.message} | {caught.value.hint}", {}))
        return server


@pytest.mark.parametrize(
    ("status", "kind", "words", "asked"),
    [
        (404, NotFound, "does not have", 1),
        (401, SourceError, "docker login", 1),
        (403, SourceError, "docker login", 1),
        (418, SourceError, "status 418", 1),
        (429, SourceError, "limits how much", 5),
        (500, SourceError, "status 500", 5),
        (503, SourceError, "status 503", 5),
    ],
)
def test_an_error_status_says_what_to_check(
    status: int, kind: type[LocalImagerError], words: str, asked: int
) -> None:
    body = b'{"errors":[{"code":"MADE_UP","message":"why \\u001b[31m not"}]}'
    server = refused(lambda ask: ask.answer(status, body), kind)
    *requests, told = server.paths
    assert len(requests) == asked
    assert words in told
    assert "MADE_UP" in told and "\x1b" not in told


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"<html>please log in</html>", "text/html", "web page"),
        (b"<html>please log in</html>", "application/octet-stream", "web page"),
        (b"garbage", "application/json", "not valid JSON"),
        (b"[1]", "application/json", "not a JSON object"),
        (b"{}", "application/json", "not an image manifest"),
        (b"[" * 100_000, "application/json", "not valid JSON"),
    ],
)
def test_garbage_is_not_a_manifest(body: bytes, content_type: str, words: str) -> None:
    server = refused(lambda ask: ask.answer(200, body, Content_Type=content_type), SourceError)
    assert words in server.paths[-1]


def test_a_manifest_with_another_digest_than_announced_is_refused() -> None:
    other = str(Digest.of(b"other"))
    refused(lambda ask: manifest_answer(ask, Docker_Content_Digest=other), IntegrityError)


def test_a_manifest_with_another_digest_than_asked_is_refused() -> None:
    with scripted_server(manifest_answer) as server:
        client = client_of(server)
        assert client.manifest(IMAGE, Digest.of(MANIFEST)).untrusted_data == MANIFEST
        with pytest.raises(IntegrityError):
            client.manifest(IMAGE, Digest.of(b"other"))


def test_an_endless_manifest_is_cut_off() -> None:
    server = refused(
        lambda ask: ask.endless(b" " * 65536, Content_Type=MEDIA_MANIFEST), SourceError
    )
    assert "more than 4194304 bytes" in server.paths[-1]


def test_a_registry_that_never_answers() -> None:
    began = time.monotonic()
    server = refused(lambda ask: ask.silence(), SourceError, timeout_s=0.3)
    assert "did not answer within 0.3 s" in server.paths[-1]
    assert "--from" in server.paths[-1]
    assert time.monotonic() - began < 5


def test_a_host_that_is_not_there() -> None:
    client = RegistryClient("http://127.0.0.1:9", "registry.example", sleep=lambda _s: None)
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        client.resolve(IMAGE)
    assert caught.value.code == "unreachable"


def test_https_to_a_plain_http_port_is_explained() -> None:
    with scripted_server(manifest_answer) as server:
        client = RegistryClient(f"https://{server.address}", "registry.example")
        with pytest.raises(SourceError, match="does not speak TLS") as caught:
            client.resolve(IMAGE)
        assert "http://" in caught.value.hint


def test_a_manifest_that_breaks_off_is_asked_for_again() -> None:
    def script(ask: Ask) -> None:
        if len(ask.server.requests) < 3:
            ask.answer(200, MANIFEST[:20], length=len(MANIFEST), Content_Type=MEDIA_MANIFEST)
        else:
            manifest_answer(ask)

    with scripted_server(script) as server:
        assert client_of(server).resolve(IMAGE).digest == Digest.of(MANIFEST)


def test_retry_after_is_respected_and_bounded() -> None:
    pauses: list[float] = []
    sink = RecordingSink()

    def script(ask: Ask) -> None:
        waits = {1: "7", 2: "100000", 3: "nonsense"}
        number = len(ask.server.requests)
        if number in waits:
            ask.answer(429, Retry_After=waits[number])
        else:
            manifest_answer(ask)

    with scripted_server(script) as server:
        client = RegistryClient(server.url, "registry.example", sleep=pauses.append, sink=sink)
        client.resolve(IMAGE)
    assert pauses[:2] == [7.0, 30.0]
    assert 0 < pauses[2] < 5
    assert len(sink.events) == 3


# Blobs


def read_blob(script: Script, offset: int = 0) -> bytes:
    with scripted_server(script) as server:
        return b"".join(client_of(server).blob(IMAGE, LAYER, offset))


def test_a_broken_blob_is_resumed_by_range() -> None:
    ranges: list[str] = []

    def script(ask: Ask) -> None:
        wanted = ask.headers.get("range", "")
        ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted else 0
        part = BLOB[start : start + 300_000]
        whole = len(BLOB) - start
        if start:
            content_range = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
            ask.answer(206, part, length=whole, Content_Range=content_range)
        else:
            ask.answer(200, part, length=whole)

    assert read_blob(script) == BLOB
    assert len(ranges) == 4
    assert ranges[0] == "" and ranges[1].startswith("bytes=")


def test_ranges_may_come_in_parts() -> None:
    def script(ask: Ask) -> None:
        start = int(ask.headers["range"][6:-1])
        part = BLOB[start : start + 300_000]
        content_range = f"bytes {start}-{start + len(part) - 1}/{len(BLOB)}"
        ask.answer(206, part, Content_Range=content_range)

    assert read_blob(script, 1000) == BLOB[1000:]


def test_a_registry_without_ranges_sends_all_again() -> None:
    def script(ask: Ask) -> None:
        cut = 300_000 if len(ask.server.requests) == 1 else len(BLOB)
        ask.answer(200, BLOB[:cut], length=len(BLOB))

    assert read_blob(script) == BLOB
    assert read_blob(lambda ask: ask.answer(200, BLOB), 1000) == BLOB[1000:]


def test_a_blob_that_always_breaks_off_fails_in_the_end() -> None:
    with pytest.raises(SourceError, match="broke off again and again"):
        read_blob(lambda ask: ask.answer(200, BLOB[:5], length=len(BLOB)))


@pytest.mark.parametrize(
    "script",
    [
        lambda ask: ask.answer(200, BLOB + b"x"),
        lambda ask: ask.answer(200, BLOB[:-1]),
        lambda ask: ask.endless(b"x" * 65536),
        lambda ask: ask.answer(206, BLOB, Content_Range="bytes 5-9/10"),
        lambda ask: ask.answer(206, BLOB),
    ],
    ids=["one byte more", "one byte less", "endless", "other range", "no range"],
)
def test_a_blob_of_another_size_is_refused(script: Script) -> None:
    with pytest.raises(IntegrityError):
        read_blob(script)


def test_a_compressed_transfer_is_refused() -> None:
    with pytest.raises(SourceError, match="encoding"):
        read_blob(lambda ask: ask.answer(200, b"x", Content_Encoding="gzip"))
