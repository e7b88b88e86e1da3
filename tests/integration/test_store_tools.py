"""Other OCI tools read the store: skopeo, umoci, crane; and load what we hand to engines."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lab.generated_store import fill, record_of
from local_imager.oci.archive import stream_archive
from local_imager.oci.indexlines import ANNOTATION_LINES
from local_imager.store.fsck import check
from local_imager.store.records import StoredAsset
from local_imager.store.store import Store
from tests.images import IMAGE, REGISTRY, SINGLE, Sample, make_sample
from tests.realregistry import running_registry
from tests.unit.store.test_gc import copy_sample
from tests.unit.store.test_store import put


@pytest.fixture(autouse=True)
def tools(programs: None) -> None:
    """Debian's skopeo and umoci."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    copy_sample(store, tmp_path)
    return store


@pytest.fixture
def asset(store: Store) -> StoredAsset:
    asset = put(store, b"x" * 5000)
    store.add_referrer(asset, "application/x-record", b"{}", "application/json")
    return asset


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return make_sample(tmp_path / "again")


def run(*arguments: str | Path) -> str:
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_inspects_assets_and_images(store: Store, asset: StoredAsset) -> None:
    manifest = json.loads(run("skopeo", "inspect", "--raw", f"oci:{store.path}:{asset.name}"))
    assert manifest["layers"][0]["digest"] == str(asset.digest)
    config = json.loads(run("skopeo", "inspect", "--config", f"oci:{store.path}:{IMAGE}"))
    assert config["architecture"] in ("amd64", "arm64")


def test_skopeo_copies_an_image_with_all_platforms(
    store: Store, sample: Sample, tmp_path: Path
) -> None:
    target = tmp_path / "copied"
    run("skopeo", "copy", "--all", f"oci:{store.path}:{IMAGE}", f"oci:{target}:x")
    assert (target / "blobs/sha256" / sample.index.digest.hex).is_file()


def test_umoci_lists_and_unpacks(store: Store, asset: StoredAsset, tmp_path: Path) -> None:
    names = run("umoci", "list", "--layout", store.path).splitlines()
    assert str(IMAGE) in names and asset.name in names
    single = f"{REGISTRY}/siderolabs/single:v1.0.0"
    run("umoci", "raw", "unpack", "--rootless", "--image", f"{store.path}:{single}", tmp_path / "r")
    assert (tmp_path / "r" / "single").read_bytes() == b"1"


def test_a_large_index_is_read_and_rewritten_by_others(sample: Sample, tmp_path: Path) -> None:
    """The mark of its lines means nothing to them, and is not believed after they wrote."""
    store = Store.open(tmp_path / "large")
    fill(store, 150)
    index = store.path / "index.json"
    assert ANNOTATION_LINES in index.read_text()
    names = run("umoci", "list", "--layout", store.path).splitlines()
    assert record_of(149).name in names and len(names) == 300
    name = record_of(77).name
    shown = json.loads(run("skopeo", "inspect", "--raw", f"oci:{store.path}:{name}"))
    assert shown["layers"][0]["size"] == len(b"file 77")
    run("skopeo", "copy", f"oci:{sample.path}:{SINGLE}", f"oci:{store.path}:copied/by:skopeo")
    assert b"\n" not in index.read_bytes().strip()
    again = Store.open(store.path)
    assert len(again.assets()) == 150 and again.layout.resolve("copied/by:skopeo") is not None
    found = again.find_build(record_of(77).build_key)
    assert found is not None and found.name == name
    new = put(again, b"new")
    assert index.read_bytes().count(b"\n") > 300
    assert Store.open(store.path).show(new.digest.hex) == new
    assert check(again).clean


@pytest.mark.lab
def test_crane_pushes_the_store(store: Store, sample: Sample, tmp_path: Path) -> None:
    lab = Path(os.environ.get("LOCAL_IMAGER_LAB") or Path.home() / ".cache/local-imager-lab")
    with running_registry(tmp_path / "registry") as address:
        target = f"{address}/all:v1"
        run(lab / "bin/crane", "push", "--insecure", "--index", store.path, target)
        pushed = json.loads(run(lab / "bin/crane", "manifest", "--insecure", target))
    assert str(sample.index.digest) in {entry["digest"] for entry in pushed["manifests"]}


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_the_archive_for_engines_is_read_in_both_forms(
    store: Store, sample: Sample, tmp_path: Path, transport: str
) -> None:
    archive = tmp_path / "image.tar"
    with archive.open("wb") as stream:
        for chunk in stream_archive(store.layout, sample.index.digest, "arm64", "lab/image:v1"):
            stream.write(chunk)
    source = f"{transport}:{archive}"
    config = json.loads(run("skopeo", "inspect", "--config", source))
    assert config["architecture"] == "arm64"
    run("skopeo", "copy", source, f"oci:{tmp_path / 'copied'}:x")
