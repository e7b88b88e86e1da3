"""XFS volumes as mkfs.xfs makes them, read as xfs_db reads them, and damaged ones."""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path

import pytest

from lab.debian import need_packages
from local_imager.formats.source import FileSource, FormatError, Slice, stream
from local_imager.formats.xfs import XfsVolume, read_xfs
from tests.diskfiles import Sparse, empty_file, tool

MIB = 1 << 20
VOLUME_BYTES = 300 * MIB
CONTENT = random.Random(5).randbytes(100_000)
UUID = "01234567-89ab-cdef-0123-456789abcdef"
OLD = "crc=0,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0"
KINDS = {
    "version 4": ("-m", OLD),
    "version 4 with file types": ("-m", OLD, "-n", "ftype=1"),
    "version 5 of 2015": ("-m", "reflink=0,rmapbt=0,bigtime=0,inobtcount=0", "-i", "sparse=0"),
    "version 5 of today": ("-m", "rmapbt=1,bigtime=1,inobtcount=1", "-i", "nrext64=1"),
    "blocks of 1 KiB": ("-b", "size=1024", "-n", "size=8192"),
    "blocks of 64 KiB": ("-b", "size=65536", "-i", "size=2048"),
}
COUNTS = {"short": 3, "block": 40, "leaf": 300, "node": 3000}
FEATURES = {
    "crc": "crc",
    "finobt": "finobt",
    "sparse": "sparse",
    "rmapbt": "rmapbt",
    "reflink": "reflink",
    "bigtime": "bigtime",
    "inobtcount": "inobtcount",
    "nrext64": "nrext64",
    "ftype": "ftype",
    "attr": "attr2",
    "projid32bit": "projid32bit",
    "lazy-count": "lazy-count",
}


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    need_packages(["filesystems"])


def lines(folder: Path) -> list[str]:
    """Return a description of a tree as mkfs.xfs -p takes it (mkfs.xfs(8), prototype files)."""
    (folder / "content").write_bytes(CONTENT)
    (folder / "nothing").touch()
    proto = ["/dev/null", "0 0", "d--755 0 0", f"content ---644 3 4 {folder / 'content'}"]
    proto += [
        f"empty -u-600 0 0 {folder / 'nothing'}",
        "link l--777 0 0 A/vmlinuz",
        "pipe p--600 0 0",
    ]
    for name, count in COUNTS.items():
        proto.append(f"{name} d--750 7 8")
        proto += [f"{name}-file-{n:05d} ---640 1 2 {folder / 'nothing'}" for n in range(count)]
        proto.append("$")
    return [*proto, "$", "$", ""]


def make(path: Path, *options: str) -> Path:
    proto = path.with_suffix(".proto")
    proto.write_text("\n".join(lines(path.parent)))
    label = ("-L", "BOOT", "-m", f"uuid={UUID}")
    tool("mkfs.xfs", "-q", *options, *label, "-p", proto, empty_file(path, VOLUME_BYTES))
    return path


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("xfs") / "today", *KINDS["version 5 of today"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_mkfs_made_is_read(kind: str, tmp_path: Path) -> None:
    path = make(tmp_path / "volume", *KINDS[kind])
    with FileSource(path) as source:
        volume = read_xfs(source)
        found = {entry.path: entry for entry in volume.entries}
        assert b"".join(stream(volume.open(found["content"]))) == CONTENT
        assert volume.open(found["empty"]).size_bytes == 0
    for name, count in COUNTS.items():
        wanted = {f"{name}/{name}-file-{number:05d}" for number in range(count)}
        assert {path for path in found if path.startswith(f"{name}/")} == wanted
    assert len(found) == len(volume.entries) == sum(COUNTS.values()) + len(COUNTS) + 4
    content, link, leaf = found["content"], found["link"], found["leaf"]
    assert (content.size_bytes, content.mode, content.uid, content.gid) == (100_000, 0o644, 3, 4)
    assert (link.kind, link.link_target, found["pipe"].kind) == ("link", "A/vmlinuz", "special")
    assert (leaf.kind, leaf.mode, leaf.uid) == ("directory", 0o750, 7)
    assert content.mtime is not None and abs(content.mtime - os.stat(path).st_mtime) < 120
    assert found["empty"].mode == 0o4600
    assert (volume.label, volume.uuid, volume.size_bytes) == ("BOOT", UUID, VOLUME_BYTES)
    said = tool("xfs_db", "-r", "-c", "info", path)
    told = dict(re.findall(r"([a-z0-9-]+)=(\S+)", said.replace(", ", " ")))
    assert (volume.inode_bytes, volume.group_count) == (
        int(told["isize"]),
        int(told["agcount"].rstrip(",")),
    )
    present = {name for name in FEATURES if told.get(name, "0").strip(",") != "0"}
    assert {name for name, feature in FEATURES.items() if feature in volume.features} == present


def test_xfs_db_names_the_same_files(today: Path) -> None:
    with FileSource(today) as source:
        entries = read_xfs(source).entries
    for folder in ("", *COUNTS):
        said = tool("xfs_db", "-r", "-c", f"ls /{folder}", today)
        rows = re.findall(r"^\S+ +(\d+) +\S+ +\S+ +\d+ (\S+) \(good\)$", said, re.MULTILINE)
        wanted = {(int(number), name) for number, name in rows if name not in (".", "..")}
        found = {(e.number, e.name) for e in entries if e.path.rpartition("/")[0] == folder}
        assert found == wanted


# Hand-made structures and damage, in the data pieces of a real volume.


class Volume:
    """A volume in memory that tests change."""

    def __init__(self, path: Path) -> None:
        with FileSource(path) as source:
            self.pieces = {
                start: bytearray(source.read(start, count))
                for start, count in source.data_runs(0, VOLUME_BYTES)
            }
            self.entries = {entry.path: entry for entry in read_xfs(source).entries}

    def source(self) -> Sparse:
        return Sparse(VOLUME_BYTES, [(at, bytes(data)) for at, data in self.pieces.items()])

    def read(self) -> XfsVolume:
        return read_xfs(self.source())

    def put(self, offset: int, data: bytes) -> None:
        for start, piece in self.pieces.items():
            if start <= offset < start + len(piece):
                piece[offset - start : offset - start + len(data)] = data
                return
        self.pieces[offset] = bytearray(data)

    def inode(self, path: str) -> int:
        """Return where an inode of the first group lies: eight of 512 bytes are in a block."""
        number = self.entries[path].number if path else 128
        return (number >> 3) * 4096 + (number & 7) * 512

    def content(self, volume: XfsVolume, path: str) -> bytes:
        return b"".join(stream(volume.open(next(e for e in volume.entries if e.path == path))))


@pytest.fixture
def volume(today: Path) -> Volume:
    return Volume(today)


def extent(first: int, block: int, count: int, *, unwritten: bool = False) -> bytes:
    high = (unwritten << 63) | (first << 9) | (block >> 43)
    return struct.pack(">QQ", high, ((block & ((1 << 43) - 1)) << 21) | count)


def mapped(
    volume: Volume, extents: list[bytes], size: int, *, form: int = 2, count: int = -1
) -> None:
    """Give the file `content` other extents, and a size."""
    at = volume.inode("content")
    volume.put(at + 5, bytes((form,)))
    volume.put(at + 24, struct.pack(">Q", len(extents) if count < 0 else count))
    volume.put(at + 56, struct.pack(">Q", size))
    volume.put(at + 176, b"".join(extents))


LAST_BLOCK = 3 << 15 | 19199
FREE = 1000
"""A block of the first group that nobody uses; its bytes are at 4096 times its number."""


def test_holes_and_what_was_never_written_are_zeros(volume: Volume) -> None:
    volume.put(FREE * 4096, b"a" * 8192)
    extents = [extent(1, FREE, 1), extent(2, FREE + 1, 1, unwritten=True), extent(5, FREE + 1, 2)]
    mapped(volume, extents, 5 * 4096 + 10)
    wanted = bytes(4096) + b"a" * 4096 + bytes(3 * 4096) + b"a" * 10
    assert volume.content(volume.read(), "content") == wanted
    mapped(volume, extents, 4096 * 9)
    assert volume.content(volume.read(), "content") == (
        wanted[:-10] + b"a" * 4096 + bytes(3 * 4096)
    )


def tree_block(level: int, body: bytes, count: int, magic: bytes = b"BMA3") -> bytes:
    return (struct.pack(">4sHH", magic, level, count).ljust(72, b"\0") + body).ljust(4096, b"\0")


def pointers(blocks: list[int], room: int) -> bytes:
    keys = struct.pack(f">{len(blocks)}Q", *range(len(blocks)))
    return keys.ljust(room * 8, b"\0") + struct.pack(f">{len(blocks)}Q", *blocks)


def test_a_file_in_so_many_pieces_that_they_have_a_tree(volume: Volume) -> None:
    data = random.Random(6).randbytes(400 * 4096)
    volume.put(2000 * 4096, data)
    order = list(range(400))
    random.Random(7).shuffle(order)
    records = [extent(at, 2000 + block, 1) for at, block in enumerate(order)]
    leaves = [FREE + 1, FREE + 2]
    volume.put(leaves[0] * 4096, tree_block(0, b"".join(records[:200]), 200))
    volume.put(leaves[1] * 4096, tree_block(0, b"".join(records[200:]), 200))
    volume.put(FREE * 4096, tree_block(1, pointers(leaves, (4096 - 72) // 16), 2))
    room = (512 - 176 - 4) // 16
    root = struct.pack(">HH", 2, 1) + pointers([FREE], room)
    mapped(volume, [root], len(data), form=3, count=400)
    wanted = b"".join(data[block * 4096 : block * 4096 + 4096] for block in order)
    assert volume.content(volume.read(), "content") == wanted
    for block, reason in (
        (tree_block(1, pointers([FREE, leaves[0]], 251), 2), "loops"),
        (tree_block(1, pointers([leaves[0], leaves[0]], 251), 2), "loops"),
        (tree_block(1, b"", 252), "damaged"),
        (tree_block(1, pointers(leaves, 251), 2, b"BMAP"), "damaged"),
        (tree_block(1, pointers([1 << 50], 251), 1), "is not in the XFS volume"),
    ):
        volume.put(FREE * 4096, block)
        with pytest.raises(FormatError, match=reason):
            volume.content(volume.read(), "content")


def test_lists_of_extents_that_lie_are_refused(volume: Volume) -> None:
    for extents, size, count, reason in (
        ([extent(0, FREE, 2), extent(1, FREE, 1)], 4096, -1, "overlap"),
        ([extent(0, LAST_BLOCK, 2)], 4096, -1, "leaves the volume"),
        ([extent(0, 1 << 51, 1)], 4096, -1, "is not in the XFS volume"),
        ([extent(0, FREE, 1)], 1 << 62, -1, "claims 4611686018427387904 bytes"),
        ([extent(0, FREE, 1)], 4096, 22, "more extents than it has room for"),
        ([extent(0, FREE, 1)], 4096, 1 << 40, "claims 1099511627776 extents"),
    ):
        mapped(volume, extents, size, count=count)
        with pytest.raises(FormatError, match=reason):
            volume.content(volume.read(), "content")
    mapped(volume, [], 0, form=1)
    with pytest.raises(FormatError, match="has no extents"):
        volume.content(volume.read(), "content")
    volume.put(volume.inode("content") + 90, b"\0\1")
    with pytest.raises(FormatError, match="realtime"):
        volume.content(volume.read(), "content")


def test_a_long_symbolic_link_lies_in_blocks_with_headers(volume: Volume) -> None:
    target = "/".join(["abc"] * 200)
    at = volume.inode("link")
    volume.put(at + 5, b"\2")
    volume.put(at + 24, struct.pack(">Q", 1))
    volume.put(at + 56, struct.pack(">Q", len(target)))
    volume.put(at + 176, extent(0, FREE, 1))
    volume.put(FREE * 4096, b"XSLM".ljust(56, b"\0") + target.encode())
    link = next(e for e in volume.read().entries if e.path == "link")
    assert link.link_target == target
    volume.put(FREE * 4096, b"none")
    with pytest.raises(FormatError, match="block of a symbolic link"):
        volume.read()
    volume.put(at + 56, struct.pack(">Q", 5000))
    with pytest.raises(FormatError, match="claims 5000 bytes"):
        volume.read()


def test_directories_that_loop_are_refused(volume: Volume) -> None:
    root = volume.inode("") + 176
    raw = volume.source().read(root, 300)
    at = raw.index(b"short") + 6
    volume.put(root + at, struct.pack(">I", 128))
    with pytest.raises(FormatError, match="loop or are nested"):
        volume.read()


def test_a_directory_block_that_lies_is_refused(volume: Volume, today: Path) -> None:
    said = tool(
        "xfs_db", "-r", "-c", f"inode {volume.entries['block'].number}", "-c", "bmap", today
    )
    found = re.search(r"block (\d+) \((\d+)/(\d+)\)", said)
    assert found, said
    group_blocks = VOLUME_BYTES // 4096 // 4
    at = (int(found[2]) * group_blocks + int(found[3])) * 4096
    block = volume.source().read(at, 4096)
    assert block[:4] == b"XDB3"
    first = block.index(b"block-file-00000") - 9
    for offset, value, reason in (
        (0, b"XXXX", "is damaged"),
        (first + 8, b"\xff", "is damaged|not a name"),
        (first + 8, b"\0", "not a name|is damaged"),
        (first + 9, b"/", "not a name"),
        (first + 9, b"block-file-00001", "a name twice"),
        (first, struct.pack(">Q", 1 << 60), "is not in the XFS volume"),
        (first, struct.pack(">Q", 100), "inode 100 is damaged"),
        (4096 - 8, b"\xff\xff\xff\xff", "is damaged"),
        (first, b"\xff\xff\0\0", "is damaged"),
        (first, b"\xff\xff\0\7", "is damaged"),
        (first, b"\xff\xff\xff\xf8", "is damaged"),
    ):
        volume.put(at, block[:offset] + value + block[offset + len(value) :])
        with pytest.raises(FormatError, match=reason):
            volume.read()
    volume.put(at, block)
    assert {entry.path for entry in volume.read().entries} == set(volume.entries)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"XFSC"),
        (4, b"\0\0\0\0"),
        (4, b"\0\0\2\0"),
        (8, b"\xff" * 8),
        (8, b"\0" * 8),
        (84, b"\0\0\0\0"),
        (84, b"\xff\xff\xff\xff"),
        (88, b"\0\0\0\0"),
        (100, b"\xb4\xa3"),
        (104, b"\0\0"),
        (120, b"\xff"),
        (122, b"\0"),
        (123, b"\xff"),
        (124, b"\xff"),
        (192, b"\xff"),
        (56, b"\xff" * 8),
        (56, b"\0" * 7 + b"\x81"),
    ],
)
def test_a_superblock_that_lies_is_refused(volume: Volume, offset: int, value: bytes) -> None:
    volume.put(offset, value)
    with pytest.raises(FormatError):
        volume.read()


def test_a_volume_that_was_cut_off_is_refused(today: Path) -> None:
    with FileSource(today) as source:
        for size in (0, 100, 512, 4096, VOLUME_BYTES - 4096):
            with pytest.raises(FormatError):
                read_xfs(Slice(source, 0, size))


def test_features_that_nobody_knows_yet_are_named(volume: Volume) -> None:
    volume.put(216, struct.pack(">I", 0x80000001))
    features = volume.read().features
    assert "incompat-0x80000000" in features and "bigtime" not in features


def test_an_inode_that_is_another_or_claims_too_much_is_refused(volume: Volume) -> None:
    at = volume.inode("content")
    number = volume.entries["content"].number
    for offset, value, own, reason in (
        (152, struct.pack(">Q", 99), struct.pack(">Q", number), "says that it is 99"),
        (0, b"NI", b"IN", "is damaged"),
        (4, b"\2", b"\3", "is damaged"),
        (82, b"\xff", b"\0", "claims more than it has"),
    ):
        volume.put(at + offset, value)
        with pytest.raises(FormatError, match=f"inode {number} {reason}"):
            volume.read()
        volume.put(at + offset, own)
    assert len(volume.read().entries) == len(volume.entries)
