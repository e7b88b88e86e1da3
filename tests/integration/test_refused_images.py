"""Images that are not what a trusted key signed: refused before anything of them is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_imager.oci.layout import Layout
from tests.integration.upstreams import (
    IMAGER,
    faulty_copy,
    missing_layer,
    settings_file,
    signed_for_another,
    tampered_index,
    tampered_layer,
    truncated_layer,
    unsigned,
)
from tests.labfolder import NEWEST, PREFIX, Lab, linked_copy
from tests.program import SCHEMATICS, Program
from tests.unit.sources.forge import Signing

pytestmark = pytest.mark.lab

ORDER = ("build", SCHEMATICS / "vanilla.yaml", "cmdline-metal-amd64", "--version", NEWEST)
# fault: (exit code, phrases)
FAULTS: dict[Callable[[Layout], None], tuple[int, tuple[str, ...]]] = {
    unsigned: (3, (f"{IMAGER}:{NEWEST}", "sign")),
    signed_for_another: (3, (f"{IMAGER}:{NEWEST}",)),
    tampered_layer: (3, ("sha256:",)),
    truncated_layer: (3, ("sha256:",)),
    tampered_index: (3, ("sha256:",)),
    missing_layer: (2, ("sha256:",)),
}


def refuse(program: Program, code: int, *phrases: str) -> None:
    """A build is refused without an engine being asked, and the store has no name for it."""
    program = Program(program.config, program.store, program.out, env={"DOCKER_HOST": "unix:///no"})
    program(*ORDER, "--no-export").expect(code, *phrases)
    error = program(*ORDER, "--no-export", "--json").expect(code).json["error"]
    assert error["code"] not in ("failed", "")
    names = [image["name"] for image in program("store", "ls", "--json").expect(0).json["images"]]
    assert not [name for name in names if "/imager:v" in name]
    program.fsck()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_an_image_with_a_fault(lab: Lab, folder: Path, fault: Callable[[Layout], None]) -> None:
    copy = faulty_copy(lab, folder, fault)
    config = settings_file(folder, copy, lab.root / "lab.pub", PREFIX)
    code, phrases = FAULTS[fault]
    refuse(Program(config, folder / "store", folder / "out"), code, *phrases)


def test_an_image_signed_with_another_key(lab: Lab, folder: Path) -> None:
    config = settings_file(folder, lab.upstream, Signing(), PREFIX)
    program = Program(config, folder / "store", folder / "out")
    refuse(program, 3, f"{IMAGER}:{NEWEST}", "sign")


def test_no_policy_for_an_image(lab: Lab, folder: Path) -> None:
    config = folder / "settings.toml"
    config.write_text(f'[upstream]\nregistry = "{PREFIX}"\nsource = "{lab.upstream}"\n')
    refuse(Program(config, folder / "store", folder / "out"), 3, f"{IMAGER}:{NEWEST}", "trust")


def test_the_labs_image_under_an_official_name(lab: Lab, folder: Path) -> None:
    """The lab's key is trusted for the lab's names only; the official policy wants others."""
    copy = linked_copy(lab.upstream, folder / "upstream")
    layout = Layout.open(copy)
    for entry in layout.entries():
        name = entry.ref_name
        if name.startswith(f"{PREFIX}/siderolabs/imager:"):
            layout.set_ref(name.replace(PREFIX, "ghcr.io"), entry)
    config = folder / "settings.toml"
    config.write_text(f'[upstream]\nregistry = "ghcr.io"\nsource = "{copy}"\n')
    program = Program(config, folder / "store", folder / "out")
    refuse(program, 3, f"ghcr.io/siderolabs/imager:{NEWEST}", "ghcr.io/siderolabs")
    lab_key = ("--policy", str(lab.root / "policy.toml"))
    with_lab_key = Program(config, folder / "store", folder / "out")
    argv = with_lab_key.argv(*lab_key, *ORDER, "--no-export")
    assert lab_key[0] in argv
    with_lab_key(*lab_key, *ORDER, "--no-export").expect(3, "ghcr.io/siderolabs/imager")


def test_an_image_in_the_store_is_verified_again_under_the_policy_of_today(
    own: Program, folder: Path
) -> None:
    config = settings_file(folder, "nowhere", Signing(), PREFIX)
    distrusting = Program(config, own.store, own.out, env={"DOCKER_HOST": "unix:///no"})
    distrusting(*ORDER, "--no-export", "--offline").expect(3, f"{IMAGER}:{NEWEST}")
    distrusting("sources", "verify").expect(3, "REFUSED")
    own("sources", "verify").expect(0, "0 refused")
