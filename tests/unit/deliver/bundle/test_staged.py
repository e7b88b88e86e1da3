"""A bundle's documents as a layout: only what is intact, only what the bundle names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far.staged import Spool, StagedFiles
from local_imager.deliver.bundle.form.model import Blob, Bundle
from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import MEDIA_INDEX, Descriptor, Digest

INDEX = b'{"schemaVersion":2,"manifests":[]}'


def document(data: bytes) -> Blob:
    return Blob(Digest.of(data), len(data), "a document", document=True)


def keep(spool: Spool, data: bytes, *, intact: bool = True) -> None:
    sink = spool.sink(document(data))
    for begin in range(0, len(data), 3):
        sink.write(memoryview(data)[begin : begin + 3])
    sink.close(intact)


def bundle_of(*blobs: bytes) -> Bundle:
    return Bundle(Descriptor.of(INDEX, MEDIA_INDEX), (), tuple(map(document, blobs)), ((),))


def test_intact_documents_are_read_back_and_others_are_not_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "staging")
    for number in range(5):
        keep(spool, f"document {number}".encode(), intact=number % 2 == 0)
    keep(spool, b"")
    assert os.listdir(tmp_path / "staging") == []  # the file has no name
    for number in range(5):
        data = f"document {number}".encode()
        if number % 2:
            assert spool.size(Digest.of(data)) is None
            with pytest.raises(NotFound):
                list(spool.chunks(Digest.of(data), 0, 10))
        else:
            assert b"".join(spool.chunks(Digest.of(data), 0, 100)) == data
            assert b"".join(spool.chunks(Digest.of(data), 3, 4)) == data[3:7]
    assert spool.size(Digest.of(b"")) == 0
    spool.close()


def test_the_layout_shows_the_bundles_blobs_and_no_others(tmp_path: Path) -> None:
    layout, spool = Layout.create(tmp_path / "store"), Spool(None)
    held, foreign, carried = b"in the store", b"of somebody else", b"carried"
    layout.put_bytes(held, "x")
    layout.put_bytes(foreign, "x")
    keep(spool, carried)
    files = StagedFiles("site.tar", bundle_of(held, carried), INDEX, spool, layout)
    assert dict(files.blobs()) == {
        Digest.of(held): len(held),
        Digest.of(carried): len(carried),
    }
    assert files.read(Digest.of(held), 100) == held
    assert files.read(Digest.of(carried), 100) == carried
    assert files.size(Digest.of(foreign)) is None
    with pytest.raises(NotFound):
        files.chunks(Digest.of(foreign), 0, 10)
    with pytest.raises(NotFound):
        files.read(Digest.of(foreign), 100)
    with pytest.raises(SourceError, match="larger"):
        files.read(Digest.of(held), 3)
    assert LayoutSource(files).entries == () and files.location == "site.tar"


def test_a_blob_of_the_store_that_was_damaged_is_not_believed(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "store")
    held = layout.put_bytes(b"in the store", "x")
    path = layout.blob_path(held.digest)
    path.chmod(0o600)
    path.write_bytes(b"IN THE STORE")
    files = StagedFiles("site.tar", bundle_of(b"in the store"), INDEX, Spool(None), layout)
    with pytest.raises(IntegrityError):
        files.read(held.digest, 100)


def test_without_a_store_only_what_came_is_there() -> None:
    spool = Spool(None)
    keep(spool, b"carried")
    files = StagedFiles("site.tar", bundle_of(b"carried", b"elsewhere"), INDEX, spool, None)
    assert [digest for digest, _ in files.blobs()] == [Digest.of(b"carried")]
