"""Creating: the same bytes each time, whole or not there, nothing foreign replaced, signed."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.near import create as creating
from local_imager.deliver.bundle.near import outfile
from local_imager.deliver.bundle.near.writer import stream_part
from local_imager.errors import HostError, InputError, IntegrityError, StoreError
from local_imager.events import Progress, StepFinished
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import (
    Digest,
    Reference,
)
from local_imager.store.store import Store
from tests.unit.deliver.bundle.making import (
    FLANNEL,
    NOISE_BYTES,
    PLAIN,
    SECRET,
    Making,
    faults_of,
    making,
    miniature,
    schematic_file,
    seeded,
)
from tests.unit.sources.test_upstream import V1130

__all__ = ["making", "miniature", "seeded"]


def large_blob(making: Making) -> Path:
    blobs = Store.open(making.path / "store").layout.blobs_dir
    return max(blobs.iterdir(), key=lambda path: path.stat().st_size)


def test_the_file_is_one_without_faults_and_a_layout_that_can_be_read(making: Making) -> None:
    created = making.create(making.rich())
    (part,) = created.parts
    assert part.size_bytes == part.path.stat().st_size
    assert faults_of(part.path) == ()
    with tarfile.open(part.path) as archive:
        names = archive.getnames()
        assert names[:4] == ["bundle.json", "part.json", "oci-layout", "index.json"]
        manifest = archive.extractfile("bundle.json")
        assert manifest is not None
        assert Digest.of(manifest.read()) == created.set_digest
    source = LayoutSource.open(part.path)
    assert source.resolve(FLANNEL).digest == Digest.parse(making.cni)
    assert created.as_dict()["images"] == 8


def test_the_same_order_gives_the_same_bytes_whatever_the_store_went_through(
    making: Making, miniature: Making
) -> None:
    order = making.rich()
    first = making.create(order, "first.tar", packed=True)
    plain = making.create(order, "plain.tar")
    time.sleep(1.1)  # a second later every time that got in would be another one
    # Another store, filled in another order, with more in it and other parallelism.
    sources = miniature.factory("late").sources
    miniature.sink = making.sink
    images = [item.name for item in first.bundle.items if item.kind == "image"]
    for name in random.Random(1).sample(images, len(images)):
        sources.obtain_reference(Reference.parse(name), ("arm64",))
    swapped = replace(order, schematics=order.schematics[::-1], images=order.images[::-1])
    for name, other in (("other.tar", plain), ("other.tar.zst", first)):
        again = miniature.create(
            swapped,
            name,
            store="late",
            settings={"jobs": 7},
            packed=name.endswith(".zst"),
            key=None,
        )
        assert again.set_digest == other.set_digest
        assert again.parts[0].path.read_bytes() == other.parts[0].path.read_bytes()


def test_a_look_ahead_is_exact_and_fetches_no_layer(making: Making) -> None:
    order = making.rich()
    look = making.look(order, store="store-empty")
    held = Store.open(making.path / "store-empty").layout.blobs_dir
    assert max(path.stat().st_size for path in held.iterdir()) < 10_000
    assert making.names() == []
    created = making.create(order)
    assert look.size_bytes == created.size_bytes
    assert (look.set_digest, look.bundle) == (created.set_digest, created.bundle)


def test_a_look_ahead_says_what_is_not_built_yet(making: Making) -> None:
    secret = schematic_file("secret.yaml", SECRET)
    order = making.order(secret, versions=(V1130,), assets=("kernel-amd64", "metal-amd64.iso"))
    look = making.look(order)
    assert [name.rpartition("/")[2] for name in look.unbuilt] == ["kernel-amd64", "metal-amd64.iso"]
    assert making.runner.requests == []
    created = making.create(order)
    look = making.look(order, force=True)
    assert look.unbuilt == ()
    assert look.set_digest == created.set_digest


def test_secrets_are_for_their_owner_alone_and_warned_about(making: Making) -> None:
    secret = schematic_file("secret.yaml", SECRET)
    created = making.create(
        making.order(secret, versions=(V1130,), assets=("cmdline-metal-amd64",))
    )
    assert created.parts[0].path.stat().st_mode & 0o777 == 0o600
    (warning,) = making.said("warning")
    assert "may hold secrets, as secret.yaml may" in warning
    plain = making.create(making.order(schematic_file("plain.yaml", PLAIN)), "plain.tar")
    umask = os.umask(0o022)
    os.umask(umask)
    assert plain.parts[0].path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_equal_file_is_success_and_is_not_written_again(making: Making) -> None:
    for form in ({}, {"packed": True}, {"limit_bytes": 200_000}):
        name = "x.tar.zst" if "packed" in form else "x.tar"
        first = making.create(making.further(), name, **form)
        before = [part.path.stat() for part in first.parts]
        again = making.create(making.further(), name, **form)
        assert all(part.unchanged for part in again.parts)
        after = [part.path.stat() for part in again.parts]
        assert [(s.st_ino, s.st_mtime_ns) for s in before] == [
            (s.st_ino, s.st_mtime_ns) for s in after
        ]
        outcomes = [e.outcome for e in making.sink.events if isinstance(e, StepFinished)]
        assert outcomes[-1] == "cached"


def test_a_foreign_file_is_not_touched_and_refused_before_anything_is_fetched(
    making: Making,
) -> None:
    target = making.path / "site.tar"
    target.write_bytes(b"my thesis")
    making.forget()
    with pytest.raises(InputError, match="is no bundle") as caught:
        making.create(making.further())
    assert "--force" in caught.value.hint
    assert making.sink.events == []
    assert target.read_bytes() == b"my thesis"
    making.create(making.further(), force=True)
    assert faults_of(target) == ()


def test_another_bundle_or_a_damaged_one_is_replaced_by_force_only(making: Making) -> None:
    making.create(making.order())
    before = (making.path / "site.tar").read_bytes()
    with pytest.raises(InputError, match="another bundle"):
        making.create(making.further())
    assert (making.path / "site.tar").read_bytes() == before
    created = making.create(making.further(), force=True)
    data = bytearray(created.parts[0].path.read_bytes())
    data[-2000] ^= 1
    created.parts[0].path.write_bytes(data)
    with pytest.raises(InputError, match="or damaged"):
        making.create(making.further())
    assert making.names() == ["site.tar"]


def test_a_place_that_cannot_be_is_told_at_once(making: Making) -> None:
    (making.path / "folder").mkdir()
    for name, word in (("folder", "is a directory"), ("none/site.tar", "there is no directory")):
        with pytest.raises(InputError, match=word):
            making.create(making.further(), name)


def test_a_damaged_store_gives_no_file(making: Making) -> None:
    path = large_blob(making)
    data = bytearray(path.read_bytes())
    data[NOISE_BYTES // 2] ^= 1
    times = path.stat()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its seal looks unbroken
    with pytest.raises(IntegrityError, match="does not have the bytes of its digest: layer 1 of 1"):
        making.create(replace(making.further(), offline=True))
    assert making.names() == []


def test_a_full_disk_is_told_before_a_byte_is_written(
    making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(making.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1024**2))
    with pytest.raises(HostError, match=r"the bundle has \d+ MiB, and 1 MiB are free") as caught:
        making.create(replace(making.further(), offline=True))
    assert (caught.value.code, caught.value.exit_code) == ("disk-full", 5)
    assert making.names() == []


def stopped(
    making: Making, monkeypatch: pytest.MonkeyPatch, error: BaseException, **form: Any
) -> None:
    """Let an error come up in the middle of writing."""
    real = stream_part

    def broken(source: Any, number: int, write: Callable[[memoryview], None], *more: Any) -> None:
        def write_some(data: memoryview) -> None:
            if number == form.get("at", 1):
                write(data[: len(data) // 2])
                raise error
            write(data)

        real(source, number, write_some, *more)

    monkeypatch.setattr(creating, "stream_part", broken)
    with pytest.raises(type(error)):
        making.create(making.further(), **{k: v for k, v in form.items() if k != "at"})
    monkeypatch.undo()


def test_an_interrupt_leaves_nothing(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(making, monkeypatch, KeyboardInterrupt())
    assert making.names() == []
    stopped(making, monkeypatch, KeyboardInterrupt(), limit_bytes=120_000, at=2)
    assert making.names() == []
    making.create(making.further())


def test_what_a_killed_run_left_is_taken_over_or_removed(making: Making) -> None:
    for name in (
        ".site.tar.part",
        ".site.part2of9.tar.part",
        ".site.tar.sigstore.json.part",
        ".other.tar.part",
    ):
        (making.path / name).write_bytes(b"x" * 5_000_000)
    made = making.create(making.further())
    assert faults_of(made.parts[0].path) == ()
    assert making.names() == [".other.tar.part", "site.tar"]


def test_two_creations_of_one_file_do_not_meet(making: Making) -> None:
    with outfile.growing(making.path / "site.tar", private=False):
        with pytest.raises(StoreError, match="another process is writing") as caught:
            making.create(making.further())
        assert caught.value.code == "busy"
    assert making.names() == []


def test_progress_tells_bytes(making: Making) -> None:
    created = making.create(making.further())
    told = [e for e in making.sink.events if isinstance(e, Progress) and e.subject == "site.tar"]
    assert told[-1].done == told[-1].total == created.size_bytes


def test_attachments_of_the_source_are_warned_about_when_they_stay_behind(making: Making) -> None:
    layout = Layout.open(making.path / "store")
    (sbom,) = [
        entry
        for entry in layout.referrers(Digest.parse(making.cni))
        if entry.artifact_type == "application/spdx+json"
    ]
    manifest = layout.read_manifest(sbom)
    layout.blob_path(manifest.layers[0].digest).unlink()  # type: ignore[union-attr]
    making.create(replace(making.further(), offline=True))
    assert any("SBOM of" in text and "does not travel" in text for text in making.said("warning"))


def test_nothing_of_ours_runs_on_after_an_error(making: Making) -> None:
    with pytest.raises(StoreError):
        making.create(making.further(), "x" * 250 + ".tar")
    names = [thread.name for thread in threading.enumerate()]
    assert "bundle-writer" not in names
