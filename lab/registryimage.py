"""Debian's docker-registry: the program for the host, and a small container image of it."""

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from lab.archives import Entry, write_layer
from lab.console import run
from lab.debian import download_host_package
from lab.registry import PROGRAM

IMAGE_NAME = "local-imager-lab/registry:2"

_CONFIG = """\
version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: /var/lib/registry
  delete:
    enabled: true
http:
  addr: :5000
"""


def make_registry(folder: Path) -> dict[str, Any]:
    """Unpack the Debian package in `folder`/unpacked and write `folder`/registry-image.tar.

    The image is a docker-archive that every engine loads; it listens on port 5000.
    """
    unpacked = download_host_package("docker-registry", folder)
    program = unpacked / PROGRAM
    entries = [
        Entry("bin/docker-registry", program, mode=0o755),
        Entry("etc/docker-registry.yml", _CONFIG.encode()),
        Entry("var/lib/registry", mode=0o777),
        Entry("tmp", mode=0o1777),
    ]
    entries += [Entry(path[1:], Path(path).resolve(), mode=0o755) for path in _libraries(program)]
    layer = write_layer(folder / "layer.tar.gz", entries)
    tar = gzip.decompress(layer.path.read_bytes())
    config = {
        "architecture": run(["dpkg", "--print-architecture"]).strip(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/bin/docker-registry", "serve", "/etc/docker-registry.yml"],
            "ExposedPorts": {"5000/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created_by": "local-imager lab"}],
    }
    raw = json.dumps(config).encode()
    name = hashlib.sha256(raw).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [IMAGE_NAME], "Layers": ["layer.tar"]}]
    archive = write_layer(
        folder / "registry-image.tar.gz",
        [
            Entry("manifest.json", json.dumps(manifest).encode()),
            Entry(f"{name}.json", raw),
            Entry("layer.tar", tar),
        ],
    )
    (folder / "registry-image.tar").write_bytes(gzip.decompress(archive.path.read_bytes()))
    archive.path.unlink()
    layer.path.unlink()
    return {"package": _version(), "config_digest": f"sha256:{name}"}


def _libraries(program: Path) -> list[str]:
    """Return the shared libraries and the loader that a program needs, as absolute paths."""
    listing = run(["ldd", program]) if not _is_static(program) else ""
    return sorted(set(re.findall(r"(/\S+) \(0x", listing)))


def _is_static(program: Path) -> bool:
    return b"/ld-linux" not in program.read_bytes()[: 1 << 16]


def _version() -> str:
    text = run(["apt-cache", "show", "--no-all-versions", "docker-registry"])
    found = re.search(r"^Version: (\S+)", text, re.MULTILINE)
    return f"docker-registry {found.group(1) if found else 'unknown'}"
