"""A small threaded HTTP server whose answers a test writes as a function; it may lie."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Scripted:
    """A running server: its address, and what was asked of it (path and headers)."""

    address: str
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """The server's base URL."""
        return f"http://{self.address}"

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.requests]


class Ask:
    """One request, with the means to answer it well or badly."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: Scripted, body: bytes) -> None:
        self.handler, self.server, self.body = handler, server, body
        self.path = handler.path
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    def answer(
        self, status: int, body: bytes = b"", *, length: int | None = None, **headers: str
    ) -> None:
        """Answer; ``length`` may differ from the body's, header names get dashes."""
        self.reply(status, body, headers, length)

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str], length: int | None = None
    ) -> None:
        """Answer with headers from a mapping."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def endless(self, chunk: bytes, **headers: str) -> None:
        """Send a body without a length, up to 64 MiB: no sound client takes that much."""
        self.handler.send_response(200)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        for _ in range((64 << 20) // len(chunk)):
            if self.server.stopping.is_set():
                break
            self.handler.wfile.write(chunk)

    def silence(self) -> None:
        """Never answer, until the test ends."""
        self.server.stopping.wait(30)


Script = Callable[[Ask], None]


@contextlib.contextmanager
def scripted_server(script: Script) -> Iterator[Scripted]:
    """Serve a script on loopback; every connection ends after one answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            ask = Ask(self, scripted, body)
            scripted.requests.append((self.path, ask.headers))
            with contextlib.suppress(ConnectionError):
                script(ask)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scripted = Scripted(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield scripted
        finally:
            scripted.stopping.set()
            server.shutdown()
            thread.join()
