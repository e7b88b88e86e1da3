"""Makes an installer independent of when it was made: its configuration names the epoch.

The imager writes the time of the run as ``created`` into the image's configuration (Talos
pkg/imager/out.go, ``outInstaller``), and the digest of that into the archive's manifest; layers
carry no times. The archive is a docker-archive of three sorts of members: the configuration, named
by its digest, first; the layers; ``manifest.json`` last. What looks otherwise is not touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from local_imager.build.initramfs import NotNormalisable

_BLOCK: Final = 512
# A configuration is a few KiB; more would not be one.
_MAX_DOCUMENT_BYTES: Final = 4 << 20
_MAX_MEMBERS: Final = 1000
_COPY_BYTES: Final = 1 << 20
_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    size_bytes: int
    header: bytes

    @property
    def end(self) -> int:
        return self.offset + _BLOCK + (self.size_bytes + _BLOCK - 1) // _BLOCK * _BLOCK


def fix_installer_time(path: Path, epoch: int) -> str:
    """Set the time of creation in a docker-archive of one image; returns what it was.

    The file is replaced by one with the same layers. Raises :class:`NotNormalisable` when it is not
    exactly such an archive; then it is as it was.
    """
    target = path.with_name(f"{path.name}.fixed")
    try:
        with path.open("rb") as stream, target.open("xb") as out:
            was = _rewrite(stream, out, epoch)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    os.chmod(target, path.stat().st_mode & 0o777)
    target.replace(path)
    return was


def _rewrite(stream: BinaryIO, out: BinaryIO, epoch: int) -> str:
    members = _members(stream)
    first, last = members[0], members[-1]
    if not first.name.startswith(_PREFIX) or last.name != "manifest.json" or len(members) < 3:
        raise NotNormalisable("the installer is not laid out as the imager lays it out")
    config, manifest = _content(stream, first), _content(stream, last)
    if first.name != _PREFIX + hashlib.sha256(config).hexdigest():
        raise NotNormalisable("the configuration of the installer has another digest than its name")
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    was, new_config = _with_created(config, created)
    new_name = _PREFIX + hashlib.sha256(new_config).hexdigest()
    new_manifest = _with_config(manifest, first.name, new_name)
    out.write(_document(first.header, new_name, new_config))
    _copy(stream, out, first.end, last.offset)
    out.write(_document(last.header, last.name, new_manifest))
    _copy(stream, out, last.end, None)
    return was


def _members(stream: BinaryIO) -> list[_Member]:
    members: list[_Member] = []
    offset = 0
    while True:
        stream.seek(offset)
        header = stream.read(_BLOCK)
        if header == bytes(_BLOCK) and members:
            return members
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise NotNormalisable(f"the installer is not a plain tar file: {error}") from error
        if not info.isreg() or _header(header, info.name, info.size) != header:
            raise NotNormalisable(f"a member of the installer is unusual: {info.name[:100]!r}")
        members.append(_Member(info.name, offset, info.size, header))
        offset = members[-1].end
        if len(members) > _MAX_MEMBERS:
            raise NotNormalisable("the installer has more members than any image has layers")


def _header(header: bytes, name: str, size_bytes: int) -> bytes:
    """Return a ustar header with another name and size; all else stays."""
    raw = bytearray(header)
    raw[0:100] = name.encode().ljust(100, b"\0")
    raw[124:136] = b"%011o\0" % size_bytes
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def _content(stream: BinaryIO, member: _Member) -> bytes:
    if member.size_bytes > _MAX_DOCUMENT_BYTES:
        raise NotNormalisable(f"{member.name} of the installer is too large")
    stream.seek(member.offset + _BLOCK)
    data = stream.read(member.size_bytes)
    if len(data) != member.size_bytes:
        raise NotNormalisable("the installer is cut off")
    return data


def _with_created(config: bytes, created: str) -> tuple[str, bytes]:
    document = _parsed(config)
    was = document.get("created") if isinstance(document, dict) else None
    if not isinstance(was, str):
        raise NotNormalisable("the configuration of the installer names no time")
    changed = config.replace(_field(was), _field(created), 1)
    if _parsed(changed) != {**document, "created": created}:
        raise NotNormalisable("the time in the configuration of the installer stands elsewhere")
    return was, changed


def _field(created: str) -> bytes:
    return f'"created":"{created}"'.encode()


def _with_config(manifest: bytes, old: str, new: str) -> bytes:
    document = _parsed(manifest)
    changed = manifest.replace(old.encode(), new.encode(), 1)
    listed = document[0] if isinstance(document, list) and len(document) == 1 else None
    renamed = [{**listed, "Config": new}] if isinstance(listed, dict) else None
    if renamed is None or document[0].get("Config") != old or _parsed(changed) != renamed:
        raise NotNormalisable("the manifest of the installer does not name its configuration")
    return changed


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotNormalisable(f"a document of the installer is not JSON: {error}") from error


def _document(header: bytes, name: str, content: bytes) -> bytes:
    return _header(header, name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _copy(stream: BinaryIO, out: BinaryIO, begin: int, end: int | None) -> None:
    stream.seek(begin)
    while data := stream.read(
        _COPY_BYTES if end is None else min(_COPY_BYTES, end - stream.tell())
    ):
        out.write(data)
