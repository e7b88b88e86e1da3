"""Harnesses for what crosses the gap beside bundles: inventories, and payloads of deltas."""

from __future__ import annotations

import io
from typing import Final

from local_imager.deliver.bundle.deltas.content import Content
from local_imager.deliver.bundle.deltas.rebuild import restored
from local_imager.deliver.bundle.form.inventory import parse_inventory, render_inventory
from tests.fuzz.driver import Fault, Harness

BASE: Final = b"".join(b"line %d of the base\n" % number for number in range(300))
SIZE_BYTES: Final = 6000
METHODS: Final = {
    b"w": "zstd-window",
    b"g": "recompress:gzip-6+zstd-window",
    b"z": "recompress:zstd-3-checksum-size+zstd-window",
}


class Memory(Content):
    """A content without a file."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, len(data))
        self._data = data

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Return these bytes; a range outside the base is what a payload must not reach."""
        if offset + size_bytes > len(self._data):
            raise Fault("bytes outside the base were read")
        return self._data[offset : offset + size_bytes]


def inventory(data: bytes) -> None:
    """An inventory; what was read is written so that the same is read again."""
    found = parse_inventory(data)
    again = parse_inventory(render_inventory(found))
    if again != found or again.digest != found.digest:
        raise Fault("the inventory reads as another one")


def delta(data: bytes) -> None:
    """The payload of a delta; the first letter says which method the manifest names."""
    method = METHODS.get(data[:1], METHODS[b"w"])
    done = 0
    for chunk in restored(io.BytesIO(data[1:]), method, Memory(BASE), SIZE_BYTES):
        done += len(chunk)
    if done > SIZE_BYTES:
        raise Fault(f"{done} bytes came out")


HARNESSES: Final = (Harness("inventory", inventory, 8192), Harness("delta", delta))
