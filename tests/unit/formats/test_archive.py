"""Images in archives: docker-archives, OCI layouts, both at once, and appliances."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from local_imager.formats.archive import (
    MAX_DOCUMENT_BYTES,
    ArchivedImage,
    ImageArchive,
    image_archive_of,
    ova_of,
)
from local_imager.formats.source import BytesSource, FormatError, Source
from local_imager.formats.tar import read_tar

_LAYERS = (b"first layer", b"second layer")
_CONFIG = {
    "architecture": "arm64",
    "os": "linux",
    "created": "2026-01-01T00:00:00Z",
    "config": {"Entrypoint": ["/bin/installer"], "Labels": {"a.b/version": "v1", "n": 7}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
}
Files = dict[str, bytes]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _archive(files: Files, links: dict[str, str] | None = None) -> BytesSource:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return BytesSource(buffer.getvalue())


def images_in(source: Source) -> ImageArchive:
    archive = image_archive_of(read_tar(source))
    assert archive is not None
    return archive


def _docker(config: Any = _CONFIG, **changes: Any) -> Files:
    entry = {"Config": "c.json", "RepoTags": ["x/installer:v1"], "Layers": ["0.tar.gz", "1/l.tar"]}
    entry |= changes
    files = {"c.json": _json(config), "0.tar.gz": _LAYERS[0], "1/l.tar": _LAYERS[1]}
    return {**files, "manifest.json": _json([entry])}


def _oci(*, config: bytes = _json(_CONFIG), nested: bool = False, **blobs: bytes) -> Files:
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def put(data: bytes, **more: Any) -> dict[str, Any]:
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return {"digest": _digest(data), "size": len(data), **more}

    layers = [put(layer) for layer in _LAYERS]
    manifest = _json({"schemaVersion": 2, "config": put(config), "layers": layers})
    named = {"annotations": {"org.opencontainers.image.ref.name": "v1"}}
    listed = put(manifest)
    if nested:
        absent = {"digest": "sha256:" + "0" * 64, "size": 1, "platform": {"architecture": "s390x"}}
        listed = put(_json({"manifests": [listed, absent]}))
    files["index.json"] = _json({"manifests": [listed | named]})
    return files | blobs


def _contents(image: ArchivedImage) -> list[bytes]:
    return [layer.source.read(0, layer.size_bytes) for layer in image.layers]


def test_a_docker_archive_says_names_labels_and_layers() -> None:
    archive = images_in(_archive(_docker()))
    assert archive.forms == ("docker",) and archive.missing == ()
    [image] = archive.images
    assert image.names == ("x/installer:v1",)
    assert (image.architecture, image.os, image.created) == (
        "arm64",
        "linux",
        "2026-01-01T00:00:00Z",
    )
    assert dict(image.labels) == {"a.b/version": "v1", "n": ""}
    assert image.entrypoint == ("/bin/installer",)
    assert json.loads(image.config) == _CONFIG and image.config_digest == _digest(image.config)
    assert image.manifest_digest == "" and _contents(image) == list(_LAYERS)
    layers = [(one.path, one.digest, one.diff_id) for one in image.layers]
    assert layers == [("0.tar.gz", "", "sha256:1"), ("1/l.tar", "", "sha256:2")]


@pytest.mark.parametrize("nested", [False, True])
def test_an_oci_layout_gives_digests_and_tells_what_it_lacks(nested: bool) -> None:
    files = _oci(nested=nested)
    archive = images_in(_archive(files))
    assert archive.forms == ("oci",)
    assert archive.missing == (("sha256:" + "0" * 64,) if nested else ())
    [image] = archive.images
    assert image.names == ("v1",) and _contents(image) == list(_LAYERS)
    assert [one.digest for one in image.layers] == [_digest(layer) for layer in _LAYERS]
    assert f"blobs/{image.manifest_digest.replace(':', '/')}" in files


def test_both_forms_over_the_same_blobs_are_one_image_with_its_full_name() -> None:
    config = f"blobs/sha256/{hashlib.sha256(_json(_CONFIG)).hexdigest()}"
    layers = [f"blobs/sha256/{hashlib.sha256(layer).hexdigest()}" for layer in _LAYERS]
    entry = {"Config": config, "RepoTags": ["x/installer:v1"], "Layers": layers}
    archive = images_in(_archive(_oci() | {"manifest.json": _json([entry])}))
    assert archive.forms == ("docker", "oci")
    [image] = archive.images
    assert image.names == ("x/installer:v1",) and image.manifest_digest.startswith("sha256:")


def test_skopeo_sees_the_same_image(tmp_path: Path) -> None:
    settings = {"Entrypoint": ["/bin/installer"], "Labels": {"a.b/version": "v1"}}
    source = _archive(_docker(config=_CONFIG | {"config": settings}))
    (tmp_path / "x.tar").write_bytes(source.read(0, source.size_bytes))
    argv = ["skopeo", "inspect", "--config", f"docker-archive:{tmp_path / 'x.tar'}"]
    shown = subprocess.run(argv, check=True, capture_output=True).stdout
    [image] = images_in(source).images
    assert json.loads(shown)["architecture"] == image.architecture
    assert json.loads(shown)["config"]["Entrypoint"] == list(image.entrypoint)
    assert json.loads(shown)["config"]["Labels"] == dict(image.labels)


def test_links_to_layers_are_followed_inside_of_the_archive() -> None:
    """What `docker save` wrote before version 25, for a layer that comes twice."""
    files = _docker(Layers=["0.tar.gz", "2/l.tar"])
    [image] = images_in(_archive(files, {"2/l.tar": "../1/l.tar"})).images
    assert _contents(image) == list(_LAYERS)


@pytest.mark.parametrize(
    "links",
    [{"2/l.tar": "../../etc/passwd"}, {"2/l.tar": "/etc/passwd"}, {"2/l.tar": "l.tar"}],
    ids=["out", "absolute", "loop"],
)
def test_links_that_lead_out_or_around_are_refused(links: dict[str, str]) -> None:
    files = _docker(Layers=["0.tar.gz", "2/l.tar"])
    with pytest.raises(FormatError, match=r"not hold 2/l\.tar|too many links"):
        images_in(_archive(files, links))


def test_an_archive_of_other_things_is_none() -> None:
    assert image_archive_of(read_tar(_archive({"a": b"x"}))) is None


def _swapped(files: Files, old: bytes, new: bytes) -> Files:
    """Put other content under the name of a blob."""
    return {name: new if content == old else content for name, content in files.items()}


def _many_absent() -> Files:
    """Indexes that list others, none of which is there."""
    files = _oci()
    indexes = []
    for number in range(8):
        absent = [{"digest": f"sha256:{number:032x}{one:032x}"} for one in range(200)]
        data = _json({"manifests": absent})
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        indexes.append({"digest": _digest(data)})
    return files | {"index.json": _json({"manifests": indexes})}


def _other_manifest() -> Files:
    files = _oci()
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    return files | {f"blobs/{digest.replace(':', '/')}": b'{"layers": [], "config": {}}'}


def _nested(depth: int) -> Files:
    files = _oci()
    for _ in range(depth):
        data = _json({"manifests": json.loads(files["index.json"])["manifests"]})
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        files["index.json"] = _json({"manifests": [{"digest": _digest(data)}]})
    return files


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (_docker() | {"manifest.json": b"{"}, "not JSON"),
        (_docker() | {"manifest.json": b"[" * 100_000}, "not JSON"),
        (_docker() | {"manifest.json": b"{}"}, "shape"),
        (_docker() | {"manifest.json": b"[1]"}, "shape"),
        (_docker() | {"manifest.json": b" " * (MAX_DOCUMENT_BYTES + 1)}, "too large"),
        (_docker(Config=7), "shape"),
        (_docker(Layers=[7]), "shape"),
        (_docker(Layers=["0.tar.gz"] * 300), "shape"),
        (_docker(Layers=["../x"]), "does not hold"),
        (_docker(config=[]), "shape"),
        (_swapped(_oci(), _json(_CONFIG), b"{}"), "does not have its digest"),
        (_other_manifest(), "does not have its digest"),
        (_oci(config=b"{"), "not JSON"),
        (_oci() | {"index.json": b"[]"}, "shape"),
        (_oci() | {"index.json": b'{"manifests": [{"digest": "sha256:../../x"}]}'}, "no SHA-256"),
        (_oci() | {"index.json": b'{"manifests": [{"digest": "md5:00"}]}'}, "no SHA-256"),
        (_nested(5), "too deep"),
        (_many_absent(), "more than 1024 documents"),
    ],
)
def test_broken_documents_are_refused(files: Files, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        images_in(_archive(files))


def test_an_image_without_its_layers_is_told_as_missing() -> None:
    files = {name: data for name, data in _oci().items() if data != _LAYERS[0]}
    archive = images_in(_archive(files))
    assert archive.images == () and archive.missing == (_digest(_LAYERS[0]),)


def test_odd_values_in_a_configuration_are_left_out() -> None:
    odd = {"architecture": 7, "config": {"Labels": [], "Entrypoint": "x"}, "rootfs": []}
    [image] = images_in(_archive(_docker(config=odd))).images
    assert (image.architecture, image.entrypoint, dict(image.labels)) == ("", (), {})
    assert [one.diff_id for one in image.layers] == ["", ""]


def test_an_appliance_names_its_disks_and_digests() -> None:
    manifest = b"SHA256(disk.ovf)= aa\nSHA256(disk.vmdk)= BB\nnothing\n"
    volume = read_tar(_archive({"disk.ovf": b"<x/>", "disk.mf": manifest, "disk.vmdk": b"KDMV"}))
    ova = ova_of(volume)
    assert ova is not None and ova.descriptor.path == "disk.ovf"
    assert [disk.path for disk in ova.disks] == ["disk.vmdk"]
    assert dict(ova.digests) == {"disk.ovf": "sha256:aa", "disk.vmdk": "sha256:bb"}
    assert ova_of(read_tar(_archive({"disk.vmdk": b"", "disk.ovf": b""}))) is None
    with pytest.raises(FormatError, match="bytes"):
        ova_of(read_tar(_archive({"x.ovf": b"", "x.mf": bytes(MAX_DOCUMENT_BYTES + 1)})))
