"""Contents of blobs that are read at any offset: as they are, or unpacked into a file of their own.

The file lies in the layout's ``staging/``, where a killed process leaves nothing that stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from local_imager.oci.blobs import BlobDir, open_regular
from local_imager.oci.durable import explained
from local_imager.oci.model import Digest
from local_imager.oci.sparse import write_all
from local_imager.sources.decompress import BoundedStream

CHUNK_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(CHUNK_BYTES)


class Content:
    """An open file of known size."""

    def __init__(self, handle: int, size_bytes: int) -> None:
        self._handle, self.size_bytes = handle, size_bytes

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Return exactly these bytes, fewer only at the end of the content."""
        data = bytearray()
        with explained("read a blob"):
            while len(data) < size_bytes:
                piece = os.pread(self._handle, size_bytes - len(data), offset + len(data))
                if not piece:
                    break
                data += piece
        return bytes(data)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the whole content in order."""
        for offset in range(0, self.size_bytes, chunk_bytes):
            yield self.read_at(offset, min(chunk_bytes, self.size_bytes - offset))


@contextlib.contextmanager
def packed(blobs: BlobDir, digest: Digest) -> Iterator[Content]:
    """Yield a blob's own bytes; raises :class:`StoreError` when it cannot be read."""
    with explained(f"read blob {digest}"):
        handle = open_regular(blobs.blob_path(digest))
    try:
        yield Content(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)


def unpacked_chunks(blobs: BlobDir, digest: Digest) -> Iterator[bytes]:
    """Yield what gzip or zstd packed (any other blob as it is), within ceilings.

    Raises :class:`SourceError` for a blob that is damaged or a bomb, :class:`StoreError`.
    """
    with explained(f"read blob {digest}"):
        with open(open_regular(blobs.blob_path(digest)), "rb") as stream:
            unpacked = BoundedStream(stream, f"blob {digest.short}")
            while chunk := unpacked.read(CHUNK_BYTES):
                yield chunk


@contextlib.contextmanager
def unpacked(blobs: BlobDir, digest: Digest) -> Iterator[Content]:
    """Yield what is packed in a blob, unpacked into a temporary file where zeros are holes.

    Raises what :func:`unpacked_chunks` does.
    """
    with contextlib.ExitStack() as stack:
        with explained("unpack a blob"):
            handle, _ = stack.enter_context(blobs.staged())
        size_bytes = 0
        for chunk in unpacked_chunks(blobs, digest):
            with explained("unpack a blob"):
                if chunk != _ZEROS[: len(chunk)]:
                    write_all(handle, chunk, size_bytes)
            size_bytes += len(chunk)
        with explained("unpack a blob"):
            os.ftruncate(handle, size_bytes)
        yield Content(handle, size_bytes)
