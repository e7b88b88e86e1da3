"""Fetching files of a factory: resumed, bounded, explained, and kept apart as foreign."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.compare.address import FactoryAsset, factory_address
from local_imager.deliver.compare.factory import FactoryClient
from local_imager.errors import (
    ExitCode,
    HostError,
    InputError,
    LocalImagerError,
    NotFound,
    SourceError,
)
from local_imager.events import Message, Progress, RecordingSink
from local_imager.schematic.parse import parse_schematic
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


@pytest.mark.parametrize(
    ("wanted", "error", "code", "phrases"),
    [
        (
            FactoryAsset("0" * 64, "v1.13.0", "kernel-amd64"),
            NotFound,
            "schematic-unknown",
            ("does not know the schematic", "--upload", "POST /schematics"),
        ),
        (
            FactoryAsset(ID, "v1.9.9", "kernel-amd64"),
            NotFound,
            "not-found",
            ("failed to get kernel: version 1.9.9 is not available", "/versions"),
        ),
        (
            FactoryAsset(ID, "v1.13.0", "metal-riscv64.iso"),
            InputError,
            "factory-refused",
            ('invalid architecture: "riscv64"', "local-imager plan"),
        ),
        (
            FactoryAsset(ID, "v1.13.0", "metal-amd64.iso.sha256"),
            SourceError,
            "factory-refused",
            ("checksum endpoint is not available", "enterprise edition"),
        ),
        (
            FactoryAsset(ID, "banana", "kernel-amd64"),
            SourceError,
            "factory-failed",
            ("internal server error", "the factory's own log"),
        ),
    ],
    ids=["schematic", "version", "path", "enterprise", "failure"],
)
def test_refusals_have_a_cause_and_a_hint(
    server: FactoryServer,
    store: Store,
    wanted: FactoryAsset,
    error: type[LocalImagerError],
    code: str,
    phrases: tuple[str, ...],
) -> None:
    with pytest.raises(error) as caught:
        client(server).fetch(store, wanted)
    assert caught.value.code == code
    told = f"{caught.value.message} {caught.value.hint}"
    assert all(phrase in told for phrase in phrases), told
    assert len(server.requests) == 1  # a refusal is not tried again


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

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and len(set(got)) == 1
    assert len([t for t in ranges.asked() if t.startswith("/cache/")]) == 1
    assert check(store).clean


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, "Content-Type: text/html", b"<html>"), "web page"),
        ((302, "Location: file:///etc/passwd", b""), "not safe"),
        ((302, "Location: /image", b""), "in a circle"),
        ((200, "X-Nothing: 1", b""), "sends nothing"),
        ((206, "Content-Range: bytes 5-9/10", b"56789"), "another part"),
        ((404, "X-Nothing: 1", b"\x1b[31mred\n\n\n\n"), "\ufffd[31mred"),
        ((404, "X-Nothing: 1", b"<a/>"), "status 404"),
        ((0, "", b"not http at all\r\n\r\n"), "cannot be reached"),
    ],
    ids=["page", "file", "circle", "empty", "part", "escape", "markup", "garbage"],
)
def test_strange_servers(
    store: Store,
    raw_server: Callable[[bytes], str],
    answer: tuple[int, str, bytes],
    problem: str,
) -> None:
    reader = FactoryClient(raw_server(http_bytes(*answer)), sleep=Naps())
    with pytest.raises(SourceError, match=problem.replace("[", r"\[")):
        reader.fetch(store, ISO)
    assert foreign_files(store.layout) == ()


def http_bytes(status: int, header: str, body: bytes) -> bytes:
    """An answer as it goes over the wire; status 0 is the body alone."""
    head = f"HTTP/1.1 {status} Said\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return body if status == 0 else head.encode() + body


@pytest.fixture
def raw_server() -> Iterator[Callable[[bytes], str]]:
    """Return a function that starts a server which answers every connection with these bytes."""
    import socketserver

    servers: list[socketserver.TCPServer] = []

    def start(data: bytes) -> str:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65536)
                self.request.sendall(data)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nobody_there_and_no_tls_are_told_apart(store: Store, server: FactoryServer) -> None:
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        FactoryClient("http://127.0.0.1:1", sleep=Naps()).fetch(store, ISO)
    assert "--factory" in caught.value.hint and caught.value.code == "unreachable"
    with pytest.raises(SourceError) as caught:
        FactoryClient(f"https://{server.address}", sleep=Naps()).fetch(store, ISO)
    assert caught.value.code == "tls" and "http://" in caught.value.hint


def test_a_proxy_that_is_not_there_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SourceError) as caught:
        FactoryClient("http://factory.example", sleep=Naps()).fetch(store, ISO)
    assert "proxy" in caught.value.hint


def test_offline_only_the_store_is_asked(store: Store, server: FactoryServer) -> None:
    with pytest.raises(NotFound, match="offline nothing is fetched"):
        client(server).fetch(store, ISO, offline=True)
    assert server.requests == []


SCHEMATIC = parse_schematic(b"customization:\n  extraKernelArgs: [a<b>&c]\n")


def test_a_schematic_is_sent_only_when_asked_for(server: FactoryServer, store: Store) -> None:
    known = client(server).upload(SCHEMATIC)
    assert server.asked("POST") == ["/schematics"]
    server.serve(known, "v1.13.0", {"kernel-amd64": b"kernel"})
    got = client(server).fetch(store, FactoryAsset(known, "v1.13.0", "kernel-amd64"))
    assert got.path.read_bytes() == b"kernel"


def test_a_factory_that_gives_another_id_is_told(
    store: Store, raw_server: Callable[[bytes], str]
) -> None:
    wrong = http_bytes(201, "X-Nothing: 1", b'{"id":"beef","schematic":""}')
    with pytest.raises(SourceError, match="another ID") as caught:
        FactoryClient(raw_server(wrong)).upload(SCHEMATIC)
    assert caught.value.code == "schematic-differs"
    refused = http_bytes(400, "X-Nothing: 1", b"no such field\n")
    with pytest.raises(SourceError, match="no such field"):
        FactoryClient(raw_server(refused)).upload(SCHEMATIC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://factory.talos.dev/", "https://factory.talos.dev"),
        ("factory.lan:8080/sub", "https://factory.lan:8080/sub"),
        ("http://factory.lan", "http://factory.lan"),
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("127.0.0.1.example", "https://127.0.0.1.example"),
    ],
)
def test_addresses(text: str, wanted: str) -> None:
    assert factory_address(text) == wanted


def test_plain_http_is_spoken_when_the_settings_say_so() -> None:
    assert factory_address("factory.lan", plain_http=True) == "http://factory.lan"


@pytest.mark.parametrize(
    "text",
    ["", "ftp://h.example", "https://", "https://me:pw@h.example", "https://h.example/?q=1",
     "https://h.example/#a", "https://[::1", "h.example/a b", "https://h.example/\n"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    with pytest.raises(InputError) as caught:
        factory_address(text)
    assert caught.value.exit_code == ExitCode.INPUT_INVALID
    assert "pw" not in caught.value.message
