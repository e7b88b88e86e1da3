"""Deterministic archives: gzip-compressed tar layers, and newc cpio for an initramfs."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from lab.place import EPOCH_S


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link of an archive; a folder has neither content nor target.

    `content` is bytes or the path of a file to read; `path` has no leading slash.
    """

    path: str
    content: bytes | Path | None = None
    mode: int = 0o644
    link_target: str | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer file on disk: digests of it as it is and of the tar in it, and its size."""

    path: Path
    digest: str
    diff_id: str
    size_bytes: int


def with_folders(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries in order of their paths, each parent folder named before its content."""
    known = {entry.path: entry for entry in entries}
    for path in list(known):
        for parent in list(Path(path).parents)[:-1]:
            known.setdefault(str(parent), Entry(str(parent), mode=0o755))
    return [known[path] for path in sorted(known)]


class _HashingWriter(io.RawIOBase):
    """Passes bytes on and keeps their SHA-256 and number."""

    def __init__(self, target: BinaryIO) -> None:
        self.target = target
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        self.sha256.update(raw)
        self.size_bytes += len(raw)
        self.target.write(raw)
        return len(raw)

    def __enter__(self) -> Self:
        return self


def write_layer(target: Path, entries: Iterable[Entry], *, level: int = 6) -> Layer:
    """Write entries as a gzip-compressed tar, the same bytes for the same entries every time.

    Owner is root, times are the lab's epoch. gzip and not zstd, because older engines read no
    other.
    """
    with target.open("wb") as raw:
        outer = _HashingWriter(raw)
        with gzip.GzipFile("", "wb", level, outer, mtime=0) as packed:
            inner = _HashingWriter(packed)  # type: ignore[arg-type]
            with tarfile.open(fileobj=inner, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for entry in with_folders(entries):
                    _add_to_tar(tar, entry)
    return Layer(
        target,
        f"sha256:{outer.sha256.hexdigest()}",
        f"sha256:{inner.sha256.hexdigest()}",
        outer.size_bytes,
    )


def _add_to_tar(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mtime = EPOCH_S
    info.mode = entry.mode
    if entry.link_target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link_target
        tar.addfile(info)
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif isinstance(entry.content, bytes):
        info.size = len(entry.content)
        tar.addfile(info, io.BytesIO(entry.content))
    else:
        info.size = entry.content.stat().st_size
        with entry.content.open("rb") as source:
            tar.addfile(info, source)


def cpio_newc(entries: Iterable[Entry]) -> bytes:
    """Return entries as a newc cpio archive, the form that the kernel unpacks as initramfs."""
    out = bytearray()
    number = 0
    for entry in with_folders(entries):
        number += 1
        content, kind = b"", 0o100000
        if entry.link_target is not None:
            content, kind = entry.link_target.encode(), 0o120000
        elif entry.content is None:
            kind = 0o040000
        elif isinstance(entry.content, bytes):
            content = entry.content
        else:
            content = entry.content.read_bytes()
        _append_cpio(out, entry.path, content, kind | entry.mode, number)
    _append_cpio(out, "TRAILER!!!", b"", 0, 0)
    return bytes(out)


def _append_cpio(out: bytearray, path: str, content: bytes, mode: int, number: int) -> None:
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, EPOCH_S, len(content), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += b"\0" * (-len(out) % 4)
    out += content
    out += b"\0" * (-len(out) % 4)


def noise(seed: str, size_bytes: int) -> bytes:
    """Return incompressible bytes that follow from the seed alone."""
    return hashlib.shake_256(seed.encode()).digest(size_bytes)
