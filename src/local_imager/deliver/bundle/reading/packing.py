"""The tar bytes of a part, whether it is compressed or not, filled into buffers of the caller.

Told by the first bytes, not by the file's name. What goes wrong is noted, not raised: the reader
says what of the bundle it takes along.
"""

from __future__ import annotations

from typing import BinaryIO, Final, Protocol, cast

from local_imager.deliver.bundle.reading.faults import FaultKind
from local_imager.deliver.bundle.reading.zstdframe import (
    MAGIC,
    MAX_WINDOW_BYTES,
    BadFrame,
    FrameBytes,
)
from local_imager.errors import InputError
from local_imager.events import printable

# An image of a disk that is mostly empty packs some hundred times; a bomb packs ten thousand.
MAX_RATIO: Final = 1000
RATIO_FREE_BYTES: Final = 64 * 1024 * 1024
_PACKED_CHUNK_BYTES: Final = 1024 * 1024
_HEAD_BYTES: Final = 6
_FOREIGN: Final = {
    b"\x1f\x8b": ("gzip", "gunzip -k"),
    b"\xfd7zXZ\x00": ("xz", "xz -dk"),
    b"BZh": ("bzip2", "bunzip2 -k"),
}


class Filler(Protocol):
    """Where the bytes of a tar come from."""

    problem: tuple[FaultKind, str] | None

    @property
    def packed_bytes(self) -> int:
        """How many bytes of the file were taken."""

    def fill(self, view: memoryview) -> int:
        """Fill the view; fewer bytes than it has room for mean the end, see ``problem``."""


def filler_for(stream: BinaryIO, name: str) -> Filler:
    """Look at the first bytes; raises :class:`InputError` for compressions that are not read."""
    plain = PlainBytes(stream)
    head = plain.look(_HEAD_BYTES)
    if head.startswith(MAGIC):
        return ZstdBytes(plain)
    for magic, (packing, command) in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(
                f"{name} is compressed with {packing}; a bundle is a tar, plain or with zstd",
                hint=f"unpack it first: {command} FILE",
                code="not-a-bundle",
            )
    return plain


class PlainBytes:
    """The bytes of a stream as they are."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ahead = b""
        self.problem: tuple[FaultKind, str] | None = None
        self.packed_bytes = 0

    def look(self, count: int) -> bytes:
        """Return the first bytes, which stay to be read."""
        view = memoryview(bytearray(count))
        self._ahead = bytes(view[: self.fill(view)])
        self.packed_bytes = 0
        return self._ahead

    def fill(self, view: memoryview) -> int:
        """Fill the view from the stream."""
        filled = len(self._ahead)
        if filled:
            view[:filled] = self._ahead
            self._ahead = b""
        while filled < len(view) and (count := self._some(view[filled:])):
            filled += count
        self.packed_bytes += filled
        return filled

    def _some(self, view: memoryview) -> int:
        if self.problem is not None:
            return 0
        try:
            # The protocol of streams has no readinto; files, pipes and BytesIO do.
            return cast(int, self._stream.readinto(view)) or 0  # type: ignore[attr-defined]
        except OSError as error:
            why = printable(error.strerror or str(error))
            self.problem = "truncated", f"the medium cannot be read further: {why}"
            return 0


class _Packed:
    """Small pieces of a plain stream, which is read in large ones."""

    def __init__(self, plain: PlainBytes) -> None:
        self._plain = plain
        self._chunk = memoryview(bytearray(_PACKED_CHUNK_BYTES))
        self._begin = self._end = 0

    def take(self, count: int) -> bytes:
        """Return exactly so many bytes, fewer only at the end."""
        taken = b""
        while True:
            part = self._chunk[self._begin : min(self._end, self._begin + count - len(taken))]
            self._begin += len(part)
            taken += part
            if len(taken) == count:
                return taken
            self._begin, self._end = 0, self._plain.fill(self._chunk)
            if not self._end:
                return taken


class ZstdBytes:
    """What one zstd frame unpacks to; a bomb, damage and bytes after the frame are noted."""

    def __init__(self, plain: PlainBytes) -> None:
        import zstandard

        self._plain = plain
        self._error: type[Exception] = zstandard.ZstdError
        self._packed = _Packed(plain)
        self._frame = FrameBytes(self._packed.take)
        engine = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._reader = engine.stream_reader(cast(BinaryIO, self._frame), closefd=False)
        self._unpacked_bytes = 0
        self.problem: tuple[FaultKind, str] | None = None

    @property
    def packed_bytes(self) -> int:
        """How many bytes of the file were taken."""
        return self._plain.packed_bytes

    def fill(self, view: memoryview) -> int:
        """Fill the view with unpacked bytes."""
        if self.problem is not None:
            return 0
        filled = 0
        try:
            while filled < len(view) and (count := self._reader.readinto(view[filled:])):
                filled += count
        except (BadFrame, self._error) as error:
            self.problem = self._damage(error)
        self._unpacked_bytes += filled
        self._check_ratio()
        if filled < len(view) and self.problem is None:
            self._check_end()
        return filled

    def _damage(self, error: Exception) -> tuple[FaultKind, str]:
        if self._plain.problem is not None:
            return self._plain.problem
        why = printable(str(error), limit=200)
        if not isinstance(error, BadFrame):
            why = f"the zstd decompressor says: {why}"
        return "compression", f"the compression is damaged near byte {self.packed_bytes}: {why}"

    def _check_ratio(self) -> None:
        total = self._unpacked_bytes
        if total > RATIO_FREE_BYTES and total > MAX_RATIO * max(1, self._frame.packed_bytes):
            self.problem = (
                "ratio",
                f"{self._frame.packed_bytes} bytes unpack to {total} and more, which is over "
                f"{MAX_RATIO} times as many: it looks like a decompression bomb",
            )

    def _check_end(self) -> None:
        if self._plain.problem is not None:
            self.problem = self._plain.problem
        elif self._packed.take(1):
            self.problem = "trailing", "more bytes follow after the compressed content"
