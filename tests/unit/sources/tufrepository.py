"""A small TUF repository in a directory, made with real keys, for tests of the refresh."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from securesystemslib.signer._crypto_signer import CryptoSigner
from tuf.api._payload import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.metadata import Metadata

TARGET = "trusted_root.json"


class TufRepository:
    """One key signs every role; each publication is one version more."""

    def __init__(self, path: Path, version: int = 0) -> None:
        self.path = path
        (path / "targets").mkdir(parents=True)
        self._signer = CryptoSigner.generate_ecdsa()
        self._version = version
        self._root = Root(version=1, expires=_later(), consistent_snapshot=True)
        for role in ("root", "timestamp", "snapshot", "targets"):
            self._root.add_key(self._signer.public_key, role)
        self._write("1.root.json", Metadata(self._root))

    @property
    def bootstrap(self) -> Path:
        """The first root metadata."""
        return self.path / "1.root.json"

    def rotate_root(self) -> None:
        """Publish the next version of the root metadata."""
        self._root.version += 1
        self._write(f"{self._root.version}.root.json", Metadata(self._root))

    def publish(self, data: bytes, *, expired: bool = False, version: int | None = None) -> None:
        """Publish a trusted root under the next (or the given) version of all metadata."""
        self._version = version if version is not None else self._version + 1
        number, until = self._version, _later() if not expired else _later(-1)
        target = TargetFile.from_data(TARGET, data)
        named = self.path / "targets" / f"{target.hashes['sha256']}.{TARGET}"
        named.write_bytes(data)
        targets = Targets(version=number, expires=until, targets={TARGET: target})
        self._write(f"{number}.targets.json", Metadata(targets))
        snapshot = Snapshot(
            version=number, expires=until, meta={"targets.json": MetaFile(version=number)}
        )
        self._write(f"{number}.snapshot.json", Metadata(snapshot))
        timestamp = Timestamp(version=number, expires=until, snapshot_meta=MetaFile(version=number))
        self._write("timestamp.json", Metadata(timestamp))

    def _write(self, name: str, metadata: Metadata) -> None:  # type: ignore[type-arg]
        metadata.sign(self._signer)
        metadata.to_file(str(self.path / name))

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the directory over http and yield its address."""
        handler = partial(_Quiet, directory=str(self.path))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _later(days: int = 30) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
