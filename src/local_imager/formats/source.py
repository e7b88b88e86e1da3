"""Bytes at offsets: files, parts of files and what was unpacked, behind one small protocol.

Readers ask for what they need and get exactly that or a :class:`FormatError`; no length that a
file claims is believed before the bytes are there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from local_imager.errors import InputError

CHUNK_BYTES: Final = 1 << 20
# One read of a reader: enough for every table that a boot file has, far below the memory limit.
MAX_READ_BYTES: Final = 64 << 20
_ZEROS: Final = bytes(CHUNK_BYTES)
# Zeros in unpacked streams become holes from this length on.
_HOLE_BYTES: Final = 64 << 10
_HOLE: Final = bytes(_HOLE_BYTES)
# Unpacked streams are kept in memory up to here, then in an unnamed file.
_SPILL_BYTES: Final = 4 << 20


class FormatError(InputError):
    """A file breaks the rules of its format: truncated, looping, oversized or lying."""

    code = "damaged-file"


class Source(Protocol):
    """Random access to ``size_bytes`` bytes."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset``; raises :class:`FormatError`."""

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield ``(offset, length)`` of what may hold other bytes than zero, in order."""


def checked(source: Source, offset: int, length: int) -> None:
    """Refuse a range that the source does not have or that is too large for one read."""
    if offset < 0 or length < 0 or offset + length > source.size_bytes:
        raise FormatError(
            f"the file ends before byte {offset + length} ({source.size_bytes} bytes are there)"
        )
    if length > MAX_READ_BYTES:
        raise FormatError(f"a table of {length} bytes is larger than any real one")


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        return self._data[offset : offset + length]

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        if offset < min(offset + length, self.size_bytes):
            yield offset, min(length, self.size_bytes - offset)


class FileSource:
    """An open file; holes are known to be zeros without reading them.

    Use as a context manager, or call :meth:`close`. The file must not change meanwhile; the
    position of one that was opened elsewhere is not kept.
    """

    def __init__(self, file: Path | BinaryIO) -> None:
        if isinstance(file, Path):
            handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        else:
            handle = os.dup(file.fileno())
        self._handle = handle
        self.size_bytes = os.fstat(handle).st_size

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        parts: list[bytes] = []
        while length:
            data = os.pread(self._handle, length, offset)
            if not data:
                raise FormatError("the file became shorter while it was read")
            parts.append(data)
            offset, length = offset + len(data), length - len(data)
        return b"".join(parts)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`; a file system without holes answers with all of it."""
        end = min(offset + length, self.size_bytes)
        while offset < end:
            try:
                start = os.lseek(self._handle, offset, os.SEEK_DATA)
                stop = os.lseek(self._handle, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                start, stop = offset, end
            start, stop = min(start, end), min(stop, end)
            if start < stop:
                yield start, stop - start
            offset = max(stop, offset + 1)


class Slice:
    """A part of another source."""

    def __init__(self, source: Source, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > source.size_bytes:
            raise FormatError(
                f"a part of {length} bytes at {offset} lies outside ({source.size_bytes} bytes)"
            )
        self._source = source
        self._offset = offset
        self.size_bytes = length

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        return self._source.read(self._offset + offset, length)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        end = min(offset + length, self.size_bytes)
        if offset < end:
            for start, count in self._source.data_runs(self._offset + offset, end - offset):
                yield start - self._offset, count


class Joined:
    """Parts of sources one after the other: a file in pieces, with ``None`` for a hole."""

    def __init__(self, pieces: Iterable[tuple[Source | None, int, int]]) -> None:
        """``pieces`` are (source or None for zeros, offset in it, length in bytes)."""
        self._pieces: list[tuple[int, Source | None, int, int]] = []
        position = 0
        for source, offset, length in pieces:
            if length < 0 or (source is not None and offset + length > source.size_bytes):
                raise FormatError("a piece of a file lies outside of what holds it")
            if length:
                self._pieces.append((position, source, offset, length))
            position += length
        self.size_bytes = position

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        parts = []
        for start, source, begin, count in self._overlapping(offset, length):
            if source is None:
                parts.append(bytes(count))
            else:
                parts.append(source.read(begin + start, count))
        return b"".join(parts)

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        at = offset
        for start, source, begin, count in self._overlapping(offset, length):
            if source is not None:
                for found, size in source.data_runs(begin + start, count):
                    yield found - begin - start + at, size
            at += count

    def _overlapping(
        self, offset: int, length: int
    ) -> Iterator[tuple[int, Source | None, int, int]]:
        """Yield (offset in the piece, its source, the piece's begin there, bytes wanted)."""
        import bisect

        end = offset + length
        first = bisect.bisect_right(self._pieces, offset, key=lambda piece: piece[0]) - 1
        for number in range(max(first, 0), len(self._pieces)):
            position, source, begin, count = self._pieces[number]
            if position >= end:
                return
            low, high = max(offset, position), min(end, position + count)
            if low < high:
                yield low - position, source, begin, high - low


class Spill:
    """What was unpacked from a stream: in memory while small, else in an unnamed sparse file.

    Built with :meth:`of`; give back with :meth:`close` (or leave it to the garbage collector).
    """

    def __init__(self, file: tempfile.SpooledTemporaryFile[bytes], size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes

    @classmethod
    def of(cls, chunks: Iterable[bytes], *, max_bytes: int) -> Spill:
        """Keep a stream; zeros of whole pages become holes.

        Raises :class:`FormatError` when the stream is longer than ``max_bytes``.
        """
        file: tempfile.SpooledTemporaryFile[bytes] = tempfile.SpooledTemporaryFile(
            max_size=_SPILL_BYTES, prefix="local-imager-"
        )
        size = 0
        try:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise FormatError(f"unpacks to more than {max_bytes} bytes")
                _write_sparse(file, chunk)
        except BaseException:
            file.close()
            raise
        if getattr(file, "_rolled", False):
            file.flush()
            os.ftruncate(file.fileno(), size)
        return cls(file, size)

    def close(self) -> None:
        """Give memory or disk back."""
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        """See :meth:`Source.read`."""
        checked(self, offset, length)
        if getattr(self._file, "_rolled", False):
            # Not through the file's buffer: data_runs moves the position below it.
            data = os.pread(self._file.fileno(), length, offset)
        else:
            self._file.seek(offset)
            data = self._file.read(length)
        if len(data) != length:
            raise FormatError("a file that was unpacked became shorter while it was read")
        return data

    def data_runs(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """See :meth:`Source.data_runs`."""
        if not getattr(self._file, "_rolled", False):
            if offset < min(offset + length, self.size_bytes):
                yield offset, min(length, self.size_bytes - offset)
            return
        with FileSource(self._file) as held:  # type: ignore[arg-type]
            yield from held.data_runs(offset, length)


def _write_sparse(file: tempfile.SpooledTemporaryFile[bytes], chunk: bytes) -> None:
    """Write at the position; long zeros become holes, and the file goes to disk then."""
    at = begin = 0
    while at < len(chunk):
        # Slices of bytes are compared at once, those of a memoryview item by item.
        if chunk[at : at + _HOLE_BYTES] == _HOLE:
            file.write(chunk[begin:at])
            file.rollover()
            file.seek(_HOLE_BYTES, os.SEEK_CUR)
            begin = at + _HOLE_BYTES
        at += _HOLE_BYTES
    file.write(chunk[begin:])


def stream(source: Source, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """Yield a range in pieces of at most ``CHUNK_BYTES``; holes come as zeros.

    Raises :class:`FormatError` where the source does not have all of it.
    """
    end = source.size_bytes if length is None else offset + length
    if not 0 <= offset <= end <= source.size_bytes:
        raise FormatError(f"the file ends before byte {end} ({source.size_bytes} bytes are there)")
    position = offset
    for start, count in source.data_runs(offset, end - offset):
        yield from _zeros(start - position)
        position = start
        while position < start + count:
            size = min(CHUNK_BYTES, start + count - position)
            yield source.read(position, size)
            position += size
    yield from _zeros(end - position)


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        size = min(length, CHUNK_BYTES)
        yield _ZEROS if size == CHUNK_BYTES else _ZEROS[:size]
        length -= size


def sha256_of(source: Source) -> str:
    """Return the SHA-256 of all bytes, as ``sha256:`` and 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    for chunk in stream(source):
        hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}"


def sparse_sha256_of(source: Source) -> str:
    """Return a digest of where what is no zero lies and of that, as ``sparse-sha256:…``.

    Of two sources of one length it differs just when :func:`sha256_of` does, whatever of them is a
    hole; zeros take no time.
    """
    hasher = hashlib.sha256()
    done, size = 0, source.size_bytes
    for start, count in source.data_runs(0, size):
        first = max(done, start - start % _HOLE_BYTES)
        done = min(start + count + -(start + count) % _HOLE_BYTES, size)
        for at in range(first, done, _HOLE_BYTES):
            data = source.read(at, min(_HOLE_BYTES, done - at))
            if data != _HOLE[: len(data)]:
                hasher.update(at.to_bytes(8, "little") + data)
    return f"sparse-sha256:{hasher.hexdigest()}"
