"""Two sides compared: what is the same is looked at once, and nothing is taken for the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_imager.deliver.compare import pair
from local_imager.deliver.compare.pair import compare_sides, same_bytes
from local_imager.deliver.compare.sides import Side
from local_imager.deliver.compare.verdict import Verdict
from local_imager.deliver.inspect.inspection import Inspection
from local_imager.events import EventSink
from local_imager.formats.source import BytesSource, FileSource, Source
from local_imager.store.store import Store

MIB = 1 << 20


def side(folder: Path, name: str, data: bytes) -> Side:
    path = folder / name
    path.write_bytes(data)
    return Side(name, "file", name, path)


def sparse(path: Path, size: int, parts: dict[int, bytes]) -> FileSource:
    with path.open("wb") as stream:
        stream.truncate(size)
        for offset, data in parts.items():
            stream.seek(offset)
            stream.write(data)
    return FileSource(path)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (b"", b"", True),
        (b"a", b"a", True),
        (b"a", b"b", False),
        (b"a", b"ab", False),
        (bytes(3 * MIB), bytes(3 * MIB), True),
        (bytes(3 * MIB), bytes(3 * MIB - 1) + b"x", False),
        (bytes(2 * MIB) + b"a" + bytes(MIB), bytes(2 * MIB) + b"b" + bytes(MIB), False),
    ],
)
def test_the_same_bytes(left: bytes, right: bytes, same: bool) -> None:
    assert same_bytes(BytesSource(left), BytesSource(right)) is same


def test_holes_are_zeros_whichever_way_they_are_stored(tmp_path: Path) -> None:
    size = 64 * MIB
    one = sparse(tmp_path / "one", size, {MIB: b"data", 40 * MIB: bytes(4096)})
    two = sparse(tmp_path / "two", size, {MIB: b"data"})
    three = sparse(tmp_path / "three", size, {MIB: b"data", 50 * MIB: b"more"})
    four = sparse(tmp_path / "four", size, {MIB: b"date"})
    with one, two, three, four:
        assert same_bytes(one, two) and same_bytes(two, one)
        assert not same_bytes(two, three) and not same_bytes(three, one)
        assert not same_bytes(two, four)


def test_what_is_the_same_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    inspect = pair._inspected

    def counted(source: Source, one: Side, store: Store | None, sink: EventSink) -> Inspection:
        looked.append(one.asked)
        return inspect(source, one, store, sink)

    monkeypatch.setattr(pair, "_inspected", counted)
    text = b"talos.platform=metal console=ttyS0"
    first, second = side(tmp_path, "first", text), side(tmp_path, "second", text)
    comparison = compare_sides(first, second)
    assert comparison.verdict is Verdict.IDENTICAL
    assert (comparison.left.asked, comparison.right.asked) == ("first", "second")
    assert looked == ["first"]
    other = compare_sides(first, side(tmp_path, "other", text.replace(b"S0", b"S1")))
    assert other.verdict is Verdict.DIFFERENT
    assert looked == ["first", "first", "other"]


def test_large_files_are_compared_without_their_zeros_and_named_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from local_imager.deliver.inspect import walking

    monkeypatch.setattr(walking, "LARGE_BYTES", MIB)
    datas = [bytes(2 * MIB) + end for end in (b"a", b"b")]
    left, right = (side(tmp_path, f"x{n}", data) for n, data in enumerate(datas))
    result = compare_sides(left, right)
    assert result.verdict is Verdict.DIFFERENT
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in datas]
    assert [result.left.digest, result.right.digest] == digests
    same = compare_sides(left, side(tmp_path, "x2", datas[0]))
    assert same.verdict is Verdict.IDENTICAL
    assert same.right.digest == digests[0]
