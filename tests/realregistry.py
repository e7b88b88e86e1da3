"""A real registry (Debian's docker-registry) on loopback, filled over its own API."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from lab.registry import listening_at
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Index, Manifest, Reference
from local_imager.oci.names import attached_to

CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "127.0.0.1:0"}}
{auth}
"""


@functools.cache
def program() -> str:
    """Return the registry program: installed, from the lab, or unpacked from its package."""
    lab = Path(os.environ.get("LOCAL_IMAGER_LAB") or Path.home() / ".cache/local-imager-lab")
    unpacked = lab / "steps/registry/unpacked/usr/bin/docker-registry"
    found = shutil.which("docker-registry") or (str(unpacked) if unpacked.is_file() else None)
    if found is None:
        folder = Path(tempfile.gettempdir()) / f"docker-registry-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        subprocess.run(["apt-get", "-q", "download", "docker-registry"], cwd=folder, check=True)
        package = next(folder.glob("docker-registry_*.deb"))
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
        found = str(folder / "root/usr/bin/docker-registry")
    return found


@contextlib.contextmanager
def running_registry(folder: Path, *, auth: str = "") -> Iterator[str]:
    """Run a registry with its storage in ``folder`` and yield ``127.0.0.1:PORT``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(CONFIG.format(storage=folder / "storage", auth=auth))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program(), "serve", str(config)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")},
        )
    try:
        yield _await_address(folder / "log", process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s and process.poll() is None:
        address = listening_at(log)
        with contextlib.suppress(httpx.TransportError):
            if address and httpx.get(f"http://{address}/v2/").status_code in (200, 401):
                return address
        time.sleep(0.05)
    raise RuntimeError(f"docker-registry did not start: {log.read_text(errors='replace')}")


def push_layout(layout: Layout, address: str, *, auth: tuple[str, str] | None = None) -> None:
    """Push every named entry of a layout under its repository and tag."""
    with httpx.Client(base_url=f"http://{address}", auth=auth) as client:
        for entry in sorted(layout.entries(), key=lambda e: attached_to(e.ref_name) is not None):
            reference = Reference.parse(entry.ref_name)
            _push(layout, client, entry, reference.repository, reference.tag)


def _push(
    layout: Layout, client: httpx.Client, entry: Descriptor, repository: str, name: str
) -> None:
    manifest = layout.read_manifest(entry)
    if isinstance(manifest, Index):
        for child in manifest.manifests:
            _push(layout, client, child, repository, str(child.digest))
    if isinstance(manifest, Manifest):
        for blob in (manifest.config, *manifest.layers):
            begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
            place = httpx.URL(begun.headers["Location"])
            client.put(
                place.copy_merge_params({"digest": str(blob.digest)}),
                content=layout.blob_path(blob.digest).read_bytes(),
            ).raise_for_status()
    client.put(
        f"/v2/{repository}/manifests/{name}",
        content=manifest.raw,
        headers={"Content-Type": entry.media_type},
    ).raise_for_status()
