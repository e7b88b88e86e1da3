"""Files to and from an engine that does not share our file system, as tar streams.

What comes back was written by a container, so the stream is untrusted: only the wanted regular
files are taken, never more bytes than allowed, and runs of zeros become holes again.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from local_imager.build.chunks import CHUNK_BYTES, DIG_BYTES
from local_imager.build.container import ContainerUser
from local_imager.errors import BuildError
from local_imager.events import printable
from local_imager.oci.sparse import write_all

_ZEROS: Final = bytes(DIG_BYTES)


def tree_archive(root: Path, user: ContainerUser) -> Iterator[bytes]:
    """Stream a directory's content, names sorted, owned by the container's user."""
    uid, gid = _ids(user)
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        info = tarfile.TarInfo(str(path.relative_to(root)))
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = uid, gid
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            yield info.tobuf(tarfile.PAX_FORMAT)
        elif stat.S_ISREG(status.st_mode):
            info.size = status.st_size
            yield info.tobuf(tarfile.PAX_FORMAT)
            yield from _file_chunks(path, status.st_size)
    yield bytes(tarfile.RECORDSIZE)


def _file_chunks(path: Path, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    with path.open("rb") as stream:
        while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise BuildError(f"{path.name} became shorter while it was sent to the engine")
    yield bytes(-size_bytes % tarfile.BLOCKSIZE)


def folders_archive(names: Iterable[str], user: ContainerUser) -> bytes:
    """Return a tar of empty directories that belong to the container's user."""
    uid, gid = _ids(user)
    data = b""
    for name in names:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        info.uid, info.gid = uid, gid
        data += info.tobuf(tarfile.PAX_FORMAT)
    return data + bytes(tarfile.RECORDSIZE)


def _ids(user: ContainerUser) -> tuple[int, int]:
    uid, _, gid = user.inside.partition(":")
    return int(uid), int(gid)


def take_files(
    untrusted_stream: Iterable[bytes], wanted: frozenset[str], dest: Path, max_file_bytes: int
) -> None:
    """Take the wanted regular files, and nothing else, out of a tar stream into a directory.

    The stream is that of one file, or of a directory with files in it. Raises :class:`BuildError`
    for a link, device or other name, and for a file over the bound.
    """
    left = set(wanted)
    with _opened(untrusted_stream) as archive:
        while (info := archive.next()) is not None:
            depth = info.name.strip("./").count("/")
            if info.isdir() and depth == 0:
                continue
            name = os.path.basename(info.name)
            if not info.isreg() or info.issparse() or name not in left:
                raise BuildError(
                    f"the imager left {printable(info.name, limit=100)!r} in the output directory, "
                    "which is not a regular file that was asked for; nothing is kept",
                    code="output-unexpected",
                )
            if not 0 < info.size <= max_file_bytes:
                fault = f"larger than {max_file_bytes} bytes" if info.size else "empty"
                raise BuildError(f"{name} is {fault}", code="output-unexpected")
            left.discard(name)
            _take_member(archive, info, dest / name)
    if left:
        raise BuildError(
            f"the imager ended well but did not write {', '.join(sorted(left))}",
            code="output-missing",
            hint="the log says what it wrote",
        )


@contextlib.contextmanager
def _opened(untrusted_stream: Iterable[bytes]) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=_Reader(untrusted_stream), mode="r|") as archive:
            yield archive
    except tarfile.TarError as error:
        raise BuildError(f"the engine's answer is no whole tar stream: {error}") from error


def _take_member(archive: tarfile.TarFile, info: tarfile.TarInfo, dest: Path) -> None:
    stream = archive.extractfile(info)
    if stream is None:
        raise BuildError(f"{dest.name} has no content in the engine's answer")
    write_sparse(iter(lambda: stream.read(CHUNK_BYTES), b""), dest, info.size)


def unpack_zstd(untrusted_packed: Path, dest: Path, max_file_bytes: int) -> None:
    """Write the content of a zstd frame to a new file, zeros as holes.

    Raises :class:`BuildError` when the frame is damaged, or names no size or one over the bound.
    """
    import zstandard

    with untrusted_packed.open("rb") as stream:
        try:
            size_bytes = zstandard.frame_content_size(stream.read(18))
            if not 0 <= size_bytes <= max_file_bytes:
                raise BuildError(f"{dest.name} came with the size {size_bytes}")
            stream.seek(0)
            chunks = zstandard.ZstdDecompressor().read_to_iter(stream, write_size=CHUNK_BYTES)
            write_sparse(chunks, dest, size_bytes)
        except zstandard.ZstdError as error:
            raise BuildError(f"{dest.name} came damaged from the engine: {error}") from error


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def write_sparse(chunks: Iterable[bytes], dest: Path, size_bytes: int) -> None:
    """Write a new file of ``size_bytes``, leaving out blocks of zeros.

    Raises :class:`BuildError` when the stream holds fewer or more bytes.
    """
    with _new_file(dest) as handle:
        offset = 0
        for chunk in chunks:
            if offset + len(chunk) > size_bytes:
                raise BuildError(f"more bytes than announced came for {dest.name}")
            _write_blocks(handle, chunk, offset)
            offset += len(chunk)
        if offset != size_bytes:
            raise BuildError(f"{dest.name} was cut off after {offset} of {size_bytes} bytes")
        os.ftruncate(handle, size_bytes)


def _write_blocks(handle: int, chunk: bytes, offset: int) -> None:
    position = 0
    while position < len(chunk):
        # Aligned to the file, so that a hole found on one host is found on every one.
        step = DIG_BYTES - (offset + position) % DIG_BYTES
        block = chunk[position : position + step]
        if block != _ZEROS[: len(block)]:
            write_all(handle, block, offset + position)
        position += len(block)


class _Reader(io.RawIOBase):
    """A file-like view of an iterator of bytes, as tarfile's stream mode wants it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: list[Any] = []
        while size > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:size], self._rest[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
