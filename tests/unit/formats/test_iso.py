"""ISO images: trees as xorriso writes and lists them, boot catalogues, and images that lie."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from local_imager.formats.entries import Entry
from local_imager.formats.iso import IsoVolume, is_iso, read_iso
from local_imager.formats.source import BytesSource, FileSource, FormatError
from tests.isobytes import (
    REFERENCE,
    ROCK_RIDGE,
    ROOT,
    SECTOR,
    continued,
    descriptor,
    listing,
    make_iso,
    posix,
    record,
)

_TIME = 1559424892
_DEEP = "a/b/c/d/e/f/g/h/i/j"
_LONG = "n" * 240
_TARGET = "/abs/" + "x" * 200 + "/../" + "y" * 200
_BOOT = bytes(range(256)) * 100

Write = Callable[..., bytes]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with all that is hard: depth, long and odd names, links, times, special files."""
    root = tmp_path_factory.mktemp("tree")
    (root / _DEEP).mkdir(parents=True)
    (root / _DEEP / "deep.txt").write_text("deep\n")
    (root / "with space").mkdir()
    (root / "with space" / "ünï.txt").write_text("x")
    (root / "a" / "link").symlink_to("../with space")
    (root / "far").symlink_to(_TARGET)
    os.mkfifo(root / "fifo")
    (root / "empty").write_bytes(b"")
    (root / _LONG).write_text("long")
    (root / "EFI").mkdir()
    (root / "EFI" / "boot.img").write_bytes(_BOOT)
    (root / "EFI" / "boot.img").chmod(0o4755)
    for path in (*root.rglob("*"), root):
        os.utime(path, (_TIME, _TIME), follow_symlinks=False)
    os.utime(root / "empty", (794293567, 794293567))
    return root


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Write:
    """Write the tree with xorriso; returns the image's bytes."""
    folder = tmp_path_factory.mktemp("images")

    def made(*options: str, tail: tuple[str, ...] = ()) -> bytes:
        path = folder / f"{len(list(folder.iterdir()))}.iso"
        argv = ["xorriso", "-report_about", "WARNING", *options, "-outdev", str(path)]
        argv += ["-map", str(tree), "/", *tail, "-commit"]
        subprocess.run(argv, check=True, capture_output=True)
        return path.read_bytes()

    return made


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """An image as Debian's installer is made: BIOS and UEFI, Rock Ridge and Joliet."""
    path = tmp_path_factory.mktemp("debian") / "debian.iso"
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long", "-V", "Debian 12"]
    argv += ["-publisher", "nobody", "-b", "EFI/boot.img", "-no-emul-boot", "-boot-load-size", "4"]
    argv += ["-eltorito-alt-boot", "-e", "EFI/boot.img", "-no-emul-boot", "-o", str(path)]
    subprocess.run([*argv, str(tree)], check=True, capture_output=True)
    return path


def _by_path(volume: IsoVolume) -> dict[str, Entry]:
    return {entry.path: entry for entry in volume.entries}


def _content(volume: IsoVolume, path: str) -> bytes:
    source = volume.open(_by_path(volume)[path])
    return source.read(0, source.size_bytes)


def test_rock_ridge_gives_names_modes_links_and_times(debian: Path) -> None:
    with FileSource(debian) as source:
        assert is_iso(source)
        volume = read_iso(source)
        found = _by_path(volume)
        assert volume.names == "rock-ridge"
        assert (volume.volume_id, volume.joliet_id) == ("Debian 12", "Debian 12")
        assert volume.publisher == "NOBODY" and volume.application == ""
        assert volume.size_bytes == source.size_bytes and volume.block_bytes == SECTOR
        assert re.fullmatch(r"\d{4}(-\d\d){2} \d\d:\d\d:\d\d\.\d\d\+0000", volume.created)
        assert _content(volume, f"{_DEEP}/deep.txt") == b"deep\n"
        assert _content(volume, "with space/ünï.txt") == b"x"
        assert _content(volume, _LONG) == b"long" and _content(volume, "empty") == b""
        boot = found["EFI/boot.img"]
        assert (boot.kind, boot.mode, boot.mtime) == ("file", 0o4755, _TIME)
        assert (boot.uid, boot.gid) == (0, 0)
        assert found["empty"].mtime == 794293567
        assert found["far"].kind == "link" and found["far"].link_target == _TARGET
        assert found["a/link"].link_target == "../with space"
        assert found["fifo"].kind == "special"
        parents = [e.path.rpartition("/")[0] for e in volume.entries]
        order = [e.path for e in volume.entries]
        assert all(not p or order.index(p) < at for at, p in enumerate(parents))


def test_xorriso_lists_the_same_entries(debian: Path) -> None:
    argv = ["xorriso", "-indev", str(debian), "-find", "/", "-exec", "lsdl", "--"]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    seen = set()
    for line in shown.splitlines():
        # What xorriso marks as "e" is the file that shows the boot catalogue.
        kind = line[0].replace("e", "-")
        size, name = line.split()[4], line.split("'")[1]
        seen.add((kind, int(size), name))
    with FileSource(debian) as source:
        letters = {"directory": "d", "file": "-", "link": "l", "special": "p"}
        ours = {(letters[e.kind], e.size_bytes, "/" + e.path) for e in read_iso(source).entries}
    assert seen == ours | {("d", 0, "/")}


def test_both_boot_entries_and_their_image(debian: Path) -> None:
    with FileSource(debian) as source:
        volume = read_iso(source)
        bios, uefi = volume.boot.entries
        assert (bios.platform, bios.emulation, bios.load_sectors) == ("bios", "none", 4)
        assert uefi.platform == "uefi" and bios.is_bootable and uefi.is_bootable
        at = volume.file_at(bios.offset)
        assert at is not None and at.path == "EFI/boot.img"
        image = volume.open_boot_image(bios)
        # More than the four sectors that the firmware loads.
        assert image.size_bytes == len(_BOOT)
        report = ["xorriso", "-indev", str(debian), "-report_el_torito", "plain"]
        shown = subprocess.run(report, check=True, capture_output=True, text=True).stdout
        rows = re.findall(r"boot img : +\d+ +(\S+) +y +none +\S+ +\S+ +(\d+) +(\d+)", shown)
        assert rows == [
            (e.platform.upper(), str(e.load_sectors), str(e.offset // SECTOR))
            for e in volume.boot.entries
        ]


def test_joliet_names_are_taken_where_there_is_no_rock_ridge(write: Write) -> None:
    data = write("-rockridge", "off", "-joliet", "on", "-compliance", "joliet_long_names")
    volume = read_iso(BytesSource(data))
    assert volume.names == "joliet"
    found = _by_path(volume)
    assert _content(volume, "with space/ünï.txt") == b"x"
    assert _content(volume, f"{_DEEP}/deep.txt") == b"deep\n"
    assert (found["EFI/boot.img"].mode, found["EFI/boot.img"].uid) == (None, None)
    assert found["empty"].mtime == 794293567


def test_plain_names_lose_their_version(write: Write) -> None:
    rules = "iso_9660_level=1"
    volume = read_iso(
        BytesSource(write("-rockridge", "off", "-joliet", "off", "-compliance", rules))
    )
    assert volume.names == "iso9660" and volume.joliet_id == ""
    assert _content(volume, "EFI/BOOT.IMG") == _BOOT
    assert _content(volume, "EMPTY") == b"" and "WITH_SPA" in _by_path(volume)


def test_directories_that_were_moved_up_are_shown_where_they_belong(write: Write) -> None:
    data = write("-compliance", "deep_paths_off", "-rr_reloc_dir", "moved")
    assert b"CL\x0c\x01" in data and b"RE\x04\x01" in data
    volume = read_iso(BytesSource(data))
    assert _content(volume, f"{_DEEP}/deep.txt") == b"deep\n"
    moved = [path for path in _by_path(volume) if path.startswith("moved")]
    assert moved in ([], ["moved"])


def test_an_appended_partition_is_the_boot_image(tmp_path: Path, tree: Path) -> None:
    """As the imager makes its images: the catalogue says where, the partition how long."""
    (tmp_path / "esp").write_bytes(b"ESP" * 100_000)
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-append_partition", "2", "0xef"]
    argv += [str(tmp_path / "esp"), "-appended_part_as_gpt", "-e"]
    argv += ["--interval:appended_partition_2:all::", "-no-emul-boot"]
    path = tmp_path / "x.iso"
    subprocess.run([*argv, "-o", str(path), str(tree)], check=True, capture_output=True)
    data = bytearray(path.read_bytes())
    [stated] = read_iso(BytesSource(bytes(data))).boot.entries
    at = read_iso(BytesSource(bytes(data))).boot.offset + 32 + 6
    data[at : at + 2] = bytes(2)  # as it is for an ESP of more than 32 MB
    volume = read_iso(BytesSource(bytes(data)))
    [entry] = volume.boot.entries
    assert stated.load_sectors * 512 >= 300_000 and entry.load_sectors == 0
    image = volume.open_boot_image(entry)
    assert volume.file_at(entry.offset) is None
    assert image.read(0, 300_000) == b"ESP" * 100_000
    assert image.size_bytes < len(data) - entry.offset


# By hand: what xorriso does not write.


def _plain(*records: bytes, **sectors: bytes) -> bytes:
    more = {int(at[1:]): data for at, data in sectors.items()}
    return make_iso({ROOT: listing(ROOT, records), **more})


def _rock_ridge(*records: bytes, **sectors: bytes) -> bytes:
    more = {int(at[1:]): data for at, data in sectors.items()}
    return make_iso({ROOT: listing(ROOT, records, use=ROCK_RIDGE + REFERENCE), **more})


def test_a_file_in_several_extents_is_one() -> None:
    records = (
        record(b"BIG.BIN;1", 21, 5, flags=0x80),
        record(b"BIG.BIN;1", 22, 7),
        record(b"ONE.;1", 22, 3),
    )
    volume = read_iso(BytesSource(_plain(*records, s21=b"first", s22=b"-second")))
    assert [(e.path, e.size_bytes) for e in volume.entries] == [("BIG.BIN", 12), ("ONE", 3)]
    assert _content(volume, "BIG.BIN") == b"first-second"


def test_time_zones_and_times_that_are_none() -> None:
    late = bytearray(record(b"A", 21, 1))
    late[24] = 0x100 - 4  # an hour west of Greenwich
    never = bytearray(record(b"B", 21, 1))
    never[18:25] = bytes(7)
    found = _by_path(read_iso(BytesSource(_plain(bytes(late), bytes(never), s21=b"x"))))
    assert found["A"].mtime == 1767323045 + 3600 and found["B"].mtime is None


def test_a_long_time_of_rock_ridge() -> None:
    use = b"TF\x16\x01\x82" + b"2019060121345200\x00"
    [entry] = read_iso(BytesSource(_rock_ridge(record(b"A", 21, 1, use=use), s21=b"x"))).entries
    assert entry.mtime == _TIME


def test_a_name_in_pieces_over_a_continuation() -> None:
    rest = b"NM\x08\x01\x00end"
    use = posix(0o100600) + b"NM\x0a\x01\x01start" + continued(21, 4, len(rest))
    data = _rock_ridge(record(b"A", 22, 1, use=use), s21=b"skip" + rest, s22=b"x")
    [entry] = read_iso(BytesSource(data)).entries
    assert (entry.path, entry.mode, entry.uid, entry.gid) == ("startend", 0o600, 5, 6)


def test_bytes_before_the_entries_are_passed_over_where_the_volume_says_so() -> None:
    area = b"\x7fxyz" + b"NM\x0b\x01\x00hidden"
    root = listing(ROOT, [record(b"A", 22, 1, use=area)], use=ROCK_RIDGE[:6] + b"\4" + REFERENCE)
    [entry] = read_iso(BytesSource(make_iso({ROOT: root, 22: b"x"}))).entries
    assert entry.path == "hidden"


def test_rock_ridge_is_not_guessed_from_bytes_that_look_like_it() -> None:
    use = posix(0o100600) + b"NM\x0b\x01\x00hidden"
    [entry] = read_iso(BytesSource(_plain(record(b"A", 22, 1, use=use), s22=b"x"))).entries
    assert (entry.path, entry.mode) == ("A", None)


def _deep(levels: int) -> bytes:
    sectors = {
        at: listing(at, [record(b"D", at + 1, SECTOR, flags=2)]) for at in range(20, 20 + levels)
    }
    return make_iso({**sectors, 20 + levels: listing(20 + levels, [])})


_CE_LOOP = continued(21, 0, 28)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends before"),
        (bytes(40 * SECTOR), "no primary"),
        (make_iso({ROOT: listing(ROOT, [])})[: 20 * SECTOR], "ends before"),
        (_plain(record(b"A", ROOT, SECTOR, flags=2)), "loop"),
        (
            _plain(
                record(b"A", 21, SECTOR, flags=2),
                record(b"B", 21, SECTOR, flags=2),
                s21=bytes(SECTOR),
            ),
            "loop",
        ),
        (_plain(record(b"A"), record(b"A")), "two entries"),
        (_plain(record(b"../../x")), "the name"),
        (_plain(record(b"..")), "the name"),
        (_plain(record(b"A", 0xFFFFFFF0, SECTOR, flags=2)), "ends before"),
        (_deep(70), "deep"),
        (_plain(b"\x22" + record(b"A")[1:32] + b"\xff" + bytes(2)), "cut off"),
        (_plain(b"\x05" + bytes(40)), "cut off"),
        (_plain(record(b"A")[:26] + b"\1" + record(b"A")[27:]), "interleaved"),
        (make_iso({ROOT: listing(ROOT, [])}, root_bytes=0xFFFFF800), "ends before|too large"),
        (_rock_ridge(record(b"A", use=_CE_LOOP), s21=_CE_LOOP), "too often"),
        (_rock_ridge(record(b"A", use=b"PX\x03\x01")), "wrong length"),
        (_rock_ridge(record(b"A", use=b"PX\x08\x01abcd")), "cut off"),
        (_rock_ridge(record(b"A", use=b"NM\xff\x01")), "wrong length"),
        (_rock_ridge(record(b"A", use=b"SL\x08\x01\x00\x00\xffa")), "cut off"),
        (_rock_ridge(record(b"A", use=posix(0o040755))), "agree with itself"),
        (_rock_ridge(record(b"A", use=b"CL\x0c\x01" + bytes(8))), "cut off|not where"),
    ],
)
def test_images_that_lie_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read_iso(BytesSource(data))


def test_a_strange_block_size_is_refused() -> None:
    data = bytearray(make_iso({ROOT: listing(ROOT, [])}))
    data[16 * SECTOR + 128 : 16 * SECTOR + 130] = b"\0\0"
    with pytest.raises(FormatError, match="blocks of 0"):
        read_iso(BytesSource(bytes(data)))


def test_a_directory_of_more_records_than_any_real_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of records that are pieces of one file, and so never become entries."""
    monkeypatch.setattr("local_imager.formats.iso.MAX_RECORDS", 1000)
    many = listing(ROOT, [record(b"A", flags=0x80)] * 1001)
    with pytest.raises(FormatError, match="directory records"):
        read_iso(BytesSource(make_iso({ROOT: many})))


def test_a_file_that_is_cut_off_is_refused_when_it_is_opened() -> None:
    volume = read_iso(BytesSource(_plain(record(b"A", 21, 3000), record(b"B", 21, 5), s21=b"x")))
    assert _content(volume, "B") == b"x\0\0\0\0"
    with pytest.raises(FormatError, match="outside"):
        volume.open(_by_path(volume)["A"])


def test_only_files_are_opened() -> None:
    volume = read_iso(BytesSource(_plain(record(b"D", 21, SECTOR, flags=2), s21=listing(21, []))))
    with pytest.raises(FormatError, match="no content for D"):
        volume.open(volume.entries[0])
    with pytest.raises(FormatError, match="no content for x"):
        volume.open(Entry("x", "file", number=7))


def test_a_broken_joliet_name_is_shown_and_not_believed() -> None:
    joliet = descriptor(2, 21, SECTOR, blocks=30, name="J".encode("utf-16-be"))
    joliet[88:91] = b"%/E"
    tree = listing(21, [record(b"\xd8\x00\x00A;")])
    data = make_iso({ROOT: listing(ROOT, []), 21: tree}, extra=[bytes(joliet)])
    volume = read_iso(BytesSource(data))
    assert volume.names == "joliet" and len(volume.entries) == 1
    assert volume.entries[0].path.encode()
