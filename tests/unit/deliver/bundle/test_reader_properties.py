"""Whatever happens to a file: it is said, and what is not said to be touched is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.deliver.bundle.form.model import Blob, Bundle, PartLabel, Piece
from local_imager.deliver.bundle.reading.reader import LookOnly, PartReading, read_part
from local_imager.errors import InputError
from local_imager.events import NULL_SINK
from local_imager.oci.model import Digest
from tests.bundlefiles import make_sample, packed, stream_of

SAMPLE: Final = make_sample()
PLAIN: Final = SAMPLE.part()
SPLIT: Final = SAMPLE.split(
    [SAMPLE.whole("a1"), SAMPLE.segment("s1", 0, 50)],
    [SAMPLE.segment("s1", 50, 120), SAMPLE.whole("b1"), SAMPLE.whole("b2")],
)
PACKED: Final = packed(PLAIN)
FILES: Final = st.sampled_from([PLAIN, SPLIT.part(1), SPLIT.part(2)])
LIMITED: Final = settings(max_examples=150, deadline=None)


class Checked:
    """A sink that hashes for itself."""

    def __init__(self, piece: Piece) -> None:
        self._piece, self._data = piece, bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data
        assert len(self._data) <= self._piece.size_bytes

    def close(self, intact: bool) -> None:
        assert intact == (Digest.of(bytes(self._data)) == self._piece.digest) or not intact


class Checking(LookOnly):
    """A reception that believes nothing."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def opened(self, bundle: Bundle, label: PartLabel, manifest: bytes) -> None:
        assert label.set_digest == Digest.of(manifest)
        self.calls.append("opened")

    def index(self, data: bytes) -> None:
        assert Digest.of(data) == SAMPLE.bundle.index.digest

    def piece(self, blob: Blob, piece: Piece) -> Checked:
        assert blob.document != ("over" in self.calls)
        return Checked(piece)

    def documents_done(self, faulty: frozenset[Digest]) -> None:
        self.calls.append("over")


def read(data: bytes) -> PartReading | None:
    """Read a file; None when it is said to be no bundle, which is an answer too."""
    reception = Checking()
    try:
        reading = read_part(stream_of(data), "test", reception, NULL_SINK)
    except InputError as error:
        assert error.code == "not-a-bundle" and reception.calls == []
        return None
    assert reception.calls in (["opened", "over"], [])
    return reading


def assert_said(data: bytes) -> None:
    """Check that a fault is named, and that items which no fault touches are whole."""
    reading = read(data)
    if reading is None:
        return
    assert reading.faults
    if reading.bundle is None:
        return
    touched = {name for fault in reading.faults for name in fault.affects}
    pieces = reading.bundle.parts[reading.label.number - 1] if reading.label else ()
    segments = {piece.blob for piece in pieces if piece.member in reading.segments}
    here = {blob.digest for blob in reading.bundle.documents()} | {p.blob for p in pieces}
    for item in reading.bundle.items:
        if item.name not in touched:
            assert set(item.blobs) & here <= reading.intact | segments


@LIMITED
@given(data=FILES, place=st.integers(0), bits=st.integers(1, 255))
def test_a_changed_byte_is_said(data: bytes, place: int, bits: int) -> None:
    changed = bytearray(data)
    changed[place % len(data)] ^= bits
    assert_said(bytes(changed))


@LIMITED
@given(data=FILES, place=st.integers(0))
def test_a_cut_is_said(data: bytes, place: int) -> None:
    assert_said(data[: place % len(data)])


@LIMITED
@given(
    data=FILES,
    place=st.integers(0),
    gone=st.integers(0, 3000),
    new=st.one_of(
        st.binary(max_size=600),
        st.integers(0, 12_000).map(lambda at: PLAIN[at : at + 1536]),
        st.integers(0, 22).map(lambda block: PLAIN[block * 512 : block * 512 + 1024]),
        st.sampled_from([bytes(512), bytes(1024)]),
    ),
)
def test_lost_new_and_exchanged_bytes_are_said(
    data: bytes, place: int, gone: int, new: bytes
) -> None:
    place %= len(data) + 1
    changed = data[:place] + new + data[place + gone :]
    if changed != data:
        assert_said(changed)


@LIMITED
@given(data=FILES, order=st.randoms(use_true_random=False))
def test_blocks_in_another_order_are_said(data: bytes, order: object) -> None:
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    shuffled = list(blocks)
    one, other = (order.randrange(len(blocks)) for _ in range(2))  # type: ignore[attr-defined]
    shuffled[one], shuffled[other] = shuffled[other], shuffled[one]
    if shuffled != blocks:
        assert_said(b"".join(shuffled))


@LIMITED
@given(st.lists(st.tuples(st.integers(0), st.integers(1, 255)), min_size=2, max_size=12))
def test_several_changes_at_once_are_said(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(PLAIN)
    for place, bits in changes:
        changed[place % len(changed)] ^= bits
    if changed != PLAIN:
        assert_said(bytes(changed))


def unpacked(data: bytes) -> bytes | None:
    try:
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


@LIMITED
@given(place=st.integers(0), bits=st.integers(1, 255))
def test_a_changed_byte_of_a_compressed_file_is_said(place: int, bits: int) -> None:
    """A few bytes may be spelt otherwise and mean the same: then all that is read is the same."""
    changed = bytearray(PACKED)
    changed[place % len(PACKED)] ^= bits
    reading = read(bytes(changed))
    if reading is not None and not reading.faults:
        assert unpacked(bytes(changed)) == PLAIN
        assert reading.intact == set(SAMPLE.bundle.by_digest)


@LIMITED
@given(st.integers(0))
def test_a_cut_of_a_compressed_file_is_said(place: int) -> None:
    assert_said(PACKED[: place % len(PACKED)])


@LIMITED
@given(st.one_of(st.binary(max_size=3000), st.binary(max_size=3000).map(packed)))
def test_noise_is_no_bundle(data: bytes) -> None:
    assert read(data) is None


@settings(max_examples=60, deadline=None)
@given(
    layers=st.dictionaries(
        st.sampled_from([f"{letter}{n}" for letter in "abs" for n in range(4)]),
        st.integers(0, 3000),
        min_size=1,
    ),
    pack=st.sampled_from([bytes, packed]),
)
def test_every_bundle_that_is_written_reads_whole(
    layers: dict[str, int], pack: Callable[[bytes], bytes]
) -> None:
    named = {name: name.encode() + bytes(size) for name, size in layers.items()}
    sample = make_sample(named)
    reading = read_part(stream_of(pack(sample.part())), "test", LookOnly(), NULL_SINK)
    assert reading.faults == () and reading.intact == set(sample.bundle.by_digest)
    assert reading.bundle == sample.bundle
