"""LZ4: the frame format, the older one of the Linux kernel, and blocks alone (lz4_Block_format).

Slow by nature (plain Python), which is enough for what boot files hold of it: an initramfs of
another distribution, and the small compressed files of an erofs image.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from local_imager.formats.charges import charge
from local_imager.formats.source import FormatError, Source

_FRAME: Final = b"\x04\x22\x4d\x18"
_LEGACY: Final = b"\x02\x21\x4c\x18"
MAGICS: Final = (_FRAME, _LEGACY)
_LEGACY_BLOCK_BYTES: Final = 8 << 20
_FRAME_BLOCK_BYTES: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
# A turn of the loop takes as long as some hundred bytes of formats that are not unpacked in Python.
_SEQUENCE_WORK: Final = 300
_HISTORY_BYTES: Final = 64 << 10


def unpack_block(
    data: bytes, max_bytes: int, *, history: bytes = b"", partial: bool = False
) -> bytes:
    """Return what one block holds, which refers back to ``history`` where it is given.

    ``partial`` takes the first ``max_bytes`` and ignores what follows them, as erofs needs it.
    Raises :class:`FormatError` for a damaged block and one that holds more than ``max_bytes``.
    """
    out, begin, position = bytearray(history), len(history), 0
    limit, sequences = begin + max_bytes, 0
    try:
        while position < len(data):
            sequences += 1
            token = data[position]
            position += 1
            literals, position = _length(data, position, token >> 4)
            if position + literals > len(data):
                raise FormatError("an lz4 block ends too early")
            out += data[position : position + literals]
            position += literals
            if partial and len(out) >= limit:
                break
            if position == len(data):
                break
            distance = data[position] | data[position + 1] << 8
            copied, position = _length(data, position + 2, token & 15)
            _copy(out, distance, min(copied + 4, max(limit - len(out) + 1, 0)))
            if len(out) > limit and not partial:
                raise FormatError("an lz4 block holds more than it may")
            if partial and len(out) >= limit:
                break
    except IndexError:
        raise FormatError("an lz4 block ends too early") from None
    finally:
        charge(len(out) - begin + sequences * _SEQUENCE_WORK)
    if len(out) > limit and not partial:
        raise FormatError("an lz4 block holds more than it may")
    return bytes(out[begin:limit])


def _length(data: bytes, position: int, start: int) -> tuple[int, int]:
    if start == 15:
        more = 255
        while more == 255:
            more = data[position]
            position += 1
            start += more
    return start, position


def _copy(out: bytearray, distance: int, length: int) -> None:
    if not 0 < distance <= len(out):
        raise FormatError("an lz4 block refers to bytes before its begin")
    if distance >= length:
        begin = len(out) - distance
        out += out[begin : begin + length]
    else:
        pattern = bytes(out[-distance:])
        out += (pattern * (length // distance + 1))[:length]


def unpack_frame(source: Source, offset: int) -> Generator[bytes, None, int]:
    """Yield what one frame holds, its checksums unchecked; returns the offset after it.

    A frame of the older format has no end of its own: it ends where no block can follow, as the
    kernel's decoder sees it. Raises :class:`FormatError` for a damaged one.
    """
    if source.read(offset, 4) == _LEGACY:
        return (yield from _legacy(source, offset + 4))
    flags, sizes = source.read(offset + 4, 2)
    largest = _FRAME_BLOCK_BYTES.get(sizes >> 4 & 7)
    if flags >> 6 != 1 or largest is None or flags & 1:
        raise FormatError("the header of an lz4 frame breaks the rules of its format")
    position = offset + 7 + (8 if flags & 8 else 0)
    linked, trailer = not flags & 0x20, 4 if flags & 0x10 else 0
    history = b""
    while size := int.from_bytes(source.read(position, 4), "little"):
        stored = size & 0x7FFFFFFF
        if stored > largest:
            raise FormatError("an lz4 block is larger than its frame allows")
        # Small blocks cost as much as their history, which is copied with each.
        charge(_SEQUENCE_WORK + len(history) // 16)
        data = source.read(position + 4, stored)
        piece = data if size >> 31 else unpack_block(data, largest, history=history)
        yield from _pieces(piece)
        if linked:
            history = (history + piece)[-_HISTORY_BYTES:]
        position += 4 + stored + trailer
    return position + 4 + (4 if flags & 4 else 0)


def _legacy(source: Source, position: int) -> Generator[bytes, None, int]:
    while position + 4 <= source.size_bytes:
        stored = int.from_bytes(source.read(position, 4), "little")
        if not 0 < stored <= _LEGACY_BLOCK_BYTES + (_LEGACY_BLOCK_BYTES // 255) + 16:
            break
        yield from _pieces(unpack_block(source.read(position + 4, stored), _LEGACY_BLOCK_BYTES))
        position += 4 + stored
    return position


def _pieces(data: bytes) -> Generator[bytes, None, None]:
    for at in range(0, len(data), 1 << 20):
        yield data[at : at + (1 << 20)]
