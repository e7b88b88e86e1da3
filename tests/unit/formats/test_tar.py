"""Tar archives in every form that tools write, with random access and as streams."""

import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from local_imager.formats.entries import Entry
from local_imager.formats.source import BytesSource, FileSource, FormatError
from local_imager.formats.tar import is_tar, read_tar

_TIME = 1559424892
_LONG = "long/" + "name/" * 40 + "end"
_FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def _tar(form: int, members: list[tuple[str, bytes, bytes]], **values: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uid, info.gid, info.mode = kind, _TIME, 5, 6, 0o4750
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            for key, value in values.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


_MEMBERS = [
    ("./", tarfile.DIRTYPE, b""),
    ("./a/", tarfile.DIRTYPE, b""),
    ("./a/b", tarfile.REGTYPE, b"content\n"),
    ("./a/big", tarfile.REGTYPE, bytes(range(256)) * 9000),
    ("link", tarfile.SYMTYPE, b"a/b"),
    ("hard", tarfile.LNKTYPE, b"a/b"),
    ("dev", tarfile.CHRTYPE, b""),
    ("empty", tarfile.REGTYPE, b""),
]


def _shown(entry: Entry) -> tuple[object, ...]:
    return entry.path, entry.kind, entry.size_bytes, entry.link_target


@pytest.mark.parametrize("form", _FORMS)
def test_members_are_told_the_same_in_every_form(form: str) -> None:
    data = _tar(_FORMS[form], _MEMBERS)
    volume = read_tar(BytesSource(data))
    assert [_shown(entry) for entry in volume.entries] == [
        ("a", "directory", 0, None),
        ("a/b", "file", 8, None),
        ("a/big", "file", 256 * 9000, None),
        ("link", "link", 0, "a/b"),
        ("hard", "link", 0, "a/b"),
        ("dev", "special", 0, None),
        ("empty", "file", 0, None),
    ]
    one = volume.entries[1]
    assert (one.mode, one.uid, one.gid, one.mtime) == (0o4750, 5, 6, _TIME)
    assert [entry.path for entry in volume.entries if entry.attributes] == ["hard"]
    assert volume.open(one).read(0, 8) == b"content\n"
    assert volume.open(volume.entries[2]).read(100_000, 256) == bytes(
        (100_000 + n) % 256 for n in range(256)
    )
    assert is_tar(data[:512])


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names_links_and_large_numbers(form: str) -> None:
    members = [(_LONG, tarfile.REGTYPE, b"x"), ("l", tarfile.SYMTYPE, _LONG.encode())]
    data = _tar(_FORMS[form], members, uid=3_000_000, mtime=-5)
    file, link = read_tar(BytesSource(data)).entries
    assert (file.path, file.uid, file.mtime, link.link_target) == (_LONG, 3_000_000, -5, _LONG)


def test_a_time_with_a_fraction_is_cut() -> None:
    data = _tar(tarfile.PAX_FORMAT, [("a", tarfile.REGTYPE, b"")], mtime=1.75)
    assert read_tar(BytesSource(data)).entries[0].mtime == 1


def test_the_last_of_two_members_with_one_name_counts() -> None:
    data = _tar(
        tarfile.GNU_FORMAT,
        [
            ("a", tarfile.REGTYPE, b"1"),
            ("b", tarfile.REGTYPE, b""),
            ("./a", tarfile.REGTYPE, b"22"),
        ],
    )
    volume = read_tar(BytesSource(data))
    assert [entry.path for entry in volume.entries] == ["b", "a"]
    assert volume.open(volume.entries[1]).read(0, 2) == b"22"


@pytest.mark.parametrize("form", ["gnu", "oldgnu"])
def test_a_sparse_file_of_gnu_tar_keeps_its_holes(tmp_path: Path, form: str) -> None:
    """As a cloud image is packed: many pieces, a hole at the begin and one at the end."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        for number in range(30):
            file.seek((2 * number + 1) * 65536)
            file.write(bytes([number + 1]) * 4096)
        file.truncate(8 << 20)
    path = tmp_path / "disk.tar"
    argv = ["tar", "--create", "--sparse", f"--format={form}", "-C", str(tmp_path)]
    subprocess.run([*argv, "-f", str(path), "disk.raw"], check=True)
    assert path.stat().st_size < 1 << 20
    with FileSource(path) as source:
        volume = read_tar(source)
        [entry] = volume.entries
        opened = volume.open(entry)
        assert entry.size_bytes == opened.size_bytes == 8 << 20
        assert opened.read(0, 8 << 20) == disk.read_bytes()
        assert sum(length for _, length in opened.data_runs(0, 8 << 20)) < 1 << 20


def test_tar_lists_the_same(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(_tar(tarfile.GNU_FORMAT, _MEMBERS[1:]))
    argv = ["tar", "--numeric-owner", "--utc", "-tvf", str(tmp_path / "x.tar")]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    sizes = [line.split()[2] for line in shown.splitlines() if line[0] == "-"]
    volume = read_tar(BytesSource(_tar(tarfile.GNU_FORMAT, _MEMBERS[1:])))
    assert sizes == [str(entry.size_bytes) for entry in volume.entries if entry.kind == "file"]
    assert len(shown.splitlines()) == len(volume.entries)


def _header(
    name: bytes = b"x", *, flag: bytes = b"0", size: bytes = b"1", tail: bytes = b""
) -> bytes:
    data = bytearray(name.ljust(100, b"\0") + b"644".ljust(8, b"\0") + bytes(16))
    data += size.rjust(11, b"0") + b"\0" + bytes(12) + b" " * 8 + flag
    data = bytearray(bytes(data).ljust(386, b"\0") + tail).ljust(512, b"\0")
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def _sparse(pieces: list[tuple[int, int]], size: int, stored: int, more: int = 0) -> bytes:
    fields = b"".join(b"%011o\0%011o\0" % piece for piece in pieces).ljust(96, b"\0")
    tail = fields + bytes([more]) + b"%011o\0" % size
    return _header(flag=b"S", size=b"%o" % stored, tail=tail)


_PAX_SPARSE = b"22 GNU.sparse.major=1\n"
_END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_header()[:300], "cut off"),
        (_header() + b"x", "cut off"),
        (_header(size=b"77777777777"), "cut off"),
        (_header()[:-1] + b"x", "checksum"),
        (_header(b"../x") + _END, "the member ../x"),
        (_header(b"a/../../x") + _END, "the member"),
        (_header(b"") + _END, "without a name"),
        (_header(flag=b"M") + _END, "not read"),
        (_header(size=b"9z") + _END, "none"),
        (_header(flag=b"x", size=b"7777777") + _END, "too large"),
        (_header(flag=b"x", size=b"12") + b"99 path=abc\n".ljust(512, b"\0"), "broken"),
        (_header(flag=b"x", size=b"10") + b"8 path=a".ljust(512, b"\0"), "broken"),
        (_header(flag=b"x", size=b"%o" % 22) + _PAX_SPARSE.ljust(512, b"\0"), "sparse"),
        (_header(flag=b"g", size=b"0") * 20, "too many"),
        (_sparse([(0, 512), (256, 512)], 4096, 1024) + _END, "pieces that cannot"),
        (_sparse([(4000, 512)], 4096, 512) + _END, "pieces that cannot"),
        (_sparse([(0, 512)], 4096, 1024) + _END, "another size"),
        (_sparse([(0, 512)], 4096, 512, more=1), "cut off"),
        (_sparse([], 4096, 0, more=1) + struct.pack("504xB7x", 1) * 5, "cut off"),
    ],
)
def test_damaged_archives_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read_tar(BytesSource(data))


def test_what_has_no_content_is_not_opened() -> None:
    volume = read_tar(BytesSource(_tar(tarfile.GNU_FORMAT, _MEMBERS)))
    for entry in (volume.entries[0], Entry("x", "file", number=99)):
        with pytest.raises(FormatError, match="no content"):
            volume.open(entry)


def test_other_bytes_are_no_archive() -> None:
    assert not is_tar(bytes(512)) and not is_tar(os.urandom(512)) and not is_tar(b"")


def test_the_pieces_of_all_sparse_files_together_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("local_imager.formats.tar._MAX_SPARSE_PIECES", 3)
    one = _sparse([(0, 512), (1024, 512)], 4096, 1024) + bytes(1024)
    assert len(read_tar(BytesSource(one)).entries) == 1
    empty = _sparse([], 4096, 0, more=1) + (bytes(504) + b"\1" + bytes(7)) * 9
    with pytest.raises(FormatError, match="too many sparse pieces"):
        read_tar(BytesSource(empty + bytes(1024)))
    with pytest.raises(FormatError, match="pieces"):
        read_tar(BytesSource(one + one))


def test_targets_of_links_count_as_names_do() -> None:
    link = tarfile.TarInfo("x")
    link.type, link.linkname = tarfile.SYMTYPE, "y" * 5000
    data = link.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(FormatError, match="longer names"):
        read_tar(BytesSource(data))
