"""Images pulled through a real registry that runs in the engine (pytest-docker)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.upstreams import settings_file
from tests.labfolder import NEWEST, PREFIX, Lab
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

IMAGES = ("imager", "extensions", "overlays", "installer-base", "hello-world-service")
SCHEMATIC = (
    "customization: {systemExtensions: {officialExtensions: [siderolabs/hello-world-service]}}"
)


@pytest.fixture(scope="module")
def served(lab: Lab, lab_registry: str, registry_service: str) -> str:
    """A registry with the images of the newest version and their signatures."""
    for image in IMAGES:
        source = f"{lab_registry}/siderolabs/{image}"
        digest = lab.crane("digest", f"{source}:{NEWEST}").strip()
        for tag in (NEWEST, digest.replace(":", "-")):
            lab.crane("copy", f"{source}:{tag}", f"{registry_service}/siderolabs/{image}:{tag}")
    return registry_service


def test_images_are_fetched_from_a_registry(lab: Lab, folder: Path, served: str) -> None:
    schematic = folder / "schematic.yaml"
    schematic.write_text(SCHEMATIC)
    program = Program(lab.config, folder / "store", folder / "out")
    place = f"http://{served}"
    fetch = ("sources", "fetch", "--version", NEWEST, "--schematic", schematic, "--from", place)
    fetched = program(*fetch, "--json").expect(0).json
    assert {entry["role"] for entry in fetched} >= {"builder", "base", "extension"}
    assert not any(entry["unverified"] for entry in fetched)
    program("sources", "verify").expect(0, "0 refused")
    program.fsck()
    order = ("build", schematic, "metal-amd64-uki.efi", "--version", NEWEST, "--out", program.out)
    program(*order, "--offline").expect(0, "metal-amd64-uki.efi")


def test_the_versions_that_a_registry_has(lab: Lab, folder: Path, served: str) -> None:
    program = Program(lab.config, folder / "store", folder / "out")
    assert program("versions", "--from", f"http://{served}", "--json").expect(0).json == [NEWEST]
    listed = program("extensions", NEWEST, "--from", f"http://{served}").expect(0)
    assert "hello-world-service" in listed.stdout


def test_an_image_whose_signature_was_not_copied(lab: Lab, folder: Path, served: str) -> None:
    image = f"siderolabs/imager:{NEWEST}"
    lab.crane("copy", f"{served}/{image}", f"{served}/unsigned/{image}")
    config = settings_file(folder, f"http://{served}/unsigned", lab.root / "lab.pub", PREFIX)
    program = Program(config, folder / "store", folder / "out")
    order = ("build", SCHEMATICS / "vanilla.yaml", "cmdline-metal-amd64", "--version", NEWEST)
    program(*order, "--no-export").expect(3, "siderolabs/imager", "sign")
