"""Making a blob from one that is here and a carried delta: the exact bytes, or nothing.

Methods: ``zstd-window`` (the blob's own bytes against the base's own) and
``recompress:<codec>+zstd-window`` (what is packed in both, then packed with the codec again).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO, Final

from local_imager.deliver.bundle.deltas import content
from local_imager.deliver.bundle.deltas.content import Content
from local_imager.deliver.bundle.deltas.recompress import Codec, parse_codec
from local_imager.deliver.bundle.deltas.windows import Head, read_head, restored_windows
from local_imager.deliver.bundle.form.fields import malformed
from local_imager.deliver.bundle.form.model import Blob, Rebuild
from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.events import NULL_SINK, EventSink, Progress, printable
from local_imager.oci import sparse
from local_imager.oci.blobs import open_regular
from local_imager.oci.durable import explained
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest

_WINDOWS: Final = "zstd-window"
_PACKED: Final = "recompress:"
_PIECE_BYTES: Final = 256 * 1024
_ZEROS: Final = bytes(_PIECE_BYTES)
_WHOLE: Final = "have it sent whole: `local-imager bundle create … --since FILE --no-delta`"


def method_name(codec: Codec | None) -> str:
    """Return the name of the method with this codec, or of the one without."""
    return _WINDOWS if codec is None else f"{_PACKED}{codec.name}+{_WINDOWS}"


def _codec_name(method: str) -> str:
    """Return the codec in a method's name, empty where there is none; raises for other methods."""
    if method == _WINDOWS:
        return ""
    name = method.removeprefix(_PACKED).removesuffix(f"+{_WINDOWS}")
    if not name or method != f"{_PACKED}{name}+{_WINDOWS}":
        raise malformed("a delta", f"its method {printable(method, limit=80)!r} is not known here")
    return name


def restored(untrusted: BinaryIO, method: str, base: Content, size_bytes: int) -> Iterator[bytes]:
    """Yield a blob's bytes from its delta, never more than ``size_bytes``.

    ``base`` is what the method works on: for a codec, what is packed in the base blob. Raises
    :class:`SourceError` (malformed); the caller compares the digest.
    """
    head = read_head(untrusted)
    windows = restored_windows(untrusted, head, base)
    codec = _codec(method, head)
    done = 0
    for chunk in windows if codec is None else codec.pack(windows, head.size_bytes):
        done += len(chunk)
        if done > size_bytes:
            raise malformed("a delta", "more comes out of it than the blob is long")
        yield chunk


def _codec(method: str, head: Head) -> Codec | None:
    name = _codec_name(method)
    if not name:
        return None
    codec = parse_codec(name, head.gzip_header)
    if codec is None:
        raise malformed("a delta", f"its method {printable(method, limit=80)!r} is not known here")
    return codec


@contextlib.contextmanager
def base_content(layout: Layout, base: Digest, method: str) -> Iterator[Content]:
    """Yield what a method works on: a blob's bytes, or what is packed in it."""
    is_packed = bool(_codec_name(method))
    with (content.unpacked if is_packed else content.packed)(layout, base) as found:
        yield found


def rebuild_blob(
    blob: Blob, layout: Layout, sink: EventSink = NULL_SINK, *, private: bool = False
) -> None:
    """Put a blob that travelled as a delta into the layout; nothing to do when it is there intact.

    A ``private`` one can be read by its owner only, from its first byte on.
    Raises :class:`NotFound` when the base or the delta is not there intact,
    :class:`IntegrityError` (code ``rebuild``) when the delta is damaged or other bytes come out,
    :class:`StoreError`. Then nothing became visible.
    """
    told = blob.rebuild
    if told is None:
        raise ValueError(f"{blob.digest} is not rebuilt from anything")
    if layout.intact(blob.digest, blob.size_bytes):
        return
    _need(blob, layout, told)
    with explained(f"write to {layout.path}"), layout.staged() as (handle, path):
        hasher = sparse.Hasher()
        try:
            for chunk in _from_layout(layout, told, blob.size_bytes):
                _write(handle, chunk, hasher)
                sink.emit(Progress("rebuild", blob.purpose, hasher.size_bytes, blob.size_bytes))
        except SourceError as error:
            raise _failed(blob, told, error.message) from error
        if (hasher.digest, hasher.size_bytes) != (blob.digest, blob.size_bytes):
            raise _failed(blob, told, _other_bytes(layout, told))
        os.ftruncate(handle, blob.size_bytes)
        layout.adopt(handle, path, blob.digest, private=private)


def _write(handle: int, chunk: bytes, hasher: sparse.Hasher) -> None:
    """Write the next bytes of a blob; runs of zeros stay holes, for disks are full of them."""
    for begin in range(0, len(chunk), _PIECE_BYTES):
        piece = chunk[begin : begin + _PIECE_BYTES]
        if piece != _ZEROS[: len(piece)]:
            sparse.write_all(handle, piece, hasher.size_bytes)
        hasher.data(piece)


def _need(blob: Blob, layout: Layout, told: Rebuild) -> None:
    what = printable(blob.purpose)
    if not layout.intact(told.base):
        raise NotFound(
            f"{what} ({blob.digest}) is rebuilt from blob {told.base}, which this store does not "
            "hold any more",
            hint=f"make a new inventory with `local-imager store inventory`, or {_WHOLE}",
            code="rebuild-base",
        )
    if not layout.intact(told.payload):
        raise NotFound(
            f"{what} ({blob.digest}) is rebuilt with the delta {told.payload}, which is not here",
            hint="import the part of the set that holds it first",
            code="rebuild-payload",
        )


def _from_layout(layout: Layout, told: Rebuild, size_bytes: int) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(base_content(layout, told.base, told.method))
        yield from restored(_open(layout, told.payload, stack), told.method, base, size_bytes)


def _open(layout: Layout, digest: Digest, stack: contextlib.ExitStack) -> BinaryIO:
    with explained(f"read blob {digest}"):
        return stack.enter_context(open(open_regular(layout.blob_path(digest)), "rb"))


def _other_bytes(layout: Layout, told: Rebuild) -> str:
    """Say what came out, and where it was packed again that another library may be why."""
    problem = "other bytes came out than its digest names"
    with contextlib.suppress(SourceError), contextlib.ExitStack() as stack:
        head = read_head(_open(layout, told.payload, stack))
        codec = _codec(told.method, head)
        if codec is not None:
            near = printable(head.library, limit=40) or "some library"
            return f"{problem} (packed with {near} on the near side, with {codec.library()} here)"
    return problem


def _failed(blob: Blob, told: Rebuild, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{printable(blob.purpose)} ({blob.digest}) could not be rebuilt from blob {told.base}: "
        f"{problem}",
        hint=_WHOLE,
        code="rebuild",
    )
