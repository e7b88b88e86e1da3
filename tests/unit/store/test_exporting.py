"""Export: whole files with checksums, and nothing of the user's overwritten unasked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from local_imager.errors import InputError, NotFound, StoreError
from local_imager.store.store import Store
from tests.unit.store.test_store import put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "out" / "5555" / "metal-amd64.iso"


def test_an_export_has_a_checksum_that_sha256sum_accepts(store: Store, dest: Path) -> None:
    done = store.export(put(store), dest)
    assert dest.read_bytes() == b"an image"
    assert done.method in ("reflink", "hardlink")
    subprocess.run(["sha256sum", "-c", f"{dest.name}.sha256"], cwd=dest.parent, check=True)
    assert sorted(os.listdir(dest.parent)) == [dest.name, f"{dest.name}.sha256"]


def test_what_is_there_already_is_kept(store: Store, dest: Path) -> None:
    stored = put(store)
    store.export(stored, dest)
    before = dest.stat()
    dest.with_name(dest.name + ".sha256").unlink()
    assert store.export(stored, dest).method == "kept"
    assert dest.stat().st_ino == before.st_ino
    assert dest.with_name(dest.name + ".sha256").is_file()


def test_an_older_export_is_replaced(store: Store, dest: Path) -> None:
    for copy in (False, True):
        store.export(put(store, b"old", key="a" * 64), dest, hard_link=not copy)
        store.export(put(store, b"new", key="b" * 64), dest, hard_link=not copy)
        assert dest.read_bytes() == b"new"
    assert store.layout.intact(put(store, b"old", key="a" * 64).digest)


def test_a_copy_may_be_written_to(store: Store, dest: Path) -> None:
    stored = put(store)
    assert store.export(stored, dest, hard_link=False).method in ("reflink", "copy")
    assert dest.stat().st_nlink == 1
    dest.write_bytes(b"changed")
    assert store.layout.intact(stored.digest)


def test_foreign_and_changed_files_are_not_overwritten(store: Store, dest: Path) -> None:
    stored = put(store)
    dest.parent.mkdir(parents=True)
    dest.write_bytes(b"somebody's")
    with pytest.raises(InputError) as caught:
        store.export(stored, dest)
    assert caught.value.code == "foreign-file"
    assert dest.read_bytes() == b"somebody's"
    store.export(stored, dest, overwrite=True, hard_link=False)
    dest.write_bytes(b"a machine ran from it")
    with pytest.raises(InputError) as caught:
        store.export(stored, dest)
    assert caught.value.code == "changed-file"
    store.export(stored, dest, overwrite=True)
    assert dest.read_bytes() == b"an image"


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_what_is_no_file_is_not_replaced(store: Store, dest: Path, kind: str) -> None:
    dest.parent.mkdir(parents=True)
    if kind == "directory":
        dest.mkdir()
    else:
        dest.symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="in the way"):
        store.export(put(store), dest)
    assert dest.is_dir() or dest.is_symlink()


def test_secrets_are_copied_for_their_owner_only(store: Store, dest: Path) -> None:
    stored = put(store, b"secret", private=True)
    done = store.export(stored, dest)
    assert done.method in ("reflink", "copy")
    assert dest.stat().st_mode & 0o777 == 0o600
    dest.chmod(0o644)
    store.export(stored, dest)
    assert dest.stat().st_mode & 0o777 == 0o600


def test_a_sparse_disk_stays_sparse_in_a_copy(store: Store, dest: Path) -> None:
    size = 256 << 20
    with store.workspace() as folder:
        path = folder / "disk"
        with path.open("wb") as stream:
            stream.truncate(size)
            stream.write(b"boot")
        from local_imager.store.records import AssetRecord

        stored = store.put_asset(AssetRecord("5" * 64, "v1.13.0", "x.raw", "d" * 64, path))
    store.export(stored, dest, hard_link=False)
    assert dest.stat().st_size == size
    assert dest.stat().st_blocks * 512 < 1 << 20


def test_a_lost_file_is_said_so(store: Store, dest: Path) -> None:
    stored = put(store)
    stored.path.unlink()
    with pytest.raises(NotFound, match="lost the file"):
        store.export(stored, dest)
    assert not dest.exists()


def test_a_place_that_cannot_be_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="could not export"):
        store.export(put(store), tmp_path / "file" / "below")


def test_what_a_killed_export_left_is_removed(store: Store, dest: Path) -> None:
    dest.parent.mkdir(parents=True)
    for name in (f".{dest.name}.0011aabb.part", f".{dest.name}.sha256.0011aabb.part"):
        (dest.parent / name).write_bytes(b"half")
        os.utime(dest.parent / name, (1, 1))
    store.export(put(store), dest)
    assert sorted(os.listdir(dest.parent)) == [dest.name, f"{dest.name}.sha256"]
