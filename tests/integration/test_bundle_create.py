"""Bundles of the lab's images: other tools read them, the same from anywhere, stopped by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.store.store import Store
from tests.labfolder import NEWEST, PREFIX, Lab, big_folder, run
from tests.program import SCHEMATICS, Program
from tests.realregistry import push_layout, running_registry
from tests.unit.deliver.bundle.nearside import NearSide

pytestmark = pytest.mark.lab

IMAGER = f"{PREFIX}/siderolabs/imager:{NEWEST}"
HELLO = f"{PREFIX}/siderolabs/hello-world-service:{NEWEST}"
SITE = ("--version", NEWEST, "--arch", "amd64", "--host-arch", "amd64")
COSIGN = ("verify", "--allow-insecure-registry", "--insecure-ignore-tlog=true", "--key")


@dataclass(frozen=True)
class Made:
    """A bundle of what ``demo.yaml`` needs, and the program that made it."""

    program: Program
    file: Path
    set_digest: str
    folder: Path


@pytest.fixture(scope="module")
def made(lab: Lab, programs: None) -> Iterator[Made]:
    with big_folder(lab, "create") as folder:
        program = Program(lab.config, folder / "store", folder / "out")
        file = folder / "site.tar"
        asked = ("--schematic", SCHEMATICS / "demo.yaml", *SITE, "-o", file)
        done = program("bundle", "create", *asked, "--json").expect(0).json
        yield Made(program, file, done["set"], folder)


def test_skopeo_takes_an_image_out_of_the_tar(made: Made) -> None:
    source = f"oci-archive:{made.file}:{IMAGER}"
    config = json.loads(run("skopeo", "inspect", "--override-arch", "amd64", "--config", source))
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    target = made.folder / "copied"
    run("skopeo", "copy", "--override-arch", "amd64", source, f"oci:{target}:x")
    entry = Layout.open(target).resolve("x")
    top = Store.open(made.program.store).layout.resolve(IMAGER)
    assert entry is not None and top is not None
    index = json.loads(Store.open(made.program.store).layout.blob_path(top.digest).read_bytes())
    children = {child["digest"] for child in index["manifests"]}
    assert str(entry.digest) in children
    shutil.rmtree(target)


def test_crane_and_cosign_read_the_unpacked_layout(lab: Lab, made: Made) -> None:
    """crane pushes the layout as it is; cosign then finds and accepts the signature there."""
    with big_folder(lab, "unpacked") as folder:
        both = ("--arch", "amd64", "--arch", "arm64", "--image", HELLO)
        made.program("bundle", "create", *both, "-o", folder / "hello.tar").expect(0)
        unpacked = folder / "layout"
        unpacked.mkdir()
        run("tar", "-xf", folder / "hello.tar", "-C", unpacked)
        layout = Layout.open(unpacked)
        digest = str(layout.resolve(HELLO).digest)  # type: ignore[union-attr]
        with running_registry(folder / "registry") as address:
            lab.crane("push", "--insecure", "--index", unpacked, f"{address}/all:v1")
            pushed = json.loads(lab.crane("manifest", "--insecure", f"{address}/all:v1"))
            assert digest in {entry["digest"] for entry in pushed["manifests"]}
            for entry in layout.entries():
                if entry.ref_name.startswith("local-imager/"):
                    layout.remove_ref(entry.ref_name)
            push_layout(layout, address)
            image = f"{address}/siderolabs/hello-world-service@{digest}"
            lab.cosign(*COSIGN, lab.root / "lab.pub", image)


def test_a_real_registry_and_a_layout_give_the_same_bytes(
    lab: Lab, made: Made, lab_registry: str
) -> None:
    with big_folder(lab, "same") as folder:
        other = Program(lab.config, folder / "store", folder / "out")
        # Met before for the other architecture, and in part.
        other("sources", "fetch", "--version", NEWEST, "--arch", "arm64").expect(0)
        file = folder / "other.tar"
        asked = ("--schematic", SCHEMATICS / "demo.yaml", *SITE, "-o", file)
        place = f"http://{lab_registry}"
        again = other("bundle", "create", *asked, "--from", place, "--json").expect(0).json
        assert again["set"] == made.set_digest
        run("cmp", file, made.file)
        # The same is success; the look ahead had said the same.
        look = other("bundle", "create", *asked, "--dry-run", "--json").expect(0).json
        assert (look["set"], look["size_bytes"]) == (made.set_digest, file.stat().st_size)
        other("bundle", "create", *asked).expect(0, "was there already, byte for byte")


def test_packed_files_repeat_and_are_plain_zstd(made: Made) -> None:
    asked = ("--image", f"{PREFIX}/siderolabs/installer-base:{NEWEST}", "--offline", "--zstd")
    digests = []
    for name in ("a.tar", "b.tar"):
        file = made.folder / f"{name}.zst"
        made.program("bundle", "create", *asked, "-o", made.folder / name).expect(0, file.name)
        digests.append(run("sha256sum", "-b", file).split()[0])
        run("zstd", "-tq", file)
        made.program("bundle", "verify", file).expect(0, "intact")
        file.unlink()
    assert digests[0] == digests[1]


@pytest.mark.engine
def test_finished_assets_travel_and_arrive(made: Made, engine: object, folder: Path) -> None:
    asset = "kernel-amd64"
    asked = ("--schematic", SCHEMATICS / "vanilla.yaml", *SITE, "--with-assets", asset)
    file = folder / "assets.tar"
    done = made.program("bundle", "create", *asked, "-o", file, "--json").expect(0).json
    assert done["assets"] == 1
    built = made.program("store", "ls", "--json").expect(0).json["assets"]
    far = Program(made.program.config, folder / "far", folder / "out")
    taken = ("bundle", "import", file, "--allow-unsigned-assets", "--report", folder / "report")
    far(*taken).expect(0)
    arrived = far("store", "ls", "--json").expect(0).json["assets"]
    wanted = [one for one in built if one["asset"] == asset]
    assert [one["digest"] for one in arrived] == [one["digest"] for one in wanted]
    far.fsck()


def test_ctrl_c_leaves_nothing() -> None:
    """Stopped while it writes, however fast that is: whole or nothing, and status 130."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="local-imager-test-") as name:
        near = NearSide(Path(name))
        image = near.image("site/noise", size_bytes=48 << 20)
        config = near.folder / "config.toml"
        config.write_text(
            f'[[trust]]\npattern = "upstream.test/**"\nkey = {json.dumps(near.signing.pem)}\n'
        )
        program = Program(config, near.store.path, near.folder / "out")
        file, growing = near.folder / "x.tar", near.folder / ".x.tar.part"
        asked = ("bundle", "create", "--image", image, "--arch", "amd64", "--offline", "-o", file)
        stopped = 0
        for _ in range(40):
            running = program.start(*asked)
            while running.process.poll() is None and not growing.exists():
                time.sleep(0.0005)
            running.signal(signal.SIGINT)
            outcome = running.wait()
            assert not growing.exists()
            assert (outcome.code, file.exists()) in ((130, False), (0, True))
            stopped += outcome.code == 130
            file.unlink(missing_ok=True)
            if stopped == 3:
                return
        raise AssertionError("the program was never stopped while it wrote")


def test_the_bundle_of_a_fresh_store_is_verified_as_it_is(made: Made) -> None:
    manifest = run("tar", "-xOf", made.file, "bundle.json").encode()
    assert str(Digest.of(manifest)) == made.set_digest
    assert os.stat(made.file).st_mode & 0o777 == 0o600  # demo.yaml has kernel arguments
    made.program("bundle", "verify", made.file).expect(0, "intact")
    made.program("bundle", "check", made.file).expect(0, "complete")
