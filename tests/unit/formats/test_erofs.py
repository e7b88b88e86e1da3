"""erofs images that mkfs.erofs made (the seeds of the fuzzer), whole and damaged."""

import struct
from collections.abc import Callable

import pytest

from local_imager.formats.entries import Entry, Volume
from local_imager.formats.erofs import read_erofs
from local_imager.formats.source import BytesSource, FormatError, sha256_of, stream
from tests.fuzz.bootseeds import TREE
from tests.fuzz.driver import CORPUS

_EPOCH = 1559424892
_SUPERBLOCK = 1024


def _image(name: str = "plain") -> bytearray:
    return bytearray((CORPUS / "erofs" / name).read_bytes())


def _contents(volume: Volume) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    for entry in volume.entries:
        if entry.kind == "file":
            found[entry.path] = b"".join(stream(volume.open(entry)))
        else:
            found[entry.path] = {"directory": None, "special": ""}.get(
                entry.kind, entry.link_target
            )
    return found


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_all_entries_come_with_their_content(name: str) -> None:
    volume = read_erofs(BytesSource(bytes(_image(name))))
    assert _contents(volume) == TREE
    facts = volume.facts
    assert facts.uuid == "12345678-1234-1234-1234-123456789abc"
    assert (facts.label, facts.block_bytes, facts.inodes) == ("", 4096, len(TREE) + 1)
    assert facts.image_bytes == len(_image(name))
    assert ("ztailpacking" in facts.features) == (name == "packed")


def test_entries_have_what_their_inodes_say() -> None:
    entries = {entry.path: entry for entry in read_erofs(BytesSource(bytes(_image()))).entries}
    tool = entries["bin/tool"]
    assert (tool.mode, tool.uid, tool.gid, tool.mtime) == (0o755, 0, 0, _EPOCH)
    assert (entries["lib/pipe"].kind, entries["lib"].kind) == ("special", "directory")


def test_parts_are_read_alone() -> None:
    text = TREE["bin/tool"]
    assert isinstance(text, bytes)
    for name in ("plain", "packed"):
        volume = read_erofs(BytesSource(bytes(_image(name))))
        (tool,) = [entry for entry in volume.entries if entry.path == "bin/tool"]
        source = volume.open(tool)
        assert source.read(4000, 200) == text[4000:4200]
        assert source.read(len(text), 0) == b""
        with pytest.raises(FormatError, match="ends before"):
            source.read(len(text), 1)


def test_only_files_are_opened() -> None:
    volume = read_erofs(BytesSource(bytes(_image())))
    with pytest.raises(FormatError, match="is no file"):
        volume.open(Entry("etc", "directory"))


def _set(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda image: struct.pack_into(form, image, offset, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(1024, "<I", 0), "it is no erofs"),
        (_set(1024 + 12, "<B", 30), "blocks of 1073741824 bytes"),
        (_set(1024 + 12, "<B", 3), "blocks of 8 bytes"),
        (_set(1024 + 36, "<I", 1 << 30), "cut off"),
        (_set(1024 + 80, "<I", 0x80), "not read here: 0x80"),
        (_set(1024 + 80, "<I", 1 << 20), "not read here: 0x100000"),
        (_set(1024 + 14, "<H", 0xFFFF), "ends before"),
        (_set(1024 + 40, "<I", 0xFFFFFFFF), "ends before"),
    ],
)
def test_a_lying_superblock_is_refused(change: Callable[[bytearray], None], message: str) -> None:
    image = _image()
    change(image)
    with pytest.raises(FormatError, match=message):
        read_erofs(BytesSource(bytes(image)))


@pytest.mark.parametrize("length", [0, 1024, 1100, 1152, 8000])
def test_a_cut_image_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        read_erofs(BytesSource(bytes(_image()[:length])))


def _inode_at(image: bytearray, number: int) -> int:
    return int.from_bytes(image[_SUPERBLOCK + 40 : _SUPERBLOCK + 44], "little") * 4096 + number * 32


def _numbers(image: bytearray) -> dict[str, int]:
    return {entry.path: entry.number for entry in read_erofs(BytesSource(bytes(image))).entries}


def test_a_directory_in_itself_is_refused() -> None:
    image = _image()
    numbers = _numbers(image)
    wanted = struct.pack("<Q", numbers["lib/deep"])
    at = image.index(wanted, _inode_at(image, numbers["lib"]))
    image[at : at + 8] = struct.pack("<Q", numbers["lib"])
    with pytest.raises(FormatError, match="without end"):
        read_erofs(BytesSource(bytes(image)))


@pytest.mark.parametrize(
    ("path", "offset", "form", "value", "message"),
    [
        ("lib", 8, "<I", 0xFFFFFFFF, "longer than any real ones"),
        ("lib", 8, "<I", 60000, "outside|block|ends before"),
        ("lib/deep/link", 8, "<I", 0xFFFFFF, "symbolic link of 16777215 bytes"),
        ("lib", 0, "<H", 1 << 1, "is compressed"),
        ("lib/deep/link", 0, "<H", 3 << 1, "is compressed"),
        ("bin/tool", 0, "<H", 7 << 1, "a layout that is not known"),
    ],
)
def test_a_lying_inode_is_refused(
    path: str, offset: int, form: str, value: int, message: str
) -> None:
    image = _image()
    struct.pack_into(form, image, _inode_at(image, _numbers(image)[path]) + offset, value)
    with pytest.raises(FormatError, match=message):
        _contents(read_erofs(BytesSource(bytes(image))))


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_any_changed_byte_is_read_or_refused_and_nothing_else(name: str) -> None:
    image, refused = _image(name), 0
    used = [place for place in range(len(image)) if image[place]]
    for place in used[:: max(len(used) // 150, 1)]:
        changed = bytearray(image)
        changed[place] ^= 0xFF
        try:
            volume = read_erofs(BytesSource(bytes(changed)))
            for entry in volume.entries:
                if entry.kind == "file" and entry.size_bytes < 1 << 20:
                    sha256_of(volume.open(entry))
        except FormatError as error:
            assert error.message.isprintable()
            refused += 1
    assert refused
