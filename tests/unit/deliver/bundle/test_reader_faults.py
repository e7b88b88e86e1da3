"""Every kind of damage is found, named, and told with the images that it touches."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from local_imager.oci.model import Digest
from tests.bundlefiles import Member, packed, pax_header, strange_header, with_checksum, written
from tests.unit.deliver.bundle.damages import (
    A1,
    B1,
    B2,
    BOTH,
    ONLY_ONE,
    ONLY_TWO,
    S1,
    SAMPLE,
    TWO,
    Found,
    Members,
    add,
    drop,
    extended,
    fill,
    flip,
    found,
    header,
    none,
    put,
    read,
    replaced,
    special,
    swap,
)


@dataclass(frozen=True)
class Case:
    """A way to damage the sample, and all that has to be said of it."""

    change: Callable[[Members], None]
    wanted: Found


ETC = "../../etc/cron.d/x"
GNU_LONG = strange_header("././@LongLink", 600, type=b"L") + b"n" * 600 + bytes(424)
OLD_SPARSE = strange_header("hole", 512, type=b"S")
SPARSE_MAP = OLD_SPARSE[:482] + b"\1" + OLD_SPARSE[483:]
MAPPED = with_checksum(SPARSE_MAP) + bytes(504) + b"\1" + bytes(7) + bytes(512)

CASES: dict[str, Case] = {
    "bit flip in a layer": Case(flip(A1, 99), [("bit-flip", A1, ONLY_ONE)]),
    "bit flip in a shared layer": Case(flip(S1), [("bit-flip", S1, BOTH)]),
    "bit flip in the index": Case(flip("index.json"), [("bit-flip", "index.json", BOTH)]),
    "bit flip in the marker": Case(flip("oci-layout"), [("bit-flip", "oci-layout", none())]),
    "missing layer": Case(drop(B1), [("missing", B1, ONLY_TWO)]),
    "missing index": Case(drop("index.json"), [("missing", "index.json", BOTH)]),
    "extra file": Case(add(Member("virus.exe", b"x" * 999)), [("extra", "virus.exe", none())]),
    "extra blob": Case(
        add(Member(f"blobs/sha256/{'00' * 32}", b"x")),
        [("extra", f"blobs/sha256/{'00' * 32}", none())],
    ),
    "folder": Case(add(special("blobs/", tarfile.DIRTYPE)), [("extra", "blobs/", none())]),
    "old folder": Case(
        add(Member("old/", b"", put(156, b"0")(strange_header("old/")))),
        [("extra", "old/", none())],
    ),
    "wrong order": Case(swap(A1, S1), [("wrong-order", A1, ONLY_ONE)]),
    "duplicate": Case(add(Member(A1, b"other bytes")), [("duplicate", A1, ONLY_ONE)]),
    "second manifest": Case(
        add(Member("bundle.json", b"{}")), [("duplicate", "bundle.json", BOTH)]
    ),
    "climbing path": Case(add(Member(ETC, b"x")), [("hostile-path", ETC, none())]),
    "absolute path": Case(
        add(Member("/etc/passwd", b"x")), [("hostile-path", "/etc/passwd", none())]
    ),
    "backslash": Case(add(Member("..\\..\\x", b"")), [("hostile-path", "..\\..\\x", none())]),
    "control characters": Case(
        add(Member("x", b"", strange_header("a\x1b[2Jb\n"))),
        [("hostile-path", "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}", none())],
    ),
    "bytes that are no text": Case(
        add(Member("x", b"", strange_header("a\udcff"))),
        [("hostile-path", "a\N{REPLACEMENT CHARACTER}", none())],
    ),
    "symbolic link": Case(
        add(special("ln", tarfile.SYMTYPE, "/etc/shadow")), [("link", "ln", none())]
    ),
    "hard link": Case(add(special("ln", tarfile.LNKTYPE, A1)), [("link", "ln", none())]),
    "hostile link": Case(
        add(special(ETC, tarfile.SYMTYPE, "/")),
        [("hostile-path", ETC, none()), ("link", ETC, none())],
    ),
    "layer that is a link": Case(
        replaced(A1, special(A1, tarfile.SYMTYPE, "/etc/shadow")),
        [("link", A1, ONLY_ONE)],
    ),
    "device": Case(add(special("dev", tarfile.CHRTYPE)), [("device", "dev", none())]),
    "block device": Case(add(special("dev", tarfile.BLKTYPE)), [("device", "dev", none())]),
    "pipe": Case(add(special("fifo", tarfile.FIFOTYPE)), [("device", "fifo", none())]),
    "unknown type": Case(add(special("odd", b"Z")), [("header", "odd", none())]),
    "sparse, old GNU": Case(
        add(Member("hole", b"", MAPPED + bytes(512))), [("sparse", "hole", none())]
    ),
    "sparse, pax": Case(
        add(extended({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), to=A1),
        [("sparse", "pax", none()), ("sparse", A1, ONLY_ONE)],
    ),
    "pax name": Case(
        add(extended({"path": ETC}), to=A1),
        [
            ("header", "pax", none()),
            ("hostile-path", ETC, none()),
            ("missing", A1, ONLY_ONE),
        ],
    ),
    "pax size": Case(
        add(extended({"size": "1"}), to=A1),
        [("header", "pax", none()), ("header", A1, ONLY_ONE), ("header", S1, BOTH)],
    ),
    "global pax header": Case(
        add(
            Member(
                "g",
                b"",
                put(156, b"g")(pax_header("g", {"comment": "x"})[:512])
                + pax_header("g", {"comment": "x"})[512:],
            )
        ),
        [("header", "g", none())],
    ),
    "GNU long name": Case(
        add(Member("x", b"", GNU_LONG), Member("y", b"1")),
        [("header", "././@LongLink", none()), ("extra", "n" * 200 + "…", none())],
    ),
    "mode": Case(header(A1, put(100, b"0004755")), [("header", A1, ONLY_ONE)]),
    "owner": Case(header(A1, put(108, b"0001750")), [("header", A1, ONLY_ONE)]),
    "owner's name": Case(header(A1, put(265, b"hidden")), [("header", A1, ONLY_ONE)]),
    "time": Case(header(A1, put(136, b"14000000000")), [("header", A1, ONLY_ONE)]),
    "unused bytes": Case(header(A1, put(500, b"hidden")), [("header", A1, ONLY_ONE)]),
    "after the name": Case(header(A1, put(90, b"hidden")), [("header", A1, ONLY_ONE)]),
    "size in base 256": Case(
        header(A1, put(124, b"\x80" + (700).to_bytes(11, "big"))),
        [("header", A1, ONLY_ONE)],
    ),
    "size too small": Case(
        header(A1, put(124, b"%011o" % 1)),
        # 699 more bytes are there than it states: one block that is no header.
        [("header", A1, ONLY_ONE), ("header", S1, BOTH)],
    ),
    "size too large": Case(
        header(S1, put(124, b"%011o" % 2000)),
        [
            ("header", S1, BOTH),
            ("missing", B1, ONLY_TWO),
            ("missing", B2, ONLY_TWO),
        ],
    ),
    "lying size in base 256": Case(
        header(A1, put(124, b"\x80" + (1 << 60).to_bytes(11, "big"))),
        [("header", A1, ONLY_ONE), ("count", A1, none())],
    ),
    "size below zero": Case(
        header(A1, put(124, b"\xff" * 12)),
        [("header", A1, ONLY_ONE), ("count", A1, none())],
    ),
    "flipped header": Case(
        header(A1, lambda block: block[:20] + b"\1" + block[21:]),
        [("header", A1, ONLY_ONE)],
    ),
    "header of zeros": Case(header(S1, lambda block: bytes(512)), [("header", S1, BOTH)]),
    "header of noise": Case(
        header(S1, lambda block: bytes(range(256)) * 2), [("header", S1, BOTH)]
    ),
    "padding": Case(fill(A1, b"\0\0x"), [("padding", A1, ONLY_ONE)]),
    "padding of the manifest": Case(
        fill("bundle.json", b"x"), [("padding", "bundle.json", none())]
    ),
}


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "zstd"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_damage_is_named_with_what_it_affects(
    case: Case, pack: Callable[[bytes], bytes]
) -> None:
    members = SAMPLE.members()
    case.change(members)
    assert found(pack(written(members))) == case.wanted


def test_the_sample_itself_is_sound() -> None:
    reading = read(SAMPLE.part())
    assert reading.faults == () and reading.intact == set(SAMPLE.bundle.by_digest)
    assert reading.bundle == SAMPLE.bundle and reading.pieces_seen == 6
    assert reading.manifest_digest == Digest.of(SAMPLE.manifest)
    assert reading.bytes_read == len(SAMPLE.part())


def test_a_flipped_header_costs_nothing_of_what_it_heads() -> None:
    members = SAMPLE.members()
    header(A1, lambda block: block[:20] + b"\1" + block[21:])(members)
    assert read(written(members)).intact == set(SAMPLE.bundle.by_digest)


def test_a_lost_header_is_told_with_its_place() -> None:
    members = SAMPLE.members()
    header(S1, lambda block: bytes(range(256)) * 2)(members)
    data = written(members)
    (fault,) = read(data).faults
    assert f"byte {data.index(bytes(range(256)))} " in fault.text
    assert "1024 bytes were passed over" in fault.text


def test_many_faults_in_one_file_are_all_named() -> None:
    members = SAMPLE.members()
    for change in (
        flip("index.json"),
        add(Member("x", b"1")),
        flip(A1),
        fill(S1, b"!"),
        header(B1, put(100, b"0000777")),
        add(special("ln", tarfile.SYMTYPE, "x"), to=B1),
    ):
        change(members)
    said = found(written(members) + b"more")
    assert [(kind, member) for kind, member, _ in said] == [
        ("bit-flip", "index.json"),
        ("bit-flip", A1),
        ("extra", "x"),
        ("padding", S1),
        ("link", "ln"),
        ("header", B1),
        ("trailing", ""),
    ]


def test_lost_and_added_bytes_do_not_hide_what_follows() -> None:
    members = SAMPLE.members()
    flip(B1)(members)
    data = written(members)
    place = data.index(b"aaaaaaaa")
    for changed in (data[:place] + data[place + 7 :], data[:place] + b"x" * 99 + data[place:]):
        said = found(changed)
        assert said[0] == ("bit-flip", A1, ONLY_ONE)
        assert said[-1] == ("bit-flip", B1, ONLY_TWO)
        assert {member for _, member, _ in said} == {A1, S1, B1}


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        (b"", "truncated"),
        (bytes(512), "truncated"),
        (bytes(1023), "truncated"),
        (bytes(1025), "trailing"),
        (bytes(10240), "trailing"),
        (bytes(1024) + b"x", "trailing"),
        (bytes(700) + b"x" + bytes(323), "trailing"),
        (b"\1" + bytes(1023), "trailing"),
        (b"garbage" * 100, "trailing"),
    ],
)
def test_the_end_is_two_empty_blocks_and_nothing_else(end: bytes, wanted: str) -> None:
    assert [(kind, affects) for kind, _, affects in found(written(SAMPLE.members(), end))] == [
        (wanted, none())
    ]


def test_a_second_bundle_behind_the_first_is_trailing() -> None:
    said = read(SAMPLE.part() * 2).faults
    assert [fault.kind for fault in said] == ["trailing"] and "13312 bytes" in said[0].text


def test_a_cut_file_says_where_and_what_is_lost() -> None:
    data = SAMPLE.part()
    place = data.index(b"sharedshared")
    (fault,) = read(data[: place + 5]).faults
    assert (fault.kind, fault.member, frozenset(fault.affects)) == ("truncated", S1, BOTH)
    assert f"byte {place + 5}" in fault.text and "2 of the 8" in fault.text
    last = data.rindex(b"blobs/")
    (fault,) = read(data[:last]).faults
    assert set(fault.affects) == {TWO} and "1 of the 8" in fault.text


def test_an_early_end_mark_leaves_members_missing() -> None:
    said = found(written(SAMPLE.members()[:-2]))
    assert [kind for kind, _, _ in said] == ["missing", "missing"]
    assert {affects for _, _, affects in said} == {ONLY_TWO}
