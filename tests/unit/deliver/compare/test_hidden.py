"""What noise must not hide, in real bytes: each pair differs by noise, and by one thing more."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import struct
import tarfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest
import zstandard

from local_imager.deliver.compare.verdict import Comparison, Verdict
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.formats.source import BytesSource
from tests import talosfiles
from tests.comparetrees import box, folder, leaf, told
from tests.comparetrees import compared as compared_trees
from tests.diskfiles import GPT_ENTRIES, gpt_header, patched, small_fat32

LISTED: Final = talosfiles.extensions_yaml([("gvisor", "1")])
Entries = Mapping[str, bytes | str]


def compared(left: bytes, right: bytes) -> Comparison:
    sides = [Subject.of(inspect_source(BytesSource(one), "x"), "x") for one in (left, right)]
    return compare_trees(*sides)


def base(**files: bytes) -> bytes:
    data = zstandard.compress(talosfiles.cpio({"init": talosfiles.elf(), **files}))
    return data + bytes(-len(data) % 4)


def added(run: int, **files: bytes | str) -> bytes:
    data = talosfiles.cpio({"extensions.yaml": LISTED, **files}, mtime=run)
    packed = zstandard.compress(data)
    return packed + bytes(-len(packed) % 4)


def test_segments_in_another_order() -> None:
    result = compared(base(a=b"base") + added(1), added(2) + base(a=b"base"))
    assert told(result) == ["order of its parts"]
    assert compared(base() + added(1), base() + added(2)).verdict is Verdict.NAMED_NOISE


@pytest.mark.parametrize(("first", "second"), [("x" * 1100, "y"), ("/a\x01", ""), ("\x02", "\x03")])
def test_targets_that_look_alike(first: str, second: str) -> None:
    same = "x" * 1100 + "/z" if len(first) > 1000 else ""
    targets = [
        (same or first) + "end",
        (same or second or "/a\x02") + ("another" if same else "end"),
    ]
    left, right = (base() + added(n, link=target) for n, target in enumerate(targets, 1))
    assert told(compared(left, right)) == ["target of the link as it is written"]


def test_a_name_that_is_not_shown_as_it_is() -> None:
    left, right = (base() + added(n, **{name: b"1"}) for n, name in ((1, "a\x01"), (2, "a\x02")))
    assert "name as it is written" in told(compared(left, right))


def reguid(data: bytes, run: int, backup: Callable[[bytearray], None] | None = None) -> bytes:
    """Return a disk with other GUIDs, in both copies of its table."""
    image = bytearray(data)
    sectors, held = len(image) // 512, 128 * GPT_ENTRIES // 512
    entries = bytearray(image[1024 : 1024 + 128 * GPT_ENTRIES])
    rng = random.Random(run)
    for at in range(0, len(entries), 128):
        if any(entries[at : at + 16]):
            entries[at + 16 : at + 32] = rng.randbytes(16)
    guid = str(uuid.UUID(bytes=rng.randbytes(16)))
    for own, other, at in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 1 - held)):
        if backup is not None and own != 1:
            backup(entries)
        table = bytes(entries)
        header = gpt_header(own, other, at, table, sectors, guid=guid, count=GPT_ENTRIES)
        image[own * 512 : own * 512 + len(header)] = header
        image[at * 512 : at * 512 + len(table)] = table
    return bytes(image)


def at_of(value: int) -> Callable[[bytearray], None]:
    return lambda entries: struct.pack_into("<Q", entries, 32, value)


DISK: Final = talosfiles.disk([("EFI", b"e" * 1024), ("META", talosfiles.meta({10: "ten"}))])


def test_a_backup_of_the_partition_table_with_other_partitions_or_damaged() -> None:
    assert compared(reguid(DISK, 1), reguid(DISK, 2)).verdict is Verdict.NAMED_NOISE
    assert told(compared(reguid(DISK, 1), reguid(DISK, 2, at_of(7)))) == ["faults of the disk"]
    both = compared(reguid(DISK, 1, at_of(7)), reguid(DISK, 2, at_of(9)))
    assert told(both) == ["bytes outside of its parts of the disk"]
    damaged = patched(reguid(DISK, 2), len(DISK) - 512 + 60, b"\xff")
    assert told(compared(reguid(DISK, 1), damaged)) == ["faults of the disk"]


def test_a_larger_disk() -> None:
    bare = patched(DISK, len(DISK) - 33 * 512, bytes(33 * 512))
    larger = reguid(bare + bytes(1 << 20), 2)
    assert told(compared(reguid(DISK, 1), larger)) == ["size of the disk"]


UKI: Final = talosfiles.uki()
HEADERS_AT: Final = struct.unpack_from("<I", UKI, 60)[0]


def section_at(name: bytes) -> int:
    return UKI.index(name.ljust(8, b"\0"), HEADERS_AT)


def stamped(run: int, at: int = 0, value: bytes = b"") -> bytes:
    return patched(patched(UKI, HEADERS_AT + 8, struct.pack("<I", run)), at, value)


def test_sections_at_other_places_in_memory() -> None:
    assert compared(stamped(1), stamped(2)).verdict is Verdict.NAMED_NOISE
    line, release = section_at(b".cmdline"), section_at(b".osrel")
    over = UKI[release + 12 : release + 16]
    assert "overlaps of the UKI" in told(compared(stamped(1), stamped(2, line + 12, over)))
    last = section_at(b".profile")
    far = struct.pack("<I", 1 << 29)
    assert told(compared(stamped(1), stamped(2, last + 12, far)))[0] == "address of the PE section"


FILES: Final = {"A.TXT": b"hello", "EFI/B.TXT": b"b"}


def fat(run: int, at: int = 0, value: bytes = b"") -> bytes:
    return patched(patched(small_fat32(FILES), 67, struct.pack("<I", run)), at, value)


def test_what_a_fat_hides() -> None:
    volume = small_fat32(FILES)
    assert compared(fat(1), fat(2)).verdict is Verdict.NAMED_NOISE
    record = volume.index(b"A       TXT")
    assert told(compared(fat(1), fat(2, record + 11, b"\x26"))) == ["attributes"]
    for at in (200, volume.index(b"hello") + 5, len(volume) - 600, 512 + 4 * 900):
        assert told(compared(fat(1), fat(2, at, b"x"))) == [
            "bytes outside of its parts of the FAT file system"
        ]
    one, two = (
        talosfiles.disk([("EFI", fat(n) + tail)]) for n, tail in ((1, bytes(512)), (2, b"x" * 512))
    )
    assert told(compared(one, two)) == ["bytes outside of its parts of the partition"]


def layer(run: int, *, twice: bool = False, **more: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        rows: list[tuple[str, bytes, dict[str, object]]] = [
            ("usr/install/amd64/initramfs.xz", base() + added(run), {}),
            *[("bin/tool", b"program", more)] * (2 if twice else 1),
        ]
        for name, data, properties in rows:
            member = tarfile.TarInfo(name)
            member.size = 0 if "type" in properties else len(data)
            for key, value in properties.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(plain: bytes) -> bytes:
    root = {"type": "layers", "diff_ids": [digest(plain)]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": root}).encode()


def docker(plain: bytes, tag: str = "installer:v1") -> bytes:
    config, packed = configuration(plain), gzip.compress(plain, mtime=0)
    saved = [{"Config": digest(config), "RepoTags": [tag], "Layers": ["l.tar.gz"]}]
    listed = json.dumps(saved).encode()
    return talosfiles.tar({digest(config): config, "l.tar.gz": packed, "manifest.json": listed})


def layout(plain: bytes, **more: object) -> bytes:
    config, packed = configuration(plain), gzip.compress(plain, mtime=0)
    rows = [{"mediaType": "m", "digest": digest(one), "size": len(one)} for one in (config, packed)]
    document = {"schemaVersion": 2, "config": rows[0], "layers": rows[1:], **more}
    manifest = json.dumps(document).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    listed = [{"mediaType": kind, "digest": digest(manifest), "size": len(manifest)}]
    blobs = {f"blobs/sha256/{digest(b)[7:]}": b for b in (config, packed, manifest)}
    index = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    return talosfiles.tar({"oci-layout": b"{}", "index.json": index, **blobs})


@pytest.mark.parametrize(
    "more",
    [
        {"pax_headers": {"SCHILY.xattr.security.capability": "x"}},
        {"uname": "another"},
        {"twice": True},
    ],
    ids=str,
)
def test_what_a_layer_hides(more: dict[str, object]) -> None:
    result = compared(docker(layer(1)), docker(layer(2, **more)))  # type: ignore[arg-type]
    assert told(result) == ["bytes outside of its parts of the layer"]


def test_nodes_and_links_of_a_layer() -> None:
    node, link = {"type": tarfile.CHRTYPE, "devmajor": 1}, {"linkname": "usr"}
    pairs = (
        (node | {"devminor": 3}, node | {"devminor": 8}),
        ({"type": tarfile.FIFOTYPE}, {"type": tarfile.BLKTYPE}),
        (link | {"type": tarfile.SYMTYPE}, link | {"type": tarfile.LNKTYPE}),
    )
    for first, second in pairs:
        result = compared(docker(layer(1, **first)), docker(layer(2, **second)))
        assert len(told(result)) == 1, result.differences


def test_archives_of_the_same_image_in_other_forms() -> None:
    assert compared(docker(layer(1)), docker(layer(2))).verdict is Verdict.NAMED_NOISE
    assert compared(layout(layer(1)), layout(layer(2))).verdict is Verdict.NAMED_NOISE
    for other in (layout(layer(1)), docker(layer(1), tag="other:v2")):
        result = compared(docker(layer(1)), other)
        assert result.verdict is Verdict.SAME_CONTENT, result.differences
    annotated = layout(layer(2), annotations={"a": "b"})
    assert told(compared(layout(layer(1)), annotated)) == ["annotations of the image"]


def test_what_follows_from_noise_is_listed_with_its_place() -> None:
    result = compared(docker(layer(1)), docker(layer(2)))
    follows = {(one.path, one.what) for one in result.differences if one.noise == "follows-noise"}
    assert ("layer 1", "diff id of the layer") in follows
    assert ("configuration", "configuration of the image") in follows


def tree_of(run: int, *boots: Part, catalog: bytes = b"c", **facts: Fact) -> Part:
    """Return an ISO whose only file has another time in each run."""
    file = leaf("efi.img", b"f", mtime=run)
    inner = (file, leaf("boot.catalog", catalog), *boots)
    said: dict[str, Fact] = {"rest": digest(b"rest"), "catalog": "boot.catalog", **facts}
    return box("x.iso", "iso", *inner, **said)


def entry(sectors: int, **more: Fact) -> Part:
    return Part("UEFI boot", "boot-entry", 0, facts={"load_sectors": sectors, **more})


def test_what_firmware_loads_follows_only_where_it_is_all_of_the_image() -> None:
    whole: dict[str, Fact] = {"loads": "whole image"}
    grown = [tree_of(n, entry(n, **whole)) for n in (1, 2)]
    assert compared_trees(*grown).verdict is Verdict.NAMED_NOISE
    for first in (entry(4), entry(4, **whole)):
        result = compared_trees(tree_of(1, first), tree_of(2, entry(1)))
        assert "load sectors of the boot entry" in told(result)
    segments = [tree_of(n, entry(4, load_segment=f"{n:#x}")) for n in (1, 2)]
    assert told(compared_trees(*segments)) == ["load segment of the boot entry"]


def test_a_catalogue_and_views_follow_and_nothing_else_of_that_name_does() -> None:
    def view(run: int, **facts: Fact) -> Part:
        return replace(leaf("HFSPLUS", f"\0{run}", "partition", **facts), text=None)

    shown: dict[str, Fact] = {"view": "of the volume"}
    same = [tree_of(n, view(n, **shown), catalog=bytes([n])) for n in (1, 2)]
    assert compared_trees(*same).verdict is Verdict.NAMED_NOISE
    apart = [tree_of(n, view(n)) for n in (1, 2)]
    assert told(compared_trees(*apart)) == ["content of the partition"]
    other = [tree_of(n, catalog=bytes([n])) for n in (1, 2)]
    moved = [replace(one, facts={**one.facts, "catalog": "elsewhere"}) for one in other]
    assert "content of the file" in told(compared_trees(*moved))


def test_noise_excuses_no_bytes_of_what_is_not_told_in_full() -> None:
    sides = [box("x", "data", leaf("a", "1"), leaf("0.sqsh", "1")) for _ in (1, 2)]
    noisy = [replace(one, facts={"timestamp": n}) for n, one in enumerate(sides, 1)]
    untold = [
        replace(box("x", "erofs", leaf("a", "1"), uuid=f"{n}"), digest=digest(bytes([n])))
        for n in (1, 2)
    ]
    assert told(compared_trees(*untold))
    assert told(
        compared_trees(*(replace(one, digest=digest(bytes([n]))) for n, one in enumerate(noisy)))
    )


def test_a_signature_of_a_profile_follows_from_a_section_that_all_profiles_share() -> None:
    def program(run: int) -> Part:
        policy = f'{{"sha256": [{{"pcrs": [11], "pkfp": "k", "pol": "{run}", "sig": "{run}"}}]}}'
        profile = folder("profile main", leaf(".pcrsig", policy, "pe-section"))
        return box("u", "uki", leaf(".linux", b"k", "pe-section"), profile, timestamp=run)

    assert compared_trees(program(1), program(2)).verdict is Verdict.NAMED_NOISE
