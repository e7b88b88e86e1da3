"""Packing a content again so that the same bytes come out: possible for some gzip and zstd blobs.

The bytes of a packed layer depend on program, level and library. Where one of the libraries at hand
made them, trying its levels finds which; what a Go program packed does not repeat here. Whoever
packs again elsewhere compares the digest: another version of the library may pack otherwise.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from local_imager.deliver.bundle.deltas.content import Content

# Several blocks of either format, in which a wrong level shows; a disk image may begin with zeros,
# which all levels pack alike.
_PROBES_BYTES: Final = (256 << 10, 1 << 20, 4 << 20)
_MAX_LIKELY: Final = 3
_MAX_GZIP_HEADER: Final = 512
# Both libraries give the same bytes however the input is cut, but it costs nothing to be sure.
PIECE_BYTES: Final = 256 * 1024
_NAME: Final = re.compile(r"gzip-[1-9]|zstd-(?:[1-9]|1[0-9])(?:-checksum)?(?:-size)?")
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# The usual ones first: they decide where several levels give the same bytes.
_GZIP_LEVELS: Final = (6, 9, 1, 5, 4, 3, 2, 7, 8)
# Levels over 19 need more memory than is granted here.
_ZSTD_LEVELS: Final = (3, 18, 19, *range(1, 3), *range(4, 18))


class Packer(Protocol):
    """Takes a content in order and gives what is packed of it, perhaps later."""

    def compress(self, data: bytes) -> bytes:
        """Take the next bytes."""

    def flush(self) -> bytes:
        """Take the end."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to pack: ``name`` (``gzip-6``, ``zstd-18-checksum-size``), for gzip with its header."""

    name: str
    header: bytes = b""

    def library(self) -> str:
        """Return the library that packs, with its version."""
        if self.name.startswith("gzip"):
            return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
        import zstandard

        return f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"

    def packer(self, size_bytes: int) -> Packer:
        """Return a packer for a content of this size."""
        if self.name.startswith("gzip"):
            return _Gzip(int(self.name[-1]), self.header)
        import zstandard

        _, level, *options = self.name.split("-")
        engine = zstandard.ZstdCompressor(
            level=int(level),
            write_checksum="checksum" in options,
            write_content_size="size" in options,
        )
        if "size" in options:
            return engine.compressobj(size=size_bytes)
        return engine.compressobj()

    def pack(self, content: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
        """Yield the packed bytes of a content in pieces."""
        packer = self.packer(size_bytes)
        for chunk in content:
            for begin in range(0, len(chunk), PIECE_BYTES):
                if output := packer.compress(chunk[begin : begin + PIECE_BYTES]):
                    yield output
        yield packer.flush()


class _Gzip:
    """One gzip member (RFC 1952) behind a given header."""

    def __init__(self, level: int, header: bytes) -> None:
        self._engine = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._begin, self._crc, self._size = header, 0, 0

    def compress(self, data: bytes) -> bytes:
        """Take the next bytes."""
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        begin, self._begin = self._begin, b""
        return begin + self._engine.compress(data)

    def flush(self) -> bytes:
        """Take the end: the last block, checksum and size."""
        trailer = self._crc.to_bytes(4, "little") + (self._size % 2**32).to_bytes(4, "little")
        return self._begin + self._engine.flush() + trailer


def parse_codec(name: str, header: bytes) -> Codec | None:
    """Return the codec of a name, None when it is none that is known here."""
    if not _NAME.fullmatch(name) or len(header) > _MAX_GZIP_HEADER:
        return None
    if name.startswith("gzip") != bool(header):
        return None
    return Codec(name, header)


def is_packed(head: bytes) -> bool:
    """Say by its first four bytes whether a blob is gzip or zstd."""
    return head.startswith(_GZIP_MAGIC[:2]) or head.startswith(_ZSTD_MAGIC)


def likely_codecs(packed: Content, content_head: Callable[[int], bytes]) -> tuple[Codec, ...]:
    """Return the codecs that give a packed blob's first bytes, the usual ones first; at most three.

    ``content_head(n)`` gives the first n bytes of what is packed. Only packing all of it and
    comparing shows which of them it was.
    """
    likely = tuple(_possible(packed.read_at(0, _MAX_GZIP_HEADER)))
    for probe_bytes in _PROBES_BYTES:
        if len(likely) > 1:
            head = content_head(probe_bytes)
            likely = tuple(codec for codec in likely if _gives(codec, head, packed))
    return likely[:_MAX_LIKELY]


def _gives(codec: Codec, head: bytes, packed: Content) -> bool:
    """Whether what a codec has written after the first bytes is how the packed blob begins."""
    packer = codec.packer(_told_size(packed))
    pieces = (head[begin : begin + PIECE_BYTES] for begin in range(0, len(head), PIECE_BYTES))
    made = b"".join(packer.compress(piece) for piece in pieces)
    return packed.read_at(0, len(made)) == made


def _told_size(packed: Content) -> int:
    """Return the content's size if the blob tells it: a zstd level depends on it a little."""
    import zstandard

    head = packed.read_at(0, _MAX_GZIP_HEADER)
    told = zstandard.get_frame_parameters(head).content_size if head[:4] == _ZSTD_MAGIC else 0
    return told if told != zstandard.CONTENTSIZE_UNKNOWN else 0


def _possible(head: bytes) -> Iterator[Codec]:
    """Yield the codecs that a blob's first bytes allow."""
    if head.startswith(_GZIP_MAGIC):
        if header := gzip_header(head):
            yield from (Codec(f"gzip-{level}", header) for level in _GZIP_LEVELS)
    elif head.startswith(_ZSTD_MAGIC):
        import zstandard

        try:
            frame = zstandard.get_frame_parameters(head)
        except zstandard.ZstdError:
            return
        options = "-checksum" if frame.has_checksum else ""
        if frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            options += "-size"
        yield from (Codec(f"zstd-{level}{options}") for level in _ZSTD_LEVELS)


def gzip_header(head: bytes) -> bytes:
    """Return the header of a gzip member, empty when it is not all there."""
    if len(head) < 10:
        return b""
    flags, end = head[3], 10
    if flags & 4:  # FEXTRA
        end += 2 + int.from_bytes(head[end : end + 2], "little")
    for flag in (8, 16):  # FNAME, FCOMMENT
        if flags & flag:
            end = head.find(b"\0", end) + 1
            if end == 0:
                return b""
    if flags & 2:  # FHCRC
        end += 2
    return head[:end] if end <= min(len(head), _MAX_GZIP_HEADER) else b""
