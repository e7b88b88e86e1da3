"""An imager that is signed and yet fails, hangs or leaves things that nobody asked for."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from tests.integration.containers import containers_of
from tests.integration.looking import initramfs_files
from tests.integration.upstreams import fake_upstream, settings_file
from tests.labfolder import NEWEST, PREFIX
from tests.program import SCHEMATICS, Outcome, Program
from tests.unit.sources.forge import Signing

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SECRET = "xK9-fake-imager-secret-Qz7"
# behaviour: (exit code, phrases)
BEHAVIOURS = {
    "fail": (1, ("status 3", "it is broken beyond repair", "docker run")),
    "hang": (1, ("did not end within 3 s", "waiting for nothing")),
    "link": (1, ("symbolic link", "nothing is kept")),
    "other": (1, ("metal-amd64.iso", "nothing is kept")),
    "folder": (1, ("not a regular file",)),
    "pipe": (1, ("not a regular file",)),
    "empty": (1, ("empty",)),
    "nothing": (1, ("did not write cmdline-metal-amd64",)),
    "escape": (1, ("status 4", "bell")),
    "shout": (1, ("status 5", "shouting")),
}


@pytest.fixture(scope="module")
def fake(warm: Program, session_folder: Path) -> Program:
    """The program with a fake imager as its upstream."""
    (built,) = warm.build(SCHEMATICS / "vanilla.yaml", "initramfs-amd64.xz", version=NEWEST)
    busybox = initramfs_files(Path(built["path"]).read_bytes())["bin/busybox"]
    folder, key = session_folder / "fake", Signing()
    folder.mkdir()
    upstream = fake_upstream(folder, busybox, key)
    config = settings_file(folder, upstream, key, PREFIX)
    return Program(config, folder / "store", folder / "out")


def build(fake: Program, folder: Path, behaviour: str, *flags: str) -> tuple[int, Outcome]:
    schematic = folder / "schematic.yaml"
    schematic.write_text(f"customization: {{extraKernelArgs: [behave={behaviour}, key={SECRET}]}}")
    order = (schematic, "cmdline-metal-amd64", "--version", NEWEST, "--out", folder / "out")
    call = fake.start("build", *order, *flags)
    return call.process.pid, call.wait(60)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_an_imager_that_misbehaves(
    fake: Program, folder: Path, engine: docker.DockerClient, behaviour: str
) -> None:
    code, phrases = BEHAVIOURS[behaviour]
    pid, ended = build(fake, folder, behaviour, "--timeout", "3" if behaviour == "hang" else "60")
    ended.expect(code, *phrases)
    assert not containers_of(engine, pid)
    assert not (folder / "out").exists() or not list((folder / "out").rglob("cmdline*"))
    assert SECRET not in ended.stdout + ended.stderr
    assert "\x1b[31mcolour" not in ended.stderr and "\x07" not in ended.stderr
    assert len(ended.stderr) < 100_000
    assert not fake("store", "ls", "--json").expect(0).json["assets"]
    fake.fsck()


def test_an_imager_that_prints_its_profile_tells_no_secrets(fake: Program, folder: Path) -> None:
    schematic = folder / "well.yaml"
    schematic.write_text(
        f"customization: {{embeddedMachineConfiguration: 'token: {SECRET}', "
        f"extraKernelArgs: [behave=well]}}"
    )
    order = ("build", schematic, "cmdline-metal-amd64", "--version", NEWEST)
    options = ("--out", folder / "out", "--rebuild")
    for progress in ("plain", "json"):
        ended = fake("-v", "--progress", progress, *order, *options)
        ended.expect(0, "cmdline-metal-amd64")
        assert SECRET not in ended.stdout + ended.stderr
