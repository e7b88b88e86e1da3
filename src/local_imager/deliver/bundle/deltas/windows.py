"""The delta of one content against another, window by window.

Format 1 of a payload, all numbers little-endian:

- 8 bytes ``LI-DELTA``, 4 bytes length of the head (at most 4096), the head: canonical JSON with
  ``format`` (1), ``size`` of the content that comes out, ``base`` (size of the base content), and
  for a content that is packed again ``library`` (its name and version, for people) and for gzip
  ``gzip`` (the header to keep, hex).
- For each window of 4 MiB of the content, the last one shorter: 8 bytes offset and 4 bytes size
  (at most 8 MiB) of a range of the base, 4 bytes size of a zstd frame, the frame. The frame states
  the window's size, and the range is its raw-content dictionary; size 0 (and offset 0) is none.
- Then the end.

So nothing in a payload decides how much memory is taken, or which bytes outside the base are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from local_imager.deliver.bundle.deltas.content import Content
from local_imager.deliver.bundle.deltas.similar import Sample, best_range
from local_imager.deliver.bundle.form.fields import Fields, malformed
from local_imager.oci.model import canonical_json, load_json_object

if TYPE_CHECKING:
    import zstandard

FORMAT: Final = 1
WINDOW_BYTES: Final = 4 * 1024 * 1024
BASE_BYTES: Final = 8 * 1024 * 1024
# A content that is so much larger than its base is no version of it.
MAX_GROWTH: Final = 4
_MAGIC: Final = b"LI-DELTA"
_MAX_HEAD: Final = 4096
_RECORD: Final = struct.Struct("<QII")
_LENGTH: Final = struct.Struct("<I")
# ZSTD_compressBound of a window, roughly: noise becomes a little longer.
_MAX_FRAME: Final = WINDOW_BYTES + WINDOW_BYTES // 128 + 1024
# A base and a window together, as a power of two.
_WINDOW_LOG: Final = 24
_WHAT: Final = "a delta"


@dataclass(frozen=True, slots=True)
class Head:
    """What a payload says of itself before its windows."""

    size_bytes: int
    base_bytes: int
    library: str = ""
    gzip_header: bytes = b""


def render_head(head: Head) -> bytes:
    """Return the begin of a payload."""
    document: dict[str, Any] = {"format": FORMAT, "size": head.size_bytes, "base": head.base_bytes}
    if head.library:
        document["library"] = head.library
    if head.gzip_header:
        document["gzip"] = head.gzip_header.hex()
    data = canonical_json(document)
    return _MAGIC + _LENGTH.pack(len(data)) + data


def read_head(untrusted: BinaryIO) -> Head:
    """Read the begin of a payload; raises :class:`SourceError` (malformed)."""
    begin = untrusted.read(len(_MAGIC) + _LENGTH.size)
    if len(begin) < len(_MAGIC) + _LENGTH.size or not begin.startswith(_MAGIC):
        raise malformed(_WHAT, "it does not begin like one")
    (length,) = _LENGTH.unpack(begin[len(_MAGIC) :])
    if length > _MAX_HEAD:
        raise malformed(_WHAT, "its head is too long")
    data = _exactly(untrusted, length)
    fields = Fields(load_json_object(data, _WHAT, max_bytes=_MAX_HEAD), _WHAT)
    if fields.number("format") != FORMAT:
        raise malformed(_WHAT, f"this version of local-imager reads the format {FORMAT}")
    head = Head(
        fields.size("size"),
        fields.size("base"),
        fields.text("library") if fields.has("library") else "",
        _hex(fields.text("gzip")) if fields.has("gzip") else b"",
    )
    fields.end()
    if head.size_bytes > MAX_GROWTH * head.base_bytes + WINDOW_BYTES:
        raise malformed(_WHAT, "what comes out is far larger than its base")
    return head


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise malformed(_WHAT, "its gzip header is not hex") from error


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise malformed(_WHAT, "it ends too early")
    return data


def delta_windows(target: Content, base: Content, sample: Sample) -> Iterator[tuple[bytes, int]]:
    """Yield each window's record and how long the window is; ``sample`` is that of the base."""
    for window in target.chunks(WINDOW_BYTES):
        offset, size_bytes = best_range(window, sample, BASE_BYTES)
        frame = _compressor(base.read_at(offset, size_bytes)).compress(window)
        yield _RECORD.pack(offset, size_bytes, len(frame)) + frame, len(window)


def _compressor(dictionary: bytes) -> zstandard.ZstdCompressor:
    import zstandard

    # Hash tables that take in the whole range (zstd loads only the end of a dictionary that is
    # larger than eight times their size) and a window that reaches back to its begin.
    parameters = zstandard.ZstdCompressionParameters(
        window_log=_WINDOW_LOG,
        hash_log=21,
        chain_log=21,
        search_log=1,
        min_match=5,
        strategy=zstandard.STRATEGY_DFAST,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(
        dict_data=_dictionary(dictionary), compression_params=parameters
    )


def _dictionary(data: bytes) -> zstandard.ZstdCompressionDict | None:
    import zstandard

    if not data:
        return None
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def restored_windows(untrusted: BinaryIO, head: Head, base: Content) -> Iterator[bytes]:
    """Yield the content, window by window, from the records behind the head.

    Exactly ``head.size_bytes`` come out. Raises :class:`SourceError` (malformed) for everything
    that is not the format; whether the bytes are right only their digest says.
    """
    if base.size_bytes != head.base_bytes:
        raise malformed(_WHAT, "it was made against a base of another size")
    for begin in range(0, head.size_bytes, WINDOW_BYTES):
        wanted = min(WINDOW_BYTES, head.size_bytes - begin)
        offset, size_bytes, frame_bytes = _RECORD.unpack(_exactly(untrusted, _RECORD.size))
        if size_bytes > BASE_BYTES or offset + size_bytes > base.size_bytes:
            raise malformed(_WHAT, "it names a range that is not in its base")
        if offset and not size_bytes:
            raise malformed(_WHAT, "it names an empty range")
        if frame_bytes > _MAX_FRAME:
            raise malformed(_WHAT, "a window is too long")
        frame = _exactly(untrusted, frame_bytes)
        yield _unpack_window(frame, base.read_at(offset, size_bytes), wanted)
    if untrusted.read(1):
        raise malformed(_WHAT, "something follows its end")


def _unpack_window(frame: bytes, dictionary: bytes, wanted: int) -> bytes:
    import zstandard

    try:
        told = zstandard.get_frame_parameters(frame)
        # The decompressor takes memory for what the frame says before it reads it.
        if told.content_size != wanted:
            raise malformed(_WHAT, "a window is not of the size that it must have")
        engine = zstandard.ZstdDecompressor(dict_data=_dictionary(dictionary))
        data = engine.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise malformed(_WHAT, "a window does not unpack") from error
    if len(data) != wanted:
        raise malformed(_WHAT, "a window is not of the size that it must have")
    return data
