"""Reading a layer's bytes as a plain stream, whatever it is packed with, within ceilings.

The packing is told by its first bytes, not by the media type, which registries get wrong.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Final, cast

from local_imager.errors import SourceError

# The largest official image (imager) unpacks to less than 2 GiB.
MAX_UNPACKED_BYTES: Final = 16 * 1024**3
# Kernels, modules and firmware pack 2 to 5 times; 200 leaves room for an image full of zeros.
MAX_RATIO: Final = 200
# Small archives may pack better than that without harm.
RATIO_FREE_BYTES: Final = 256 * 1024**2
_PIECE: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# zstd -19 --long needs 128 MiB at most; a frame may ask for terabytes.
_MAX_ZSTD_WINDOW: Final = 128 * 1024**2


class BoundedStream:
    """Reads the unpacked bytes of a file; a bomb ends in an error, not in a full memory."""

    def __init__(self, packed: IO[bytes], what: str) -> None:
        self._what = what
        self._packed_bytes = 0
        self._total = 0
        self._buffer = bytearray()
        self._pieces = self._unpack(packed)

    def read(self, count: int) -> bytes:
        """Return exactly this many bytes, fewer only at the end; raises :class:`SourceError`."""
        while len(self._buffer) < count:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._total += len(piece)
            self._check_ceilings()
            self._buffer += piece
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _check_ceilings(self) -> None:
        bomb = self._total > RATIO_FREE_BYTES and self._total > MAX_RATIO * self._packed_bytes
        if bomb or self._total > MAX_UNPACKED_BYTES:
            raise SourceError(
                f"{self._what} unpacks to far more than an image holds",
                hint="it looks like a decompression bomb; nothing of it was used",
                code="too-large",
            )

    def _raw(self, packed: IO[bytes]) -> Iterator[bytes]:
        while piece := packed.read(_PIECE):
            self._packed_bytes += len(piece)
            yield piece

    def _unpack(self, packed: IO[bytes]) -> Iterator[bytes]:
        magic = packed.read(4)
        packed.seek(0)
        if magic.startswith(_GZIP):
            yield from self._gunzip(packed)
        elif magic == _ZSTD:
            yield from self._unzstd(packed)
        else:
            yield from self._raw(packed)

    def _gunzip(self, packed: IO[bytes]) -> Iterator[bytes]:
        """Unpack gzip members one after the other (pigz and estargz write several)."""
        engine = zlib.decompressobj(31)
        started = False
        try:
            for piece in self._raw(packed):
                data, pending = piece, True
                while data or pending:
                    if engine.eof:
                        engine = zlib.decompressobj(31)
                    started = True
                    unpacked = engine.decompress(data, _PIECE)
                    yield unpacked
                    data = engine.unused_data if engine.eof else engine.unconsumed_tail
                    # A full piece may leave more inside, though all input was taken.
                    pending = not engine.eof and len(unpacked) == _PIECE
        except zlib.error as error:
            raise self._damaged() from error
        if started and not engine.eof:
            raise self._damaged()

    def _unzstd(self, packed: IO[bytes]) -> Iterator[bytes]:
        import zstandard

        counting = cast(IO[bytes], _CountingFile(packed, self))
        engine = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
        try:
            with engine.stream_reader(counting, read_across_frames=True, closefd=False) as reader:
                while piece := reader.read(_PIECE):
                    yield piece
        except zstandard.ZstdError as error:
            raise self._damaged() from error

    def _damaged(self) -> SourceError:
        return SourceError(f"{self._what} is damaged: it does not unpack", code="malformed")

    def count_packed(self, size: int) -> None:
        """Note that this many packed bytes were taken."""
        self._packed_bytes += size


class _CountingFile:
    """What zstandard reads from, so that the ratio can be told."""

    def __init__(self, packed: IO[bytes], stream: BoundedStream) -> None:
        self._packed, self._stream = packed, stream

    def read(self, size: int = -1) -> bytes:
        """Read packed bytes and count them."""
        data = self._packed.read(size if size > 0 else _PIECE)
        self._stream.count_packed(len(data))
        return data
