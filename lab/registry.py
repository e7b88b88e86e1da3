"""A real registry (Debian's docker-registry) over the lab's images, on loopback."""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.console import LabError, die_with_parent
from lab.oci import Descriptor, Layout, hex_of, link_or_copy

PROGRAM = "usr/bin/docker-registry"

CONFIG = """\
version: 0.1
log:
  level: info
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {storage}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
"""


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def split_name(reference: str) -> tuple[str, str]:
    """Return repository (without the registry host) and tag of a full lab name."""
    path = reference.split("/", 1)[1]
    repository, _, tag = path.rpartition(":")
    return repository, tag


def fill_storage(layout: Layout, storage: Path) -> None:
    """Lay out a registry's storage over a layout's blobs by hard links: no copy, no upload."""
    base = storage / "docker/registry/v2"
    for reference, entry in layout.named().items():
        repository, tag = split_name(reference)
        folder = base / "repositories" / repository
        for manifest in layout.manifests_below(entry):
            _link_blob(layout, base, manifest)
            _write_link(
                folder / "_manifests/revisions/sha256" / hex_of(manifest["digest"]), manifest
            )
            for blob in layout.blobs_of(manifest):
                _link_blob(layout, base, blob)
                _write_link(folder / "_layers/sha256" / hex_of(blob["digest"]), blob)
        tags = folder / "_manifests/tags" / tag
        _write_link(tags / "current", entry)
        _write_link(tags / "index/sha256" / hex_of(entry["digest"]), entry)


def _link_blob(layout: Layout, base: Path, blob: Descriptor) -> None:
    digits = hex_of(blob["digest"])
    link_or_copy(
        layout.blob_path(blob["digest"]), base / "blobs/sha256" / digits[:2] / digits / "data"
    )


def _write_link(folder: Path, target: Descriptor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(target["digest"])


@contextlib.contextmanager
def running_registry(package: Path, folder: Path) -> Iterator[str]:
    """Run the registry over `folder`/storage and yield its address ``127.0.0.1:PORT``.

    `package` is the unpacked Debian package. The registry ends with this process, even when that
    is killed.
    """
    config = folder / "config.yml"
    config.write_text(CONFIG.format(storage=folder / "storage"))
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [package / PROGRAM, "serve", config],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
            env={k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")},
        )
    complaint = f"the registry did not start, see {folder / 'log'}"
    try:
        wait_until(lambda: listening_at(folder / "log") != "", process, complaint)
        address = listening_at(folder / "log")
        wait_until(lambda: _answers(address), process, complaint)
        yield address
    finally:
        process.kill()
        process.wait()


def listening_at(log: Path) -> str:
    """Return the address at which a registry with this log listens, or nothing so far.

    It chooses its port itself: one that is looked for beforehand may be another's by then.
    """
    said = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
    return said[1] if said else ""


def wait_until(
    ready: Callable[[], bool],
    process: "subprocess.Popen[bytes] | None",
    complaint: str,
    timeout_s: float = 30,
) -> None:
    """Wait until `ready` answers true; LabError when the process ends or time runs out before."""
    deadline_s = time.monotonic() + timeout_s
    while not ready():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline_s:
            raise LabError(complaint)
        time.sleep(0.05)


def _answers(address: str) -> bool:
    try:
        return fetch(address, "/v2/")[0] == 200
    except OSError:
        return False


def fetch(address: str, path: str, accept: str = "*/*") -> tuple[int, bytes]:
    """GET a path from a loopback registry and return status and body."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def fetch_ok(address: str, path: str, accept: str = "*/*") -> bytes:
    """GET a path that must be there."""
    status, body = fetch(address, path, accept)
    if status != 200:
        raise LabError(f"the lab's registry answered {status} for {path}")
    return body


def fetch_json(address: str, path: str, accept: str = "*/*") -> dict[str, Any]:
    """GET a JSON document that must be there."""
    value: dict[str, Any] = json.loads(fetch_ok(address, path, accept))
    return value
