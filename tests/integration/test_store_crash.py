"""A killed process, a full disk, two processes at once: nothing committed is lost or damaged."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.errors import StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Digest
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.records import AssetRecord, StoredAsset
from local_imager.store.store import Store
from tests.scriptedhttp import Ask, scripted_server

KILLS = 30

WRITER = """
import os, sys
from pathlib import Path
from local_imager.store.records import AssetRecord, StoredAsset
from local_imager.store.store import Store
from local_imager.store.gc import Rules, collect

store = Store.open(Path(sys.argv[1]))
number = int(sys.argv[2]) * 10_000
while True:
    number += 1
    key = f"{number:064x}"
    with store.build_lock(key), store.build_slot(2), store.workspace() as folder:
        path = folder / "out"
        path.write_bytes(os.urandom(150_000))
        asset = store.put_asset(
            AssetRecord("5" * 64, "v1.13.0", f"asset-{number % 7}", key, path)
        )
        store.add_referrer(asset, "application/x-record", key.encode(), "text/plain")
        if number % 5 == 0:
            collect(store, Rules(grace_s=0))
    print(key, flush=True)
"""


def test_kill_at_any_moment_leaves_a_clean_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = Store.open(root)
    with store.workspace() as folder:
        (folder / "first").write_bytes(b"committed before everything")
        first = store.put_asset(
            AssetRecord("1" * 64, "v1.13.0", "first", "f" * 64, folder / "first")
        )
    chance = random.Random(7)
    committed = "f" * 64
    for number in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        if number % 3 == 0:  # some are killed while they start, most while they write
            process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.12) + (0 if number % 3 == 0 else 0.13))
        process.send_signal(signal.SIGKILL)
        told = process.communicate()[0].splitlines()
        committed = told[-1] if told and len(told[-1]) == 64 else committed
        assert Store.open(root).find_build(committed) is not None
        if number % 10 == 9:
            report = check(Store.open(root))
            assert report.clean, report.faults
    store = Store.open(root)
    assert store.find_build("f" * 64) == first
    assert committed != "f" * 64
    assert len(store.assets()) > 1
    with store.build_lock(committed) as waited:
        assert not waited
    for path in [*store.layout.staging_dir.glob("*"), *store.work_dir.glob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)
    collect(store, Rules(grace_s=-1))
    assert os.listdir(store.layout.staging_dir) == []
    assert os.listdir(store.work_dir) == []
    assert set(os.listdir(root)) == {
        *("blobs", "index.json", "locks", "oci-layout", "staging", "work")
    }
    assert check(store).clean


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Yield a file system of its own that is full after ``size``."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@contextlib.contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextlib.contextmanager
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory where more than about 1 MB does not fit, mounted if that is allowed."""
    if os.geteuid() == 0:
        with small_disk(tmp_path / "disk", "1m") as path:
            yield path
    else:
        (tmp_path / "disk").mkdir()
        with small_files(1 << 20):
            yield tmp_path / "disk"


def test_a_full_disk_shows_nothing_half_written(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3 << 20))
    wanted = Descriptor.of(large.read_bytes(), "x")
    with full_disk(tmp_path) as disk:
        store = Store.open(disk / "store")
        small = store.layout.put_bytes(b"committed", "x")
        attempts = (
            lambda: store.layout.put_bytes(large.read_bytes(), "x"),
            lambda: store.layout.put_file(large, "x"),
            lambda: store.put_asset(AssetRecord("5" * 64, "v1", "a", "k" * 64, large), move=False),
            lambda: store.download(wanted, lambda offset: iter([large.read_bytes()[offset:]])),
        )
        for attempt in attempts:
            with pytest.raises(StoreError) as caught:
                attempt()
            assert caught.value.code == "disk-full"
            assert caught.value.hint
            assert os.listdir(store.layout.blobs_dir) == [small.digest.hex]
            for leftover in store.layout.unverified_dir.glob("*"):
                leftover.unlink()
        assert large.exists()
        assert check(store).clean
        assert store.layout.put_bytes(b"still works", "x")


def test_a_disk_that_fills_up_at_any_step(tmp_path: Path) -> None:
    """Leave a little more room each time, so that another step is the one that fails."""
    failed = 0
    for room in range(0, 160, 8):
        with small_room(tmp_path / f"room-{room}", room) as (store, first):
            try:
                with store.workspace() as folder:
                    (folder / "x").write_bytes(os.urandom(60_000))
                    asset = store.put_asset(
                        AssetRecord("5" * 64, "v1", "second", "2" * 64, folder / "x")
                    )
                store.add_referrer(asset, "application/x-record", b"{}", "text/plain")
            except (StoreError, OSError) as error:
                failed += 1
                assert isinstance(error, OSError) or error.code == "disk-full"
            assert check(store).clean
            assert store.find_build("1" * 64) == first
            collect(store, Rules(grace_s=-1))
            assert check(store).clean
    assert 0 < failed < 20


@contextlib.contextmanager
def small_room(path: Path, room_kib: int) -> Iterator[tuple[Store, StoredAsset]]:
    """Yield a store with one asset on a disk that has so much room left."""
    with small_disk(path, "1m") as disk:
        store = Store.open(disk / "store")
        with store.workspace() as folder:
            (folder / "x").write_bytes(b"first")
            first = store.put_asset(AssetRecord("5" * 64, "v1", "first", "1" * 64, folder / "x"))
        free_kib = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize // 1024
        (disk / "filler").write_bytes(bytes((free_kib - room_kib) * 1024))
        yield store, first


def test_a_full_disk_while_exporting(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with store.workspace() as folder:
        (folder / "x").write_bytes(os.urandom(3 << 20))
        asset = store.put_asset(AssetRecord("5" * 64, "v1", "a", "k" * 64, folder / "x"))
    with full_disk(tmp_path) as disk:
        with pytest.raises(StoreError) as caught:
            store.export(asset, disk / "out" / "a", hard_link=False)
        assert caught.value.code == "disk-full"
        assert os.listdir(disk / "out") == []


def test_an_export_to_another_file_system_is_a_copy(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with store.workspace() as folder:
        (folder / "x").write_bytes(b"image")
        asset = store.put_asset(AssetRecord("5" * 64, "v1", "a", "k" * 64, folder / "x"))
    elsewhere = Path("/dev/shm") / f"local-imager-test-{os.getpid()}"
    try:
        assert store.export(asset, elsewhere / "a").method == "copy"
        assert (elsewhere / "a").read_bytes() == b"image"
    finally:
        for path in elsewhere.iterdir():
            path.unlink()
        elsewhere.rmdir()


DOWNLOADER = """
import sys
from pathlib import Path
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.open import open_source
from local_imager.store.store import Store

root, url, digest, size = sys.argv[1:]
store = Store.open(Path(root))
wanted = Descriptor("x", Digest.parse(digest), int(size))
source = open_source(url, registry="r.example")
image = Reference.parse("r.example/a/b:c")
store.download(wanted, lambda offset: source.blob(image, wanted, offset))
"""


def test_two_processes_download_one_blob_once(tmp_path: Path) -> None:
    data = os.urandom(2 << 20)
    Store.open(tmp_path / "store")

    def script(ask: Ask) -> None:
        time.sleep(0.3)
        ask.answer(200, data)

    with scripted_server(script) as server:
        arguments = [str(tmp_path / "store"), server.url, str(Digest.of(data)), str(len(data))]
        processes = [
            subprocess.Popen([sys.executable, "-c", DOWNLOADER, *arguments]) for _ in range(3)
        ]
        assert [process.wait(30) for process in processes] == [0, 0, 0]
        assert len(server.requests) == 1
    assert Layout.open(tmp_path / "store").intact(Digest.of(data), len(data))


def test_a_killed_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = os.urandom(4 << 20)
    asked: list[str] = []

    def script(ask: Ask) -> None:
        asked.append(ask.headers.get("range", ""))
        start = int(asked[-1][6:-1]) if asked[-1] else 0
        if len(asked) == 1:
            ask.handler.send_response(200)
            ask.handler.send_header("Content-Length", str(len(data)))
            ask.handler.end_headers()
            ask.handler.wfile.write(data[: 3 << 20])
            ask.silence()
        else:
            content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
            ask.answer(206, data[start:], Content_Range=content_range)

    with scripted_server(script) as server:
        arguments = [str(tmp_path / "store"), server.url, str(Digest.of(data)), str(len(data))]
        first = subprocess.Popen([sys.executable, "-c", DOWNLOADER, *arguments])
        partial = tmp_path / "store/unverified" / Digest.of(data).hex
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            if partial.exists() and partial.stat().st_size >= 2 << 20:
                break
            time.sleep(0.02)
        first.kill()
        first.wait()
        subprocess.run([sys.executable, "-c", DOWNLOADER, *arguments], check=True, timeout=30)
    assert asked[0] == "" and int(asked[1][6:-1]) >= 2 << 20
    assert Layout.open(tmp_path / "store").intact(Digest.of(data), len(data))
