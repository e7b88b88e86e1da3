"""Fetching: order of steps, sources that lie or fail, resume, room on the disk, kept signatures."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local_imager.errors import (
    HostError,
    IntegrityError,
    LocalImagerError,
    NotFound,
    SourceError,
    VerificationRefused,
)
from local_imager.events import Progress, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.layoutfiles import DirectoryFiles
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.source import RawManifest
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.fetch import fetch_image
from local_imager.sources.held import held_descriptor, is_complete
from local_imager.sources.verify import verify_image
from tests.unit.sources.forge import Forge, Signing

NAME = "siderolabs/imager"
BIG = bytes(range(256)) * 4096


class Upstream(LayoutSource):
    """A layout source that counts, and misbehaves when told to."""

    fetched: list[Digest]
    resolved: int
    fault: str

    def __init__(self, path: Path, fault: str = "") -> None:
        super().__init__(DirectoryFiles(path))
        self.fetched, self.resolved, self.fault = [], 0, fault

    def resolve(self, reference: Reference) -> Descriptor:
        """Count what tags are looked up."""
        if not reference.tag.startswith("sha256-"):
            self.resolved += 1
        return super().resolve(reference)

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Stream, with the fault in large blobs."""
        if descriptor.size_bytes < 1000:
            yield from super().blob(reference, descriptor, offset)
            return
        self.fetched.append(descriptor.digest)
        data = b"".join(super().blob(reference, descriptor, offset))
        if self.fault == "cut":
            yield data[: len(data) // 2]
            raise SourceError("the connection broke")
        if self.fault == "short":
            yield data[:-1]
            return
        if self.fault == "long":
            yield data + b"x"
            return
        if self.fault == "changed":
            yield data[:-1] + bytes([data[-1] ^ 1])
            return
        yield data


class Place(NamedTuple):
    """An upstream with one signed image, and an empty layout to fetch into."""

    forge: Forge
    top: Descriptor
    signing: Signing
    layout: Layout
    reference: Reference

    def source(self, fault: str = "") -> Upstream:
        """Open the upstream anew."""
        return Upstream(self.forge.layout.path, fault)

    def fetch(self, source: LayoutSource, **more: Any) -> Any:
        """Fetch the image."""
        options = {"arches": ("amd64",), **more}
        return fetch_image(source, self.layout, self.reference, self.signing.policy(), **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    import os

    forge, signing = Forge(tmp_path / "upstream"), Signing()
    files = {"big": os.urandom(300_000)}
    top = forge.image(NAME, "v1.9.0", files, ("amd64", "arm64"))
    forge.sign_legacy(NAME, top, signing)
    forge.sign_bundle(NAME, top, signing.bundle(top.digest))
    layout = Layout.create(tmp_path / "store")
    return Place(forge, top, signing, layout, forge.reference(NAME, "v1.9.0"))


def blobs(layout: Layout) -> set[str]:
    return {path.name for path in layout.blobs_dir.iterdir()}


def test_the_image_is_named_whole_and_verifies_from_the_store_alone(place: Place) -> None:
    source = place.source()
    image = place.fetch(source)
    assert image.digest == place.top.digest
    assert source.resolved == 1
    held = held_descriptor(place.layout, place.reference)
    assert held is not None
    assert is_complete(place.layout, held, ("amd64",))
    assert not is_complete(place.layout, held, ("arm64",))
    shutil.rmtree(place.forge.layout.path)
    own = LayoutSource.open(place.layout.path)
    again = verify_image(own, place.reference, held, place.signing.policy())
    assert again.signer == image.signer
    assert len(_signatures(own, place)) == 1
    tag = f"sha256-{held.digest.hex}.sig"
    assert own.resolve(place.reference.with_tag(tag)).size_bytes > 0


def test_nothing_of_an_unverified_image_is_fetched(place: Place) -> None:
    source = place.source()
    with pytest.raises(VerificationRefused):
        fetch_image(source, place.layout, place.reference, Signing().policy(), arches=("amd64",))
    assert source.fetched == []
    assert blobs(place.layout) == set()


def test_only_the_wanted_architecture_is_fetched_and_more_later(place: Place) -> None:
    place.fetch(place.source())
    source = place.source()
    place.fetch(source, arches=("arm64", "amd64"))
    assert source.fetched == []  # the layer is the same for both
    held = held_descriptor(place.layout, place.reference)
    assert held is not None
    assert is_complete(place.layout, held, ("amd64", "arm64"))


def test_an_architecture_that_does_not_exist_is_named(place: Place) -> None:
    with pytest.raises(NotFound, match="riscv64") as caught:
        place.fetch(place.source(), arches=("riscv64",))
    assert "amd64, arm64" in caught.value.hint


@pytest.mark.parametrize("fault", ["short", "long", "changed", "cut"])
def test_a_faulty_download_leaves_no_name(fault: str, place: Place) -> None:
    with pytest.raises(LocalImagerError):
        place.fetch(place.source(fault))
    assert held_descriptor(place.layout, place.reference) is None
    assert place.fetch(place.source()).digest == place.top.digest


def test_a_broken_download_goes_on_where_it_stopped(place: Place) -> None:
    with pytest.raises(SourceError, match="connection broke"):
        place.fetch(place.source("cut"))
    partial = list(place.layout.unverified_dir.iterdir())
    assert len(partial) == 1
    assert partial[0].stat().st_size > 100_000
    offsets = []

    class Watching(Upstream):
        def blob(
            self, reference: Reference, descriptor: Descriptor, offset: int = 0
        ) -> Iterator[bytes]:
            if descriptor.size_bytes > 1000:
                offsets.append(offset)
            return super().blob(reference, descriptor, offset)

    place.fetch(Watching(place.forge.layout.path))
    assert offsets[0] > 100_000


def test_a_full_disk_is_told_before_anything_is_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place.layout.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1024))
    source = place.source()
    with pytest.raises(HostError, match="MiB are free") as caught:
        place.fetch(source)
    assert caught.value.code == "disk-full"
    assert caught.value.exit_code == 5
    assert source.fetched == []


def test_a_source_that_answers_another_digest_is_found_out(place: Place) -> None:
    class Swapping(Upstream):
        def resolve(self, reference: Reference) -> Descriptor:
            entry = super().resolve(Reference(reference.registry, reference.repository, "v1.9.0"))
            return entry

    pinned = place.reference.with_digest(Digest("0" * 64))
    source = Swapping(place.forge.layout.path)
    with pytest.raises(IntegrityError):
        fetch_image(source, place.layout, pinned, place.signing.policy(), arches=("amd64",))


def test_a_child_manifest_that_was_swapped_is_found_out(place: Place) -> None:
    class Swapping(Upstream):
        def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
            raw = super().manifest(reference, digest)
            if b'"layers"' in raw.untrusted_data and b"simplesigning" not in raw.untrusted_data:
                return RawManifest(raw.untrusted_data + b" ", raw.media_type)
            return raw

    with pytest.raises((IntegrityError, VerificationRefused)):
        place.fetch(Swapping(place.forge.layout.path))
    assert held_descriptor(place.layout, place.reference) is None


def test_progress_tells_bytes_of_the_whole_image(place: Place) -> None:
    sink = RecordingSink()
    place.fetch(place.source(), sink=sink)
    told = [event for event in sink.events if isinstance(event, Progress)]
    assert told[-1].done == told[-1].total > 300_000


def test_broken_signatures_beside_a_good_one_are_not_kept(place: Place) -> None:
    good = place.signing.bundle(place.top.digest)
    place.forge.sign_bundle(NAME, place.top, b"{broken", good)
    victim = place.forge.layout.referrers(place.top.digest)[0]
    place.forge.layout.blob_path(victim.digest).unlink()
    place.fetch(place.source())
    own = LayoutSource.open(place.layout.path)
    assert len(_signatures(own, place)) == 1


def test_fetching_again_keeps_signatures_that_the_source_has_lost(place: Place) -> None:
    place.fetch(place.source())
    other = Signing().bundle(place.top.digest)
    place.forge.sign_bundle(NAME, place.top, other)
    place.fetch(place.source())
    own = LayoutSource.open(place.layout.path)
    assert len(_signatures(own, place)) == 2


def test_stop_ends_a_download(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(LocalImagerError, match="stopped"):
        place.fetch(place.source(), stop=stop)
    assert held_descriptor(place.layout, place.reference) is None


def test_a_pinned_image_keeps_its_digest_in_the_name(place: Place) -> None:
    pinned = place.reference.with_digest(place.top.digest)
    fetch_image(place.source(), place.layout, pinned, place.signing.policy(), arches=("amd64",))
    assert held_descriptor(place.layout, pinned) is not None
    assert held_descriptor(place.layout, place.reference) is None
    place.fetch(place.source())
    assert held_descriptor(place.layout, place.reference) is not None


def test_a_damaged_blob_in_the_store_is_noticed_and_fetched_again(place: Place) -> None:
    place.fetch(place.source())
    held = held_descriptor(place.layout, place.reference)
    assert held is not None
    large = max(place.layout.blobs_dir.iterdir(), key=lambda path: path.stat().st_size)
    large.chmod(0o644)
    data = bytearray(large.read_bytes())
    data[len(data) // 2] ^= 1
    large.write_bytes(data)
    assert not is_complete(place.layout, held, ("amd64",))
    place.fetch(place.source())
    assert is_complete(place.layout, held, ("amd64",))


def _signatures(source: LayoutSource, place: Place) -> list[Descriptor]:
    """What is attached to the image, the evidence of its verification not counted."""
    found = source.referrers(place.reference, place.top.digest)
    return [entry for entry in found if entry.artifact_type != ARTIFACT_EVIDENCE]
