"""What real engines do with a request: confinement as seen from inside, and equal bytes on all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local_imager.build.assemble import AssetJob, BuildOptions, build_assets
from local_imager.build.failure import require_success
from local_imager.build.places import BindPlaces, VolumePlaces
from local_imager.build.request import GIB, MIB, ImagerFailed, ImagerRequest, Limits
from local_imager.build.runner import DockerRunner
from local_imager.events import RecordingSink, StepStarted
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.sparse import hash_file
from local_imager.profile.model import BaseFile, BuildPlan, Profile, Requirement
from local_imager.profile.version import TalosVersion
from local_imager.settings import load_settings
from local_imager.sources.trust_entries import policy_from_settings
from local_imager.sources.upstream import Sources
from local_imager.store.store import Store
from tests.labfolder import NEWEST, PREFIX, Lab, big_folder

pytestmark = [pytest.mark.lab, pytest.mark.engine]

ENGINES = {"docker": "DOCKER_HOST", "remote": "LAB_REMOTE_ENGINE", "podman": "LAB_PODMAN"}
BUILDER = Requirement("builder", "siderolabs/imager", NEWEST)
BASE = Requirement("base", "siderolabs/imager", NEWEST, arch="amd64")


@dataclass
class Place:
    """One engine with the lab's newest builder, and what it was asked to build."""

    name: str
    runner: DockerRunner
    sources: Sources
    layout: Layout
    folder: Path
    sink: RecordingSink = field(default_factory=RecordingSink)

    @property
    def builder_id(self) -> str:
        image = self.sources.obtain(BUILDER)
        return self.runner.load(image, self.layout, None, self.sink)

    def inside(self, script: str, **limits: Any) -> str:
        """Run a shell script as a build would be run; returns what it wrote to its output."""
        request = ImagerRequest(
            subject="inside",
            image_id=self.builder_id,
            command=("/bin/sh", "-c", f"({script}) > /out/files/made 2>&1"),
            outputs=frozenset({"made"}),
            output_dir=self.folder / "inside" / os.urandom(4).hex(),
            limits=Limits(**{"memory_bytes": GIB, "scratch_bytes": 64 * MIB, **limits}),
        )
        result = self.runner.run(request, self.sink, threading.Event())
        require_success(request, result, self.runner.info())
        return (request.output_dir / "made").read_text()

    def digests(self, *plans: BuildPlan, **options: Any) -> dict[str, str]:
        """Build and return the digest of each asset."""
        images = {item: self.sources.obtain(item) for item in (BUILDER, BASE)}
        workspace = self.folder / "work"
        workspace.mkdir(mode=0o700, exist_ok=True)
        built = build_assets(
            [AssetJob(plan, images) for plan in plans],
            runner=self.runner,
            layout=self.layout,
            boot_files=self.sources.boot_files,
            key_dir=None,
            workspace=workspace,
            options=BuildOptions(jobs=2, **options),
            sink=self.sink,
            cancel=threading.Event(),
        )
        return {item.asset: str(hash_file(item.path)[0]) for item in built}


@pytest.fixture(scope="module")
def stored(lab: Lab) -> Iterator[tuple[Sources, Layout]]:
    """The lab's images over a store of this module, through the gate."""
    settings = load_settings(config=lab.config, environment={})
    policy = policy_from_settings(settings.trust)
    with big_folder(lab, "engines") as folder:
        store = Store.open(folder / "store")
        upstream = LayoutSource.open(lab.upstream)
        yield Sources(store, PREFIX, upstream, policy, RecordingSink()), store.layout


@pytest.fixture(scope="module", params=ENGINES)
def place(
    request: pytest.FixtureRequest, stored: tuple[Sources, Layout], lab: Lab
) -> Iterator[Place]:
    host = os.environ.get(ENGINES[request.param], "")
    if not host and request.param != "docker":
        message = f"{ENGINES[request.param]} names no engine: run the tests with `make test`"
        pytest.fail(message, pytrace=False)
    runner = DockerRunner(host)
    with big_folder(lab, request.param) as folder:
        yield Place(request.param, runner, *stored, folder)
        left = runner._engine.owned("io.local-imager.owner-process")
        own = [item for item in left if f"{os.getpid()}." in str(item.labels)]
        runner.close()
    assert not own


def plan(kind: str, asset: str, **output: Any) -> BuildPlan:
    """A plan without extensions: its bytes do not depend on the time of the run."""
    names = ("vmlinuz", "initramfs.xz", "systemd-stub.efi", "systemd-boot.efi")
    kernel, initramfs, stub, boot = ({"path": BaseFile("amd64", name)} for name in names)
    document = {
        "arch": "amd64",
        "platform": "metal",
        "secureboot": False,
        "version": NEWEST,
        "customization": {"extraKernelArgs": ["engine.marker=1"]},
        "input": {"kernel": kernel, "initramfs": initramfs, "sdStub": stub, "sdBoot": boot},
        "output": {"kind": kind, "outFormat": "raw", **output},
    }
    version = TalosVersion.parse(NEWEST)
    form = output.get("imageOptions", {}).get("diskFormat")
    written = f"{asset.partition('.')[0]}.{form}" if form else asset
    return BuildPlan(
        "ab" * 32, version, asset, Profile(document), (BUILDER, BASE), version, True, written
    )


def disk(asset: str, form: str, packing: str = "raw") -> BuildPlan:
    # One boot loader makes the disk half as large: both would need partitions of their own.
    options = {"diskFormat": form, "diskSize": 1306525696, "bootloader": "sd-boot"}
    return plan("image", asset, imageOptions=options, outFormat=packing)


def test_a_build_has_no_rights(place: Place) -> None:
    lines = place.inside("cat /proc/self/status").splitlines()
    status = {name: value for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Uid"].split()[0] == "65532" if os.geteuid() == 0 else str(os.geteuid())
    assert status["Seccomp"].strip() == "2"


def test_a_build_has_no_network(place: Place) -> None:
    lines = place.inside("cat /proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_a_build_writes_only_where_it_may(place: Place) -> None:
    tried = place.inside(
        "for place in / /usr /etc /in /bin /var /dev/shm/../; do"
        " touch $place/x 2>/dev/null && echo wrote $place; done;"
        " touch /tmp/x && echo wrote /tmp; touch /out/files/x && rm /out/files/x && echo wrote out"
    )
    assert tried.split("\n")[:-1] == ["wrote /tmp", "wrote out"]


def test_temporary_files_may_be_executed(place: Place) -> None:
    script = "cp /bin/true /tmp/installer && /tmp/installer && echo it ran"
    assert place.inside(script) == "it ran\n"


def test_temporary_files_can_lie_on_disk(place: Place) -> None:
    script = 'echo $TMPDIR; head -c 100M /dev/zero > "$TMPDIR/large" && wc -c < "$TMPDIR/large"'
    assert place.inside(script, scratch_bytes=0, memory_bytes=256 * MIB) == "/out/tmp\n104857600\n"


def test_processes_are_limited(place: Place) -> None:
    script = (
        "for i in $(seq 60); do sleep 2 & done 2>&1 | grep -ci 'cannot fork\\|temporarily'; true"
    )
    assert int(place.inside(script, pids=20).split()[0]) >= 1


def test_too_little_memory_is_explained(place: Place) -> None:
    with pytest.raises(ImagerFailed) as caught:
        place.inside("head -c 300M /dev/zero > /tmp/x", memory_bytes=64 * MIB, scratch_bytes=GIB)
    assert caught.value.code in ("out-of-memory", "imager-failed")
    assert "137" in caught.value.message or "memory" in caught.value.message


def test_an_image_is_sent_once_and_run_by_its_digest(place: Place) -> None:
    identifier = place.builder_id
    place.sink.events.clear()
    assert place.builder_id == identifier
    assert not [event for event in place.sink.events if isinstance(event, StepStarted)]
    assert identifier.startswith("sha256:")


def test_files_go_the_way_that_the_engine_allows(place: Place) -> None:
    place.inside("echo it ran")
    assert isinstance(place.runner._places, VolumePlaces if place.name == "remote" else BindPlaces)


# Filled by the first engine; all later ones must make the same bytes.
_seen: dict[str, str] = {}


def test_every_engine_makes_the_same_bytes(place: Place) -> None:
    made = place.digests(
        plan("uki", "metal-amd64-uki.efi"),
        plan("iso", "metal-amd64.iso"),
        disk("metal-amd64.raw.zst", "raw", ".zst"),
        disk("metal-amd64.qcow2", "qcow2"),
        disk("metal-amd64.vhd", "vhd"),
        disk("metal-amd64.ova", "ova"),
    )
    for asset, digest in made.items():
        assert _seen.setdefault(asset, digest) == digest, asset
    assert len(made) == 6


def test_a_build_without_memory_for_temporary_files(place: Place) -> None:
    asset = plan("uki", "metal-amd64-uki.efi")
    made = place.digests(asset, memory_bytes=512 * MIB)
    assert _seen.setdefault(asset.asset, made[asset.asset]) == made[asset.asset]
