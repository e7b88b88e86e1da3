"""The rest of file systems and archives: it sees what no entry shows, and nothing that one does."""

from __future__ import annotations

import io
import struct
import tarfile

import pytest

from local_imager.deliver.inspect.isorest import without_marker
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.tree import part_tree
from local_imager.deliver.inspect.volumerest import fat_rest, tail_rest, tar_rest
from local_imager.formats.fat import read_fat
from local_imager.formats.source import BytesSource
from local_imager.formats.tar import read_tar
from tests.diskfiles import gpt_disk, gpt_entry, mbr_entries, patched, small_fat32
from tests.isobytes import (
    ROOT,
    boot_entry,
    boot_record,
    catalog,
    descriptor,
    listing,
    make_iso,
    record,
)
from tests.talosfiles import tar

FILES = {"A.TXT": b"hello", "B.TXT": b"b"}


def fat(at: int = 0, new: bytes = b"", behind: bytes = b"") -> str:
    source = BytesSource(patched(small_fat32(FILES), at, new) + behind)
    return fat_rest(source, read_fat(source))


def test_a_fat_without_serial_label_and_maker() -> None:
    plain, volume = fat(), small_fat32(FILES)
    for at, new in ((67, b"1234"), (71, b"LABEL      "), (3, b"mkfs.own")):
        assert fat(at, new) == plain
    slack, free = volume.index(b"hello") + 5, len(volume) - 1024
    for at, new in ((200, b"\x90"), (512 + 4 * 900, b"x"), (slack, b"x"), (free, b"x")):
        assert fat(at, new) != plain
    assert fat(behind=bytes(4096)) == plain
    assert fat(behind=b"behind") != plain


def members(names: str = "a", **more: object) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            for key, value in more.items():
                setattr(member, key, value)
            archive.addfile(member)
    source = BytesSource(out.getvalue())
    return tar_rest(source, read_tar(source))


def test_a_tar_archive_beside_its_entries() -> None:
    plain = members()
    assert members(mtime=5, mode=0o755, uid=7) == plain
    xattr = {"SCHILY.xattr.security.capability": "x"}
    for more in ({"pax_headers": xattr}, {"uname": "me"}, {"type": tarfile.FIFOTYPE}):
        assert members(**more) != plain
    nodes = [members(type=tarfile.CHRTYPE, devmajor=1, devminor=minor) for minor in (3, 8)]
    links = [members(type=kind, linkname="b") for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE)]
    assert len({plain, *nodes, *links, members("aa"), members("ab"), members("ba")}) == 8


@pytest.mark.parametrize("at", [513, -1])
def test_bytes_behind_a_member_and_behind_a_tar_archive(at: int) -> None:
    archive = tar({"a": b"1"})
    changed = patched(archive, at % len(archive), b"x")
    rests = [tar_rest(BytesSource(one), read_tar(BytesSource(one))) for one in (archive, changed)]
    assert rests[0] != rests[1]


def test_what_follows_a_file_system() -> None:
    assert tail_rest(BytesSource(b"f" * 100 + bytes(50)), 100) == ""
    assert tail_rest(BytesSource(b"f" * 100 + b"more"), 100) != ""


ENTRY = 22 * 2048 + 32


def iso(*, time: str = "10", place: int = 24, joliet: int = 0) -> bytes:
    """Return an ISO with a file, a boot image, a catalogue and Joliet, sector by sector."""
    name = f"2026-11-21-15-06-{time}-00.uuid"
    files = [record(b"A.TXT;1", place, 3), record(b"BOOT.IMG;1", 25, 1024)]
    wide = [
        record("a.txt".encode("utf-16-be"), joliet or place, 3),
        record("boot.img".encode("utf-16-be"), 25, 1024),
        record(name.encode("utf-16-be"), 0, 0),
    ]
    second = listing(26, wide)
    extra = descriptor(2, 26, len(second), blocks=40, name=b"\0T")
    extra[88:91] = b"%/E"
    sectors = {
        ROOT: listing(ROOT, files),
        22: catalog(boot_entry(25, 2)),
        place: b"one",
        25: b"\xeb" * 1024,
        26: second,
        39: b"\0" * 2048,
    }
    return make_iso(sectors, extra=[boot_record(22), bytes(extra)])


def opened(data: bytes) -> Part:
    return part_tree(BytesSource(data), "x.iso")


def rest_of(data: bytes) -> object:
    return opened(data).facts["rest"]


def test_an_iso_beside_its_tree() -> None:
    plain = rest_of(iso())
    assert rest_of(iso(time="59")) == plain  # the marker's name
    assert rest_of(patched(iso(), 16 * 2048 + 813, b"2031")) == plain  # a date
    changes = {
        "boot code": (10, b"x"),
        "behind a file": (24 * 2048 + 100, b"x"),
        "between files": (30 * 2048, b"x"),
        "the loaded segment": (ENTRY + 2, b"\xd0\x07"),
        "the maker in the catalogue": (22 * 2048 + 4, b"\x01\0\xff\xff"),
        "a field of a descriptor": (16 * 2048 + 900, b"x"),
    }
    rests = {rest_of(patched(iso(), at, new)) for at, new in changes.values()}
    assert len({plain, *rests}) == len(changes) + 1
    assert rest_of(iso() + b"behind") not in {plain, *rests}


def test_names_of_a_second_tree_for_other_bytes() -> None:
    assert rest_of(iso(joliet=25)) != rest_of(iso())


def twice(*, size: int = 3, place: int = 40) -> bytes:
    """Return an ISO whose first partition begins within it, with descriptors of its own."""
    outer = patched(iso().ljust(64 * 2048, b"\0"), 446, mbr_entries([(0, 0x17, 64, 128)]))
    outer = patched(outer, 16 * 2048 + 80, struct.pack("<I", 64))
    files = [record(b"A.TXT;1", 24 - 16, size)]
    root = listing(place, files)
    inner = descriptor(1, place, len(root), blocks=48, name=b"TEST")
    for at, data in ((32, bytes(inner)), (33, b"\xffCD001\x01"), (16 + place, root)):
        outer = patched(outer, at * 2048, data)
    return bytes(outer)


def test_a_volume_within_the_volume_is_told_by_the_files_that_it_names() -> None:
    plain = rest_of(twice())
    assert rest_of(twice(place=44)) == plain
    assert rest_of(twice(size=2)) != plain


def test_a_boot_entry_says_what_is_loaded_and_where() -> None:
    whole, part = (
        next(one for one in opened(data).children if one.kind == "boot-entry")
        for data in (iso(), patched(iso(), ENTRY + 6, b"\x01"))
    )
    assert (whole.facts["loads"], whole.facts["load_segment"]) == ("whole image", "0x0")
    assert "loads" not in part.facts
    assert part.facts["load_sectors"] == 1


def test_the_marker_of_grub_is_masked_in_both_spellings_and_nothing_else_is() -> None:
    name = "/.disk/2026-11-21-15-06-49-00.uuid"
    for coding in ("ascii", "utf-16-be"):
        masked = without_marker(f"x{name}y".encode(coding))
        assert masked == "x/.disk/0000-00-00-00-00-00-00.uuidy".encode(coding)
    for other in (b"2026-11-21-15-06-49-00.uuie", b"2026-11-21-15-06-49.uuid"):
        assert without_marker(other) == other


def disk(*, backup: bytes = b"", name: bytes = b"") -> bytes:
    data = gpt_disk(256, [gpt_entry(64, 127, "A")])
    at = data.index("A".encode("utf-16-le"), 1024)
    return patched(patched(data, at + 10, name), len(data) - 33 * 512 + 32, backup)


def test_a_damaged_backup_and_bytes_behind_a_name_count_in_a_gpt() -> None:
    plain = opened(disk())
    assert "faults" not in plain.facts
    assert opened(disk(backup=struct.pack("<Q", 65))).facts["faults"]
    # Its checksum does not fit either; the bytes count where both copies hold them.
    assert "faults" in opened(disk(name=b"x")).facts


def signed_key(time: bytes = b"1", value: bytes = b"v", key: bytes = b"k") -> object:
    said = bytes.fromhex("06092a864886f70d0109")
    attributes = said + b"\x051\x0f\x17\x0d" + time * 13 + said + b"\x041\x22\x04\x20" + value * 32
    pkcs7 = b"certificate" + attributes + b"\x04\x82\x01\x00" + value * 256
    head = struct.pack("<IHH16s", 24 + len(pkcs7), 0x200, 0xEF1, b"guid")
    archive = tar({"db.auth": time * 16 + head + pkcs7 + key})
    return opened(archive).children[0].facts.get("without_signature")


def test_a_signed_key_without_its_times_and_signature() -> None:
    assert signed_key() == signed_key(time=b"2", value=b"w") is not None
    assert signed_key() != signed_key(key=b"l")
