"""The layout directory: what is written is whole, what is read is checked."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from local_imager.errors import IntegrityError, NotFound, SourceError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import MEDIA_MANIFEST, Descriptor, Digest
from tests.images import put_image

LARGE = 1 << 28


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_bytes_become_a_read_only_blob(layout: Layout) -> None:
    stored = layout.put_bytes(b"hello", "text/plain")
    path = layout.blob_path(stored.digest)
    assert path.read_bytes() == b"hello"
    assert mode_of(path) == 0o444
    assert layout.put_bytes(b"hello", "text/plain") == stored
    assert list(layout.staging_dir.iterdir()) == []


def test_a_private_blob_is_for_its_owner_only(layout: Layout) -> None:
    public = layout.put_bytes(b"secret", "text/plain")
    assert mode_of(layout.blob_path(public.digest)) == 0o444
    layout.put_bytes(b"secret", "text/plain", private=True)
    assert mode_of(layout.blob_path(public.digest)) == 0o400


@pytest.mark.parametrize("move", [True, False])
def test_a_sparse_file_stays_sparse(layout: Layout, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "disk.raw"
    with source.open("wb") as stream:
        stream.truncate(LARGE)
        stream.seek(LARGE // 2)
        stream.write(b"content")
    stored = layout.put_file(source, "application/octet-stream", move=move)
    blob = layout.blob_path(stored.digest)
    assert source.exists() is not move
    assert stored.size_bytes == blob.stat().st_size == LARGE
    assert blob.stat().st_blocks * 512 < 1 << 20
    with blob.open("rb") as stream:
        stream.seek(LARGE // 2)
        assert stream.read(7) == b"content"
    assert layout.intact(stored.digest, LARGE)


def test_the_digest_of_a_sparse_file_is_that_of_its_bytes(layout: Layout, tmp_path: Path) -> None:
    source = tmp_path / "disk.raw"
    pieces = {0: b"begin", 3_000_001: b"middle", 9_999_990: b"end"}
    with source.open("wb") as stream:
        for offset, piece in pieces.items():
            stream.seek(offset)
            stream.write(piece)
        stream.truncate(12_345_678)
    wanted = Digest.of(source.read_bytes())
    assert layout.put_file(source, "x").digest == wanted
    assert layout.blob_path(wanted).read_bytes() == source.read_bytes()


def test_a_moved_file_with_another_link_is_copied(layout: Layout, tmp_path: Path) -> None:
    source, other = tmp_path / "file", tmp_path / "other"
    source.write_bytes(b"content")
    os.link(source, other)
    stored = layout.put_file(source, "x", move=True)
    other.write_bytes(b"changed")
    assert layout.intact(stored.digest)
    assert not source.exists()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "nothing"])
def test_only_regular_files_are_stored(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "symlink":
        path.symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(StoreError):
        layout.put_file(path, "x", move=True)
    assert os.listdir(layout.blobs_dir) == []


def test_a_write_through_a_hard_link_is_noticed(layout: Layout, tmp_path: Path) -> None:
    stored = layout.put_bytes(b"a machine disk", "x")
    link = tmp_path / "exported"
    os.link(layout.blob_path(stored.digest), link)
    link.chmod(0o644)
    with link.open("r+b") as stream:
        stream.write(b"A")
    assert layout.has(stored.digest)
    assert not layout.intact(stored.digest, stored.size_bytes)
    layout.put_bytes(b"a machine disk", "x")
    assert layout.intact(stored.digest, stored.size_bytes)
    assert link.read_bytes() == b"A machine disk"


def test_a_touched_blob_is_hashed_and_sealed_again(layout: Layout) -> None:
    stored = layout.put_bytes(b"content", "x")
    path = layout.blob_path(stored.digest)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert layout.intact(stored.digest)
    assert path.stat().st_mtime_ns % 1_000_000_000 != 0


def test_reading_checks_size_and_digest(layout: Layout) -> None:
    stored = layout.put_bytes(b"content", "x")
    assert layout.read_blob(stored.digest, max_bytes=7) == b"content"
    with pytest.raises(IntegrityError):
        layout.read_blob(stored.digest, max_bytes=6)
    with pytest.raises(NotFound):
        layout.read_blob(Digest.of(b"other"), max_bytes=6)
    path = layout.blob_path(stored.digest)
    path.chmod(0o600)
    path.write_bytes(b"CONTENT")
    with pytest.raises(IntegrityError):
        layout.read_blob(stored.digest, max_bytes=100)


def test_names(layout: Layout) -> None:
    one, two = (put_image(layout, arch, {"a": b"b"}) for arch in ("amd64", "arm64"))
    layout.set_ref("name:one", one)
    layout.set_ref("name:two", two)
    layout.set_ref("name:one", two)
    found = layout.resolve("name:one")
    assert found is not None and found.digest == two.digest
    assert layout.remove_ref("name:two") and not layout.remove_ref("name:two")
    assert [e.ref_name for e in Layout.open(layout.path).entries()] == ["name:one"]
    with pytest.raises(StoreError, match="not there"):
        layout.set_ref("name:three", Descriptor.of(b"nothing", MEDIA_MANIFEST))


def test_unknown_fields_of_the_index_are_kept(layout: Layout) -> None:
    index = json.loads((layout.path / "index.json").read_text())
    index["annotations"], index["x-other"] = {"a": "b"}, [1]
    (layout.path / "index.json").write_text(json.dumps(index))
    layout.set_ref("a:b", put_image(layout, "amd64", {"a": b"b"}))
    after = json.loads((layout.path / "index.json").read_text())
    assert (after["annotations"], after["x-other"]) == ({"a": "b"}, [1])


def test_many_threads_name_at_once(layout: Layout) -> None:
    image = put_image(layout, "amd64", {"a": b"b"})
    threads = [
        threading.Thread(target=Layout.open(layout.path).set_ref, args=(f"n:{i}", image))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layout.entries()) == 12


def test_attached_documents_are_found(layout: Layout) -> None:
    image = put_image(layout, "amd64", {"a": b"b"})
    layout.set_ref("image:1", image)
    first = layout.attach(image, "application/x-record", b"{}", "application/json")
    second = layout.attach(image, "application/x-log", b"log", "text/plain")
    layout.attach(image, "application/x-log", b"log", "text/plain")
    assert [d.digest for d in layout.referrers(image.digest)] == [first.digest, second.digest]
    found = layout.referrers(image.digest, "application/x-log")
    assert [d.digest for d in found] == [second.digest]
    assert layout.referrers(first.digest) == ()


def test_an_interrupted_making_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "layout"
    (path / "blobs").mkdir(parents=True)
    (path / "locks").mkdir()
    assert Layout.create(path).entries() == ()


def test_foreign_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "somebody.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        Layout.create(tmp_path)
    with pytest.raises(StoreError):
        Layout.create(tmp_path / "somebody.txt")
    with pytest.raises(NotFound):
        Layout.open(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b'{"manifests":{}}',
        b'{"manifests":[{"digest":"sha256:x","size":1}]}',
        b'{"manifests":[],"manifests":[]}',
    ],
)
def test_a_damaged_index_is_said_so(layout: Layout, index: bytes) -> None:
    (layout.path / "index.json").write_bytes(index)
    with pytest.raises(SourceError) as caught:
        Layout.open(layout.path)
    assert caught.value.code == "malformed"


def test_another_layout_version_is_refused(layout: Layout) -> None:
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(SourceError, match="layout version"):
        Layout.open(layout.path)
