"""What a factory's refusals mean, strange servers, and sending a schematic."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_imager.deliver.compare.address import FactoryAsset
from local_imager.deliver.compare.factory import FactoryClient
from local_imager.errors import InputError, LocalImagerError, NotFound, SourceError
from local_imager.schematic.parse import parse_schematic
from local_imager.store.foreign import foreign_files
from local_imager.store.store import Store
from tests.factoryserver import FactoryServer, factory_server
from tests.scriptedhttp import Ask, scripted_server

ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
ISO = FactoryAsset(ID, "v1.13.0", "metal-amd64.iso")
SCHEMATIC = parse_schematic(b"customization:\n  extraKernelArgs: [a<b>&c]\n")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def server() -> Iterator[FactoryServer]:
    with factory_server() as running:
        running.serve(ID, "v1.13.0", {"metal-amd64.iso": b"an iso"})
        yield running


def client(url: str) -> FactoryClient:
    """A client that makes no pauses."""
    return FactoryClient(url, sleep=lambda _seconds: None)


@pytest.mark.parametrize(
    ("wanted", "error", "code", "phrases"),
    [
        (
            FactoryAsset("0" * 64, "v1.13.0", "kernel-amd64"),
            NotFound,
            "schematic-unknown",
            ("does not know the schematic", "--upload", "POST /schematics"),
        ),
        (
            FactoryAsset(ID, "v1.9.9", "kernel-amd64"),
            NotFound,
            "not-found",
            ("failed to get kernel: version 1.9.9 is not available", "/versions"),
        ),
        (
            FactoryAsset(ID, "v1.13.0", "metal-riscv64.iso"),
            InputError,
            "factory-refused",
            ('invalid architecture: "riscv64"', "local-imager plan"),
        ),
        (
            FactoryAsset(ID, "v1.13.0", "metal-amd64.iso.sha256"),
            SourceError,
            "factory-refused",
            ("checksum endpoint is not available", "enterprise edition"),
        ),
        (
            FactoryAsset(ID, "banana", "kernel-amd64"),
            SourceError,
            "factory-failed",
            ("internal server error", "the factory's own log"),
        ),
    ],
    ids=["schematic", "version", "path", "enterprise", "failure"],
)
def test_refusals_have_a_cause_and_a_hint(
    server: FactoryServer,
    store: Store,
    wanted: FactoryAsset,
    error: type[LocalImagerError],
    code: str,
    phrases: tuple[str, ...],
) -> None:
    with pytest.raises(error) as caught:
        client(server.url).fetch(store, wanted)
    assert caught.value.code == code
    told = f"{caught.value.message} {caught.value.hint}"
    assert all(phrase in told for phrase in phrases), told
    assert len(server.requests) == 1  # a refusal is not tried again


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, "Content-Type: text/html", b"<html>"), "web page"),
        ((302, "Location: file:///etc/passwd", b""), "not safe"),
        ((302, "Location: /image", b""), "in a circle"),
        ((200, "X-Nothing: 1", b""), "sends nothing"),
        ((206, "Content-Range: bytes 5-9/10", b"56789"), "another part"),
        ((404, "X-Nothing: 1", b"\x1b[31mred\n\n\n\n"), "\ufffd[31mred"),
        ((404, "X-Nothing: 1", b"<a/>"), "status 404"),
        ((0, "", b"not http at all\r\n\r\n"), "cannot be reached"),
    ],
    ids=["page", "file", "circle", "empty", "part", "escape", "markup", "garbage"],
)
def test_strange_servers(
    store: Store,
    raw_server: Callable[[bytes], str],
    answer: tuple[int, str, bytes],
    problem: str,
) -> None:
    reader = client(raw_server(http_bytes(*answer)))
    with pytest.raises(SourceError, match=problem.replace("[", r"\[")):
        reader.fetch(store, ISO)
    assert foreign_files(store.layout) == ()


def http_bytes(status: int, header: str, body: bytes) -> bytes:
    """An answer as it goes over the wire; status 0 is the body alone."""
    head = f"HTTP/1.1 {status} Said\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return body if status == 0 else head.encode() + body


@pytest.fixture
def raw_server() -> Iterator[Callable[[bytes], str]]:
    """Return a function that starts a server which answers every connection with these bytes."""
    import socketserver

    servers: list[socketserver.TCPServer] = []

    def start(data: bytes) -> str:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65536)
                self.request.sendall(data)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nobody_there_and_no_tls_are_told_apart(store: Store, server: FactoryServer) -> None:
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        client("http://127.0.0.1:1").fetch(store, ISO)
    assert "--factory" in caught.value.hint and caught.value.code == "unreachable"
    with pytest.raises(SourceError) as caught:
        client(f"https://{server.address}").fetch(store, ISO)
    assert caught.value.code == "tls" and "http://" in caught.value.hint


def test_a_proxy_that_is_not_there_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SourceError) as caught:
        client("http://factory.example").fetch(store, ISO)
    assert "proxy" in caught.value.hint


def test_a_schematic_is_sent_only_when_asked_for(server: FactoryServer, store: Store) -> None:
    known = client(server.url).upload(SCHEMATIC)
    assert server.asked("POST") == ["/schematics"]
    server.serve(known, "v1.13.0", {"kernel-amd64": b"kernel"})
    got = client(server.url).fetch(store, FactoryAsset(known, "v1.13.0", "kernel-amd64"))
    assert got.path.read_bytes() == b"kernel"


def test_a_factory_that_gives_another_id_is_told(
    store: Store, raw_server: Callable[[bytes], str]
) -> None:
    wrong = http_bytes(201, "X-Nothing: 1", b'{"id":"beef","schematic":""}')
    with pytest.raises(SourceError, match="another ID") as caught:
        client(raw_server(wrong)).upload(SCHEMATIC)
    assert caught.value.code == "schematic-differs"
    refused = http_bytes(400, "X-Nothing: 1", b"no such field\n")
    with pytest.raises(SourceError, match="no such field"):
        client(raw_server(refused)).upload(SCHEMATIC)


def test_a_factory_that_wants_a_login_gets_the_one_of_its_host(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enterprise factories have logins; they are kept where `docker login` keeps them."""
    right = "Basic " + base64.b64encode(b"me:word").decode()

    def script(ask: Ask) -> None:
        if ask.headers.get("authorization") != right:
            text = b"authentication required to access this schematic\n"
            ask.answer(401, text, WWW_Authenticate='Basic realm="factory"')
        elif ask.path.startswith("/image/"):
            ask.answer(302, Location=f"http://localhost:{ask.server.address.split(':')[1]}/cache")
        else:
            ask.answer(200, b"a secret iso")

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with scripted_server(script) as server:
        with pytest.raises(SourceError, match="authentication required") as caught:
            client(server.url).fetch(store, ISO)
        assert caught.value.code == "unauthorized"
        assert f"docker login {server.address}" in caught.value.hint
        auths = {server.address: {"auth": right.removeprefix("Basic ")}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        server.requests.clear()
        # The place that it redirects to is another host, and learns no password.
        with pytest.raises(SourceError, match="authentication required"):
            client(server.url).fetch(store, ISO)
        sent = [(path.split("/")[1], said.get("authorization")) for path, said in server.requests]
        assert sent == [("image", None), ("image", right), ("cache", None)]
