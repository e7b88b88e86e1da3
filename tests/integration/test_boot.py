"""What was built boots: the console shows the schematic's argument and its extension."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.debian import need_packages
from tests.labfolder import NEWEST, OLDEST
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine, pytest.mark.qemu]

SCHEMATIC = """\
customization:
  extraKernelArgs: [console=ttyS0, "e2e.boot={marker}"]
  systemExtensions: {{officialExtensions: [siderolabs/hello-world-service]}}
"""
EXTENSION_SAYS = "hello-world-service says"


@pytest.fixture(scope="module", autouse=True)
def qemu() -> None:
    """QEMU and its firmware."""
    need_packages(["boot"])


@pytest.fixture
def schematic(tmp_path: Path) -> Path:
    path = tmp_path / "boot.yaml"
    path.write_text(SCHEMATIC.format(marker="seen"))
    return path


@pytest.mark.parametrize(
    ("version", "asset", "firmware"),
    [
        (NEWEST, "metal-amd64.iso", "uefi"),
        (OLDEST, "nocloud-amd64.raw.zst", "bios"),
    ],
)
def test_it_boots(warm: Program, schematic: Path, version: str, asset: str, firmware: str) -> None:
    (built,) = warm.build(schematic, asset, version=version)
    expected = ("e2e.boot=seen", EXTENSION_SAYS, built["schematic_id"])
    flags = [word for text in expected for word in ("--expect", text)]
    report = warm("boot-test", built["path"], "--firmware", firmware, *flags, "--json")
    told = report.expect(0).json
    assert told["passed"] and not told["missing"]
    assert told["ended"] == "powered-off"


def test_a_boot_that_does_not_show_in_time_what_is_expected(warm: Program, schematic: Path) -> None:
    (built,) = warm.build(schematic, "metal-amd64.iso", version=NEWEST)
    call = ("boot-test", built["path"], "--timeout", "3", "--expect", "this is never said")
    warm(*call).expect(1, "never seen: this is never said")
