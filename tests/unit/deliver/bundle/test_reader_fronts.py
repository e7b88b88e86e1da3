"""Damage to a bundle's manifest and label, faults without number, and what is no bundle."""

from __future__ import annotations

import tarfile

import pytest

from local_imager.deliver.bundle.form.manifest import render_label
from local_imager.deliver.bundle.form.model import PartLabel
from local_imager.deliver.bundle.form.tarform import END_MARK, member_header
from local_imager.deliver.bundle.reading import astray, faults
from local_imager.deliver.bundle.reading.course import Course
from local_imager.errors import InputError
from local_imager.oci.model import Digest
from tests.bundlefiles import Member, make_sample, packed, pax_header, strange_header, written
from tests.unit.deliver.bundle.damages import (
    A1,
    BOTH,
    SAMPLE,
    before,
    flip,
    found,
    none,
    read,
)


def test_a_flipped_byte_of_the_manifest_is_told_by_the_label() -> None:
    members = SAMPLE.members()
    members[0].content = members[0].content.replace(b"layer a1", b"layer A1")
    assert found(written(members)) == [("manifest", "bundle.json", BOTH)]
    assert read(written(members)).intact == set(SAMPLE.bundle.by_digest)


def test_a_manifest_that_cannot_be_read_is_the_one_fault() -> None:
    members = SAMPLE.members()
    members[0].content = b"[" + members[0].content[1:]
    reading = read(written(members))
    assert [(fault.kind, fault.member) for fault in reading.faults] == [("manifest", "bundle.json")]
    assert reading.bundle is None and reading.label is None


@pytest.mark.parametrize("size", [1 << 40, 32 * 1024 * 1024 + 1])
def test_a_manifest_that_announces_an_absurd_size_is_not_read(size: int) -> None:
    data = member_header("bundle.json", size) + bytes(100_000)
    (fault,) = read(data).faults
    assert (fault.kind, fault.member) == ("count", "bundle.json") and str(size) in fault.text


def test_a_manifest_of_absurd_layers_costs_only_what_is_there() -> None:
    sample = make_sample({"a1": b"1", "b1": b"2"})
    text = sample.manifest.replace(b'"size":1}', b'"size":%d}' % (1 << 45))
    members = sample.members()
    members[0].content = text
    members[1].content = render_label(PartLabel(Digest.of(text), 1, 1))
    said = found(written(members))
    assert [kind for kind, _, _ in said] == ["header", "header"]


def test_a_damaged_label_of_one_file_stops_nothing() -> None:
    members = SAMPLE.members()
    flip("part.json", 30)(members)
    flip(A1)(members)
    said = found(written(members))
    assert [kind for kind, _, _ in said] in (["label", "bit-flip"], ["manifest", "bit-flip"])


SPLIT = SAMPLE.split(
    [SAMPLE.whole("a1"), SAMPLE.segment("s1", 0, 50)],
    [SAMPLE.segment("s1", 50, 120), SAMPLE.whole("b1"), SAMPLE.whole("b2")],
)


@pytest.mark.parametrize("position", range(0, 170, 7))
def test_a_damaged_label_of_a_part_still_tells_which_part_it_was(position: int) -> None:
    members = SPLIT.members(2)
    flip("part.json", position)(members)
    reading = read(written(members))
    assert {fault.kind for fault in reading.faults} <= {"label", "manifest"} and reading.faults
    assert all(set(fault.affects) == BOTH for fault in reading.faults)
    assert reading.label is not None and reading.label.number == 2
    assert len(reading.segments) == 1


def test_a_label_of_another_set_names_no_part() -> None:
    members = SPLIT.members(2)
    members[1].content = render_label(PartLabel(Digest.of(b"other"), 7, 9))
    reading = read(written(members))
    assert [fault.kind for fault in reading.faults] == ["label"]
    assert reading.label is None and "part 7 of 9" in reading.faults[0].text


def test_a_missing_label_is_a_fault() -> None:
    members = SAMPLE.members()
    del members[1]
    assert found(written(members)) == [("label", "part.json", BOTH)]


def test_pieces_of_another_part_do_not_belong() -> None:
    members = SPLIT.members(1)
    members[-1:] = SPLIT.members(2)[-3:-2]
    said = found(written(members))
    assert [(kind, affects) for kind, _, affects in said] == [
        ("extra", none()),
        ("missing", BOTH),
    ]


def test_a_segment_is_told_like_a_blob() -> None:
    members = SPLIT.members(2)
    name = SPLIT.bundle.parts[1][0].member
    flip(name)(members)
    assert found(written(members)) == [("bit-flip", name, BOTH)]
    reading = read(SPLIT.part(2))
    assert reading.faults == () and reading.segments == {name}
    assert SAMPLE.layers["s1"] not in reading.intact


# Without number.


def test_headers_that_do_not_belong_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(astray, "MAX_STRAYS", 50)
    members = SAMPLE.members()
    before(members, A1, *(Member(f"x{n}", b"") for n in range(60)))
    reading = read(written(members))
    assert [fault.kind for fault in reading.faults] == ["extra"] * 50 + ["count"]
    assert set(reading.faults[-1].affects) == BOTH


def test_faults_beyond_the_ceiling_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_FAULTS", 10)
    members = SAMPLE.members()
    before(members, A1, *(Member(f"x{n}", b"") for n in range(60)))
    reading = read(written(members))
    assert len(reading.faults) == 10 and reading.more_faults == 50
    assert reading.intact == set(SAMPLE.bundle.by_digest)


def test_copies_of_headers_without_number_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(astray, "_MAX_CANDIDATES", 100)
    data = SAMPLE.part()
    place = data.index(A1.encode())
    noise = (b"\0" * 257 + b"ustar\x0000").ljust(512, b"\1") * 300
    reading = read(data[:place] + noise + data[place:])
    assert [fault.kind for fault in reading.faults] == ["count"]


def test_a_huge_extended_header_is_passed_over() -> None:
    huge = pax_header("huge", {"comment": "x" * 100_000})
    members = SAMPLE.members()
    before(members, A1, Member("huge", b"", huge))
    assert found(written(members)) == [("count", "huge", none())]


def test_an_extra_file_larger_than_everything_is_not_followed() -> None:
    members = SAMPLE.members()
    before(members, A1, Member("big", b"", member_header("big", 1 << 40)))
    said = found(written(members))
    assert said == [("extra", "big", none()), ("count", "big", none())]


# What is no bundle.


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"hello", "neither as tar nor as zstd"),
        (bytes(2000), "neither"),
        (b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}' * 20, "JSON"),
        (strange_header("oci-layout", 0) + END_MARK, "begins with 'oci-layout'"),
        (strange_header("./", 0, type=tarfile.DIRTYPE) + END_MARK, "begins with './'"),
        (b"\x1f\x8b" + bytes(600), "compressed with gzip"),
        (b"\xfd7zXZ\x00" + bytes(600), "compressed with xz"),
        (b"BZh9" + bytes(600), "compressed with bzip2"),
        (packed(b"hello" * 1000), "neither"),
        (packed(b"hello" * 1000)[:9], "damaged"),
    ],
)
def test_what_is_no_bundle_is_said_to_be_none(data: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        read(data)
    assert caught.value.code == "not-a-bundle" and caught.value.hint
    assert caught.value.message.startswith("test.tar ")


def test_a_bundle_that_another_tar_packed_anew_is_read_and_every_header_named() -> None:
    members: list[Member] = SAMPLE.members()
    for member in members:
        member.header = strange_header(
            member.name, len(member.content), uid=1000, gid=1000, uname="me", mtime=1_700_000_000
        )
    said = found(written(members, bytes(10240)))
    assert [kind for kind, _, _ in said] == ["header"] * 10 + ["trailing"]
    assert read(written(members)).intact == set(SAMPLE.bundle.by_digest)


def test_a_fault_that_touches_everything_does_not_write_every_name() -> None:
    names = tuple(f"item {number}" for number in range(250))
    told = faults.Fault("bit-flip", "blobs/x", "wrong", names).as_dict()
    assert told["affects"] == list(names[:100]) and told["more_affects"] == 150
    assert faults.Fault("extra", "x", "extra", names[:3]).as_dict()["more_affects"] == 0


def test_all_segments_of_a_blob_share_what_they_touch() -> None:
    course = Course(SPLIT.bundle, 1, len(SPLIT.manifest)), Course(SPLIT.bundle, 2, 9)
    name, other = SPLIT.bundle.parts[0][1].member, SPLIT.bundle.parts[1][0].member
    places = course[0].place_of(name), course[1].place_of(other)
    assert None not in places
    found = [one.affects([place or 0]) for one, place in zip(course, places, strict=True)]
    assert set(found[0]) == BOTH and found[0] is found[1]
