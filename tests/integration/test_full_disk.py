"""Full disks and folders that cannot be written, on real file systems of a few megabytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.containers import containers_of, wait_until
from tests.labfolder import OLDEST, Lab, run
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

VANILLA = SCHEMATICS / "vanilla.yaml"
Mount = Callable[[str], Path]


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Mount]:
    """Makes file systems of a few megabytes (mount options as text); unmounted at the end."""
    if os.geteuid() != 0:
        pytest.fail("these tests mount small file systems: run them as root", pytrace=False)
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        point = folder / f"disk-{len(mounted)}"
        point.mkdir()
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", point)
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_the_disk_is_full_while_images_are_fetched(
    lab: Lab, folder: Path, small_disk: Mount
) -> None:
    disk = small_disk("size=60m")
    program = Program(lab.config, disk / "store", folder / "out")
    order = ("build", VANILLA, "cmdline-metal-amd64", "--version", OLDEST, "--out", program.out)
    program(*order).expect(5, "space")
    program.fsck()
    run("mount", "-o", "remount,size=1500m", disk)
    program(*order).expect(0)
    program.fsck()


def test_too_little_space_is_seen_before_the_build(
    seed: Program, folder: Path, small_disk: Mount
) -> None:
    store = seeded_copy(seed, small_disk("size=700m"))
    program = Program(seed.config, store, folder / "out")
    order = ("nocloud-amd64.raw.zst", "--version", OLDEST, "--out", program.out)
    refused = program("build", VANILLA, *order).expect(5, "space", "free")
    assert refused.duration_s < 10
    program.fsck()


def seeded_copy(seed: Program, disk: Path) -> Path:
    """Return a store on another file system with the images of the seed."""
    run("cp", "-r", seed.store, disk / "store")
    run("rm", "-rf", disk / "store" / "locks", disk / "store" / "work")
    return disk / "store"


def test_the_disk_fills_up_under_the_running_imager(
    seed: Program, folder: Path, small_disk: Mount, engine: docker.DockerClient
) -> None:
    disk = small_disk("size=12g")
    program = Program(seed.config, seeded_copy(seed, disk), folder / "out")
    order = ("nocloud-amd64.raw.zst", "--version", OLDEST, "--out", program.out)
    call = program.start("build", VANILLA, *order)
    wait_until(
        lambda: bool(containers_of(engine, call.process.pid, running=True)), "the imager's start"
    )
    used = int(run("df", "--output=used", "-k", disk).split()[-1])
    run("mount", "-o", f"remount,size={used + 20_000}k", disk)
    ended = call.wait()
    ended.expect(5, "space")
    assert not containers_of(engine, call.process.pid)
    program.fsck()
    assert not list(program.out.rglob("*.zst*"))


def test_the_disk_is_full_while_a_file_is_exported(own: Program, small_disk: Mount) -> None:
    disk = small_disk("size=8m")
    program = Program(own.config, own.store, disk)
    order = ("kernel-amd64", "--version", OLDEST, "--out", disk)
    program("build", VANILLA, *order).expect(5, "could not export", "space", "the disk is full")
    assert not [path for path in disk.rglob("*") if path.is_file()]
    program.fsck()


@pytest.mark.parametrize("kind", ["read-only", "a file"])
def test_an_output_folder_that_cannot_be_written(
    own: Program, folder: Path, small_disk: Mount, kind: str
) -> None:
    out = small_disk("ro") / "out" if kind == "read-only" else folder / "file"
    if kind == "a file":
        out.write_text("in the way")
    order = ("kernel-amd64", "--version", OLDEST, "--out", out)
    ended = own("build", VANILLA, *order)
    if kind == "read-only":
        ended.expect(5, "read-only", str(out))
    else:
        ended.expect(ended.code, "not a directory", str(out))
        assert ended.code in (1, 2)
    own.fsck()


def test_a_store_that_cannot_be_written(seed: Program, folder: Path, small_disk: Mount) -> None:
    disk = small_disk("size=2g")
    program = Program(seed.config, seeded_copy(seed, disk), folder / "out")
    run("mount", "-o", "remount,ro", disk)
    ended = program("build", VANILLA, "kernel-amd64", "--version", OLDEST, "--out", program.out)
    ended.expect(5, "read-only")
