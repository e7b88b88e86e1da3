"""Files out of layers: what upper layers hide, links, and archives made to do harm."""

from __future__ import annotations

import gzip
import io
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from local_imager.errors import LocalImagerError, SourceError
from local_imager.sources import decompress, tarstream, unpack
from local_imager.sources.unpack import extract_files

Member = tuple[str, str | bytes | None]


def archive(*members: Member, fmt: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar: bytes make a file, ``->x`` a symlink, ``=x`` a hard link, None a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type = tarfile.SYMTYPE if what.startswith("->") else tarfile.LNKTYPE
                info.linkname = what.lstrip("->=")
            else:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return buffer.getvalue()


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Write layers, extract the wanted files, return their contents."""

    def run(wanted: list[str], *layers: bytes, **more: int) -> dict[str, bytes]:
        paths = []
        for number, layer in enumerate(layers):
            path = tmp_path / f"layer-{number}"
            path.write_bytes(layer)
            paths.append(path)
        found = extract_files(paths, wanted, tmp_path / "out" / "x", **more)
        for path in found.values():
            assert path.resolve().is_relative_to(tmp_path / "out")
        return {name: path.read_bytes() for name, path in found.items()}

    return run


Take = Callable[..., dict[str, bytes]]


@pytest.mark.parametrize("pack", ["plain", "gzip", "zstd", "gzip members"])
def test_each_packing_is_read(pack: str, take: Take) -> None:
    data = archive(("etc/a", b"1" * 300_000), ("etc/b", b"two"))
    packed = {
        "plain": data,
        "gzip": gzip.compress(data),
        "zstd": zstandard.compress(data),
        "gzip members": gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    }[pack]
    assert take(["etc/a", "etc/b", "etc/c"], packed) == {"etc/a": b"1" * 300_000, "etc/b": b"two"}


def test_upper_layers_win_and_hide(take: Take) -> None:
    low = archive(("d/a", b"low"), ("d/b", b"low"), ("e/c", b"low"), ("f", b"low"), ("g/h", b"low"))
    high = archive(
        ("d/a", b"high"), ("d/.wh.b", b""), ("e/.wh..wh..opq", b""), ("e/x", b"new"), (".wh.g", b"")
    )
    assert take(["d/a", "d/b", "e/c", "e/x", "f", "g/h"], low, high) == {
        "d/a": b"high",
        "e/x": b"new",
        "f": b"low",
    }


def test_a_file_that_replaces_a_directory_hides_what_was_in_it(take: Take) -> None:
    assert take(["d/a"], archive(("d/a", b"low")), archive(("d", b"file"))) == {}


def test_what_comes_back_above_a_whiteout_is_seen(take: Take) -> None:
    layers = [archive(("d/a", b"1")), archive(("d/.wh.a", b"")), archive(("d/a", b"3"))]
    assert take(["d/a"], *layers) == {"d/a": b"3"}


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([("real", b"x"), ("link", "->real")], True),
        ([("d/real", b"x"), ("link", "->d/real")], True),
        ([("real", b"x"), ("d/up", "->../real"), ("link", "->d/up")], True),
        ([("real", b"x"), ("link", "->/real")], True),
        ([("real", b"x"), ("link", "->../../../../real")], True),
        ([("real", b"x"), ("link", "=real")], True),
        ([("dir/real", b"x"), ("alias", "->dir"), ("link", "->alias/real")], True),
        ([("link", "->/etc/passwd")], False),
        ([("link", "->../../etc/passwd")], False),
        ([("link", "->link")], False),
        ([("a", "->b"), ("b", "->a"), ("link", "->a")], False),
        ([("link", "->")], False),
        ([("d", None), ("link", "->d")], False),
    ],
)
def test_links_stay_inside_the_image(members: list[Member], found: bool, take: Take) -> None:
    assert take(["link"], archive(*members)) == ({"link": b"x"} if found else {})


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a/../b"])
def test_a_path_that_leads_out_is_refused(name: str, take: Take) -> None:
    with pytest.raises(SourceError):
        take(["evil"], archive((name, b"x")))


def test_devices_are_passed_over_and_never_made(take: Take, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("dev")
            info.type = kind
            tar.addfile(info)
    assert take(["dev"], buffer.getvalue()) == {}


@pytest.mark.parametrize("fmt", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(fmt: int, take: Take) -> None:
    name = "/".join(["part" * 20] * 10) + "/é"
    assert take([name], archive((name, b"x"), fmt=fmt)) == {name: b"x"}


def test_a_bomb_ends_in_an_error(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "RATIO_FREE_BYTES", 1 << 20)
    data = archive(("zeros", bytes(64 << 20)))
    for packed in (gzip.compress(data), zstandard.compress(data)):
        with pytest.raises(SourceError, match="far more"):
            take(["other"], packed)


def test_a_total_ceiling_holds_for_plain_layers_too(
    take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, "MAX_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(SourceError, match="far more"):
        take(["other"], archive(("a", bytes(2 << 20))))


def test_a_file_over_its_ceiling_is_refused(take: Take) -> None:
    with pytest.raises(SourceError, match="larger than 10 bytes"):
        take(["a"], archive(("a", b"x" * 11)), max_file_bytes=10)


def test_too_many_entries_are_refused(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 10)
    with pytest.raises(SourceError, match="more than 10 entries"):
        take(["a"], archive(*((f"f{n}", b"") for n in range(11))))


def test_an_extended_header_over_its_ceiling_is_refused(take: Take) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * (tarstream.MAX_EXTENDED_HEADER_BYTES + 1)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(SourceError, match="extended header is too large"):
        take(["a"], buffer.getvalue())


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 700, 1023])
def test_a_truncated_archive_is_refused(cut: int, take: Take) -> None:
    with pytest.raises(SourceError, match="cut off"):
        take(["a"], archive(("a", b"x" * 600))[:cut])


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
def test_a_truncated_packing_is_refused(packed: Callable[[bytes], bytes], take: Take) -> None:
    import os

    data = packed(archive(("a", os.urandom(1_000_000))))
    with pytest.raises(SourceError):
        take(["a"], data[: len(data) // 2])


def test_a_sparse_member_is_refused_not_misread(take: Take) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(LocalImagerError, match="sparse"):
        take(["a"], buffer.getvalue())


def test_a_place_without_room_is_the_hosts_fault(take: Take) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    layers = gzip.compress(archive(("a", b"x" * 100_000)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(LocalImagerError) as caught:
            take(["a"], layers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.code, caught.value.exit_code) == ("disk-full", 5)
    assert caught.value.hint
