"""A secret in an embedded configuration: no log, event, record or JSON has it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.integration.looking import initramfs_files, read_pe
from tests.labfolder import NEWEST
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SECRET = "pR4t-9vLq2-Zw8sN-e2e-token"
SCHEMATIC = f"""\
customization:
  embeddedMachineConfiguration: |
    apiVersion: v1alpha1
    kind: TrustdConfig
    token: {SECRET}
"""
ASSETS = ("metal-amd64-uki.efi", "metal-amd64.iso", "installer-amd64.tar")


@pytest.fixture(scope="module")
def schematic(session_folder: Path) -> Path:
    path = session_folder / "secret.yaml"
    path.write_text(SCHEMATIC)
    return path


def test_no_output_of_any_command_has_the_secret(own: Program, schematic: Path) -> None:
    order = (schematic, *ASSETS, "--version", NEWEST)
    again = (schematic, ASSETS[0], "--version", NEWEST)
    calls = {
        "plan": own("plan", *order),
        "plan json": own("plan", *order, "--json"),
        "dry run": own("build", *order, "--dry-run"),
        "build": own("-v", "--progress", "json", "build", *order, "--out", own.out, "--json"),
        "again": own("-v", "--progress", "plain", "build", *again, "--out", own.out, "--rebuild"),
        "lint": own("schematic", "lint", schematic, "--version", NEWEST),
        "ls": own("store", "ls", "--json"),
        "fsck": own("store", "fsck", "--json"),
    }
    for name, ended in calls.items():
        ended.expect(0)
        assert SECRET not in ended.stdout + ended.stderr, name
    for line in calls["build"].stderr.splitlines():
        assert json.loads(line)["kind"]
    check_referrers(own)
    check_files(own)
    (uki,) = own.out.rglob("metal-amd64-uki.efi")
    check_the_image_has_it(uki)


def check_referrers(own: Program) -> None:
    """Build record and log are there, and have the secret's digest at most."""
    for asset in own("store", "ls", "--json").expect(0).json["assets"]:
        if asset["asset"] not in ASSETS:
            continue
        shown = own("store", "show", asset["manifest_digest"], "--json").expect(0).json
        kinds = {entry["type"].rpartition(".local-imager.")[2] for entry in shown["attached"]}
        assert {"build-record.v1+json", "build-log.v1"} <= kinds
        assert SECRET not in json.dumps(shown)


def check_files(own: Program) -> None:
    """Whatever file of store and output folder has the secret is its owner's alone."""
    with_secret = [
        path
        for folder in (own.store, own.out)
        for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    open_files = [path for path in with_secret if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not open_files
    exported = [path for path in own.out.rglob("*") if path.is_file()]
    assert len(exported) == 2 * len(ASSETS)
    assert not [path for path in exported if stat.S_IMODE(path.stat().st_mode) & 0o077]


def check_the_image_has_it(uki: Path) -> None:
    files = initramfs_files(read_pe(uki.read_bytes()).sections[".initrd"])
    assert any(SECRET.encode() in data for data in files.values())


def test_the_secret_is_shown_to_who_asks_for_it(own: Program, schematic: Path) -> None:
    order = (schematic, ASSETS[0], "--version", NEWEST, "--show-secrets")
    own("plan", *order).expect(0, SECRET)
