"""Every example schematic of the repository builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.looking import read_pe
from tests.labfolder import NEWEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

# Beside the plain UKI, which each is tried with.
FURTHER = {
    "demo": ("metal-amd64.iso",),
    "everything": ("metal-arm64-secureboot-uki.efi", "metal-arm64.raw.zst"),
    "meta-network": ("metal-amd64.iso",),
    "nocloud-proxmox": ("nocloud-amd64.qcow2",),
    "overlay": ("metal-arm64.raw.zst",),
    "secureboot": ("metal-amd64-secureboot.iso",),
}
EXAMPLES = sorted(path.stem for path in SCHEMATICS.glob("*.yaml"))
ARM_ONLY = {"everything", "overlay"}


def test_there_is_an_example_of_everything() -> None:
    assert len(EXAMPLES) >= 8
    assert set(FURTHER) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_builds(warm: Program, signing_keys: Path, programs: None, name: str) -> None:
    path = SCHEMATICS / f"{name}.yaml"
    arch = "arm64" if name in ARM_ONLY else "amd64"
    assets = (f"metal-{arch}-uki.efi", *FURTHER.get(name, ()))
    results = warm.build(path, *assets, "--secureboot-keys", str(signing_keys), version=NEWEST)
    uki = read_pe(Path(results[0]["path"]).read_bytes())
    assert uki.arch == arch
    schematic_id = warm("schematic", "id", path).expect(0).stdout.strip()
    assert {result["schematic_id"] for result in results} == {schematic_id}
    warm("schematic", "lint", path, "--version", NEWEST).expect(0)
