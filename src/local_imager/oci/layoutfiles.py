"""Read-only access to the files of a layout, in a directory or inside a tar, without unpacking.

What is read here is untrusted: archives are parsed header by header with named ceilings, and
nothing of them is written anywhere.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from local_imager.errors import NotFound, SourceError
from local_imager.oci.blobs import open_regular
from local_imager.oci.model import Digest

CHUNK_BYTES: Final = 1 << 20
# A layout has a few files per image; ten thousand images are far more than any bundle.
MAX_MEMBERS: Final = 200_000
# Extended headers hold a path and a few numbers.
MAX_EXTENDED_BYTES: Final = 64 * 1024
# As many as a 64-bit number has; Python refuses to read thousands of them.
_MAX_DIGITS: Final = 20
_BLOCK: Final = 512
_BLOB: Final = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_REGULAR: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_EXTENDED: Final = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
}


class LayoutFiles(Protocol):
    """The files of one layout."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""

    def small(self, name: str, max_bytes: int) -> bytes:
        """Return ``oci-layout`` or ``index.json``; at most one byte more than ``max_bytes``."""

    def size(self, digest: Digest) -> int | None:
        """Return a blob's size, or None when it is not there."""

    def chunks(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes of a blob, at most ``length``, fewer when the file ends."""

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """Yield all blobs with their sizes."""


def _stream(stream: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    stream.seek(offset)
    while length > 0:
        chunk = stream.read(min(length, CHUNK_BYTES))
        if not chunk:
            return
        length -= len(chunk)
        yield chunk


class DirectoryFiles:
    """A layout in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._path)

    def small(self, name: str, max_bytes: int) -> bytes:
        """Return a file of the layout's root; raises :class:`SourceError`."""
        try:
            with os.fdopen(open_regular(self._path / name), "rb") as stream:
                return stream.read(min(os.fstat(stream.fileno()).st_size, max_bytes) + 1)
        except FileNotFoundError:
            raise SourceError(
                f"{self._path} is not an OCI image layout: it has no {name}",
                hint="give the directory that holds oci-layout and index.json",
            ) from None
        except OSError as error:
            raise SourceError(f"could not read {self._path / name}: {error.strerror}") from error

    def _place(self, digest: Digest) -> Path:
        return self._path / "blobs" / "sha256" / digest.hex

    def size(self, digest: Digest) -> int | None:
        """Return the file's size when it is a regular file."""
        path = self._place(digest)
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError:
            return None

    def chunks(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes of the blob file; raises :class:`SourceError` when it cannot be read."""
        try:
            with os.fdopen(open_regular(self._place(digest)), "rb") as stream:
                yield from _stream(stream, offset, length)
        except OSError as error:
            raise SourceError(f"could not read blob {digest}: {error.strerror}") from error

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """Yield what looks like blobs in the directory."""
        try:
            names = sorted(os.listdir(self._path / "blobs" / "sha256"))
        except OSError:
            return
        for name in names[:MAX_MEMBERS]:
            if re.fullmatch(r"[0-9a-f]{64}", name):
                size_bytes = self.size(Digest(name))
                if size_bytes is not None:
                    yield Digest(name), size_bytes


class TarFiles:
    """A layout inside an uncompressed tar; members are read in place by their offsets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        members = _scan(path)
        root = _root_of(members)
        self._members = {
            name[len(root) :]: place for name, place in members.items() if name.startswith(root)
        }

    @property
    def location(self) -> str:
        """The archive file."""
        return str(self._path)

    def small(self, name: str, max_bytes: int) -> bytes:
        """Return a file of the layout's root; raises :class:`SourceError`."""
        if name not in self._members:
            raise SourceError(f"{self._path} is not a tar of an OCI layout: it has no {name}")
        offset, size_bytes = self._members[name]
        with self._open() as stream:
            return b"".join(_stream(stream, offset, min(size_bytes, max_bytes + 1)))

    def _open(self) -> BinaryIO:
        try:
            return os.fdopen(open_regular(self._path), "rb")
        except OSError as error:
            raise SourceError(f"could not read {self._path}: {error.strerror}") from error

    def size(self, digest: Digest) -> int | None:
        """Return the member's size."""
        place = self._members.get(f"blobs/sha256/{digest.hex}")
        return place[1] if place else None

    def chunks(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Yield bytes of the member; raises :class:`NotFound`."""
        place = self._members.get(f"blobs/sha256/{digest.hex}")
        if place is None:
            raise NotFound(f"{self._path} has no blob {digest}")
        begin, size_bytes = place
        with self._open() as stream:
            yield from _stream(stream, begin + offset, max(0, min(length, size_bytes - offset)))

    def blobs(self) -> Iterator[tuple[Digest, int]]:
        """Yield the members that are blobs."""
        for name, (_, size_bytes) in self._members.items():
            match = _BLOB.fullmatch(name)
            if match:
                yield Digest(match[1]), size_bytes


Members = dict[str, tuple[int, int]]


def _root_of(members: Members) -> str:
    """Return the one folder in which the layout lies: ``tar cf x.tar layout`` adds one."""
    for name in members:
        folder, _, last = name.rpartition("/")
        if last == "oci-layout" and "/" not in folder:
            return folder + "/" if folder else ""
    return ""


def _scan(path: Path) -> Members:
    """List the regular files of an archive with offset and size; raises :class:`SourceError`."""
    try:
        stream = os.fdopen(open_regular(path), "rb")
    except OSError as error:
        raise SourceError(f"could not read {path}: {error.strerror or error}") from error
    with stream:
        _refuse_compressed(stream.read(8), path)
        total = os.fstat(stream.fileno()).st_size
        return _Scanner(stream, total, str(path)).run()


def _refuse_compressed(begin: bytes, path: Path) -> None:
    for magic, name in _COMPRESSED.items():
        if begin.startswith(magic):
            raise SourceError(
                f"{path} is compressed ({name}); members of it cannot be read in place",
                hint="decompress it first; image layers are compressed already",
            )


class _Scanner:
    """Walks tar headers; only plain files, directories and bounded extended headers are legal."""

    def __init__(self, stream: BinaryIO, total_bytes: int, what: str) -> None:
        self._stream, self._total, self._what = stream, total_bytes, what
        self._members: Members = {}
        self._override: dict[str, str] = {}

    def run(self) -> Members:
        """Return every regular file by its cleaned name."""
        position = count = 0
        while position + _BLOCK <= self._total:
            self._stream.seek(position)
            block = self._stream.read(_BLOCK)
            if block.count(0) == _BLOCK:
                break
            count += 1
            if count > MAX_MEMBERS:
                raise self._bad(f"it has more than {MAX_MEMBERS} members")
            position = self._take(self._header(block), position + _BLOCK)
        return self._members

    def _bad(self, why: str) -> SourceError:
        return SourceError(
            f"{self._what} is not a tar of an OCI layout: {why}",
            hint="make it again with `tar -C LAYOUT -cf FILE oci-layout index.json blobs`",
            code="malformed",
        )

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._bad(f"a header is damaged ({error})") from error

    def _take(self, info: tarfile.TarInfo, data: int) -> int:
        size_bytes = info.size
        if info.type in _REGULAR and "size" in self._override:
            size_bytes = int(self._override["size"])
        if size_bytes < 0 or data + size_bytes > self._total:
            raise self._bad("it is truncated (a member reaches beyond the end)")
        after = data + -(-size_bytes // _BLOCK) * _BLOCK
        if info.type in _EXTENDED or info.type == tarfile.GNUTYPE_LONGNAME:
            self._extended(info.type, size_bytes)
            return after
        name = self._clean(self._override.get("path", info.name))
        self._override = {}
        if info.type == tarfile.DIRTYPE:
            return after
        if info.type not in _REGULAR:
            raise self._bad(f"{name[:80]!r} is a link or device")
        if name in self._members:
            raise self._bad(f"{name[:80]!r} is there twice")
        self._members[name] = (data, size_bytes)
        return after

    def _clean(self, name: str) -> str:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or len(name) > 4096:
            raise self._bad("a member's name leaves the archive")
        return "/".join(parts)

    def _extended(self, kind: bytes, size_bytes: int) -> None:
        if size_bytes > MAX_EXTENDED_BYTES:
            raise self._bad("an extended header is too large")
        data = self._stream.read(size_bytes)
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._override["path"] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind != tarfile.XGLTYPE:
            self._override.update(self._records(data))

    def _records(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Read pax records ``<length> <key>=<value>\\n``; only path and size matter here."""
        begin, end = 0, len(data.rstrip(b"\0"))
        while begin < end:
            length_text, _, _ = data[begin : begin + _MAX_DIGITS + 1].partition(b" ")
            length = int(length_text) if length_text.isdigit() else 0
            if not len(length_text) < length <= len(data) - begin:
                raise self._bad("an extended header is damaged")
            record = data[begin + len(length_text) + 1 : begin + length]
            begin += length
            key, _, value = record.rstrip(b"\n").partition(b"=")
            is_size = value.isdigit() and len(value) <= _MAX_DIGITS
            if key.startswith(b"GNU.sparse") or (key == b"size" and not is_size):
                raise self._bad("it holds sparse members or sizes that are no numbers")
            if key in (b"path", b"size"):
                yield key.decode(), value.decode("utf-8", "surrogateescape")
