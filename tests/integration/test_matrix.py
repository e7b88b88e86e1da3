"""`build --matrix` with the real engine: one summary, held to a lock, and stopped by the user."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import docker
import pytest

from tests.integration.containers import containers_of, volumes_of, wait_until
from tests.labfolder import NEWEST, OLDEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]


def write(folder: Path, **more: object) -> Path:
    """Write a matrix of small assets; JSON is YAML."""
    document = {
        "schematics": [str(SCHEMATICS / f"{name}.yaml") for name in ("vanilla", "extensions")],
        "versions": [NEWEST],
        "arches": ["amd64"],
        "assets": ["kernel-ARCH", "metal-ARCH-uki.efi", "cmdline-metal-ARCH"],
        **more,
    }
    path = folder / "matrix.yaml"
    path.write_text(json.dumps(document, indent=1))
    return path


def test_a_matrix_is_built_told_and_found_again(warm: Program, folder: Path) -> None:
    bad = {"schematic": str(SCHEMATICS / "vanilla.yaml"), "version": "v1.2.99"}
    matrix = write(folder, include=[{**bad, "assets": ["kernel-amd64"]}])
    out = folder / "out"
    told = warm("build", "--matrix", matrix, "--out", out, "--json", "--timings", "--jobs", "2")
    document = told.expect(2).json
    cells = document["cells"]
    assert [cell["outcome"] == "failed" for cell in cells] == [False] * 6 + [True]
    assert cells[-1]["error"]["code"] == "unknown-version" and document["exit_code"] == 2
    for cell in cells[:6]:
        assert Path(cell["path"]).stat().st_size == cell["size_bytes"]
        assert cell["schematic_id"][:12] in cell["path"]
    ukis = [cell["digest"] for cell in cells if cell["asset"].endswith("uki.efi")]
    kernels = [cell["digest"] for cell in cells if cell["asset"] == "kernel-amd64"]
    assert len(set(ukis)) == 2 and len(set(kernels[:2])) == 1
    assert {"cell", "whole"} <= {phase["phase"] for phase in document["timings"]}
    good = write(folder)
    lines = warm("build", "--matrix", good, "--out", out).expect(0, "6 cells: 6 cached").stdout
    assert lines.count("metal-amd64-uki.efi") == 2


def test_a_matrix_is_held_to_a_lock(warm: Program, folder: Path) -> None:
    matrix, lock = write(folder, assets=["kernel-ARCH"]), folder / "matrix.lock"
    made = warm("lock", "--matrix", matrix, "-o", lock)
    made.expect(0, f"2 schematics, Talos {NEWEST}")
    built = warm("build", "--matrix", matrix, f"--locked={lock}", "--no-export")
    built.expect(0, "2 cells")
    drifted = write(folder, assets=["kernel-ARCH"], versions=[NEWEST, OLDEST])
    told = warm("build", "--matrix", drifted, f"--locked={lock}", "--no-export", "--json")
    cells = told.expect(2).json["cells"]
    assert [cell["outcome"] for cell in cells] == ["cached", "failed", "cached", "failed"]
    assert {cell["error"]["code"] for cell in cells if cell["error"]} == {"lock-drift"}


def test_a_signal_stops_all_cells(warm: Program, engine: docker.DockerClient, folder: Path) -> None:
    matrix = write(folder, assets=["metal-ARCH.iso"], arches=["amd64", "arm64"])
    call = warm.start("build", "--matrix", matrix, "--rebuild", "--no-export", "--jobs", "2")
    pid = call.process.pid

    def both_run() -> bool:
        assert call.process.poll() is None, call.wait().stderr
        return len(containers_of(engine, pid, running=True)) == 2

    wait_until(both_run, "the start of two imagers")
    time.sleep(0.2)
    call.signal(signal.SIGINT)
    told = call.wait(30).expect(130, "interrupted")
    assert "stopped" in told.stdout
    assert not containers_of(engine, pid) and not volumes_of(engine, pid)
    warm.fsck()
    assert not list((warm.store / "work").iterdir())
