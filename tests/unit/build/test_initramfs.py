"""An initramfs with extensions gets fixed times, and nothing else of it changes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import zstandard

from local_imager.build import initramfs
from local_imager.build.initramfs import Normalised, NotNormalisable, normalise_initramfs
from local_imager.errors import Interrupted
from local_imager.formats.initramfs import segments
from local_imager.formats.packing import unpack_one
from local_imager.formats.source import BytesSource, stream
from tests.addedsegments import BASE, FILES, cpio, imager_initramfs, pack

EPOCH = 1559424892


class Place:
    """A folder with the two files that are read and the one that is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def normalise(
        self, plain: bytes, base: bytes = BASE, epoch: int = EPOCH
    ) -> tuple[bytes, Normalised]:
        self.count += 1
        paths = [self.folder / f"{self.count}-{name}" for name in ("plain", "base", "made")]
        paths[0].write_bytes(plain)
        paths[1].write_bytes(base)
        made = normalise_initramfs(*paths, epoch=epoch, cancel=threading.Event())
        return paths[2].read_bytes(), made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def unpacked(data: bytes, base: bytes = BASE) -> tuple[bytes, bytes]:
    """The plain archive before the base and the packed one behind it, unpacked."""
    begin = data.index(base)
    added = unpack_one(BytesSource(data), begin + len(base), max_bytes=1 << 20)
    return data[:begin], b"".join(added)


@pytest.mark.parametrize("packing", ["zstd", "xz"])
@pytest.mark.parametrize("early", [False, True])
def test_two_days_give_the_same_bytes(place: Place, packing: str, early: bool) -> None:
    days = [imager_initramfs(mtime=day, packing=packing, early=early) for day in (10**9, 10**9 + 7)]
    assert days[0] != days[1]
    (one, made), (two, _) = map(place.normalise, days)
    assert one == two
    assert made.packing == packing
    assert made.entries == len(FILES) + (2 if early else 0)
    assert made.size_bytes == len(one)


@pytest.mark.parametrize("early", [False, True])
def test_only_times_change(place: Place, early: bool) -> None:
    before, after = (unpacked(imager_initramfs(mtime=when, early=early)) for when in (7, EPOCH))
    done, _ = place.normalise(imager_initramfs(mtime=7, early=early))
    assert unpacked(done) == after != before


def test_the_kernel_can_read_what_is_packed(place: Place) -> None:
    """xz with CRC-32 in one stream; a later one would need a check that kernels do not have."""
    done, made = place.normalise(imager_initramfs(packing="xz"))
    (segment,) = segments(BytesSource(done[len(BASE) :]))
    assert (segment.packing, segment.xz_check, made.packed_with) == ("xz", "crc32", "liblzma")


def test_what_is_said_of_it_names_both_files(place: Place) -> None:
    from local_imager.oci.model import Digest

    plain = imager_initramfs()
    done, made = place.normalise(plain)
    facts = made.as_dict()
    assert facts["digest"] == str(Digest.of(done))
    assert facts["plain_digest"] == str(Digest.of(plain))


ARCHIVE = cpio(FILES, 1)
REFUSED = {
    "nothing was added": BASE,
    "not in it unchanged": BASE[:-1] + b"?" + pack(ARCHIVE),
    "something follows": BASE + pack(ARCHIVE) + b"more",
    "no compressed stream": BASE + ARCHIVE,
    "cannot be read": BASE + pack(ARCHIVE)[:-9],
    "a header": BASE + pack(ARCHIVE.replace(b"070701", b"070707", 1)),
    "a second stream": BASE + pack(ARCHIVE) + pack(ARCHIVE),
    "no trailer": BASE + pack(cpio(FILES, 1, block=4)[:-124]),
    "a prefix that is none": b"prefix" + BASE + pack(ARCHIVE),
    "packed with gzip": BASE + b"\x1f\x8b\x08" + bytes(30),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_built_otherwise_is_left_alone(place: Place, data: bytes) -> None:
    with pytest.raises(NotNormalisable):
        place.normalise(data)


def test_a_rewriting_that_changes_more_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        initramfs, "rewrite_times", lambda data, epoch: iter([b"".join(stream(data))[:-1], b"!"])
    )
    with pytest.raises(NotNormalisable, match="written again"):
        place.normalise(imager_initramfs())


def test_a_packer_that_loses_something_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loses:
        def __init__(self) -> None:
            self.inner = zstandard.ZstdCompressor().compressobj()

        def compress(self, data: bytes) -> bytes:
            return self.inner.compress(data[:-1])

        def flush(self) -> bytes:
            return self.inner.flush()

    packer = initramfs._Packer(1, "broken", Loses)
    monkeypatch.setattr(initramfs, "_packer", lambda _: packer)
    with pytest.raises(NotNormalisable, match="unpacks to something else"):
        place.normalise(imager_initramfs())


def test_an_epoch_without_room_is_refused(place: Place) -> None:
    with pytest.raises(NotNormalisable, match="epoch"):
        place.normalise(imager_initramfs(), epoch=1 << 32)


def test_it_can_be_stopped(tmp_path: Path) -> None:
    plain, base, stopped = tmp_path / "plain", tmp_path / "base", threading.Event()
    plain.write_bytes(imager_initramfs())
    base.write_bytes(BASE)
    stopped.set()
    with pytest.raises(Interrupted):
        normalise_initramfs(plain, base, tmp_path / "made", epoch=1, cancel=stopped)
