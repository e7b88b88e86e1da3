"""A harness for what a factory answers: redirects, ranges, validators, lengths, refusals, waits."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

from local_imager.deliver.compare.address import FactoryAsset
from local_imager.deliver.compare.factory import FactoryClient
from local_imager.errors import LocalImagerError
from local_imager.oci import transport
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic
from local_imager.store.foreign import foreign_files
from local_imager.store.store import Store
from tests.fuzz.driver import Fault, Harness
from tests.fuzz.registries import HOST, NEXT_ANSWER, ORIGIN, Hostile

WANTED: Final = FactoryAsset("0" * 64, "v1.13.0", "metal-amd64.iso")
SCHEMATIC: Final = parse_schematic(b"customization: {}\n")
MAX_BYTES: Final = 4096
# Each answer costs one request.
_MAX_ANSWERS: Final = 40
# In memory where that can be had: each input makes a store.
_FOLDER: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _client() -> tuple[FactoryClient, Hostile]:
    """Return the client that is really used, over the hostile server instead of a socket."""
    client, server = transport._make_client(5.0), Hostile()
    client._transport, client._mounts = server, {}
    with patch.object(transport, "_make_client", return_value=client):
        reader = FactoryClient(ORIGIN, sleep=lambda _s: None, max_bytes=MAX_BYTES)
    return reader, server


_CLIENT, _SERVER = _client()


def factory(data: bytes) -> None:
    """Answers of a factory to one question: a file (``f``), or that it takes a schematic."""
    _SERVER.answers = data[1:].split(NEXT_ANSWER)[:_MAX_ANSWERS]
    bodies = [answer.partition(b"\n\n")[2] for answer in _SERVER.answers]
    if data[:1] != b"f":
        _CLIENT.upload(SCHEMATIC)
        return
    with tempfile.TemporaryDirectory(prefix="fuzz-factory-", dir=_FOLDER) as folder:
        _fetch(Store.open(Path(folder)), bodies)


def _fetch(store: Store, bodies: list[bytes]) -> None:
    try:
        got = _CLIENT.fetch(store, WANTED)
    except LocalImagerError:
        if foreign_files(store.layout):
            raise Fault("a refused file was kept") from None
        raise
    kept = got.path.read_bytes()
    if not kept or len(kept) > MAX_BYTES:
        raise Fault(f"a file of {len(kept)} bytes passed")
    if not _joined(kept, bodies):
        raise Fault("the file is not made of what was sent")
    if not re.fullmatch(f"https://{re.escape(HOST)}/image/{WANTED.path}", got.origin):
        raise Fault(f"it came from {got.origin}")


def _joined(kept: bytes, bodies: list[bytes]) -> bool:
    """Whether the bytes are begins of bodies, one after the other."""
    ends = {0}
    for body in bodies:
        for begin in sorted(ends):
            length = 0
            while (
                length < len(body)
                and kept[begin + length : begin + length + 1] == (body[length : length + 1])
            ):
                length += 1
                ends.add(begin + length)
    return len(kept) in ends


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Dialogues with a factory: plain, redirected, continued, refused."""
    data = bytes(range(200))
    etag = b'ETag: "abc"\nAccept-Ranges: bytes\n'
    whole = b"200\n" + etag + b"Content-Length: 200\n\n"
    part = b"206\n" + etag + b"Content-Range: bytes 100-199/200\nContent-Length: 100\n\n"
    moved = b"302\nLocation: https://cache.example/blob?signature=1\nContent-Length: 0\n\n"
    told = json.dumps({"id": str(schematic_id(SCHEMATIC)), "schematic": ""}).encode()
    dialogues = {
        "plain": (b"f", b"200\nContent-Length: 200\n\n" + data),
        "redirect": (b"f", moved, whole + data),
        "resumed": (b"f", moved, whole + data[:100], moved, part + data[100:]),
        "changed": (
            b"f",
            whole + data[:100],
            part.replace(b"abc", b"xyz") + data[100:],
            whole + data,
        ),
        "no-range": (b"f", whole + data[:100], b"416\n\n", whole + data),
        "busy": (b"f", b"503\nRetry-After: 3\n\nlater", whole + data),
        "unknown": (b"f", b'404\nContent-Type: text/plain\n\nschematic ID "0" not found\n'),
        "refused": (b"f", b'400\n\nerror parsing profile from path: invalid profile path: "x"\n'),
        "page": (b"f", b"200\nContent-Type: text/html\n\n<html>"),
        "upload": (b"u", b"201\nContent-Type: application/json\n\n" + told),
    }
    for name, (question, *said) in dialogues.items():
        yield "factory", name, question + NEXT_ANSWER.join(said)


HARNESSES: Final = (Harness("factory", factory, 8192),)
