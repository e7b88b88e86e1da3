"""Compressing a bundle with zstd so that the same bytes come out each time."""

from __future__ import annotations

from typing import Final

import zstandard

from local_imager.deliver.bundle.pump import Write

# Layers are compressed already; more effort would cost time and win next to nothing.
LEVEL: Final = 3
# With workers the frame is cut into jobs of a fixed size, so their number does not show in it; a
# frame made without any is another one.
_THREADS: Final = 2
# Several jobs wait in memory, packed and not; left to itself zstd takes 8 MiB for each.
_JOB_BYTES: Final = 2 * 1024**2


class Packed:
    """Takes the bytes of a tar and hands on those of one zstd frame."""

    def __init__(self, write: Write, size_bytes: int) -> None:
        """``size_bytes`` is what will come in all; it is written into the frame's header."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            threads=_THREADS,
            job_size=_JOB_BYTES,
            write_checksum=True,
            write_content_size=True,
        )
        self._write = write
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._frame = compressor.compressobj(size=size_bytes)

    def write(self, data: memoryview) -> None:
        """Compress the next bytes."""
        packed = self._frame.compress(data)
        if packed:
            self._write(memoryview(packed))

    def end(self) -> None:
        """Write the end of the frame."""
        self._write(memoryview(self._frame.flush()))
