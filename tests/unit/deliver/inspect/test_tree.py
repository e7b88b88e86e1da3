"""The walk down a file: names, digests, each byte once, and the limits that end it."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from local_imager.deliver.inspect import walking
from local_imager.deliver.inspect.limits import Limits, OutOfBudget
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.tree import part_tree
from local_imager.events import RecordingSink, StepFinished
from local_imager.formats.source import BytesSource, FormatError, Source, sha256_of
from tests.diskfiles import Sparse, gpt_disk, gpt_entry, patched, small_fat32
from tests.talosfiles import cpio, disk, extensions_yaml, initramfs, meta, talos_disk, uki

DISK = talos_disk()


def tree_of(data: bytes, **options: object) -> Part:
    return part_tree(BytesSource(data), "file", **options)  # type: ignore[arg-type]


def paths(tree: Part) -> set[str]:
    return {path for path, _ in tree.walk()}


def at(tree: Part, path: str) -> Part:
    return dict(tree.walk())[path]


def test_paths_go_down_to_what_a_person_knows() -> None:
    tree = tree_of(zstandard.compress(DISK))
    image = "content/EFI/EFI/LINUX/TALOS.EFI"
    wanted = {
        "content/META/0xa",
        f"{image}/.cmdline",
        f"{image}/.profile",
        f"{image}/profile reset/.cmdline",
        f"{image}/.initrd/segment 1/etc/os-release",
        f"{image}/.initrd/segment 2/extensions.yaml",
    }
    assert wanted <= paths(tree)
    assert f"{image}/profile main" not in paths(tree)
    kinds = {path: at(tree, path).kind for path in ("content", "content/EFI", image)}
    assert list(kinds.values()) == ["disk", "partition", "uki"]
    assert at(tree, "content/EFI").facts["content"] == "fat"
    assert at(tree, f"{image}/.linux").facts["content"] == "kernel"


def test_a_digest_is_that_of_the_bytes_as_they_lie_there() -> None:
    tree = tree_of(DISK)
    part = at(tree, "META")
    assert part.offset is not None
    stored = DISK[part.offset : part.offset + part.size_bytes]
    assert part.digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    segment = at(tree, "EFI/EFI/LINUX/TALOS.EFI/.initrd/segment 2")
    image = uki()
    begin = image.index(b"\x28\xb5\x2f\xfd")
    packed = image[begin : begin + segment.size_bytes]
    assert segment.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"


def test_names_are_unique_and_printable() -> None:
    tree = tree_of(disk([("A", b"1" * 512), ("A", b"2" * 512), ("", b"3" * 512), ("\n", b"4")]))
    assert [part.name for part in tree.children] == ["A", "A (2)", "partition 3", "\ufffd"]


def test_equal_bytes_are_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, opened = gzip.compress(b"text"), list[int]()

    def counting(walk: walking.Walk, source: Source) -> walking.Inside:
        opened.append(source.size_bytes)
        return walking.Inside(text="seen")

    walk = walking.Walk({"compressed": counting}, Limits(), RecordingSink())
    with walk:
        parts = [walk.part(BytesSource(packed), name) for name in ("one", "two")]
    assert opened == [len(packed)]
    assert [part.text for part in parts] == ["seen", "seen"]


def test_damage_inside_is_told_and_the_rest_is_there() -> None:
    begin = DISK.index(b"FAT32   ")
    tree = tree_of(patched(DISK, begin - 82 + 16, b"\x09"))
    assert "EFI" in paths(tree) and "META/0xa" in paths(tree)
    listed = extensions_yaml([("a", "1")])
    segments = tree_of(initramfs(listed)[:-9] + b"\0" * 9)
    assert [part.name for part in segments.children] == ["segment 1"]
    assert segments.unread
    broken = cpio({"a.efi": uki()[:3000], "b": b"text"})
    tree = tree_of(broken)
    assert at(tree, "segment 1/b").text == "text"


@pytest.mark.parametrize(
    "data",
    [
        lzma.compress(bytes(100_000))[:-40],
        gzip.compress(gpt_disk(200, [])[:1500], mtime=0),
        uki()[:-3000],
        b"QFI\xfb" + bytes(600),
    ],
)
def test_damage_as_a_whole_is_an_error(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"file is a damaged [a-zA-Z2 ]+: ") as caught:
        tree_of(data)
    assert caught.value.exit_code == 2


def test_a_stream_is_bounded() -> None:
    zeros = zstandard.compress(bytes(1 << 20))
    with pytest.raises(OutOfBudget, match="unpacks to more"):
        tree_of(zeros, limits=Limits(stream_bytes=1000))
    with pytest.raises(OutOfBudget, match="unpacks to more"):
        tree_of(zeros, limits=Limits(unpacked_bytes=1000))
    assert tree_of(zeros, limits=Limits(written_bytes=1000)).children
    with pytest.raises(OutOfBudget, match="bytes of data"):
        tree_of(zstandard.compress(b"\1" * 5000), limits=Limits(written_bytes=1000))


def test_many_streams_are_bounded_together() -> None:
    one = zstandard.compress(bytes(100_000))
    files = {f"{n}": one + bytes([n]) * 0 for n in range(30)}
    files |= {f"x{n}": zstandard.compress(bytes(100_000 + n)) for n in range(30)}
    with pytest.raises(OutOfBudget):
        tree_of(cpio(files), limits=Limits(unpacked_bytes=1_000_000))


def test_parts_are_counted_also_where_they_are_taken_from_before() -> None:
    inner = cpio({f"{n}": b"" for n in range(50)})
    outer = cpio({f"{n}": inner for n in range(50)})
    with pytest.raises(OutOfBudget, match="more than 1000 parts"):
        tree_of(outer, limits=Limits(parts=1000))
    assert len(paths(tree_of(outer, limits=Limits(parts=10_000)))) > 2500


def test_depth_is_bounded() -> None:
    data = b"text"
    for _ in range(100):
        data = gzip.compress(data)
    with pytest.raises(FormatError, match="parts lie in each other more than 64 deep"):
        tree_of(data)
    tree = tree_of(cpio({"bomb": data}))
    reasons = [part.unread for _, part in tree.walk() if part.unread]
    assert reasons == ["parts lie in each other more than 64 deep"]
    json.dumps(tree.as_dict())
    with pytest.raises(FormatError, match="more than 64 directories"):
        tree_of(cpio({"/".join("d" * 200): b""}))


def test_large_parts_have_a_digest_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "LARGE_BYTES", 1 << 16)
    quick, whole = (tree_of(DISK, digests=digests) for digests in ("parts", "all"))
    assert quick.digest == "" and at(quick, "EFI").digest == ""
    assert whole.digest == sha256_of(BytesSource(DISK))
    assert (
        at(quick, "EFI/EFI/LINUX/TALOS.EFI").digest == at(whole, "EFI/EFI/LINUX/TALOS.EFI").digest
    )
    assert paths(quick) == paths(whole)


def test_holes_are_not_read() -> None:
    class Counting(Sparse):
        read_bytes = 0

        def read(self, offset: int, length: int) -> bytes:
            Counting.read_bytes += length
            return super().read(offset, length)

    sectors = 8 << 21
    table = gpt_disk(200, [gpt_entry(64, 99, "ESP")])
    end = sectors * 512
    source = Counting(end, [(0, table[: 34 * 512])])
    part_tree(source, "disk", digests="meaning")
    assert Counting.read_bytes < 1 << 20


def test_a_long_stream_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_SHOWN_BYTES", 100_000)
    sink = RecordingSink()
    tree_of(zstandard.compress(bytes(5 << 20)), sink=sink)
    steps = [event for event in sink.events if isinstance(event, StepFinished)]
    assert [(step.step, step.subject, step.outcome) for step in steps] == [("read", "file", "done")]
    assert sink.events[0].kind == "step-started"


def test_volumes_that_repeat_names_and_leave_out_directories() -> None:
    tree = tree_of(cpio({"a/b": b"1", "a/b/c": b"2", "../x": b"3", "l": "../../etc/passwd"}))
    found = paths(tree)
    assert {"segment 1/../x", "segment 1/l", "segment 1/a/b/c"} <= found
    assert at(tree, "segment 1/l").facts["link_target"] == "../../etc/passwd"


def test_small_volumes_in_a_file_are_told_too(tmp_path: Path) -> None:
    tree = tree_of(small_fat32({"GRUB.CFG": b"set x=1\n"}))
    assert tree.kind == "fat" and tree.children[0].text == "set x=1\n"
    assert tree_of(meta({10: "v"})).children[0].text == "v"


def test_texts_are_bounded_together() -> None:
    files = {f"{number}": f"text {number}".ljust(1000).encode() for number in range(20)}
    tree = tree_of(cpio(files), limits=Limits(text_bytes=5500))
    assert sum(part.text is not None for _, part in tree.walk()) == 5
    listed = extensions_yaml([("a", "1")], "x: " + "y" * 70_000)
    assert tree_of(initramfs(listed), limits=Limits(text_bytes=1000)).children[1].children


def test_what_is_hashed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that overlap, or a disk of more bytes than the world has, cost no more than others."""
    huge = Sparse(1 << 60, [(0, gpt_disk(200, [gpt_entry(64, 99, "ESP")])[: 34 * 512])])
    for digests in ("meaning", "all"):
        tree = part_tree(huge, "huge", digests=digests)
        assert tree.digest == "" and tree.children[0].digest
    overlapping = gpt_disk(4096, [gpt_entry(64, 4000, f"{number}") for number in range(100)])
    with pytest.raises(OutOfBudget, match="claim more bytes"):
        tree_of(overlapping, limits=Limits(hashed_bytes=100 << 20))
    assert tree_of(overlapping).children[99].digest


def test_directories_count_as_depth_too() -> None:
    inner = cpio({"/".join("i" * 40): b"text"})
    tree = tree_of(cpio({"/".join("o" * 40): inner}))
    reasons = [part.unread for _, part in tree.walk() if part.unread]
    assert reasons == ["parts lie in each other more than 64 deep"]
