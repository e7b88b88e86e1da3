"""What a user may write for a side, and what is said of what fits nothing."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.compare.address import FactoryAsset
from local_imager.deliver.compare.sides import SideContext, open_side
from local_imager.errors import InputError, NotFound, SchematicError, StoreError
from local_imager.oci.model import Reference
from local_imager.settings import Settings
from local_imager.store.foreign import foreign_files
from local_imager.store.fsck import check
from local_imager.store.store import Store
from tests.factoryserver import FactoryServer, factory_server
from tests.images import IMAGE, make_sample
from tests.unit.store.test_store import put

ID = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def server() -> Iterator[FactoryServer]:
    with factory_server() as running:
        running.serve(ID, "v1.13.0", {"metal-amd64.iso": b"an iso"})
        yield running


@pytest.fixture
def context(store: Store, server: FactoryServer) -> SideContext:
    settings = Settings(store=store.path, factory_url=server.url)
    return SideContext(settings, lambda: store, sleep=lambda _: None)


def closed(context: SideContext) -> SideContext:
    """The same context, in which opening the store fails the test."""

    def fail() -> Store:
        raise AssertionError("nobody needs the store")

    return SideContext(context.settings, fail)


def test_a_path_needs_no_store(context: SideContext, tmp_path: Path) -> None:
    path = tmp_path / "metal-amd64.iso"
    path.write_bytes(b"mine")
    side = open_side(str(path), closed(context))
    assert (side.kind, side.name, side.path, side.trust) == ("file", path.name, path, "")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert open_side(str(link), closed(context)).path.read_bytes() == b"mine"


def test_what_is_there_and_no_file_is_told(context: SideContext, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory") as caught:
        open_side(str(tmp_path), closed(context))
    assert "--against" in caught.value.hint
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        open_side(str(tmp_path / "pipe"), closed(context))
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="No such file"):
        open_side(str(tmp_path / "dead"), closed(context))


def test_an_asset_is_found_as_store_show_names_it(context: SideContext, store: Store) -> None:
    asset = put(store)
    short = f"{asset.schematic_id[:8]}/{asset.version}/{asset.asset}"
    for text in (asset.name, short, f"store:{short}", str(asset.digest), asset.digest.hex[:9]):
        side = open_side(text, context)
        assert (side.kind, side.path, side.stored) == ("asset", asset.path, asset)


def test_an_asset_that_somebody_wrote_into_is_refused(context: SideContext, store: Store) -> None:
    asset = put(store)
    asset.path.chmod(0o600)
    asset.path.write_bytes(bytes(asset.size_bytes))
    with pytest.raises(StoreError, match="any more") as caught:
        open_side(asset.name, context)
    assert "fsck --repair" in caught.value.hint


def test_store_means_the_store_alone(
    context: SideContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"1")
    assert open_side("file", context).kind == "file"
    with pytest.raises(InputError, match="no asset"):
        open_side("store:file", context)


def test_a_file_of_a_factory_is_fetched_and_found_again(
    context: SideContext, server: FactoryServer, store: Store
) -> None:
    side = open_side(f"factory:{ID}/v1.13.0/metal-amd64.iso", context)
    assert (side.kind, side.name) == ("factory", "metal-amd64.iso")
    assert side.path.read_bytes() == b"an iso"
    assert side.trust.startswith("unverified")
    (held,) = foreign_files(store.layout)
    assert held.place == f"{server.address}/{ID}/v1.13.0/metal-amd64.iso"
    for text in (held.name, held.place, held.short, held.digest.hex[:8]):
        again = open_side(text, context)
        assert (again.kind, again.path, again.origin) == ("foreign", side.path, side.origin)
    assert len(server.requests) == 1


def test_a_schematic_file_stands_for_its_id(context: SideContext, tmp_path: Path) -> None:
    path = tmp_path / "vanilla.yaml"
    path.write_text("customization: {}\n")
    assert open_side(f"factory:{path}/v1.13.0/metal-amd64.iso", context).kind == "factory"
    path.write_text("custom: {}\n")
    with pytest.raises(SchematicError):
        open_side(f"factory:{path}/v1.13.0/metal-amd64.iso", context)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("factory:", ("names no file of a factory", "SCHEMATIC_ID/VERSION/ASSET")),
        ("factory:metal-amd64.iso", ("names no file of a factory",)),
        (f"factory:{ID}/v1.13/metal-amd64.iso", ("not a Talos version", "v1.13.0")),
        (f"factory:{ID}/v1.13.0/metal-amd46.iso", ("not an asset name", "metal-amd64.iso")),
        (f"factory:{ID[:12]}/v1.13.0/metal-amd64.iso", ("neither", "all 64 digits")),
        ("factory:nowhere.yaml/v1.13.0/metal-amd64.iso", ("neither", "the schematic's file")),
        ("no/such/file.iso", ("no file, no asset", "give a file")),
        ("ghcr.io/siderolabs/installer", ("no file, no asset", "tag or digest")),
        (
            f"https://f.example/sub/image/{ID}/v1.13.0/kernel-amd64",
            ("web address", f"factory:{ID}/v1.13.0/kernel-amd64 --factory https://f.example/sub"),
        ),
        ("", ("no file, no asset",)),
        ("a\0b", ("no file, no asset",)),
    ],
)
def test_what_fits_nothing(context: SideContext, text: str, phrases: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        open_side(text, context)
    told = f"{caught.value.message} {caught.value.hint}"
    assert all(phrase in told for phrase in phrases), told


def test_near_names_are_offered(context: SideContext, store: Store, tmp_path: Path) -> None:
    (tmp_path / "metal-amd64.iso").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_side(str(tmp_path / "metal-amd46.iso"), context)
    assert caught.value.hint == f"did you mean {tmp_path}/metal-amd64.iso?"
    asset = put(store)
    with pytest.raises(InputError) as caught:
        open_side(f"store:{asset.asset}", context)
    assert f"{asset.schematic_id[:12]}/{asset.version}/{asset.asset}" in caught.value.hint


def test_a_host_that_is_a_folder_is_no_registry(
    context: SideContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.files").mkdir()
    with pytest.raises(InputError, match="no file, no asset"):
        open_side("my.files/installer:v1", context)


@pytest.fixture
def images(context: SideContext, tmp_path: Path) -> SideContext:
    """A context whose settings read the sample images from a layout, and trust nobody."""
    sample = make_sample(tmp_path / "sample")
    settings = replace(context.settings, source=str(sample.path), registry=IMAGE.registry, trust=())
    return replace(context, settings=settings, arch="arm64")


def test_an_image_becomes_an_archive_of_one_architecture(images: SideContext, store: Store) -> None:
    side = open_side(str(IMAGE), images)
    assert (side.kind, side.name) == ("image", "imager-arm64.tar")
    assert side.trust.startswith("unverified: ")
    with tarfile.open(side.path) as archive:
        names = archive.getnames()
        assert {"index.json", "manifest.json", "oci-layout"} <= set(names)
    again = open_side(str(IMAGE), images)
    assert again.path == side.path
    assert open_side(str(IMAGE), replace(images, offline=True)).path == side.path
    other = open_side(str(IMAGE), replace(images, arch="amd64"))
    assert (other.name, other.path != side.path) == ("imager-amd64.tar", True)
    assert store.images() == ()
    assert check(store).clean


def test_images_that_are_not_there(images: SideContext) -> None:
    with pytest.raises(NotFound):
        open_side(str(IMAGE.with_tag("v0.0.1")), images)
    with pytest.raises(NotFound, match="offline"):
        open_side(str(IMAGE), replace(images, offline=True))
    with pytest.raises(NotFound, match=r"no image for linux/riscv64") as caught:
        open_side(str(IMAGE), replace(images, arch="riscv64"))
    assert "amd64, arm64" in caught.value.hint


def test_the_address_of_a_factory_file() -> None:
    wanted = FactoryAsset.parse(f"factory:{ID}/v1.13.0/kernel-x86_64")
    assert wanted.url("https://f.example") == f"https://f.example/image/{ID}/v1.13.0/kernel-x86_64"
    assert Reference.parse("f.example/a:b")  # so a foreign name never reads as a reference:
    with pytest.raises(InputError):
        Reference.parse(f"local-imager/foreign/f.example/{ID}/v1.13.0/kernel-amd64")
