"""Harnesses for bundles that cross a gap: the whole file, its manifest, its compression."""

from __future__ import annotations

import io
import re
from typing import Final

import zstandard

from local_imager.deliver.bundle.form.manifest import parse_bundle, parse_label, render_bundle
from local_imager.deliver.bundle.form.model import Blob, Bundle, PartLabel, Piece
from local_imager.deliver.bundle.form.tarform import part_size
from local_imager.deliver.bundle.reading.faults import MAX_FAULTS
from local_imager.deliver.bundle.reading.reader import LookOnly, PartReading, read_part
from local_imager.events import NULL_SINK
from local_imager.oci.model import Digest
from tests.fuzz.archives import mended
from tests.fuzz.driver import Fault, Harness

_BLOCK: Final = 512
_NAMED: Final = re.compile(rb'"set":"sha256:[0-9a-f]{64}"')
_SIZE: Final = re.compile(rb"[0-7]{11}")


class _Checked:
    """A sink that hashes for itself what it is given."""

    def __init__(self, piece: Piece) -> None:
        self._piece, self._data, self.closed = piece, bytearray(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._data += data
        if self.closed or len(self._data) > self._piece.size_bytes:
            raise Fault("a sink got more than was announced")

    def close(self, intact: bool) -> None:
        self.closed += 1
        if intact and Digest.of(bytes(self._data)) != self._piece.digest:
            raise Fault("wrong bytes were called intact")


class _Checking(LookOnly):
    def __init__(self) -> None:
        self.sinks: list[_Checked] = []
        self.over = self.open = 0

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        self.open += 1
        if label.set_digest != Digest.of(manifest) or render_bundle(bundle) != manifest:
            raise Fault("a manifest that is not the label's was accepted")

    def piece(self, blob: Blob, piece: Piece) -> _Checked:
        if blob.document and self.over:
            raise Fault("a document came after all were told over")
        self.sinks.append(_Checked(piece))
        return self.sinks[-1]

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        self.over += 1


def _relabelled(data: bytes) -> bytes:
    """Let the label name the manifest that is there: the fuzzer cannot."""
    stated = _SIZE.match(data, 124)
    if stated is None:
        return data
    manifest = data[_BLOCK : _BLOCK + int(stated[0], 8)]
    named = b'"set":"' + str(Digest.of(manifest)).encode() + b'"'
    end = _BLOCK + len(manifest)
    return data[:end] + _NAMED.sub(named, data[end:], count=1)


def _read(data: bytes) -> PartReading:
    reception = _Checking()
    reading = read_part(io.BytesIO(data), "fuzz", reception, NULL_SINK)
    if reception.open != reception.over or any(sink.closed != 1 for sink in reception.sinks):
        raise Fault("a call was left out, or came twice")
    if len(reading.faults) > MAX_FAULTS or any(not f.text.isprintable() for f in reading.faults):
        raise Fault("faults that cannot be shown")
    return reading


def _announced_bytes(reading: PartReading) -> int:
    assert reading.bundle is not None and reading.label is not None
    return part_size(reading.bundle, reading.label.number)


def bundlefile(data: bytes) -> None:
    """A part as a tar, with headers and a label that are made to fit."""
    plain = mended(_relabelled(data))
    reading = _read(plain)
    if not reading.faults and plain[:1] == b"b" and len(plain) != _announced_bytes(reading):
        raise Fault("a file of another size was called intact")


def bundlepacked(data: bytes) -> None:
    """A compressed part; what is called intact unpacks to as much as was announced."""
    reading = _read(data)
    if not reading.faults:
        size = _announced_bytes(reading)
        whole = zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
        if len(whole) != size:
            raise Fault("zstd itself unpacks something else")


def bundlemanifest(data: bytes) -> None:
    """A manifest or a label; what is accepted is spelt in the one way."""
    if data.startswith(b'{"count"'):
        parse_label(data)
        return
    bundle = parse_bundle(data)
    if render_bundle(bundle) != data:
        raise Fault("another spelling of a manifest was accepted")
    carried = {blob.digest for blob in bundle.blobs if blob.carried and not blob.document}
    if {piece.blob for part in bundle.parts for piece in part} != carried:
        raise Fault("a blob that is promised is not carried")


HARNESSES: Final = (
    Harness("bundlefile", bundlefile, 24 * 1024),
    Harness("bundlepacked", bundlepacked, 4096),
    Harness("bundlemanifest", bundlemanifest, 8192),
)
