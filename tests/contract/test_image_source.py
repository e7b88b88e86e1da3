"""What every image source promises, held against a directory, a tar and a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.errors import NotFound
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.open import open_source
from local_imager.oci.source import ImageSource
from tests.images import IMAGE, REGISTRY, SIGNATURE_TYPE, SINGLE, Sample, make_sample, tar_of
from tests.realregistry import push_layout, running_registry

KINDS = ("directory", "tar", "tar-in-folder", "registry", "mirror")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample") / "layout")


@pytest.fixture(scope="module")
def address(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        push_layout(sample.layout, address)
        yield address


@pytest.fixture(scope="module", params=KINDS)
def source(
    request: pytest.FixtureRequest,
    sample: Sample,
    address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> ImageSource:
    folder: Path = tmp_path_factory.mktemp("source")
    if request.param == "mirror":
        return open_source("", registry=REGISTRY, mirrors={REGISTRY: f"http://{address}"})
    location = {
        "directory": lambda: str(sample.path),
        "tar": lambda: str(tar_of(sample.path, folder / "layout.tar")),
        "tar-in-folder": lambda: str(tar_of(sample.path, folder / "layout.tar", "./layout/")),
        "registry": lambda: f"http://{address}",
    }[request.param]()
    return open_source(location, registry=REGISTRY)


def test_a_tag_resolves_to_what_it_names(source: ImageSource, sample: Sample) -> None:
    for reference, wanted in ((IMAGE, sample.index), (SINGLE, sample.single)):
        found = source.resolve(reference)
        assert (found.digest, found.size_bytes, found.media_type) == (
            wanted.digest,
            wanted.size_bytes,
            wanted.media_type,
        )


def test_a_digest_resolves_to_itself(source: ImageSource, sample: Sample) -> None:
    for wanted in (sample.index, sample.children["arm64"]):
        found = source.resolve(IMAGE.with_digest(wanted.digest))
        assert (found.digest, found.media_type) == (wanted.digest, wanted.media_type)


def test_what_is_not_there_is_not_found(source: ImageSource) -> None:
    nothing = Digest.of(b"nothing")
    with pytest.raises(NotFound):
        source.resolve(IMAGE.with_tag("v9.9.9"))
    with pytest.raises(NotFound):
        source.resolve(Reference.parse(f"{REGISTRY}/siderolabs/other:v1.13.0"))
    with pytest.raises(NotFound):
        source.manifest(IMAGE, nothing)
    with pytest.raises(NotFound):
        list(source.blob(IMAGE, Descriptor("", nothing, 7)))


def test_manifest_bytes_have_their_digest(source: ImageSource, sample: Sample) -> None:
    for wanted in (sample.index, sample.children["amd64"]):
        raw = source.manifest(IMAGE, wanted.digest)
        assert raw.untrusted_data == sample.layout.blob_path(wanted.digest).read_bytes()
        assert raw.media_type == wanted.media_type


@pytest.mark.parametrize("offset", [0, 1, 100, -1])
def test_a_blob_streams_from_any_offset(source: ImageSource, sample: Sample, offset: int) -> None:
    layer = sample.layer_of("arm64")
    start = offset if offset >= 0 else layer.size_bytes - 1
    wanted = sample.layout.blob_path(layer.digest).read_bytes()[start:]
    assert b"".join(source.blob(IMAGE, layer, start)) == wanted


def test_a_blob_from_its_end_is_empty(source: ImageSource, sample: Sample) -> None:
    layer = sample.layer_of("amd64")
    assert b"".join(source.blob(IMAGE, layer, layer.size_bytes)) == b""


def test_referrers_of_a_signed_image(source: ImageSource, sample: Sample) -> None:
    found = source.referrers(IMAGE, sample.index.digest)
    assert [(r.digest, r.artifact_type) for r in found] == [(sample.bundle.digest, SIGNATURE_TYPE)]
    assert source.manifest(IMAGE, found[0].digest).untrusted_data


def test_no_referrers_is_an_empty_answer(source: ImageSource, sample: Sample) -> None:
    assert source.referrers(SINGLE, sample.single.digest) == ()
    assert source.referrers(IMAGE, Digest.of(b"nothing")) == ()


def test_the_older_signature_has_a_tag(source: ImageSource, sample: Sample) -> None:
    tag = f"sha256-{sample.index.digest.hex}.sig"
    assert source.resolve(IMAGE.with_tag(tag)).digest == sample.legacy.digest


def test_tags_of_a_repository(source: ImageSource) -> None:
    assert "v1.13.0" in source.tags(IMAGE)
    assert source.tags(SINGLE) == ("v1.0.0",)


def test_the_location_is_told_without_secrets(source: ImageSource) -> None:
    assert source.location
    assert "@" not in source.location
