"""newc archives: read as they pass, written again with other times, refused when damaged."""

import hashlib
from collections.abc import Iterator

import pytest

from lab.archives import Entry as Made
from lab.archives import cpio_newc
from local_imager.formats.cpio import CpioReading, read_cpio, rewrite_times
from local_imager.formats.source import BytesSource, FormatError

_EPOCH = 1559424892  # what lab.archives writes
_BIG = bytes(range(256)) * 300


def _member(name: bytes, content: bytes = b"", *, mode: int = 0o100644, check: int = 0) -> bytes:
    numbers = (7, mode, 0, 0, 1, 5, len(content), 8, 1, 0, 0, len(name) + 1, check)
    head = (b"070702" if check else b"070701") + b"".join(b"%08x" % number for number in numbers)
    named = head + name + b"\0"
    return named + bytes(-len(named) % 4) + content + bytes(-len(content) % 4)


_TRAILER = _member(b"TRAILER!!!", mode=0)
_ARCHIVE = cpio_newc(
    [
        Made("etc/hosts", b"127.0.0.1 localhost\n"),
        Made("usr/lib/big", _BIG, mode=0o755),
        Made("usr/sbin", link_target="bin"),
        Made("empty", b""),
    ]
)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_entries_come_with_their_content_however_the_stream_is_cut(size: int) -> None:
    seen = {}
    for entry in read_cpio(_pieces(_ARCHIVE, size)):
        digest = hashlib.sha256()
        for piece in entry.chunks():
            digest.update(piece)
        one = entry.entry
        seen[one.path] = (one.kind, one.size_bytes, one.mode, one.mtime, one.link_target)
        if one.path == "usr/lib/big":
            assert digest.digest() == hashlib.sha256(_BIG).digest()
    assert seen == {
        "empty": ("file", 0, 0o644, _EPOCH, None),
        "etc": ("directory", 0, 0o755, _EPOCH, None),
        "etc/hosts": ("file", 20, 0o644, _EPOCH, None),
        "usr": ("directory", 0, 0o755, _EPOCH, None),
        "usr/lib": ("directory", 0, 0o755, _EPOCH, None),
        "usr/lib/big": ("file", len(_BIG), 0o755, _EPOCH, None),
        "usr/sbin": ("link", 0, 0o644, _EPOCH, "bin"),
    }


def test_content_that_nobody_takes_is_skipped() -> None:
    reading = read_cpio(BytesSource(_ARCHIVE))
    assert [entry.path for entry in reading][-1] == "usr/sbin"
    assert reading.end == len(_ARCHIVE)
    half = [next(entry.chunks(), b"")[:1] for entry in read_cpio(_pieces(_ARCHIVE, 100))]
    assert len(half) == 7


def test_an_offset_is_where_the_header_lies() -> None:
    for entry in read_cpio(BytesSource(_ARCHIVE)):
        assert _ARCHIVE[entry.offset : entry.offset + 110] == entry.header.raw
        assert _ARCHIVE[entry.offset + 110 :].startswith(entry.name + b"\0")


def test_archives_behind_each_other_are_read_on_or_not() -> None:
    whole = _ARCHIVE + bytes(512) + _member(b"./later/") + _TRAILER + bytes(3)
    assert [entry.path for entry in read_cpio(BytesSource(whole))][-1] == "later"
    first = CpioReading([whole], several=False)
    assert [entry.path for entry in first][-1] == "usr/sbin"
    assert first.end == len(_ARCHIVE)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_with_its_own_times_an_archive_is_the_same_to_the_byte(size: int) -> None:
    for whole in (
        _ARCHIVE,
        bytes(8) + _ARCHIVE + bytes(300),
        _ARCHIVE + bytes(12) + _member(b"lower case", b"digits") + _TRAILER,
    ):
        assert b"".join(rewrite_times(_pieces(whole, size), None)) == whole
    assert b"".join(rewrite_times(_pieces(_ARCHIVE, size), _EPOCH)) == _ARCHIVE


def test_a_time_that_is_there_already_keeps_its_spelling() -> None:
    spelt = _member(b"x").replace(b"%08x" % 5, b"5cf2e07c", 1)
    assert spelt.index(b"5cf2e07c") == 46
    assert b"".join(rewrite_times([spelt + _TRAILER], 0x5CF2E07C)) == spelt + _TRAILER
    assert b"5CF2E07D" in b"".join(rewrite_times([spelt + _TRAILER], 0x5CF2E07D))


def test_only_times_change_and_not_those_of_trailers() -> None:
    whole = _ARCHIVE + bytes(4) + _member(b"second", b"content") + _TRAILER
    moved = b"".join(rewrite_times(BytesSource(whole), 0x12345678))
    assert len(moved) == len(whole)
    changed = {at for at in range(len(whole)) if whole[at] != moved[at]}
    times = set()
    for entry in read_cpio(BytesSource(whole)):
        times |= set(range(entry.offset + 46, entry.offset + 54))
    assert changed <= times
    assert {entry.header.mtime for entry in read_cpio(BytesSource(moved))} == {0x12345678}
    assert moved[-len(_TRAILER) :] == _TRAILER


def test_a_time_that_has_no_place_is_refused() -> None:
    for epoch in (-1, 1 << 32):
        with pytest.raises(ValueError, match="no place for the time"):
            rewrite_times([_ARCHIVE], epoch)


def test_names_are_kept_as_they_are() -> None:
    odd = b"./../x\xff\n//y/"
    (entry,) = read_cpio([_member(odd) + _TRAILER])
    assert entry.name == odd
    assert entry.path == "../x\udcff\n/y"


def test_kinds_follow_the_mode() -> None:
    whole = _member(b"null", mode=0o020666) + _member(b"pipe", mode=0o010600) + _TRAILER
    assert [entry.kind for entry in read_cpio([whole])] == ["special", "special"]
    assert [entry.header.special_device for entry in read_cpio([whole])] == [(0, 0), (0, 0)]
    assert [entry.header.device for entry in read_cpio([whole])] == [(8, 1), (8, 1)]


def test_the_sum_of_the_crc_form_is_checked() -> None:
    whole = _member(b"summed", b"\xff\x01", check=0x100) + _TRAILER
    assert [b"".join(entry.chunks()) for entry in read_cpio([whole])] == [b"\xff\x01"]
    wrong = whole.replace(b"\xff\x01", b"\xff\x02")
    with pytest.raises(FormatError, match="does not have the sum"):
        for entry in read_cpio([wrong]):
            list(entry.chunks())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_ARCHIVE[:-130], "ends too early"),
        (_ARCHIVE[:-124], "ends too early"),
        (_ARCHIVE[:50], "ends too early"),
        (b"070707" + _ARCHIVE[6:], "no newc header"),
        (b"text" * 40, "no newc header"),
        (_ARCHIVE + b"\0\0\0\0junk" + bytes(200), "no newc header"),
        (_ARCHIVE + b"\0" + _TRAILER, "multiple of 4"),
        (_ARCHIVE[:6] + b"+0000001" + _ARCHIVE[14:], "not hexadecimal"),
        (_ARCHIVE[:6] + b"0x000001" + _ARCHIVE[14:], "not hexadecimal"),
        (_ARCHIVE[:94] + b"00000000" + _ARCHIVE[102:], "a name of 0 bytes"),
        (_ARCHIVE[:94] + b"FFFFFFFF" + _ARCHIVE[102:], "a name of 4294967295 bytes"),
        (_ARCHIVE[:94] + b"00000003" + _ARCHIVE[102:], "does not end where"),
        (_member(b"link", b"x" * 5000, mode=0o120777) + _TRAILER, "link of 5000 bytes"),
        (_member(b"big")[:54] + b"FFFFFFFF" + _member(b"big")[62:], "ends too early"),
    ],
)
def test_damage_is_refused_in_reading_and_in_writing(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        for _ in read_cpio(_pieces(data, 64)):
            pass
    if "link of" not in message:
        with pytest.raises(FormatError, match=message):
            for _ in rewrite_times(_pieces(data, 64), 0):
                pass
