"""Boot catalogues by hand: what entries say, and catalogues that are damaged or have no end."""

import pytest

from local_imager.formats.iso import read_iso
from local_imager.formats.source import BytesSource, FormatError
from tests.isobytes import (
    ROOT,
    SECTOR,
    boot_entry,
    boot_record,
    boot_section,
    catalog,
    listing,
    make_iso,
)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (boot_entry(25, 4), ("bios", True, "none", 4, 2048)),
        (boot_entry(25, 1), ("bios", True, "none", 1, 0)),
        (boot_entry(25, 1, media=2), ("bios", True, "floppy 1.44M", 1, 1474560)),
        (boot_entry(25, 8, indicator=0), ("bios", False, "none", 8, 4096)),
    ],
)
def test_what_a_boot_entry_says(entry: bytes, expected: tuple[object, ...]) -> None:
    image = make_iso({ROOT: listing(ROOT, []), 24: catalog(entry)}, extra=[boot_record(24)])
    [found] = read_iso(BytesSource(image)).boot.entries
    seen = (found.platform, found.is_bootable, found.emulation, found.load_sectors)
    assert (*seen, found.stated_bytes) == expected and found.offset == 25 * SECTOR


def test_sections_of_a_catalogue_with_extensions() -> None:
    extension = b"\x44" + bytes(31)
    entries = (
        boot_entry(25, 4),
        boot_section(0xEF, 1, last=False),
        boot_entry(26, 0) + extension,
        boot_section(0x77, 2),
        boot_entry(27, 2),
        boot_entry(28, 2),
    )
    image = make_iso({ROOT: listing(ROOT, []), 24: catalog(*entries)}, extra=[boot_record(24)])
    volume = read_iso(BytesSource(image))
    seen = [(e.platform, e.offset // SECTOR) for e in volume.boot.entries]
    assert seen == [("bios", 25), ("uefi", 26), ("0x77", 27), ("0x77", 28)]
    with pytest.raises(FormatError):
        volume.open_boot_image(volume.boot.entries[1])


def _damaged_catalog() -> bytes:
    data = catalog(boot_entry(25, 4)).replace(b"\0\0\0\0", b"\1\0\0\0", 1)
    return make_iso({ROOT: listing(ROOT, []), 24: data}, extra=[boot_record(24)])


def _endless_catalog(*sections: bytes) -> bytes:
    data = catalog(boot_entry(25, 4), *sections)
    return make_iso({ROOT: listing(ROOT, []), 24: data}, extra=[boot_record(24)])


@pytest.mark.parametrize(
    ("data", "says", "entries"),
    [
        (_endless_catalog(boot_section(0, 0xFFFF), *[boot_entry(25, 4)] * 80), "more than 64", 63),
        (_endless_catalog(*[boot_section(0, 0, last=False)] * 80), "entries and sections", 1),
        (
            _endless_catalog(boot_section(0, 2), boot_entry(26, 4), *[b"D" * 32] * 80),
            "too often",
            2,
        ),
        (_damaged_catalog(), "checksum is wrong", 1),
        (
            make_iso({ROOT: listing(ROOT, []), 24: b"\1" + bytes(63)}, extra=[boot_record(24)]),
            "does not begin as one",
            0,
        ),
        (
            make_iso({ROOT: listing(ROOT, [])}, extra=[boot_record(9999)]),
            "behind the image",
            0,
        ),
    ],
)
def test_a_damaged_catalogue_is_told_as_far_as_it_goes(
    data: bytes, says: str, entries: int
) -> None:
    boot = read_iso(BytesSource(data)).boot
    assert says in boot.fault
    assert len(boot.entries) == entries


def test_a_sound_catalogue_has_no_fault() -> None:
    image = make_iso(
        {ROOT: listing(ROOT, []), 24: catalog(boot_entry(25, 4))}, extra=[boot_record(24)]
    )
    assert read_iso(BytesSource(image)).boot.fault == ""
    assert read_iso(BytesSource(make_iso({ROOT: listing(ROOT, [])}))).boot.fault == ""
