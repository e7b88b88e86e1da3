"""squashfs images that mksquashfs made (the seeds of the fuzzer), whole and damaged."""

import struct
from collections.abc import Callable

import pytest

from local_imager.formats.entries import Entry, Volume
from local_imager.formats.source import BytesSource, FormatError, sha256_of, stream
from local_imager.formats.squashfs import read_squashfs
from tests.fuzz.bootseeds import TREE
from tests.fuzz.driver import CORPUS

_FOLDER = CORPUS / "squashfs"
_EPOCH = 1559424892


def _image(name: str = "xz") -> bytearray:
    return bytearray((_FOLDER / name).read_bytes())


def _contents(volume: Volume) -> dict[str, bytes | str | None]:
    """Return what the tree of the seeds is written down as."""
    found: dict[str, bytes | str | None] = {}
    for entry in volume.entries:
        if entry.kind == "file":
            found[entry.path] = b"".join(stream(volume.open(entry)))
        else:
            found[entry.path] = {"directory": None, "special": ""}.get(
                entry.kind, entry.link_target
            )
    return found


@pytest.mark.parametrize("packing", ["gzip", "xz", "zstd", "lz4"])
def test_all_entries_come_with_their_content(packing: str) -> None:
    volume = read_squashfs(BytesSource(bytes(_image(packing))))
    assert _contents(volume) == TREE
    facts = volume.facts
    assert (facts.packing, facts.block_bytes, facts.made) == (packing, 4096, _EPOCH)
    assert (facts.inodes, facts.has_xattrs) == (len(TREE) + 1, False)
    assert facts.image_bytes == len(_image(packing))


def test_entries_have_what_their_inodes_say() -> None:
    entries = {entry.path: entry for entry in read_squashfs(BytesSource(bytes(_image()))).entries}
    tool = entries["bin/tool"]
    assert (tool.mode, tool.uid, tool.gid, tool.mtime) == (0o755, 0, 0, _EPOCH)
    assert tool.size_bytes == len(TREE["bin/tool"] or "")
    assert entries["lib/pipe"].kind == "special"
    order = list(entries)
    assert all(
        order.index(path.rpartition("/")[0]) < order.index(path) for path in order if "/" in path
    )


def test_zeros_are_holes_and_parts_are_read_alone() -> None:
    volume = read_squashfs(BytesSource(bytes(_image())))
    by_path = {entry.path: volume.open(entry) for entry in volume.entries if entry.kind == "file"}
    text = TREE["bin/tool"]
    assert isinstance(text, bytes)
    assert by_path["bin/tool"].read(4000, 200) == text[4000:4200]
    assert list(by_path["lib/zeros"].data_runs(0, 4200)) == []
    runs = list(by_path["bin/tool"].data_runs(100, len(text) - 100))
    assert (runs[0], sum(count for _, count in runs)) == ((100, 3996), len(text) - 100)
    assert by_path["lib/zeros"].read(4000, 200) == bytes(200)
    assert by_path["etc/nothing"].read(0, 0) == b""
    with pytest.raises(FormatError, match="ends before"):
        by_path["etc/hello"].read(3, 4)


def test_padding_behind_the_image_changes_nothing() -> None:
    volume = read_squashfs(BytesSource(bytes(_image()) + bytes(2000)))
    assert volume.facts.image_bytes == len(_image())
    assert _contents(volume) == TREE


def test_what_cannot_be_unpacked_is_named() -> None:
    with pytest.raises(FormatError, match="packed with lzo, which is not read here"):
        read_squashfs(BytesSource(bytes(_image("lzo"))))


def test_only_files_are_opened() -> None:
    volume = read_squashfs(BytesSource(bytes(_image())))
    for entry in (Entry("etc", "directory"), Entry("none", "file"), Entry("lib/deep/link", "link")):
        with pytest.raises(FormatError, match="is no file"):
            volume.open(entry)


def _set(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda image: struct.pack_into(form, image, offset, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(0, "<I", 0), "no squashfs of version 4.0"),
        (_set(28, "<H", 3), "no squashfs of version 4.0"),
        (_set(4, "<I", 1 << 31), "2147483648 inodes"),
        (_set(12, "<I", 1 << 30), "blocks of 1073741824 bytes"),
        (_set(16, "<I", 1 << 31), "2147483648 fragments"),
        (_set(20, "<H", 2), "packed with lzma"),
        (_set(20, "<H", 77), "packed with compression 77"),
        (_set(40, "<Q", 1 << 40), "cut off"),
        (_set(48, "<Q", 1 << 40), "outside of it"),
        (_set(32, "<Q", 0xFFFF), "."),
        (_set(32, "<Q", 0xFFFFFFFF0000), "."),
    ],
)
def test_a_lying_superblock_is_refused(change: Callable[[bytearray], None], message: str) -> None:
    image = _image()
    change(image)
    with pytest.raises(FormatError, match=message):
        read_squashfs(BytesSource(bytes(image)))


@pytest.mark.parametrize("length", [0, 50, 96, 500, 1700])
def test_a_cut_image_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        read_squashfs(BytesSource(bytes(_image()[:length])))


@pytest.mark.parametrize("packing", ["gzip", "xz", "zstd", "lz4"])
def test_any_changed_byte_is_read_or_refused_and_nothing_else(packing: str) -> None:
    image, seen = _image(packing), {True: 0, False: 0}
    for place in range(0, len(image), 11):
        changed = bytearray(image)
        changed[place] ^= 0xFF
        try:
            volume = read_squashfs(BytesSource(bytes(changed)))
            for entry in volume.entries:
                if entry.kind == "file" and entry.size_bytes < 1 << 20:
                    sha256_of(volume.open(entry))
            seen[True] += 1
        except FormatError as error:
            assert error.message.isprintable()
            seen[False] += 1
    assert seen[False] > 20


def test_a_directory_in_itself_is_refused() -> None:
    """The root's listing is written anew: an entry in it leads back to the root."""
    image = _image("gzip")
    plain = bytearray(_unpacked(image))
    inode = _find_root(plain)
    struct.pack_into("<H", plain, inode["entry_offset"], inode["root_offset"])
    with pytest.raises(FormatError, match="without end"):
        read_squashfs(BytesSource(_repacked(image, plain)))


def test_a_link_longer_than_any_path_is_refused() -> None:
    """The inode table is written anew, with a length of 5,000 bytes for a link."""
    import zlib

    image = _image("gzip")
    at, _, _ = _tables(image)
    size = int.from_bytes(image[at : at + 2], "little")
    table = bytearray(zlib.decompress(image[at + 2 : at + 2 + size]))
    place = table.index(b"../../etc/hello") - 4
    table[place : place + 4] = struct.pack("<I", 5000)
    struct.pack_into("<Q", image, 64, len(image))
    rest = bytes(8192 - len(table))
    image += (8192 | 0x8000).to_bytes(2, "little") + table + rest
    image += (8192 | 0x8000).to_bytes(2, "little") + bytes(8192)
    struct.pack_into("<Q", image, 40, len(image))
    with pytest.raises(FormatError, match="symbolic link of 5000 bytes"):
        read_squashfs(BytesSource(bytes(image)))


def _tables(image: bytearray) -> tuple[int, int, int]:
    inodes, directories, fragments = struct.unpack_from("<QQQ", image, 64)
    return inodes, directories, fragments


def _unpacked(image: bytearray) -> bytes:
    """Return the one block of the directory table."""
    import zlib

    _, at, _ = _tables(image)
    head = int.from_bytes(image[at : at + 2], "little")
    data = image[at + 2 : at + 2 + (head & 0x7FFF)]
    return bytes(data) if head & 0x8000 else zlib.decompress(data)


def _find_root(listing: bytearray) -> dict[str, int]:
    """Return where the first entry of type directory keeps its inode's offset, and the root's."""
    image = _image("gzip")
    root_offset = struct.unpack_from("<Q", image, 32)[0] & 0xFFFF
    at = listing.index(b"bin") - 8
    return {"entry_offset": at, "root_offset": root_offset}


def _repacked(image: bytearray, listing: bytearray) -> bytes:
    """Put the directory table, not packed, behind everything else."""
    out = bytearray(image)
    struct.pack_into("<Q", out, 72, len(out))
    out += (len(listing) | 0x8000).to_bytes(2, "little") + listing
    struct.pack_into("<Q", out, 40, len(out))
    return bytes(out)
