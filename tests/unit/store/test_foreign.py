"""Foreign files: apart from all that builds use, written whole or continued, found by name."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from local_imager.cli.main import run
from local_imager.errors import InputError, SourceError, StoreError
from local_imager.oci.model import Descriptor, Reference
from local_imager.store.foreign import (
    ARTIFACT_FOREIGN,
    ForeignFile,
    Version,
    find_foreign,
    foreign_files,
    foreign_writer,
    held_foreign,
    name_foreign,
)
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.store import Store
from tests.unit.store.test_store import put

ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"
PLACE = f"factory.example/{ID}/v1.13.0/metal-amd64.iso"
KNOWN = Version('"abc"', 200_000)
BEGIN = bytes(range(256)) * 400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def keep(store: Store, data: bytes = b"foreign", place: str = PLACE) -> ForeignFile:
    with foreign_writer(store.layout, place, max_bytes=1 << 30) as writer:
        writer.restart(Version())
        writer.write(data)
        return name_foreign(store.layout, place, writer.commit("x/y"), "https://f.example/x")


def interrupted(store: Store, data: bytes, version: Version = KNOWN) -> None:
    """Leave what a process leaves that ends in the middle."""
    with pytest.raises(KeyboardInterrupt):
        with foreign_writer(store.layout, PLACE, max_bytes=1 << 30) as writer:
            writer.restart(version)
            writer.write(data)
            raise KeyboardInterrupt


def left(store: Store) -> list[str]:
    folder = store.layout.unverified_dir
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_it_is_kept_under_its_own_type_and_name(store: Store) -> None:
    made = keep(store)
    assert foreign_files(store.layout) == (made,)
    assert held_foreign(store.layout, PLACE) == made
    entry = store.layout.resolve(made.name)
    assert entry is not None and entry.artifact_type == ARTIFACT_FOREIGN
    assert (made.title, made.path.read_bytes()) == ("metal-amd64.iso", b"foreign")
    with pytest.raises(InputError):
        Reference.parse(made.name)
    assert store.assets() == () == store.images()
    assert left(store) == []
    assert check(store).clean


def test_nobody_else_reads_what_may_hold_secrets(store: Store) -> None:
    assert stat.S_IMODE(keep(store).path.stat().st_mode) == 0o400


@pytest.mark.parametrize(
    "text",
    [
        f"local-imager/foreign/{PLACE}",
        PLACE,
        f"factory.example/{ID[:12]}/v1.13.0/metal-amd64.iso",
        "sha256:{digest}",
        "{digest}",
        "{begin}",
    ],
)
def test_it_is_found_by_all_its_names(store: Store, text: str) -> None:
    made = keep(store)
    filled = text.format(digest=made.digest.hex, begin=made.digest.hex[:8])
    assert find_foreign(store.layout, filled) == made


def test_what_is_no_name_of_one(store: Store) -> None:
    asset = put(store)
    made = keep(store)
    for text in (
        "",
        "metal-amd64.iso",
        asset.name,
        asset.digest.hex,
        made.digest.hex[:7],
        "zz" * 8,
    ):
        assert find_foreign(store.layout, text) is None
    short = made.short
    keep(store, b"other", PLACE.replace(ID, ID[:12] + "0" * 52))
    with pytest.raises(InputError, match="fits 2 foreign files"):
        find_foreign(store.layout, short)


def test_a_digest_in_a_place_is_cut_for_people(store: Store) -> None:
    made = keep(store, place=f"r.example/a/installer@sha256:{ID}/installer-amd64.tar")
    assert made.short == f"r.example/a/installer@sha256:{ID[:12]}/installer-amd64.tar"


def test_a_file_that_somebody_wrote_into_is_not_held(store: Store) -> None:
    made = keep(store)
    made.path.chmod(0o600)
    made.path.write_bytes(b"changed")
    assert held_foreign(store.layout, PLACE) is None
    assert keep(store, b"again").path.read_bytes() == b"again"


def test_what_was_begun_is_continued(store: Store) -> None:
    interrupted(store, BEGIN)
    with foreign_writer(store.layout, PLACE, max_bytes=1 << 30) as writer:
        assert (writer.offset, writer.version) == (len(BEGIN), KNOWN)
        writer.write(b"rest")
        made = name_foreign(store.layout, PLACE, writer.commit("x/y"), "")
    assert made.path.read_bytes() == BEGIN + b"rest"
    assert left(store) == []


@pytest.mark.parametrize(
    ("data", "version"),
    [(BEGIN, Version()), (b"little", KNOWN), (BEGIN, Version('"abc"', 10))],
    ids=["no validator", "not worth it", "more than there should be"],
)
def test_what_cannot_be_continued_is_forgotten(store: Store, data: bytes, version: Version) -> None:
    interrupted(store, data, version)
    with foreign_writer(store.layout, PLACE, max_bytes=1 << 30) as writer:
        assert (writer.offset, writer.version) == (0, Version())
    assert left(store) == []


def test_a_full_disk_is_not_kept_full(store: Store) -> None:
    with pytest.raises(StoreError):
        with foreign_writer(store.layout, PLACE, max_bytes=1 << 30) as writer:
            writer.restart(KNOWN)
            writer.write(BEGIN)
            raise StoreError("no room", code="disk-full")
    assert left(store) == []


def test_no_more_than_the_limit_is_taken(store: Store) -> None:
    with pytest.raises(SourceError, match="grows beyond 10 bytes"):
        with foreign_writer(store.layout, PLACE, max_bytes=10) as writer:
            writer.restart(KNOWN)
            writer.write(b"12345678901")


def test_a_hole_at_the_end_stays(store: Store) -> None:
    made = keep(store, BEGIN + bytes(100))
    with foreign_writer(store.layout, PLACE, max_bytes=1 << 30) as writer:
        writer.restart(KNOWN)
        writer.write(BEGIN)
        writer.write(bytes(100))
        layer = writer.commit("x/y")
    assert layer == Descriptor("x/y", made.digest, len(BEGIN) + 100)


def test_collections_take_it_like_an_asset(store: Store) -> None:
    made = keep(store)
    assert collect(store, Rules(grace_s=-1)).names == ()
    assert collect(store, Rules(keep_days=1)).names == ()
    for path in (made.path, store.layout.blob_path(made.manifest.digest)):
        os.utime(path, (1, 1))
    assert collect(store, Rules(keep_days=1)).names == (made.name,)
    assert not made.path.exists()
    assert check(store).clean


def test_a_collection_leaves_what_is_being_fetched(store: Store) -> None:
    interrupted(store, BEGIN)
    collect(store, Rules(grace_s=-1))
    assert len(left(store)) == 2
    for name in left(store):
        os.utime(store.layout.unverified_dir / name, (1, 1))
    with foreign_writer(store.layout, PLACE, max_bytes=1 << 30):
        collect(store, Rules(grace_s=-1))
        assert any(not name.endswith(".json") for name in left(store))


def test_the_command_line_lists_and_removes_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    made, asset = keep(store), put(store)

    def said(*arguments: str, code: int = 0) -> str:
        assert run(["-q", "--store", str(store.path), "store", *arguments]) == code
        return capsys.readouterr().out

    assert f"{made.short}  (foreign, unverified)" in said("ls")
    assert json.loads(said("ls", "--json"))["foreign"] == [made.as_dict()]
    shown = json.loads(said("show", made.place, "--json"))
    more = {"intact": True, "attached": [], "reproduced": None, "path": str(made.path)}
    assert shown == {**made.as_dict(), **more}
    assert "https://f.example/x" in said("show", made.short)
    assert made.name in said("rm", made.short)
    assert foreign_files(store.layout) == ()
    # Where the same bytes are an asset too, a digest means the asset.
    same = keep(store, asset.path.read_bytes())
    assert asset.name in said("rm", asset.digest.hex)
    assert foreign_files(store.layout) == (same,)
    said("rm", "nothing-of-the-kind", code=2)
