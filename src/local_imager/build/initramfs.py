"""Makes an initramfs with extensions the same on every day: times of its added entries are fixed.

The imager packs extensions with the cpio program, whose headers carry the time of the run, and puts
the result around the unchanged initramfs of the version: early microcode before it, not packed, and
everything else behind it, in one zstd or xz stream (Talos pkg/imager/extensions/rebuild.go). Here
these times become the epoch and the stream is packed again. That nothing else changes is checked
each time: the same rewriting with the times as they were has to give the bytes as they were. An
initramfs that is not built exactly like that is not touched.
"""

from __future__ import annotations

import hashlib
import lzma
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from local_imager.build.libraries import zstd_version
from local_imager.errors import Interrupted
from local_imager.formats.cpio import CpioReading, read_cpio, rewrite_times
from local_imager.formats.packing import HEAD_BYTES, after_zeros, unpack_one
from local_imager.formats.source import (
    CHUNK_BYTES,
    FileSource,
    FormatError,
    Slice,
    Source,
    Spill,
    stream,
)
from local_imager.oci.model import Digest
from local_imager.oci.sparse import hash_file

# The imager takes 18. What is packed is squashfs (packed already) and firmware.
INITRAMFS_ZSTD_LEVEL: Final = 9
# The imager takes 0e; the kernel's reader wants CRC-32 at most.
INITRAMFS_XZ_PRESET: Final = 0
_MAX_UNPACKED_BYTES: Final = 8 << 30


class NotNormalisable(Exception):
    """The initramfs is not built as it is known to be; ``str()`` says what is different."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """What was made of what: digests, how the added stream is packed, how many entries it adds.

    ``packed_with`` names the library: another one may give other bytes for the same content.
    """

    digest: Digest
    size_bytes: int
    plain_digest: Digest
    packing: str
    level: int
    packed_with: str
    entries: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that the build record has."""
        return {
            "digest": str(self.digest),
            "size_bytes": self.size_bytes,
            "plain_digest": str(self.plain_digest),
            "packing": self.packing,
            "level": self.level,
            "packed_with": self.packed_with,
            "entries": self.entries,
        }


def normalise_initramfs(
    plain: Path, base: Path, target: Path, *, epoch: int, cancel: threading.Event
) -> Normalised:
    """Write ``plain``, which the imager made around ``base``, to ``target`` with fixed times.

    Raises :class:`NotNormalisable` when it is not the base with archives around it, or holds
    anything that this module would not write the same way; ``Interrupted`` on ``cancel``.
    """
    if not 0 <= epoch < 1 << 32:
        raise NotNormalisable(f"the epoch {epoch} does not fit into a cpio header")
    try:
        with FileSource(plain) as whole, FileSource(base) as inner:
            begin = _base_offset(whole, inner)
            behind = begin + inner.size_bytes
            packed = unpack_one(whole, behind, max_bytes=_MAX_UNPACKED_BYTES)
            pack = _packer(packed.packing)
            pieces = _watched(packed, cancel)
            early = Slice(whole, 0, begin)
            with closing(Spill.of(pieces, max_bytes=_MAX_UNPACKED_BYTES)) as archive:
                if packed.end != whole.size_bytes:
                    raise NotNormalisable("something follows the stream with the extensions")
                entries = _checked(early) + _checked(archive)
                with target.open("xb") as out:
                    out.writelines(rewrite_times(early, epoch) if begin else ())
                    out.writelines(stream(inner))
                    sums = _pack(rewrite_times(archive, epoch), pack, out, cancel)
        _check_content(target, behind, sums)
    except FormatError as error:
        raise NotNormalisable(f"it cannot be read: {error.message}") from error
    digest, size_bytes = hash_file(target)
    plain_digest, _ = hash_file(plain)
    return Normalised(
        digest, size_bytes, plain_digest, packed.packing, pack.level, pack.library, entries
    )


def _checked(archive: Source) -> int:
    """Return how many entries there are, once rewriting is known to change their times alone."""
    if not archive.size_bytes:
        return 0
    before, after = hashlib.sha256(), hashlib.sha256()
    for piece in stream(archive):
        before.update(piece)
    for piece in rewrite_times(archive, None):
        after.update(piece)
    if before.digest() != after.digest():
        raise NotNormalisable("an archive in it cannot be written again as it was")
    return sum(1 for _ in read_cpio(archive))


def _watched(pieces: Iterable[bytes], cancel: threading.Event) -> Iterator[bytes]:
    for piece in pieces:
        if cancel.is_set():
            raise Interrupted("the initramfs was not finished")
        yield piece


def _base_offset(whole: Source, base: Source) -> int:
    """Return where the unchanged base lies: at the begin, or behind a plain archive and zeros."""
    begin = 0
    head = min(HEAD_BYTES, base.size_bytes, whole.size_bytes)
    if whole.read(0, head) != base.read(0, head):
        reading = CpioReading(stream(whole), several=False)
        for _ in reading:
            pass
        begin = after_zeros(whole, reading.end)
    if begin + base.size_bytes >= whole.size_bytes:
        raise NotNormalisable("nothing was added behind the initramfs of the version")
    for offset in range(0, base.size_bytes, CHUNK_BYTES):
        length = min(CHUNK_BYTES, base.size_bytes - offset)
        if whole.read(begin + offset, length) != base.read(offset, length):
            raise NotNormalisable("the initramfs of the version is not in it unchanged")
    return begin


@dataclass(frozen=True, slots=True)
class _Packer:
    """How the added stream is packed: one thread, so the bytes depend on the content alone."""

    level: int
    library: str
    start: Callable[[], Any]


def _packer(packing: str) -> _Packer:
    if packing == "zstd":
        import zstandard

        # As the zstd program packs a pipe: a checksum, no size.
        compressor = zstandard.ZstdCompressor(
            level=INITRAMFS_ZSTD_LEVEL, write_checksum=True, write_content_size=False
        )
        return _Packer(INITRAMFS_ZSTD_LEVEL, zstd_version(), compressor.compressobj)
    if packing == "xz":
        return _Packer(
            INITRAMFS_XZ_PRESET,
            "liblzma",
            lambda: lzma.LZMACompressor(
                lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, preset=INITRAMFS_XZ_PRESET
            ),
        )
    raise NotNormalisable(f"the extensions are packed with {packing}")


def _pack(
    pieces: Iterable[bytes], pack: _Packer, out: BinaryIO, cancel: threading.Event
) -> tuple[str, int]:
    """Pack a stream; returns the SHA-256 (hex) and length of what went in."""
    sums, size_bytes, engine = hashlib.sha256(), 0, pack.start()
    for piece in _watched(_gathered(pieces), cancel):
        sums.update(piece)
        size_bytes += len(piece)
        out.write(engine.compress(piece))
    out.write(engine.flush())
    return sums.hexdigest(), size_bytes


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces: the engines are called a few times, not for each header."""
    held: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        held.append(piece)
        size_bytes += len(piece)
        if size_bytes >= CHUNK_BYTES:
            yield b"".join(held)
            held, size_bytes = [], 0
    yield b"".join(held)


def _check_content(target: Path, offset: int, expected: tuple[str, int]) -> None:
    """Unpack what was packed: whatever a library did, only the right content goes on."""
    with FileSource(target) as made:
        packed = unpack_one(made, offset, max_bytes=_MAX_UNPACKED_BYTES)
        sums, size_bytes = hashlib.sha256(), 0
        for piece in packed:
            sums.update(piece)
            size_bytes += len(piece)
        if packed.end != made.size_bytes or (sums.hexdigest(), size_bytes) != expected:
            raise NotNormalisable("what was packed unpacks to something else")
