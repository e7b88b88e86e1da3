"""Harnesses for archives: a layout in a tar, and the layers of images, packed and plain."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from local_imager.errors import SourceError
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Reference
from local_imager.sources.decompress import BoundedStream
from local_imager.sources.tarstream import TarStream
from local_imager.sources.unpack import extract_files
from tests.fuzz.driver import Fault, Harness

_BLOCK: Final = 512
_REFERENCE: Final = Reference.parse("registry.example/siderolabs/imager:v1.13.0")
# An input of 64 KiB that unpacks to more than this is for the bomb tests, not for the fuzzer.
_MAX_CONTENT_BYTES: Final = 64 * 1024 * 1024


@cache
def scratch() -> Path:
    """Return this process's own folder."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-archive-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def mended(data: bytes) -> bytes:
    """Put the right checksum into every block that looks like a header: the fuzzer cannot."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - _BLOCK + 1, _BLOCK):
        block = blocks[at : at + _BLOCK]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
            blocks[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(blocks)


def layouttar(data: bytes) -> None:
    """A tar that claims to be a layout, with every question that is asked of a source."""
    path = scratch() / "layout.tar"
    path.write_bytes(mended(data))
    source = LayoutSource.open(path)
    source.tags(_REFERENCE)
    for entry in source.entries[:8]:
        try:
            source.referrers(_REFERENCE, entry.digest)
            source.manifest(_REFERENCE, entry.digest)
            for chunk in source.blob(_REFERENCE, entry):
                assert len(chunk) <= len(data)
        except SourceError:
            continue
    source.resolve(_REFERENCE)


def layertar(data: bytes) -> None:
    """A plain layer: members never hold more than the archive does."""
    stream = TarStream(BoundedStream(io.BytesIO(mended(data)), "layer").read)
    taken = 0
    for member in stream:
        assert member.kind in ("file", "directory", "symlink", "hardlink", "special")
        taken += sum(len(piece) for piece in stream.content())
    if taken > len(data):
        raise Fault("a tar holds more than its bytes")


def layerfiles(data: bytes) -> None:
    """Two layers, one over the other, with links: files land in numbered files only."""
    layers = []
    for number, part in enumerate(data.split(b"<next layer>")[:3]):
        layers.append(scratch() / f"layer-{number}")
        layers[-1].write_bytes(mended(part))
    target = scratch() / "files"
    try:
        found = extract_files(layers, ["a/b", "link", "usr/lib/x"], target, max_file_bytes=1 << 20)
        for path in found.values():
            if path.parent != target or not path.name.startswith("file-"):
                raise Fault("a file was written elsewhere")
    finally:
        shutil.rmtree(target, ignore_errors=True)


def layerpacked(data: bytes) -> None:
    """A gzip or zstd stream, whatever it unpacks to."""
    stream, total = BoundedStream(io.BytesIO(data), "layer"), 0
    while piece := stream.read(1 << 20):
        total += len(piece)
        if total > _MAX_CONTENT_BYTES:
            return


HARNESSES: Final = (
    Harness("layouttar", layouttar, 32 * 1024),
    Harness("layertar", layertar, 32 * 1024),
    Harness("layerfiles", layerfiles, 32 * 1024),
    Harness("layerpacked", layerpacked),
)
