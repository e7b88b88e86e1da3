"""The tar form: headers that real programs read, sizes that are exact."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.tarform import (
    END_MARK,
    member_header,
    part_members,
    part_size,
    pieces_of,
)
from tests.bundlefiles import Sample, make_sample

SAMPLE = make_sample()
SPLIT = SAMPLE.split(
    [SAMPLE.segment("a1", 0, 300), SAMPLE.whole("s1")],
    [SAMPLE.segment("a1", 300, 700)],
    [SAMPLE.whole("b1"), SAMPLE.whole("b2")],
)
SEGMENT = f"segments/sha256/{'ab' * 32}/{0:020d}"


@pytest.mark.parametrize("name", ["bundle.json", f"blobs/sha256/{'ab' * 32}", SEGMENT])
@pytest.mark.parametrize("size", [0, 1, 511, 8**11 - 1, 8**11, 1 << 50])
def test_the_standard_library_reads_a_header_as_it_was_meant(name: str, size: int) -> None:
    header = member_header(name, size)
    info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    assert (info.name, info.size, info.type, info.mode) == (name, size, tarfile.REGTYPE, 0o444)
    assert (info.uid, info.gid, info.mtime, info.uname, info.gname) == (0, 0, 0, "", "")
    assert len(header) == 512


@pytest.mark.parametrize("name", ["x" * 101, f"{'x' * 156}/y", f"y/{'x' * 101}", "é"])
def test_a_name_that_does_not_fit_is_no_header(name: str) -> None:
    with pytest.raises(ValueError):
        member_header(name, 0)


@pytest.mark.parametrize("sample", [SAMPLE, SPLIT], ids=["one file", "a set"])
def test_sizes_and_members_are_those_of_the_file(sample: Sample) -> None:
    for number in range(1, len(sample.bundle.parts) + 1):
        data = sample.part(number)
        assert part_size(sample.bundle, number) == len(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found = [(member.name, member.size) for member in archive]
        assert found == list(part_members(sample.bundle, number))
        assert data.endswith(END_MARK)


def test_every_part_begins_with_manifest_label_layout_and_documents() -> None:
    documents = [f"blobs/sha256/{blob.digest.hex}" for blob in SPLIT.bundle.documents()]
    for number in (1, 2, 3):
        names = [name for name, _ in part_members(SPLIT.bundle, number)]
        front = ["bundle.json", "part.json", "oci-layout", "index.json", *documents]
        assert names[: len(front)] == front
        own = [piece.member for piece in SPLIT.bundle.parts[number - 1]]
        assert names[len(front) :] == own
        assert [piece.member for piece in pieces_of(SPLIT.bundle, number)] == documents + own


def test_a_known_length_of_the_manifest_saves_writing_it() -> None:
    known = len(SPLIT.manifest)
    assert part_size(SPLIT.bundle, 2, manifest_size_bytes=known) == part_size(SPLIT.bundle, 2)
    more = part_size(SPLIT.bundle, 2, manifest_size_bytes=known + 512)
    assert more == part_size(SPLIT.bundle, 2) + 512


def test_gnu_tar_unpacks_parts_with_segments(tmp_path: Path) -> None:
    (tmp_path / "part.tar").write_bytes(SPLIT.part(2))
    command = ["tar", "--warning=all", "-xf", "part.tar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    piece = SPLIT.bundle.parts[1][0]
    assert (tmp_path / piece.member).read_bytes() == SPLIT.contents[piece.blob][300:700]
