"""Layouts of other tools as sources, and hostile ones."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.oci import layoutfiles
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Digest, Reference
from tests.images import IMAGE, REGISTRY, SINGLE, Sample, make_sample, tar_of

SIGFIX = Path(__file__).resolve().parents[2] / "golden" / "sigfix"
CASES = [
    case
    for case in json.loads((SIGFIX / "cases.json").read_bytes())
    if case.get("layout") and not case["layout"].endswith(".gz")
]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path / "layout")


def relabel(sample: Sample, change: Callable[[dict[str, Any]], None]) -> LayoutSource:
    """Change every entry of the index, as another tool would have written it."""
    index = json.loads((sample.path / "index.json").read_text())
    for entry in index["manifests"]:
        change(entry)
    (sample.path / "index.json").write_text(json.dumps(index))
    return LayoutSource.open(sample.path)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_layouts_of_the_original_tools(case: dict[str, Any]) -> None:
    source = LayoutSource.open(SIGFIX / case["layout"])
    reference, digest = Reference.parse(case["image_ref"]), Digest.parse(case["digest"])
    asked = reference if case["tag"] else reference.with_digest(digest)
    assert source.resolve(asked).digest == digest
    if case["name"].endswith("image-manifest-bytes-changed"):
        with pytest.raises(IntegrityError):
            source.manifest(reference, digest)
    elif not case.get("image_missing"):
        assert Digest.of(source.manifest(reference, digest).untrusted_data) == digest
    signed = case["expect"] == "pass"
    if signed and ("bundle" in case["form"] or "referrer" in case["form"]):
        assert source.referrers(reference, digest)
    if signed and case["form"].startswith("legacy-sig"):
        assert source.resolve(reference.with_tag(f"sha256-{digest.hex}.sig"))


NAMINGS: dict[str, Callable[[str], str]] = {
    "full name": lambda name: name,
    "repository and tag": lambda name: name.partition("/")[2],
    "tag": lambda name: name.rpartition(":")[2],
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_ways_to_name_an_entry(sample: Sample, naming: str) -> None:
    def rename(entry: dict[str, Any]) -> None:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        entry["annotations"]["org.opencontainers.image.ref.name"] = NAMINGS[naming](name)

    source = relabel(sample, rename)
    assert source.resolve(IMAGE).digest == sample.index.digest
    assert source.resolve(SINGLE).digest == sample.single.digest
    found = source.referrers(IMAGE, sample.index.digest)
    assert [d.digest for d in found] == [sample.bundle.digest]
    legacy = IMAGE.with_tag(f"sha256-{sample.index.digest.hex}.sig")
    assert source.resolve(legacy).digest == sample.legacy.digest
    assert "v1.13.0" in source.tags(IMAGE)


def test_containerd_names(sample: Sample) -> None:
    def rename(entry: dict[str, Any]) -> None:
        name = entry["annotations"].pop("org.opencontainers.image.ref.name")
        entry["annotations"]["io.containerd.image.name"] = name

    assert relabel(sample, rename).resolve(IMAGE).digest == sample.index.digest


def test_a_full_name_is_never_taken_for_another_repository(sample: Sample) -> None:
    source = LayoutSource.open(sample.path)
    for name in (f"{REGISTRY}/siderolabs/extensions:v1.13.0", "ghcr.io/siderolabs/imager:v1.13.0"):
        with pytest.raises(NotFound) as caught:
            source.resolve(Reference.parse(name))
        assert str(IMAGE) in caught.value.hint


def test_the_only_unnamed_image_answers_to_any_name(sample: Sample) -> None:
    sample.layout.remove_ref(str(SINGLE))
    for suffix in ("", ".sig"):
        sample.layout.remove_ref(f"{IMAGE.name}:sha256-{sample.index.digest.hex}{suffix}")
    source = relabel(sample, lambda entry: entry.pop("annotations"))
    assert source.resolve(IMAGE).digest == sample.index.digest
    assert source.tags(IMAGE) == ()


def test_cosign_save_of_several_images(sample: Sample) -> None:
    def rename(entry: dict[str, Any]) -> None:
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        kind = "sigs" if name.endswith(".sig") else "imageIndex"
        entry["annotations"] = {"kind": f"dev.cosignproject.cosign/{kind}"}

    source = relabel(sample, rename)
    legacy = IMAGE.with_tag(f"sha256-{sample.index.digest.hex}.sig")
    assert source.resolve(legacy).digest == sample.legacy.digest
    with pytest.raises(NotFound):
        source.resolve(IMAGE.with_tag(f"sha256-{sample.single.digest.hex}.sig"))
    found = source.referrers(IMAGE, sample.index.digest)
    assert [d.digest for d in found] == [sample.bundle.digest]


def test_a_blob_of_another_size_is_refused(sample: Sample) -> None:
    layer = sample.layer_of("amd64")
    path = sample.layout.blob_path(layer.digest)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(IntegrityError):
        list(LayoutSource.open(sample.path).blob(IMAGE, layer))


def test_a_fifo_among_the_blobs_does_not_block(sample: Sample) -> None:
    layer = sample.layer_of("amd64")
    sample.layout.blob_path(layer.digest).unlink()
    os.mkfifo(sample.layout.blob_path(layer.digest))
    with pytest.raises(NotFound):
        list(LayoutSource.open(sample.path).blob(IMAGE, layer))


# Tars


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def hostile_tar(sample: Sample, path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    tar_of(sample.path, path)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("evil", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "link or device"),
        ([member("evil", type=tarfile.LNKTYPE, linkname="index.json")], "link or device"),
        ([member("evil", type=tarfile.CHRTYPE)], "link or device"),
        ([member("evil", type=tarfile.FIFOTYPE)], "link or device"),
        ([member("../evil", b"x")], "leaves the archive"),
        ([member("/evil", b"x")], "leaves the archive"),
        ([member("blobs/../../evil", b"x")], "leaves the archive"),
        ([member("index.json", b"{}")], "is there twice"),
        ([member("./index.json", b"{}")], "is there twice"),
        ([member("long", pax_headers={"comment": "x" * 100_000})], "extended header is too large"),
        ([member("s", pax_headers={"GNU.sparse.major": "1"})], "sparse members"),
        ([member("s", pax_headers={"size": "-5"})], "no numbers"),
        ([member("s", pax_headers={"size": str(1 << 60)})], "truncated"),
    ],
)
def test_hostile_tars(
    sample: Sample, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], words: str
) -> None:
    path = hostile_tar(sample, tmp_path / "x.tar", *members)
    with pytest.raises(SourceError, match=words):
        LayoutSource.open(path)


def test_a_tar_with_too_many_members(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layoutfiles, "MAX_MEMBERS", 50)
    path = hostile_tar(sample, tmp_path / "x.tar", *(member(f"file-{n}") for n in range(60)))
    with pytest.raises(SourceError, match="more than 50 members"):
        LayoutSource.open(path)


def test_other_files_and_long_names_in_a_tar_are_passed_over(
    sample: Sample, tmp_path: Path
) -> None:
    path = hostile_tar(
        sample, tmp_path / "x.tar", member("manifest.json", b"[]"), member("d" * 300)
    )
    assert LayoutSource.open(path).resolve(IMAGE).digest == sample.index.digest


@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_truncated_tar(sample: Sample, tmp_path: Path, position: int) -> None:
    path = tar_of(sample.path, tmp_path / "x.tar")
    with tarfile.open(path) as archive:
        member = [m for m in archive if m.isreg()][position]
    with path.open("r+b") as stream:
        stream.truncate(member.offset_data + member.size - 1)
    with pytest.raises(SourceError):
        LayoutSource.open(path)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"not a tar at all" * 100, "not a tar"),
        (b"", "not a tar"),
    ],
)
def test_what_is_no_tar_is_said_so(tmp_path: Path, begin: bytes, words: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(begin + b"x" * 600 if begin else b"")
    with pytest.raises(SourceError, match=words):
        LayoutSource.open(path)


def test_nothing_at_the_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no layout"):
        LayoutSource.open(tmp_path / "x")
    with pytest.raises(SourceError, match="oci-layout"):
        LayoutSource.open(tmp_path)
