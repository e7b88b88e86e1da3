"""An HTTP server laid out as the official Image Factory: its paths, headers and error bodies.

It serves files that were built before (by the lab), and it may fail on purpose. What it answers is
held against what the real one answered (tests/golden/factory.json) in
tests/unit/deliver/compare/test_factoryserver.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from local_imager.errors import LocalImagerError
from local_imager.profile.assetname import AssetName
from local_imager.schematic.canonical import canonical_text, schematic_id
from local_imager.schematic.parse import parse_schematic

PIECE_BYTES = 64 * 1024
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")


@dataclass
class Faults:
    """How the server fails; counts go down with each answer that failed."""

    # The connection ends after so many bytes of a body, this many times.
    cut_after: int = 0
    cuts: int = 0
    # The announced length of files, where it is not the real one.
    length: int | None = None
    # So many answers with this status (and Retry-After) before a good one.
    busy: int = 0
    busy_status: int = 503
    retry_after: str = "0"
    # The server stops in the middle of a body until the test ends.
    stall_after: int = 0
    # It sends other bytes under the same ETag rules: the file is changed after the first answer.
    change: bytes = b""
    # It announces ranges and validators, and passes over If-Range.
    ignores_if_range: bool = False
    encoding: str = ""
    # At most so many bytes of a range are sent, as a server may do.
    part: int = 0
    # No file is sent before this is set.
    held: threading.Event | None = None


@dataclass
class FactoryServer:
    """A running factory; ``files`` maps ``ID/VERSION/ASSET`` to bytes or a file."""

    address: str
    files: dict[str, bytes | Path] = field(default_factory=dict)
    schematics: dict[str, str] = field(default_factory=dict)
    redirect: bool = False
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.address}"

    def serve(self, schematic: str, version: str, files: dict[str, bytes | Path]) -> None:
        """Offer files (by asset name) of a schematic that the factory knows from now on."""
        self.schematics.setdefault(schematic, "customization: {}\n")
        for asset, file in files.items():
            self.files[f"{schematic}/{version}/{asset}"] = file

    def asked(self, method: str = "GET") -> list[str]:
        """Return the targets asked for with a method, in order."""
        return [target for used, target, _ in self.requests if used == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    factory: FactoryServer

    def version_string(self) -> str:
        return "Image Factory v1.5.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        said = {name.lower(): value for name, value in self.headers.items()}
        self.factory.requests.append((self.command, self.path, said))
        with contextlib.suppress(ConnectionError):
            self._route(body)

    do_GET = do_HEAD = do_POST = do_DELETE = _any

    def _route(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if self.factory.faults.busy > 0:
            self.factory.faults.busy -= 1
            again = {"Retry-After": self.factory.faults.retry_after}
            self._error(self.factory.faults.busy_status, "service temporarily unavailable", again)
        elif parts[0] == "image" and len(parts) == 4 and self.command in ("GET", "HEAD"):
            self._image(*parts[1:])
        elif parts[0] == "schematics" and len(parts) == 1 and self.command == "POST":
            self._learn(body)
        elif parts[0] == "schematics" and len(parts) == 2:
            self._tell(parts[1])
        elif parts[0] == "cache" and len(parts) == 5:
            self._cached("/".join(parts[1:4]), parts[3])
        elif self.path == "/healthz":
            self._answer(200, b"", {})
        else:
            self._error(404, "404 page not found", own=False)

    # -- schematics -------------------------------------------------------------------------

    def _learn(self, body: bytes) -> None:
        try:
            if not body:
                raise ValueError("EOF")
            schematic = parse_schematic(body)
        except (ValueError, LocalImagerError) as error:
            self._error(400, str(error))
            return
        known = str(schematic_id(schematic))
        self.factory.schematics[known] = canonical_text(schematic)
        document = json.dumps({"id": known, "schematic": canonical_text(schematic)})
        for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
            document = document.replace(sign, code)
        compact = document.replace('": "', '":"').replace('", "', '","')
        self._answer(201, f"{compact}\n".encode(), {"Content-Type": "application/json"})

    def _tell(self, schematic: str) -> None:
        if self.command != "GET":
            self._error(405, "Method Not Allowed", {"Allow": "GET, OPTIONS"}, own=False)
            return
        text = self.factory.schematics.get(schematic)
        if text is None:
            self._error(404, "schematic not found")
            return
        self._answer(200, text.encode(), {"Content-Type": "application/yaml"})

    # -- files ------------------------------------------------------------------------------

    def _image(self, schematic: str, version: str, asset: str) -> None:
        if asset.endswith((".sha256", ".sha512")):
            self._error(402, "enterprise not enabled: checksum endpoint is not available")
            return
        if asset.endswith(".sigstore.json"):
            text = "enterprise signing is not enabled: signature endpoint is not available"
            self._error(402, text)
            return
        if schematic not in self.factory.schematics:
            self._error(404, f'schematic ID "{schematic}" not found')
            return
        match = _VERSION.fullmatch(version)
        if match is None:
            self._error(500, "internal server error")
            return
        if refused := _refused_path(asset):
            self._error(400, f"error parsing profile from path: {refused}")
            return
        key = f"{schematic}/v{match[1]}/{asset}"
        if key not in self.factory.files:
            self._error(404, f"failed to get kernel: version {match[1]} is not available")
            return
        name = parse_qs(urlsplit(self.path).query).get("filename", [asset])[0]
        if self.factory.redirect and self.command == "GET":
            place = f"{self.factory.url}/cache/{key}/blob?signature=abc&filename={name}"
            link = f'<a href="{place.replace("&", "&amp;")}">Found</a>.\n\n'.encode()
            kind = "text/html; charset=utf-8"
            self._answer(302, link, {"Content-Type": kind, "Location": place})
            return
        # The factory itself knows no ranges and no validators.
        self._send(_bytes_of(self.factory.files[key]), _file_headers(asset, name))

    def _cached(self, key: str, asset: str) -> None:
        """What a bucket before which the factory stands does: ranges, ETag, If-Range."""
        data = _bytes_of(self.factory.files[key])
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers = {**_file_headers(asset, asset), "ETag": etag, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        held = self.headers.get("If-Range", etag)
        fits = held == etag or self.factory.faults.ignores_if_range
        if wanted is None or not fits:
            self._send(data, headers)
            return
        start = int(wanted[1])
        if start >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        end = min(len(data), start + (self.factory.faults.part or len(data)))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(data[start:end], headers, status=206)

    def _send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        faults = self.factory.faults
        if faults.held is not None:
            faults.held.wait(60)
        if faults.encoding:
            headers["Content-Encoding"] = faults.encoding
        length = len(data) if faults.length is None else faults.length
        self._head(status, {**headers, "Content-Length": str(length)})
        if self.command == "HEAD":
            return
        end = len(data)
        if faults.cuts > 0:
            faults.cuts -= 1
            end = min(end, faults.cut_after)
            if faults.change:
                for key in self.factory.files:
                    self.factory.files[key] = faults.change
        stall = faults.stall_after or end
        for begin in range(0, end, PIECE_BYTES):
            if begin >= stall:
                self.factory.stopping.wait(60)
                break
            self.wfile.write(data[begin : min(begin + PIECE_BYTES, end)])
        if end < length:
            self.close_connection = True

    # -- answers ----------------------------------------------------------------------------

    def _error(
        self, status: int, text: str, headers: dict[str, str] | None = None, *, own: bool = True
    ) -> None:
        plain = {
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
        }
        self._answer(status, f"{text}\n".encode(), {**plain, **(headers or {})}, own=own)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], *, own: bool = True
    ) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))}, own=own)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str], *, own: bool = True) -> None:
        self.send_response_only(status)
        if own:  # the router's own answers name neither server nor request
            self.send_header("Server", self.version_string())
            self.send_header("X-Request-Id", self.headers.get("X-Request-Id", str(uuid.uuid4())))
        self.send_header("Vary", "Origin")
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _bytes_of(file: bytes | Path) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def _file_headers(asset: str, filename: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Type": AssetName.parse(asset).content_type,
    }


def _refused_path(asset: str) -> str:
    """Return what the factory says of a path that names no asset, empty for one that does."""
    with contextlib.suppress(LocalImagerError):
        AssetName.parse(asset)
        return ""
    stem = re.sub(r"^(kernel|cmdline)-|(\.iso|-uki\.efi|\.raw\S*)$", "", asset)
    if stem == asset:
        return f'invalid profile path: "{asset}"'
    if asset.startswith("kernel-"):
        return f'invalid architecture: "{stem}"'
    _, dash, arch = stem.partition("-")
    return f'invalid architecture: "{arch}"' if dash else f'invalid platform-arch: "{stem}"'


@contextlib.contextmanager
def factory_server(**state: Any) -> Iterator[FactoryServer]:
    """Run a factory on loopback; ``state`` are fields of :class:`FactoryServer`."""

    class Handler(_Handler):
        pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that are killed go away without a word; nothing is printed of it."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Handler.factory = FactoryServer(f"127.0.0.1:{server.server_address[1]}", **state)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Handler.factory
        finally:
            Handler.factory.stopping.set()
            server.shutdown()
            thread.join()
