"""The time of making is taken out of an installer, and nothing else changes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from local_imager.build.initramfs import NotNormalisable
from local_imager.build.installer import fix_installer_time

EPOCH = 1559424892
FIXED = "2019-06-01T21:34:52Z"
NOW = "2026-11-21T14:22:39.767536351Z"
LAYERS = {"aa.tar.gz": b"layer one" * 100, "bb.tar.gz": b"layer two" * 300}
PLAIN: dict[str, Any] = {
    "architecture": "amd64",
    "created": NOW,
    "history": [{"created": "0001-01-01T00:00:00Z"}],
    "config": {"Labels": {"created": NOW}},
}


def text(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def archive(config: bytes, **more: Any) -> bytes:
    """A docker-archive as go-containerregistry writes it."""
    name = more.get("name", f"sha256:{hashlib.sha256(config).hexdigest()}")
    entry = {"Config": name, "RepoTags": ["siderolabs/installer:v1"], "Layers": list(LAYERS)}
    members = {name: config, **LAYERS, "manifest.json": more.get("manifest", text([entry]))}
    out = io.BytesIO()
    for member, data in members.items():
        info = tarfile.TarInfo(member)
        info.size, info.mode = len(data), 0o644
        info.devmajor = info.devminor = 0
        out.write(go_header(info) + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(more.get("end", 1024))


def go_header(info: tarfile.TarInfo) -> bytes:
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "installer.tar"


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def test_two_times_give_the_same_bytes(path: Path) -> None:
    found = set()
    for when in (NOW, "2026-11-21T14:23:07.27Z", "2031-01-01T00:00:00Z"):
        path.write_bytes(archive(text({**PLAIN, "created": when})))
        assert fix_installer_time(path, EPOCH) == when
        found.add(path.read_bytes())
    assert len(found) == 1


def test_only_the_time_and_what_names_it_change(path: Path) -> None:
    path.write_bytes(archive(text(PLAIN)))
    path.chmod(0o600)
    fix_installer_time(path, EPOCH)
    found = contents(path)
    (listed,) = json.loads(found.pop("manifest.json"))
    config = found.pop(listed["Config"])
    assert listed["Config"] == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert json.loads(config) == {**PLAIN, "created": FIXED}
    assert (listed["Layers"], listed["RepoTags"]) == (list(LAYERS), ["siderolabs/installer:v1"])
    assert found == LAYERS
    assert path.stat().st_mode & 0o777 == 0o600


CONFIG = text(PLAIN)
REFUSED = {
    "another digest": archive(CONFIG, name="sha256:" + "0" * 64),
    "no digest": archive(CONFIG, name="config.json"),
    "no time": archive(text({"history": []})),
    "a time inside": archive(text({"history": [{"created": NOW}], "created": NOW})),
    "spaces": archive(json.dumps(PLAIN).encode()),
    "no object": archive(b"[]"),
    "no JSON": archive(b"{"),
    "another manifest": archive(CONFIG, manifest=b"[{}]"),
    "two images": archive(CONFIG, manifest=b"[{},{}]"),
    "no list": archive(CONFIG, manifest=b"{}"),
    "numbers": archive(CONFIG, manifest=b"[1]"),
    "cut off": archive(CONFIG)[:700],
    "without end": archive(CONFIG, end=0),
    "no tar": b"x" * 2048,
    "empty": b"",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_laid_out_otherwise_stays_as_it_is(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(NotNormalisable):
        fix_installer_time(path, EPOCH)
    assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
