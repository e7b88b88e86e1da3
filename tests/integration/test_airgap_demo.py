"""`make airgap-demo` shows what it promises and ends well; what it makes goes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest

from lab.airgap_demo import FOLDER, PART
from lab.airgap_sides import containers_started
from tests.labfolder import NEWEST, OLDEST, Lab
from tests.program import ROOT

pytestmark = pytest.mark.lab
# The smallest asset: the way of the bundles is the same for all.
ASSET = "cmdline-metal-amd64"


def start(lab: Lab, reports: Path, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab.airgap_demo", "--asset", ASSET, "--reports", str(reports)],
        cwd=ROOT,
        env={**os.environ, "LOCAL_IMAGER_LAB": str(lab.root), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.engine
def test_the_demo_shows_all_of_it(
    lab: Lab, engine: docker.DockerClient, lab_registry: str, tmp_path: Path
) -> None:
    before = (lab.upstream / "index.json").read_bytes()
    began_s = time.time()
    process = start(lab, tmp_path / "reports")
    said, problem = process.communicate()
    assert process.returncode == 0, said + problem
    assert said.count("-> exit status 3") == 1 and "DAMAGED" in said
    assert "waits" in said and "To come: parts 1, 2 of 3." in said
    assert said.count(f"complete  {ASSET}") == 2
    assert f"Its media hold {PART}" in said
    for version in (OLDEST, NEWEST):
        assert f"{version} in one file" in said
    assert "out that the far side has, by its inventory" in said
    assert said.count("  build record") == 2
    started, networks = containers_started(began_s, time.time())
    assert started >= 2 and networks == []
    assert {path.suffix for path in (tmp_path / "reports").iterdir()} == {".json", ".html"}
    assert list((lab.root / FOLDER).iterdir()) == []
    assert (lab.upstream / "index.json").read_bytes() == before


def test_a_demo_that_is_stopped_leaves_nothing(lab: Lab, lab_registry: str, tmp_path: Path) -> None:
    process = start(lab, tmp_path / "reports")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("near$ ") and "--split" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    said, problem = process.communicate(timeout=60)
    assert process.returncode == 130, said + problem
    assert "airgap-demo: interrupted" in problem and "Traceback" not in problem
    assert list((lab.root / FOLDER).iterdir()) == []


def test_without_a_registry_it_says_how_to_start_it(lab: Lab, tmp_path: Path) -> None:
    process = start(lab, tmp_path, LAB_REGISTRY="")
    _, problem = process.communicate()
    assert process.returncode == 1 and "make airgap-demo" in problem
