"""Files of a bundle on the disk: names of parts, buffers that go round, one zstd frame."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest
import zstandard

from local_imager.deliver.bundle.near.outfile import (
    Comparison,
    Differs,
    growing,
    other_parts,
    part_name,
    refuse_foreign,
)
from local_imager.deliver.bundle.near.packed import Packed
from local_imager.deliver.bundle.near.pump import BUFFER_BYTES, pumping
from local_imager.deliver.bundle.reading.packing import filler_for
from local_imager.errors import ExitCode, InputError, StoreError


@pytest.mark.parametrize(
    ("output", "count", "name"),
    [
        ("site.tar", 1, "site.tar"),
        ("site.tar", 3, "site.part2of3.tar"),
        ("site.tar.zst", 3, "site.part2of3.tar.zst"),
        ("site", 3, "site.part2of3"),
        ("v1.13.0.tar", 12, "v1.13.0.part2of12.tar"),
    ],
)
def test_parts_are_named_after_the_output(output: str, count: int, name: str) -> None:
    assert part_name(Path("/x") / output, 2, count) == Path("/x") / name


def test_files_that_look_like_parts_are_found(tmp_path: Path) -> None:
    for name in ("site.part1of2.tar", "site.part2of2.tar", "site.partXof2.tar", "z.part1of2.tar"):
        (tmp_path / name).touch()
    own = {tmp_path / "site.part1of2.tar"}
    assert other_parts(tmp_path / "site.tar", own) == (tmp_path / "site.part2of2.tar",)


def test_only_what_begins_as_a_bundle_may_be_compared(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for data, fine in ((b"bundle.json\0", True), (b"\x28\xb5\x2f\xfd", True), (b"", False)):
        target.write_bytes(data)
        if fine:
            refuse_foreign(target, force=False)
            continue
        with pytest.raises(InputError, match="is no bundle"):
            refuse_foreign(target, force=False)
        refuse_foreign(target, force=True)
    target.unlink()
    target.symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is no regular file"):
        refuse_foreign(target, force=False)


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"bundle.json\0")
    for target in (Path("/dev/null"), pipe, link):
        with pytest.raises(InputError, match="is no regular file") as caught:
            refuse_foreign(target, force=True)
        assert caught.value.code == "exists"


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".x.part").symlink_to(victim)
    with pytest.raises(StoreError), growing(tmp_path / "x", private=False):
        pass
    assert victim.read_bytes() == b"precious"


def test_a_file_system_that_holds_no_larger_file_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> int:
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(StoreError, match="larger than a file may be there") as caught:
        with growing(tmp_path / "x", private=False) as file:
            monkeypatch.setattr(os, "write", too_large)
            try:
                file.write(memoryview(b"data"))
            finally:
                monkeypatch.undo()
    assert "--split" in caught.value.hint and caught.value.exit_code == ExitCode.HOST_UNABLE
    assert os.listdir(tmp_path) == []


def test_a_comparison_sees_every_difference(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abcdef")
    with Comparison(path) as same:
        same.write(memoryview(b"abc"))
        same.write(memoryview(b"def"))
        same.end()
    for data in (b"abcdeX", b"abcdefg", b"abc"):
        with pytest.raises(Differs), Comparison(path) as other:
            other.write(memoryview(data))
            other.end()


def test_buffers_go_round_and_nothing_is_lost() -> None:
    data = os.urandom(13 * BUFFER_BYTES + 77)
    out = bytearray()
    with pumping(lambda view: out.extend(view)) as pump:
        pump.put(data[:5])
        done = 5
        while done < len(data):
            room = pump.room()
            count = min(len(room), len(data) - done, 700_001)
            room[:count] = data[done : done + count]
            pump.advance(count)
            done += count
        pump.zeros(3)
    assert bytes(out) == data + bytes(3)


def test_a_failure_of_writing_is_raised_where_bytes_are_made() -> None:
    def full(_: memoryview) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="disk is full"), pumping(full) as pump:
        for _ in range(100):
            pump.put(bytes(BUFFER_BYTES))
    with pytest.raises(StoreError, match="disk is full"), pumping(full) as pump:
        pump.put(b"little")
    assert all(thread.name != "bundle-writer" for thread in threading.enumerate())


def test_an_error_while_bytes_are_made_ends_the_writing() -> None:
    out = bytearray()
    with pytest.raises(KeyboardInterrupt), pumping(lambda view: out.extend(view)) as pump:
        pump.put(b"begun")
        raise KeyboardInterrupt
    assert all(thread.name != "bundle-writer" for thread in threading.enumerate())


def test_a_packed_file_is_one_frame_that_repeats() -> None:
    data = (os.urandom(1000) + bytes(5000)) * 1500
    results = []
    for _ in range(4):
        out = bytearray()
        packed = Packed(lambda view, out=out: out.extend(view), len(data))  # type: ignore[misc]
        for start in range(0, len(data), BUFFER_BYTES):
            packed.write(memoryview(data)[start : start + BUFFER_BYTES])
        packed.end()
        results.append(bytes(out))
    assert len(set(results)) == 1
    parameters = zstandard.get_frame_parameters(results[0])
    assert (parameters.content_size, parameters.has_checksum) == (len(data), True)
    assert zstandard.ZstdDecompressor().decompress(results[0]) == data


def _packed(*runs: tuple[bytes, int]) -> bytes:
    """Pack runs of MiB as `bundle create --zstd` does."""
    out = bytearray()
    packed = Packed(out.extend, sum(count for _, count in runs) << 20)
    for data, count in runs:
        for _ in range(count):
            packed.write(memoryview(data))
    packed.end()
    return bytes(out)


def _problem(data: bytes) -> object:
    """What a reader finds wrong."""
    filler, view = filler_for(io.BytesIO(data), "site.tar.zst"), memoryview(bytearray(1 << 20))
    while filler.fill(view) == len(view):
        pass
    return filler.problem


def test_what_a_reader_calls_a_bomb_is_not_written() -> None:
    zeros, noise = (bytes(1 << 20), 300), (os.urandom(1 << 20), 1)
    with pytest.raises(InputError, match="bomb") as caught:
        _packed(zeros)
    assert caught.value.code == "ratio" and "leave --zstd out" in caught.value.hint
    with pytest.raises(InputError, match="bomb"):
        _packed(zeros, noise)
    assert _problem(_packed(noise, zeros)) is None
    assert _problem(_packed((bytes(1 << 20), 60))) is None
