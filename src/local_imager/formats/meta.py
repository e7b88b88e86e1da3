"""The META partition of Talos: numbered values that outlive a reboot.

The layout stands in Talos' ``internal/pkg/meta/internal/adv/talos/talos.go``: two equal copies of
256 KiB, each with magic numbers at both ends and a SHA-256 over itself. At the partition's end the
older vector of syslinux may lie (``adv/syslinux/syslinux.go``), which Talos reads as well.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from local_imager.formats.source import FormatError, Source

_COPY_BYTES: Final = 256 * 1024
META_BYTES: Final = 2 * _COPY_BYTES
_MAGIC_BEGIN: Final = bytes.fromhex("5a4b3c2d")
_MAGIC_END: Final = bytes.fromhex("a5b4c3d2")
_DIGEST: Final = slice(-36, -4)
_END_TAG: Final = 0
_OLD_BYTES: Final = 512
_OLD_BEGIN: Final = 0x5A2D2FA5
_OLD_TOTAL: Final = 0xA3041767
_OLD_END: Final = 0xDD28BF64


@dataclass(frozen=True, slots=True)
class Meta(Mapping[int, bytes]):
    """The values by key, as Talos would take them; ``faults`` are sentences about damage.

    ``syslinux`` holds what stands in the older vector, which Talos asks for a key it does not
    find.
    """

    values_by_key: Mapping[int, bytes]
    syslinux: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    faults: tuple[str, ...] = ()

    def __getitem__(self, key: int) -> bytes:
        return self.values_by_key[key]

    def __iter__(self) -> Iterator[int]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)


def read_meta(source: Source) -> Meta:
    """Return what a META partition holds; one of zeros is valid and empty.

    The first copy counts, the second only where the first is damaged. Raises
    :class:`FormatError` when both are.
    """
    copies: list[Mapping[int, bytes]] = []
    problems: list[str] = []
    empty = 0
    for number in (0, 1):
        raw = source.read(number * _COPY_BYTES, _COPY_BYTES)
        if not raw.strip(b"\0"):
            empty += 1
            continue
        try:
            copies.append(_read_copy(raw))
        except FormatError as problem:
            problems.append(f"copy {number + 1} of META is damaged: {problem.message}")
    if not copies and empty < 2:
        raise FormatError(problems[0])
    if copies and empty:
        problems.append("one of the two copies of META is empty")
    if len(copies) == 2 and copies[0] != copies[1]:
        problems.append("the two copies of META differ")
    values = copies[0] if copies else MappingProxyType({})
    return Meta(values, _read_syslinux(source), tuple(problems))


def _read_copy(raw: bytes) -> Mapping[int, bytes]:
    if raw[:4] != _MAGIC_BEGIN or raw[-4:] != _MAGIC_END:
        raise FormatError("its magic numbers are wrong")
    hasher = hashlib.sha256(raw[:-36])
    hasher.update(bytes(32) + _MAGIC_END)
    if hasher.digest() != raw[_DIGEST]:
        raise FormatError("its checksum is wrong")
    return MappingProxyType(dict(_values(raw[4:-36])))


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        tag, size = struct.unpack_from(">II", data, at)
        if tag == _END_TAG:
            break
        at += 8
        if size > len(data) - at:
            raise FormatError(f"a value claims {size} bytes")
        yield tag & 0xFF, data[at : at + size]  # Talos keeps a tag in one byte
        at += size


def read_meta_order(raw: bytes) -> list[tuple[int, bytes]]:
    """Return keys and values of the first copy as they lie there, a repeated key each time.

    ``raw`` are the first :data:`META_BYTES` of the partition. Raises :class:`FormatError` when the
    copy is damaged or empty.
    """
    _read_copy(raw[:_COPY_BYTES])
    return list(_values(raw[4 : _COPY_BYTES - 36]))


def write_meta(values: list[tuple[int, bytes]]) -> bytes:
    """Return the two copies that hold these values in this order, as Talos writes them.

    Raises :class:`FormatError` when they do not fit.
    """
    body = b"".join(struct.pack(">II", key, len(value)) + value for key, value in values)
    room = _COPY_BYTES - 40
    if len(body) > room:
        raise FormatError(f"{len(body)} bytes of META values do not fit into {room}")
    head = _MAGIC_BEGIN + body.ljust(room, b"\0")
    digest = hashlib.sha256(head + bytes(32) + _MAGIC_END).digest()
    return (head + digest + _MAGIC_END) * 2


def _read_syslinux(source: Source) -> Mapping[int, bytes]:
    """Return the values of the older vector; nothing where it is not there or does not add up."""
    if source.size_bytes < 2 * _COPY_BYTES + 2 * _OLD_BYTES:
        return MappingProxyType({})
    raw = source.read(source.size_bytes - 2 * _OLD_BYTES, _OLD_BYTES)
    begin, total, *words, end = struct.unpack("<128I", raw)
    if (begin, end) != (_OLD_BEGIN, _OLD_END) or (total + sum(words) - _OLD_TOTAL) & 0xFFFFFFFF:
        return MappingProxyType({})
    values: dict[int, bytes] = {}
    at, stop = 8, _OLD_BYTES - 4
    while at < stop - 2 and raw[at] != _END_TAG:
        size = raw[at + 1]
        values.setdefault(raw[at], raw[at + 2 : min(at + 2 + size, stop)])
        at += 2 + size
    return MappingProxyType(values)
