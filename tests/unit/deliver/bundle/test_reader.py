"""Reading a part: who is told what and when, in one pass and bounded memory."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.model import Blob, Bundle, PartLabel, Piece
from local_imager.deliver.bundle.form.tarform import part_size
from local_imager.deliver.bundle.reading.partstream import CHUNK_BYTES
from local_imager.deliver.bundle.reading.reader import LookOnly, PartReading, open_part, read_part
from local_imager.errors import InputError, VerificationRefused
from local_imager.events import NULL_SINK, Progress, RecordingSink
from local_imager.oci.model import Digest
from tests.bundlefiles import IMAGES, Sample, make_sample, packed, stream_of, written
from tests.unit.deliver.bundle.damages import LARGE, S1, SAMPLE, drop, flip, read, swap

SPLIT = SAMPLE.split(
    [SAMPLE.whole("a1"), SAMPLE.segment("s1", 0, 50)],
    [SAMPLE.segment("s1", 50, 120), SAMPLE.whole("b1"), SAMPLE.whole("b2")],
)


@dataclass
class Kept:
    """A sink that keeps what came, by copying it as it has to."""

    data: bytearray = field(default_factory=bytearray)
    closed: list[bool] = field(default_factory=list)
    fail: Exception | None = None

    def write(self, data: bytes | memoryview) -> None:
        assert not self.closed
        if self.fail is not None:
            raise self.fail
        self.data += data

    def close(self, intact: bool) -> None:
        self.closed.append(intact)


class Everything:
    """A reception that wants all pieces and notes each call."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.sinks: dict[str, Kept] = {}
        self.faulty: frozenset[Digest] = frozenset()
        self.indexes: list[bytes] = []
        self.fail = fail

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        assert Digest.of(manifest) == label.set_digest
        self.calls.append(f"opened {label.number} of {len(bundle.parts)}")

    def index(self, data: bytes) -> None:
        self.calls.append("index")
        self.indexes.append(data)

    def piece(self, blob: Blob, piece: Piece) -> Kept:
        assert blob.digest == piece.blob
        self.calls.append("document" if blob.document else "layer")
        self.sinks[piece.member] = Kept(fail=self.fail)
        return self.sinks[piece.member]

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        self.calls.append("documents done")
        self.faulty = faulty


def taken(data: bytes) -> tuple[PartReading, Everything]:
    reception = Everything()
    return read_part(stream_of(data), "test.tar", reception, NULL_SINK), reception


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zstd"])
@pytest.mark.parametrize("sample", [SAMPLE, LARGE], ids=["small", "large"])
def test_all_bytes_arrive_once_and_in_order(sample: Sample, compressed: bool) -> None:
    data = packed(sample.part()) if compressed else sample.part()
    reading, reception = taken(data)
    assert reading.faults == () and reading.intact == set(sample.bundle.by_digest)
    assert reading.bytes_read == len(data)
    layers = len(sample.layers)
    assert reception.calls == [
        "opened 1 of 1",
        "index",
        "document",
        "document",
        "documents done",
        *["layer"] * layers,
    ]
    assert reception.faulty == frozenset()
    assert reception.indexes == [sample.contents[sample.bundle.index.digest]]
    for blob in sample.bundle.blobs:
        sink = reception.sinks[f"blobs/sha256/{blob.digest.hex}"]
        assert sink.data == sample.contents[blob.digest] and sink.closed == [True]


def test_a_part_gives_the_segments_that_are_its_own() -> None:
    reading, reception = taken(SPLIT.part(2))
    assert reading.label == PartLabel(Digest.of(SPLIT.manifest), 2, 2)
    assert len(reading.segments) == 1
    assert reception.calls[-4:] == ["documents done", "layer", "layer", "layer"]
    (segment,) = reading.segments
    assert bytes(reception.sinks[segment].data) == SAMPLE.contents[SAMPLE.layers["s1"]][50:]


def test_a_bundle_without_layers_tells_its_documents_over() -> None:
    sample = make_sample({"a1": b"only"})
    items = tuple(replace(item, blobs=item.blobs[:1]) for item in sample.bundle.items)
    bundle = replace(sample.bundle, items=items, blobs=sample.bundle.blobs[:-1], parts=((),))
    _, reception = taken(Sample(bundle, sample.contents).part())
    assert reception.calls == ["opened 1 of 1", "index", "document", "document", "documents done"]


def test_a_damaged_piece_is_closed_as_not_intact() -> None:
    members = SAMPLE.members()
    flip(S1)(members)
    reading, reception = taken(written(members))
    assert reception.sinks[S1].closed == [False]
    assert reading.intact == set(SAMPLE.bundle.by_digest) - {SAMPLE.layers["s1"]}


def test_a_cut_piece_is_closed_as_not_intact() -> None:
    data = SAMPLE.part()
    reading, reception = taken(data[: data.index(b"sharedshared") + 5])
    assert reception.sinks[S1].closed == [False] and bytes(reception.sinks[S1].data) == b"share"
    assert SAMPLE.layers["s1"] not in reading.intact


def test_damaged_and_missing_documents_are_told_before_any_layer() -> None:
    documents = [blob.digest for blob in SAMPLE.bundle.documents()]
    names = [f"blobs/sha256/{digest.hex}" for digest in documents]
    members = SAMPLE.members()
    flip(names[0])(members)
    drop(names[1])(members)
    _, reception = taken(written(members))
    assert reception.faulty == set(documents)
    assert reception.calls[2:4] == ["document", "documents done"]


def test_a_document_that_comes_too_late_is_not_handed_on() -> None:
    late = next(SAMPLE.bundle.documents()).digest
    members = SAMPLE.members()
    swap(f"blobs/sha256/{late.hex}", S1)(members)
    reading, reception = taken(written(members))
    assert late in reception.faulty and late not in reading.intact
    assert f"blobs/sha256/{late.hex}" not in reception.sinks
    assert {fault.kind for fault in reading.faults} == {"wrong-order"}


def test_a_cut_file_still_tells_its_documents_over() -> None:
    data = SAMPLE.part()
    reading, reception = taken(data[: data.index(b"blobs/sha256") + 600])
    assert reception.calls[-1] == "documents done" and len(reception.faulty) == 2
    assert [fault.kind for fault in reading.faults] == ["truncated"]


def test_nobody_is_told_of_a_file_whose_label_is_not_its_own() -> None:
    members = SAMPLE.members()
    flip("part.json", 60)(members)
    reading, reception = taken(written(members))
    assert reading.faults and reception.calls == []


def test_a_damaged_index_is_not_handed_on() -> None:
    members = SAMPLE.members()
    flip("index.json")(members)
    assert taken(written(members))[1].indexes == []


@pytest.mark.parametrize("sample", [SAMPLE, LARGE], ids=["small", "large"])
def test_what_a_sink_raises_ends_the_reading_and_the_sink_is_closed(sample: Sample) -> None:
    reception = Everything(fail=OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        read_part(stream_of(sample.part()), "x", reception, NULL_SINK)
    assert [sink.closed for sink in reception.sinks.values()] == [[False]]
    assert not [t for t in threading.enumerate() if t.name.startswith(("read-ahead", "hash"))]


def test_a_refusal_ends_the_reading_at_once() -> None:
    class Refusing(LookOnly):
        def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
            raise VerificationRefused("not signed")

        def index(self, data: bytes) -> None:
            raise AssertionError("it went on")

    with pytest.raises(VerificationRefused):
        read_part(stream_of(LARGE.part()), "x", Refusing(), NULL_SINK)


def test_progress_counts_to_the_size_of_the_part() -> None:
    sample, events = make_sample({"a1": bytes(20 * CHUNK_BYTES)}), RecordingSink()
    read_part(stream_of(sample.part()), "x.tar", LookOnly(), events)
    steps = [event for event in events.events if isinstance(event, Progress)]
    assert len(steps) == 2 and {event.total for event in steps} == {part_size(sample.bundle, 1)}
    assert {event.subject for event in steps} == {"x.tar"}
    assert [event.done for event in steps] == sorted(event.done for event in steps)


# Streams.


class Dripping(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        count = min(len(view), 997, len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zstd"])
def test_a_pipe_that_drips_reads_the_same(compressed: bool) -> None:
    data = packed(LARGE.part()) if compressed else LARGE.part()
    reading = read_part(Dripping(data), "pipe", LookOnly(), NULL_SINK)  # type: ignore[arg-type]
    assert reading == read(data) and reading.faults == ()


class Failing(Dripping):
    """A medium that cannot be read to its end."""

    def readinto(self, buffer: object) -> int:
        count = super().readinto(buffer)
        if not count:
            raise OSError(5, "Input/output error")
        return count


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zstd"])
def test_a_medium_that_fails_is_a_fault(compressed: bool) -> None:
    whole = packed(LARGE.part()) if compressed else LARGE.part()
    medium = Failing(whole[:2_000_000])
    reading = read_part(medium, "stick", LookOnly(), NULL_SINK)  # type: ignore[arg-type]
    (fault,) = reading.faults
    assert fault.kind == "truncated" and "Input/output error" in fault.text
    assert set(fault.affects) == set(IMAGES)


def test_a_file_and_standard_input_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "site.tar"
    path.write_bytes(SAMPLE.part())
    with open_part(path) as stream:
        assert read_part(stream, "site.tar", LookOnly(), NULL_SINK).faults == ()
    program = (
        "from local_imager.deliver.bundle.reading.reader import *\n"
        "from local_imager.events import NULL_SINK\n"
        "with open_part('-') as stream:\n"
        "    print(read_part(stream, '-', LookOnly(), NULL_SINK).pieces_seen)\n"
    )
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, stdin=cat.stdout, capture_output=True, text=True, check=True)
    assert done.stdout == "6\n" and done.stderr == ""


@pytest.mark.parametrize("what", ["missing", "folder", "device"])
def test_what_cannot_be_opened_is_an_input_error(what: str, tmp_path: Path) -> None:
    path = {"missing": tmp_path / "no.tar", "folder": tmp_path, "device": Path("/dev/zero")}[what]
    with pytest.raises(InputError, match=r"cannot be read: (No such file|not a regular|Is a)"):
        with open_part(path):
            pass
