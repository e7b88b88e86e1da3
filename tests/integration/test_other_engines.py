"""The whole command over an engine that shares no files with it, and over Podman's socket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.looking import read_pe, unpacked_digest
from tests.labfolder import OLDEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]


@pytest.mark.parametrize("variable", ["LAB_REMOTE_ENGINE", "LAB_PODMAN"])
def test_a_build_over_another_engine(own: Program, variable: str) -> None:
    address = os.environ.get(variable, "")
    if not address:
        pytest.fail(f"{variable} is not set: run the tests with `make test`", pytrace=False)
    program = Program(own.config, own.store, own.out, env={"DOCKER_HOST": address})
    assets = ("metal-amd64-uki.efi", "nocloud-amd64.raw", "nocloud-amd64.raw.zst")
    results = program.build(SCHEMATICS / "vanilla.yaml", *assets, version=OLDEST)
    uki, raw, packed = (Path(result["path"]) for result in results)
    assert read_pe(uki.read_bytes()).arch == "amd64"
    assert unpacked_digest(packed) == results[1]["digest"]
    assert raw.stat().st_size == results[1]["size_bytes"]
    assert not any(result["cached"] for result in results)
    program.fsck()
