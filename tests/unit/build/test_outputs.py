"""What a container leaves behind is hostile until it was looked at: on disk and in a stream."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from local_imager.build.container import ContainerUser
from local_imager.build.outputs import check_outputs, take_ownership
from local_imager.build.transfer import (
    folders_archive,
    take_files,
    tree_archive,
    unpack_zstd,
    write_sparse,
)
from local_imager.errors import BuildError

WANTED = frozenset({"metal-amd64.iso"})
USER = ContainerUser("65532:65532", 65532, 65532)


def test_the_expected_regular_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "metal-amd64.iso").write_bytes(b"iso")
    check_outputs(tmp_path, WANTED, 10)


def link_to_ours(folder: Path) -> None:
    (folder / "metal-amd64.iso").symlink_to("/etc/passwd")


def hard_link(folder: Path) -> None:
    (folder.parent / "ours").write_bytes(b"ours")
    os.link(folder.parent / "ours", folder / "metal-amd64.iso")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "metal-amd64.iso")


def another_name(folder: Path) -> None:
    (folder / "metal-amd64.iso").write_bytes(b"iso")
    (folder / "surprise\x1b[2J").write_bytes(b"x")


def too_large(folder: Path) -> None:
    (folder / "metal-amd64.iso").write_bytes(bytes(11))


def empty(folder: Path) -> None:
    (folder / "metal-amd64.iso").touch()


@pytest.mark.parametrize("make", [link_to_ours, hard_link, pipe, another_name, too_large, empty])
def test_anything_else_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    make(folder)
    with pytest.raises(BuildError) as caught:
        check_outputs(folder, WANTED, 10)
    assert caught.value.code == "output-unexpected"
    assert "\x1b" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"metal-amd64\.iso"):
        check_outputs(tmp_path, WANTED, 10)


def test_an_accepted_file_is_ours_and_runs_as_nobody(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(0o6777)
    take_ownership(path, private=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    take_ownership(path, private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.geteuid()


def member(name: str, data: bytes = b"iso", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)
FOLDER = member("files/", b"", tarfile.DIRTYPE)


def stream(*parts: bytes, size: int = 100) -> Iterator[bytes]:
    data = b"".join(parts) + END
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize(
    "parts",
    [(member("metal-amd64.iso"),), (FOLDER, member("files/metal-amd64.iso"))],
    ids=["file", "folder"],
)
def test_the_wanted_file_is_taken_out_of_a_stream(tmp_path: Path, parts: tuple[bytes]) -> None:
    take_files(stream(*parts), WANTED, tmp_path, 10)
    assert (tmp_path / "metal-amd64.iso").read_bytes() == b"iso"


HOSTILE = {
    "symlink": (member("metal-amd64.iso", b"", tarfile.SYMTYPE, "/etc/passwd"),),
    "hard link": (member("metal-amd64.iso", b"", tarfile.LNKTYPE, "/etc/passwd"),),
    "device": (member("metal-amd64.iso", b"", tarfile.BLKTYPE),),
    "another name": (FOLDER, member("files/other"), member("files/metal-amd64.iso")),
    "way out": (member("../../etc/cron.d/job"),),
    "twice": (member("metal-amd64.iso"), member("metal-amd64.iso")),
    "folder below": (FOLDER, member("files/deep/", b"", tarfile.DIRTYPE)),
    "too large": (member("metal-amd64.iso", bytes(11)),),
    "empty": (member("metal-amd64.iso", b""),),
}


@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_stream_is_refused(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BuildError) as caught:
        take_files(stream(*parts), WANTED, tmp_path, 10)
    assert caught.value.code == "output-unexpected"
    assert set(os.listdir(tmp_path)) <= WANTED


def test_a_stream_without_the_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        take_files(stream(FOLDER), WANTED, tmp_path, 10)
    assert caught.value.code == "output-missing"


def test_a_stream_that_breaks_off_leaves_an_error(tmp_path: Path) -> None:
    whole = member("metal-amd64.iso", b"x" * 9000)
    with pytest.raises(BuildError):
        take_files(iter([whole[:4000]]), WANTED, tmp_path, 10_000)


def test_zeros_become_holes_and_sizes_are_held(tmp_path: Path) -> None:
    data = bytes(1 << 20) + b"x" + bytes(1 << 20)
    write_sparse([data[:500_000], data[500_000:]], tmp_path / "disk", len(data))
    assert (tmp_path / "disk").read_bytes() == data
    assert (tmp_path / "disk").stat().st_blocks * 512 < 300_000
    for wrong in (len(data) - 1, len(data) + 1):
        with pytest.raises(BuildError):
            write_sparse([data], tmp_path / f"disk{wrong}", wrong)


def test_a_packed_disk_is_unpacked_within_bounds(tmp_path: Path) -> None:
    data, packed = bytes(3 << 20) + b"end", tmp_path / "packed"
    packed.write_bytes(zstandard.ZstdCompressor().compress(data))
    unpack_zstd(packed, tmp_path / "disk", len(data))
    assert (tmp_path / "disk").read_bytes() == data
    with pytest.raises(BuildError):
        unpack_zstd(packed, tmp_path / "other", len(data) - 1)


@pytest.mark.parametrize("damage", ["not zstd", "cut", "no size"])
def test_a_damaged_packed_disk_is_refused(tmp_path: Path, damage: str) -> None:
    good = zstandard.ZstdCompressor().compress(os.urandom(100_000))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bad = {
        "not zstd": b"x" * 100,
        "cut": good[: len(good) // 2],
        "no size": unsized.compress(b"x") + unsized.flush(),
    }[damage]
    (tmp_path / "packed").write_bytes(bad)
    with pytest.raises(BuildError):
        unpack_zstd(tmp_path / "packed", tmp_path / "disk", 1 << 30)


def test_inputs_are_sent_for_the_containers_user(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 700)
    (tmp_path / "deep" / "file").chmod(0o400)
    data = folders_archive(("files",), USER) + b""
    sent = b"".join(tree_archive(tmp_path, USER))
    for archive_bytes in (data, sent):
        with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as archive:
            assert {(m.uid, m.gid) for m in archive.getmembers()} == {(65532, 65532)}
    with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
        assert archive.getnames() == ["deep", "deep/file"]
        assert archive.getmember("deep/file").mode == 0o400
        content = archive.extractfile("deep/file")
        assert content is not None and content.read() == b"x" * 700
