"""One image out of a layout: as a layout of its own, and as an archive for an engine."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from local_imager.errors import IntegrityError, NotFound
from local_imager.oci.archive import stream_archive
from local_imager.oci.export import export_image
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Platform
from tests.images import Sample, make_sample


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path / "layout")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_an_export_is_a_layout_of_one_image(sample: Sample, tmp_path: Path, arch: str) -> None:
    dest = tmp_path / "exported"
    entry = export_image(sample.layout, sample.index.digest, arch, dest)
    assert entry.digest == sample.children[arch].digest
    (listed,) = LayoutSource.open(dest).entries
    assert listed.platform == Platform("linux", arch)
    assert len(os.listdir(dest / "blobs/sha256")) == 3
    for path in (dest / "blobs/sha256").iterdir():
        assert path.samefile(sample.layout.blobs_dir / path.name)
    assert (dest.stat().st_mode & 0o777, (dest / "index.json").stat().st_mode & 0o777) == (
        0o755,
        0o644,
    )


def test_a_plain_image_needs_no_index(sample: Sample, tmp_path: Path) -> None:
    for number, arch in enumerate((None, "amd64")):
        entry = export_image(sample.layout, sample.single.digest, arch, tmp_path / str(number))
        assert (entry.digest, entry.platform) == (sample.single.digest, Platform("linux", "amd64"))


@pytest.mark.parametrize("arch", ["riscv64", None])
def test_an_architecture_that_is_not_there(sample: Sample, tmp_path: Path, arch: str) -> None:
    with pytest.raises(NotFound) as caught:
        export_image(sample.layout, sample.index.digest, arch, tmp_path / "x")
    assert "linux/amd64, linux/arm64" in caught.value.hint
    with pytest.raises(NotFound, match="for linux/amd64, not for linux/arm64"):
        export_image(sample.layout, sample.single.digest, "arm64", tmp_path / "y")


def test_a_damaged_layer_is_not_exported(sample: Sample, tmp_path: Path) -> None:
    damage(sample.layout, sample.layer_of("amd64").digest.hex)
    with pytest.raises(NotFound, match="not there or damaged"):
        export_image(sample.layout, sample.index.digest, "amd64", tmp_path / "x")


def damage(layout: Layout, name: str) -> None:
    path = layout.blobs_dir / name
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_an_archive_for_every_engine(sample: Sample) -> None:
    data = b"".join(stream_archive(sample.layout, sample.index.digest, "arm64", "lab/image:v1"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        read = {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]
    (docker,) = json.loads(read["manifest.json"])
    assert docker["RepoTags"] == ["lab/image:v1"]
    assert docker["Config"] in names and set(docker["Layers"]) <= set(names)
    (entry,) = json.loads(read["index.json"])["manifests"]
    assert entry["digest"] == str(sample.children["arm64"].digest)
    assert entry["platform"] == {"architecture": "arm64", "os": "linux"}
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/lab/image:v1"
    assert json.loads(read["oci-layout"])["imageLayoutVersion"] == "1.0.0"
    for name in (n for n in read if n.startswith("blobs/")):
        assert read[name] == (sample.path / name).read_bytes()


def test_the_archive_is_the_same_each_time(sample: Sample) -> None:
    one, two = (
        b"".join(stream_archive(sample.layout, sample.single.digest, None, "a/b:c"))
        for _ in range(2)
    )
    assert one == two


def test_an_archive_of_damaged_blobs_never_ends_well(sample: Sample) -> None:
    layer = sample.layer_of("amd64")
    damage(sample.layout, layer.digest.hex)
    sent = bytearray()
    with pytest.raises(IntegrityError):
        for chunk in stream_archive(sample.layout, sample.index.digest, "amd64", "a/b:c"):
            sent += chunk
    assert b"manifest.json" not in sent
