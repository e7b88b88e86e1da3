"""Blobs made from a delta: the exact bytes become visible, or nothing does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.deltas import delta
from local_imager.deliver.bundle.deltas.delta import plan_delta
from local_imager.deliver.bundle.deltas.rebuild import rebuild_blob
from local_imager.deliver.bundle.deltas.recompress import Codec
from local_imager.deliver.bundle.form.model import Blob, Rebuild
from local_imager.errors import ExitCode, IntegrityError, LocalImagerError, NotFound
from local_imager.events import Progress, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from tests.unit.deliver.bundle.versions import (
    LARGE_BYTES,
    MIB,
    Sides,
    content,
    gzipped,
    next_version,
)

OLD = content(1)
NEW = next_version(OLD)


@pytest.fixture(autouse=True)
def _small_blobs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "LEAST_BYTES", LARGE_BYTES)


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides.make(tmp_path)


def carried(sides: Sides, old: bytes = OLD, new: bytes = NEW) -> Blob:
    """Return a blob whose base and payload are on the far side."""
    sides.both_have([old])
    plan = sides.plan([new])
    (made,) = plan.deltas
    sides.carry(made.payload)
    return next(blob for blob in plan.blobs if blob.digest == made.blob)


def way(blob: Blob) -> Rebuild:
    assert blob.rebuild is not None
    return blob.rebuild


def refused(blob: Blob, layout: Layout) -> LocalImagerError:
    """Return why a blob is not rebuilt, after a look that nothing of it is there."""
    before = set(layout.blobs_dir.iterdir())
    with pytest.raises(LocalImagerError) as caught:
        rebuild_blob(blob, layout)
    assert set(layout.blobs_dir.iterdir()) == before
    for folder in (layout.staging_dir, layout.unverified_dir):
        assert not folder.is_dir() or not list(folder.iterdir())
    return caught.value


def test_the_bytes_and_the_progress(sides: Sides) -> None:
    blob = carried(sides)
    sink = RecordingSink()
    rebuild_blob(blob, sides.far, sink)
    assert sides.far.intact(blob.digest, len(NEW))
    assert sides.far.blob_path(blob.digest).read_bytes() == NEW
    assert sink.events[-1] == Progress("rebuild", "layer 0", len(NEW), len(NEW))


def test_nothing_is_done_for_a_blob_that_is_there(sides: Sides) -> None:
    blob = carried(sides)
    sides.far.put_bytes(NEW, "")
    sides.far.blob_path(way(blob).base).unlink()
    sides.far.blob_path(way(blob).payload).unlink()
    rebuild_blob(blob, sides.far)


def test_a_damaged_blob_is_made_anew(sides: Sides) -> None:
    blob = carried(sides)
    sides.far.put_bytes(NEW, "")
    path = sides.far.blob_path(blob.digest)
    path.chmod(0o644)
    path.write_bytes(NEW[::-1])
    rebuild_blob(blob, sides.far)
    assert path.read_bytes() == NEW


def test_zeros_are_holes(sides: Sides) -> None:
    zeros = bytes(3 * MIB)
    new = NEW + zeros + NEW[::-1] + zeros
    blob = carried(sides, OLD + zeros + NEW[::-1], new)
    rebuild_blob(blob, sides.far)
    path = sides.far.blob_path(blob.digest)
    assert path.read_bytes() == new
    assert path.stat().st_blocks * 512 < 2 * MIB


def test_a_base_that_is_gone_is_named(sides: Sides) -> None:
    blob = carried(sides)
    sides.far.blob_path(way(blob).base).unlink()
    error = refused(blob, sides.far)
    assert isinstance(error, NotFound)
    assert error.code == "rebuild-base"
    assert str(way(blob).base) in error.message
    assert "layer 0" in error.message
    assert "store inventory" in error.hint
    assert "--no-delta" in error.hint


def test_a_damaged_base_is_as_good_as_gone(sides: Sides) -> None:
    blob = carried(sides)
    path = sides.far.blob_path(way(blob).base)
    path.chmod(0o644)
    path.write_bytes(OLD[::-1])
    assert refused(blob, sides.far).code == "rebuild-base"


def test_a_payload_that_did_not_arrive_is_named(sides: Sides) -> None:
    blob = carried(sides)
    sides.far.blob_path(way(blob).payload).unlink()
    error = refused(blob, sides.far)
    assert error.code == "rebuild-payload"
    assert str(way(blob).payload) in error.message


def test_a_blob_that_is_not_rebuilt_is_a_mistake_of_the_caller(sides: Sides) -> None:
    with pytest.raises(ValueError, match="not rebuilt from anything"):
        rebuild_blob(Blob(Digest.of(NEW), len(NEW), "layer"), sides.far)


def test_another_library_is_named(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = carried(sides, gzipped(OLD), gzipped(NEW))
    pack = Codec.pack

    def packs_otherwise(self: Codec, chunks: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
        return pack(replace(self, name="gzip-9"), chunks, size_bytes)

    monkeypatch.setattr(Codec, "pack", packs_otherwise)
    monkeypatch.setattr(Codec, "library", lambda _: "zlib 9.9")
    error = refused(blob, sides.far)
    assert isinstance(error, IntegrityError)
    assert (error.code, error.exit_code) == ("rebuild", ExitCode.VERIFICATION_REFUSED)
    assert "on the near side, with zlib 9.9 here" in error.message
    assert str(blob.digest) in error.message
    assert "--no-delta" in error.hint


def test_other_bytes_than_the_digest_names(sides: Sides) -> None:
    blob = carried(sides)
    error = refused(replace(blob, digest=Digest.of(b"other")), sides.far)
    assert "other bytes came out" in error.message
    assert "library" not in error.message


def test_a_blob_announced_too_short_or_too_long(sides: Sides) -> None:
    blob = carried(sides)
    short = refused(replace(blob, size_bytes=len(NEW) - 1), sides.far)
    assert "more comes out of it than the blob is long" in short.message
    long = refused(replace(blob, size_bytes=len(NEW) + 1), sides.far)
    assert "other bytes came out" in long.message


def test_an_unknown_method_is_refused(sides: Sides) -> None:
    blob = carried(sides, gzipped(OLD), gzipped(NEW))
    for method in (
        "",
        "zstd",
        "recompress:+zstd-window",
        "recompress:gzip-0+zstd-window",
        "recompress:gzip-66+zstd-window",
        "recompress:zstd-22+zstd-window",
        "recompress:zstd-3-size-checksum+zstd-window",
        "recompress:gzip-6",
        "zstd-window ",
        "\x1b[31m" * 100,
    ):
        error = refused(replace(blob, rebuild=replace(way(blob), method=method)), sides.far)
        assert error.code == "rebuild"
        assert "its method" in error.message
        assert error.message.isprintable()


def test_the_method_of_another_blob_is_refused(sides: Sides) -> None:
    blob = carried(sides, gzipped(OLD), gzipped(NEW))
    for method in ("zstd-window", "recompress:zstd-3+zstd-window", "recompress:gzip-5+zstd-window"):
        other = replace(blob, rebuild=replace(way(blob), method=method))
        assert refused(other, sides.far).code == "rebuild"


def test_a_payload_that_is_none_is_refused(sides: Sides) -> None:
    blob = carried(sides)
    for data in (b"", b"nothing of the kind", NEW[1:]):
        payload = sides.far.put_bytes(data, "").digest
        other = replace(blob, rebuild=replace(way(blob), payload=payload))
        assert refused(other, sides.far).code == "rebuild"


def test_a_base_that_does_not_unpack_is_refused(sides: Sides) -> None:
    blob = carried(sides, gzipped(OLD), gzipped(NEW))
    base = sides.far.put_bytes(gzipped(OLD)[:-9], "").digest
    error = refused(replace(blob, rebuild=replace(way(blob), base=base)), sides.far)
    assert error.code == "rebuild"
    assert "does not unpack" in error.message


def test_a_private_blob_is_private(sides: Sides) -> None:
    blob = carried(sides)
    rebuild_blob(blob, sides.far, private=True)
    assert sides.far.blob_path(blob.digest).stat().st_mode & 0o777 == 0o400


def test_the_delta_of_a_private_blob_is_private(sides: Sides) -> None:
    sides.both_have([OLD])
    item, blobs = sides.near_has([NEW])
    sides.near.blob_path(blobs[-1].digest).chmod(0o400)
    (made,) = plan_delta(blobs, [item], sides.near, sides.inventory()).deltas
    assert sides.near.blob_path(made.payload).stat().st_mode & 0o777 == 0o400
