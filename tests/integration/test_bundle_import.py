"""Imports as whole processes: without a network, side by side, from a pipe, stopped by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.oci.layout_source import LayoutSource
from local_imager.sources.inventory import held_images, verify_held
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.integration.test_no_network import ISOLATED
from tests.integration.test_store_crash import small_disk
from tests.program import Program
from tests.unit.deliver.bundle.nearside import NearSide


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    near = NearSide(tmp_path)
    near.image("siderolabs/imager", size_bytes=600_000)
    near.image("siderolabs/installer-base", arches=("amd64", "arm64"), size_bytes=200_000)
    near.asset(b"\0" * 100_000 + os.urandom(100_000))
    near.document("site.lock", b"lock")
    (tmp_path / "images.pub").write_text(near.signing.pem)
    (tmp_path / "bundles.pub").write_text(near.vouching.pem)
    (tmp_path / "config.toml").write_text(
        '[[trust]]\npattern = "upstream.test/**"\nkey = "images.pub"\n'
        '[[trust]]\npattern = "bundles"\nkey = "bundles.pub"\n'
    )
    return near


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(
        tmp_path / "config.toml", tmp_path / "far", tmp_path / "out", prefix=tuple(ISOLATED)
    )


def assert_all_there(near: NearSide, program: Program, images: int = 2) -> None:
    """Every image is whole and verifies, the store is clean, and nothing is under way."""
    store = Store.open(program.store)
    held = held_images(store)
    assert len(held) == images
    source = LayoutSource.open(store.path)
    for image in held:
        assert image.arches
        verify_held(source, image, near.policy())
    assert len(store.assets()) == len(near.assets)
    assert not any(map(is_incoming, store.layout.entries()))
    assert check(store).clean


def test_an_import_where_there_is_no_network(near: NearSide, program: Program) -> None:
    files = near.write(parts=3)
    said = program("bundle", "import", *files, "--json", "--report", program.out).expect(0)
    states = [item["state"] for item in said.json["imports"][0]["items"]]
    assert states == ["imported", "imported", "imported", "carried"]
    assert_all_there(near, program)


def test_several_imports_at_once_and_a_collector_between_them(
    near: NearSide, program: Program
) -> None:
    near.write("whole.tar")
    files = near.write(parts=3)
    store = Store.open(program.store)
    done = threading.Event()

    def collecting() -> None:
        while not done.is_set():
            collect(store, Rules(grace_s=-1))
            time.sleep(0.01)

    collector = threading.Thread(target=collecting)
    arguments = [[near.folder / "whole.tar"], [near.folder / "whole.tar"], files[:2], files[1:]]
    running = [
        program.start("bundle", "import", *one, "--report", program.out / str(number))
        for number, one in enumerate(arguments)
    ]
    collector.start()
    try:
        for one in running:
            one.wait().expect(0)
    finally:
        done.set()
        collector.join()
    program("bundle", "import", *files, "--report", program.out).expect(0)
    assert_all_there(near, program)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path


def test_a_bundle_from_a_pipe(near: NearSide, program: Program) -> None:
    (path,) = near.write()
    argv = program.argv("bundle", "import", "-", "--report", program.out)
    signature = near.folder / "site.tar.sigstore.json"
    with path.open("rb") as stream:
        done = subprocess.run(
            [*argv, "--signature", str(signature)], stdin=stream, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert_all_there(near, program)


def test_an_import_stopped_by_hand_goes_on(near: NearSide, program: Program, pipe: Path) -> None:
    near.image("siderolabs/further", size_bytes=3_000_000)  # more than what is read at once
    (path,) = near.write()
    signature = near.folder / "site.tar.sigstore.json"
    running = program.start(
        "bundle", "import", pipe, "--signature", signature, "--report", program.out
    )
    data = path.read_bytes()
    with pipe.open("wb") as stream:
        stream.write(data[: len(data) * 3 // 4])
        stream.flush()
        blobs = program.store / "blobs" / "sha256"
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s and not _large(blobs):
            time.sleep(0.01)
        running.signal(signal.SIGINT)
        running.wait().expect(130)
    store = Store.open(program.store)
    assert check(store).clean and held_images(store) == ()
    collect(store, Rules(grace_s=-1))
    (kept,) = _large(blobs)
    inode = kept.stat().st_ino
    program("bundle", "import", path, "--report", program.out).expect(0)
    assert kept.stat().st_ino == inode
    assert_all_there(near, program, images=3)


def _large(blobs: Path) -> list[Path]:
    """Blobs that are layers, by their size."""
    found = blobs.iterdir() if blobs.is_dir() else ()
    return [path for path in found if 500_000 < path.stat().st_size < 1_000_000]


# A disk is kept free by 64 MiB: the first has no room for documents, the second none for layers.
@pytest.mark.parametrize(
    ("size", "lacking"),
    [("1m", "the documents of the bundle need 1 MiB"), ("66000k", "MiB more in the store")],
)
def test_a_disk_that_is_too_small(
    near: NearSide, program: Program, tmp_path: Path, size: str, lacking: str
) -> None:
    files = near.write()
    with small_disk(tmp_path / "disk", size) as disk:
        small = Program(program.config, disk / "far", program.out, prefix=program.prefix)
        said = small("bundle", "import", *files, "--report", program.out)
        said.expect(5, lacking, "are free", "free some space")
        assert check(Store.open(small.store)).clean
        assert held_images(Store.open(small.store)) == ()
