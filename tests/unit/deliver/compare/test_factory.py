"""Fetching files of a factory: resumed, bounded, explained, and kept apart as foreign."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.compare.address import FactoryAsset
from local_imager.deliver.compare.factory import FactoryClient
from local_imager.errors import (
    HostError,
    NotFound,
    SourceError,
)
from local_imager.events import Message, Progress, RecordingSink
from local_imager.store.foreign import foreign_files
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.store import Store
from tests.factoryserver import PIECE_BYTES, FactoryServer, Faults, factory_server

ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
ISO = FactoryAsset(ID, "v1.13.0", "metal-amd64.iso")
KERNEL = FactoryAsset(ID, "v1.13.0", "kernel-amd64")
# Larger than what is worth continuing, and no run of it looks like another.
DATA = b"".join(number.to_bytes(4, "big") for number in range(100_000))
CUT = 2 * PIECE_BYTES


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture(params=[False, True], ids=["plain", "redirect"])
def server(request: pytest.FixtureRequest) -> Iterator[FactoryServer]:
    with factory_server(redirect=request.param) as running:
        running.serve(ID, "v1.13.0", {"metal-amd64.iso": DATA, "kernel-amd64": b"kernel"})
        yield running


@pytest.fixture
def ranges() -> Iterator[FactoryServer]:
    """A factory whose files lie where ranges are known."""
    with factory_server(redirect=True) as running:
        running.serve(ID, "v1.13.0", {"metal-amd64.iso": DATA})
        yield running


class Naps:
    """Counts pauses in place of making them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def client(
    server: FactoryServer, sink: RecordingSink | None = None, **more: object
) -> FactoryClient:
    return FactoryClient(server.url, sink=sink or RecordingSink(), sleep=Naps(), **more)  # type: ignore[arg-type]


def partials(store: Store) -> list[int]:
    """The sizes of what lies there unfinished."""
    folder = store.layout.unverified_dir
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.stat().st_size for path in found if path.suffix != ".json")


def test_a_file_is_fetched_once_and_kept_as_foreign(server: FactoryServer, store: Store) -> None:
    sink = RecordingSink()
    reader = client(server, sink)
    got = reader.fetch(store, ISO)
    assert got.path.read_bytes() == DATA
    assert got.origin == f"{server.url}/image/{ISO.path}"
    assert reader.fetch(store, ISO) == got
    assert reader.fetch(store, ISO, offline=True) == got
    assert len([t for t in server.asked() if t.startswith("/image/")]) == 1
    last = [event for event in sink.events if isinstance(event, Progress)][-1]
    assert (last.step, last.done, last.total) == ("fetch", len(DATA), len(DATA))
    assert partials(store) == []
    assert check(store).clean


def test_a_refetch_asks_again_and_moves_the_name(server: FactoryServer, store: Store) -> None:
    reader = client(server)
    old = reader.fetch(store, ISO)
    server.files[ISO.path] = DATA[::-1]
    new = reader.fetch(store, ISO, refetch=True)
    assert new.path.read_bytes() == DATA[::-1]
    assert [one.digest for one in foreign_files(store.layout)] == [new.digest] != [old.digest]
    assert check(store).clean


def test_a_foreign_file_is_nothing_that_a_build_finds(server: FactoryServer, store: Store) -> None:
    got = client(server).fetch(store, ISO)
    assert store.assets() == () == store.images()
    with pytest.raises(NotFound):
        store.show(got.digest.hex)
    with pytest.raises(NotFound):
        store.show(f"{ID}/v1.13.0/metal-amd64.iso")
    done = collect(store, Rules(max_bytes=0))
    assert done.names == (got.name,)
    assert not got.path.exists()


def test_a_broken_connection_is_continued_in_the_same_run(
    ranges: FactoryServer, store: Store
) -> None:
    ranges.faults = Faults(cut_after=CUT, cuts=2)
    assert client(ranges).fetch(store, ISO).path.read_bytes() == DATA
    asked = [said for _, target, said in ranges.requests if target.startswith("/cache/")]
    assert [said.get("range") for said in asked[:2]] == [None, f"bytes={CUT}-"]
    assert asked[1]["if-range"].startswith('"')


def test_a_server_may_send_less_than_was_asked_for(ranges: FactoryServer, store: Store) -> None:
    ranges.faults = Faults(cut_after=CUT, cuts=1, part=100_000)
    assert client(ranges).fetch(store, ISO).path.read_bytes() == DATA
    asked = [said.get("range") for _, target, said in ranges.requests if "/cache/" in target]
    assert asked == [None, *(f"bytes={CUT + number * 100_000}-" for number in range(3))]


def test_a_server_that_falls_silent_is_asked_for_the_rest(
    ranges: FactoryServer, store: Store
) -> None:
    def after_the_pause(_seconds: float) -> None:
        ranges.faults = Faults()

    ranges.faults = Faults(stall_after=CUT)
    sink = RecordingSink()
    reader = FactoryClient(ranges.url, sink=sink, sleep=after_the_pause, stall_s=0.3)
    assert reader.fetch(store, ISO).path.read_bytes() == DATA
    assert ranges.requests[-1][2]["range"] == f"bytes={CUT}-"
    (told,) = [event.text for event in sink.events if isinstance(event, Message)]
    assert f"nothing came for 0.3 s, {CUT} bytes did; trying again in" in told


def test_a_server_that_stays_silent_is_given_up(ranges: FactoryServer, store: Store) -> None:
    ranges.faults = Faults(stall_after=1)
    reader = client(ranges, stall_s=0.05)
    with pytest.raises(SourceError, match="broke off again and again") as caught:
        reader.fetch(store, ISO)
    assert caught.value.code == "truncated"
    assert len([target for target in ranges.asked() if "/cache/" in target]) <= 10


def test_a_later_run_continues_what_one_left(ranges: FactoryServer, store: Store) -> None:
    ranges.faults = Faults(cut_after=CUT, cuts=1, busy=0, stall_after=0)
    with pytest.raises(KeyboardInterrupt):
        broken = FactoryClient(ranges.url, sink=RecordingSink(), sleep=_interrupt)
        broken.fetch(store, ISO)
    assert partials(store) == [CUT]
    assert foreign_files(store.layout) == ()
    assert client(ranges).fetch(store, ISO).path.read_bytes() == DATA
    assert ranges.requests[-1][2]["range"] == f"bytes={CUT}-"
    assert partials(store) == []


def _interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_without_ranges_a_download_begins_anew(ranges: FactoryServer, store: Store) -> None:
    server = ranges
    server.redirect = False
    server.faults = Faults(cut_after=CUT, cuts=1)
    assert client(server).fetch(store, ISO).path.read_bytes() == DATA
    assert all("range" not in said for _, _, said in server.requests)


def test_bytes_of_two_versions_are_never_joined(ranges: FactoryServer, store: Store) -> None:
    other = bytes(len(DATA))
    for ignores in (False, True):
        ranges.files[ISO.path] = DATA
        ranges.faults = Faults(cut_after=CUT, cuts=1, change=other, ignores_if_range=ignores)
        got = client(ranges).fetch(store, ISO, refetch=True)
        assert got.path.read_bytes() == other


def test_a_machine_that_was_started_anew_continues_nothing(
    ranges: FactoryServer, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ranges.faults = Faults(cut_after=CUT, cuts=1)
    with pytest.raises(KeyboardInterrupt):
        FactoryClient(ranges.url, sleep=_interrupt).fetch(store, ISO)
    later = tmp_path / "boot_id"
    later.write_text("another life\n")
    monkeypatch.setattr("local_imager.store.foreign._BOOT_ID", later)
    assert client(ranges).fetch(store, ISO).path.read_bytes() == DATA
    assert "range" not in ranges.requests[-1][2]


def test_a_damaged_note_is_no_reason_to_stop(ranges: FactoryServer, store: Store) -> None:
    for text in ("", "[]", "{", '{"boot": 1, "validator": [], "size_bytes": "x"}'):
        ranges.faults = Faults(cut_after=CUT, cuts=1)
        with pytest.raises(KeyboardInterrupt):
            FactoryClient(ranges.url, sleep=_interrupt).fetch(store, ISO, refetch=True)
        (note,) = store.layout.unverified_dir.glob("*.json")
        note.write_text(text)
        assert client(ranges).fetch(store, ISO, refetch=True).path.read_bytes() == DATA


def test_zeros_take_no_room(server: FactoryServer, store: Store) -> None:
    data = DATA + bytes(4 << 20)
    server.files[ISO.path] = data
    got = client(server).fetch(store, ISO)
    assert got.path.read_bytes() == data
    assert os.stat(got.path).st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("faults", "message", "hint"),
    [
        (Faults(cut_after=10, cuts=99), "broke off again and again", "goes on where this one"),
        (Faults(length=len(DATA) + 5), "broke off again and again", "goes on where this one"),
        (Faults(encoding="gzip"), "with the encoding 'gzip'", "proxy"),
        (Faults(busy=99), "no time, however often", "later"),
        (Faults(busy=1, retry_after="7200"), "come again in 7200 s", "kept"),
        (Faults(busy=1, busy_status=429, retry_after="7200"), "limits how much", "later"),
    ],
    ids=["cut", "length", "encoding", "busy", "retry-after", "limited"],
)
def test_what_does_not_get_better_ends(
    ranges: FactoryServer, store: Store, faults: Faults, message: str, hint: str
) -> None:
    ranges.faults = replace(faults)
    with pytest.raises(SourceError, match=message) as caught:
        client(ranges).fetch(store, ISO)
    assert hint in caught.value.hint
    assert foreign_files(store.layout) == ()
    assert len(ranges.requests) <= 12


def test_a_server_without_ranges_that_breaks_off_says_so(store: Store) -> None:
    with factory_server(faults=Faults(cut_after=CUT, cuts=99)) as server:
        server.serve(ID, "v1.13.0", {"metal-amd64.iso": DATA})
        with pytest.raises(SourceError, match="broke off") as caught:
            client(server).fetch(store, ISO)
    assert "begins anew" in caught.value.hint
    assert partials(store) == []


def test_a_busy_factory_is_asked_again(server: FactoryServer, store: Store) -> None:
    server.faults = Faults(busy=2, retry_after="3")
    sink, naps = RecordingSink(), Naps()
    got = FactoryClient(server.url, sink=sink, sleep=naps).fetch(store, ISO)
    assert got.path.read_bytes() == DATA
    assert naps.seconds == [3.0, 3.0]
    texts = [event.text for event in sink.events if isinstance(event, Message)]
    assert any("no time now; trying again in 3.0 s" in text for text in texts)


def test_more_than_any_boot_file_has_is_not_taken(server: FactoryServer, store: Store) -> None:
    with pytest.raises(SourceError, match="no boot file is that large"):
        client(server, max_bytes=CUT).fetch(store, ISO)
    assert partials(store) == []


def test_a_disk_without_room_is_told_before(
    server: FactoryServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs(store.path)
    monkeypatch.setattr(
        "local_imager.deliver.compare.factory.shutil.disk_usage",
        lambda _path: type("Usage", (), {"free": min(usage.f_frsize, 4096)})(),
    )
    with pytest.raises(HostError) as caught:
        client(server).fetch(store, ISO)
    assert caught.value.code == "disk-full"
    assert partials(store) == []


def test_two_at_once_fetch_it_once(ranges: FactoryServer, store: Store) -> None:
    got: list[str] = []

    def one() -> None:
        own = Store.open(store.path)
        got.append(str(client(ranges).fetch(own, ISO).digest))

    ranges.faults = Faults(held=threading.Event())
    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)  # all of them ask by now, if they do
    assert ranges.faults.held is not None
    ranges.faults.held.set()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and len(set(got)) == 1
    assert len([t for t in ranges.asked() if t.startswith("/cache/")]) == 1
    assert check(store).clean


def test_offline_only_the_store_is_asked(store: Store, server: FactoryServer) -> None:
    with pytest.raises(NotFound, match="offline nothing is fetched"):
        client(server).fetch(store, ISO, offline=True)
    assert server.requests == []
