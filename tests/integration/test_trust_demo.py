"""`make trust-demo` shows what it promises and ends well; a wrong answer ends it with status 1."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from lab.console import LabError
from lab.keyless import IDENTITY
from lab.oci import Layout
from lab.place import find_place
from lab.trust_demo import FETCH, IMAGE, REFUSED, STRANGER, Isolated, Scene, expect_nothing_kept
from tests.labfolder import Lab
from tests.program import ROOT

pytestmark = pytest.mark.lab


def state_of(lab: Lab) -> tuple[bytes, list[str]]:
    """Return what the lab's layout names, and the digests of the imager's layers as they lie."""
    layout = Layout.open(lab.upstream)
    child = layout.read(layout.named()[IMAGE])["manifests"][0]
    layers = [layout.blob_path(one["digest"]).read_bytes() for one in layout.blobs_of(child)]
    names = (lab.upstream / "index.json").read_bytes()
    return names, [hashlib.sha256(layer).hexdigest() for layer in layers]


@pytest.mark.engine
def test_the_demo_shows_all_of_it(lab: Lab, engine: docker.DockerClient) -> None:
    before = state_of(lab)
    done = subprocess.run(
        [sys.executable, "-m", "lab.trust_demo"],
        cwd=ROOT,
        env={**os.environ, "LOCAL_IMAGER_LAB": str(lab.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("-> exit status 3") == len(REFUSED) == 4
    for phrase in ("metal-amd64-uki.efi", "trusted root (file)", STRANGER, IDENTITY, "rolled back"):
        assert phrase in done.stdout
    assert '"accepted_by"' in done.stdout
    assert state_of(lab) == before


def test_an_image_that_is_accepted_fails_the_demo(lab: Lab, folder: Path) -> None:
    sound = Scene.make(find_place(), folder)
    program = sound.program()
    with pytest.raises(LabError, match="expected status 3"):
        expect_nothing_kept(program, "")
    assert program.holds() == sound.layout.named()[IMAGE]["digest"]


def test_a_refusal_for_another_reason_fails_the_demo(lab: Lab, folder: Path) -> None:
    scene = Scene.make(find_place(), folder)
    scene.drop_signature()
    program: Isolated = scene.program()
    with pytest.raises(LabError, match="rolled back"):
        program.refused("rolled back", *FETCH)
