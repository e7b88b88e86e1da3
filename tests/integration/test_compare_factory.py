"""Comparing with a factory: files that a lab imager made by hand-over, served as the factory does.

The other side's files come from another store with ``--exact``, so their noise is the real one.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.factoryserver import PIECE_BYTES, FactoryServer, Faults, factory_server
from tests.integration.containers import wait_until
from tests.integration.upstreams import seeded_store
from tests.labfolder import NEWEST, PREFIX, Lab
from tests.program import Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

SCHEMATIC = """\
customization:
  extraKernelArgs: [console=ttyS0]
  systemExtensions:
    officialExtensions: [siderolabs/hello-world-service]
"""
OTHER = SCHEMATIC.replace("ttyS0", "ttyS1")
KERNEL, CMDLINE, INITRAMFS = "kernel-amd64", "cmdline-metal-amd64", "initramfs-amd64.xz"
ISO = "metal-amd64.iso"
ASSETS = (KERNEL, CMDLINE, INITRAMFS, ISO)
RESULT = "application/vnd.local-imager.comparison.v1+json"
PASSES = {"identical", "same-content", "named-noise"}


@pytest.fixture(scope="module")
def schematic(session_folder: Path) -> Path:
    path = session_folder / "compared.yaml"
    path.write_text(SCHEMATIC)
    return path


@pytest.fixture(scope="module")
def ours(lab: Lab, engine: docker.DockerClient, session_folder: Path, schematic: Path) -> Program:
    """A store that has the assets, built the default way."""
    program = Program(lab.config, session_folder / "our-store", session_folder / "our-files")
    program.build(schematic, *ASSETS, version=NEWEST)
    return program


@pytest.fixture(scope="module")
def theirs(ours: Program, session_folder: Path, schematic: Path) -> dict[str, Path]:
    """The assets as another store's imager makes them, step by step."""
    store = seeded_store(ours.store, session_folder / "their-store")
    program = Program(ours.config, store, session_folder / "their-files")
    results = program.build(schematic, *ASSETS, "--exact", "--rebuild", version=NEWEST)
    assert not any(result["cached"] for result in results)
    return {result["asset"]: Path(result["path"]) for result in results}


@pytest.fixture(scope="module")
def schematic_id(ours: Program, schematic: Path) -> str:
    return ours("schematic", "id", schematic).expect(0).stdout.strip()


@pytest.fixture
def factory(theirs: dict[str, Path], schematic_id: str) -> Iterator[FactoryServer]:
    with factory_server(redirect=True) as server:
        server.serve(schematic_id, NEWEST, dict(theirs))
        yield server


@pytest.fixture
def program(ours: Program, folder: Path) -> Program:
    """The program over a store of this test alone, with the assets in it."""
    return Program(ours.config, seeded_store(ours.store, folder / "store"), folder / "out")


def compare_set(
    program: Program, factory: FactoryServer, schematic: Path, *more: str, code: int = 0
) -> dict[str, Any]:
    arguments = ("--build", schematic, "--version", NEWEST, "--factory", factory.url, "--json")
    done = program("compare", *arguments, *more)
    document: dict[str, Any] = done.json
    assert done.code == code, f"{differing(document)}\n{done.stderr}"
    return document


def differing(document: dict[str, Any]) -> str:
    """What is neither packing nor noise, for the message of a failing test."""
    found = [
        (entry["asset"], one)
        for entry in document["entries"]
        for one in (entry["comparison"] or {}).get("differences", ())
        if one["change"] not in ("packing", "noise")
    ]
    return json.dumps(found, indent=1)


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {entry["asset"]: entry["verdict"] for entry in document["entries"]}


def test_a_whole_set_equals_the_factorys_but_for_named_noise(
    program: Program, factory: FactoryServer, schematic: Path, schematic_id: str, folder: Path
) -> None:
    page = folder / "report.html"
    document = compare_set(program, factory, schematic, *ASSETS, "--html", str(page))
    found = verdicts(document)
    assert {found[KERNEL], found[CMDLINE]} == {"identical"}
    assert set(found.values()) <= PASSES, differing(document)
    assert found[INITRAMFS] != "identical", "there is no noise: what is compared is one file"
    assert factory.asked("POST") == []
    html = page.read_text()
    assert all(asset in html for asset in ASSETS) and "<script" not in html
    asset = program("store", "show", f"{schematic_id}/{NEWEST}/{ISO}", "--json").expect(0).json
    assert [one["type"] for one in asset["attached"]].count(RESULT) == 1
    foreign = program("store", "ls", "--json").expect(0).json["foreign"]
    assert {one["name"].rpartition("/")[2] for one in foreign} == set(ASSETS)
    assert not any(one["verified"] for one in foreign)
    # What is there is not asked for again, and needs no network.
    asked = len(factory.requests)
    again = compare_set(program, factory, schematic, KERNEL, CMDLINE, "--offline")
    assert verdicts(again) == {asset: found[asset] for asset in (KERNEL, CMDLINE)}
    assert len(factory.requests) == asked
    program("store", "ls").expect(0, "(foreign, unverified)")
    program.fsck()


def test_a_foreign_file_is_no_build(
    program: Program, factory: FactoryServer, schematic_id: str, theirs: dict[str, Path]
) -> None:
    name = f"factory:{schematic_id}/{NEWEST}/{CMDLINE}"
    order = ("compare", theirs[CMDLINE], name, "--factory", factory.url)
    assert "identical bytes" in program(*order).expect(0, "unverified").text
    program("store", "rm", f"{schematic_id}/{NEWEST}/{CMDLINE}").expect(0)
    left = program("store", "ls", "--json").expect(0).json
    assert CMDLINE not in {one["asset"] for one in left["assets"]}
    assert left["foreign"][0]["origin"].endswith(name.removeprefix("factory:"))
    program("store", "show", f"{schematic_id}/{NEWEST}/{CMDLINE}").expect(2, "no asset")
    program("store", "gc", "--max-size", "0").expect(0, f"local-imager/foreign/{factory.address}")
    assert program("store", "ls", "--json").expect(0).json["foreign"] == []


def test_another_argument_is_named_and_the_worst_counts(
    program: Program, theirs: dict[str, Path], folder: Path, schematic: Path, schematic_id: str
) -> None:
    """The factory has one asset of another schematic, and one not at all."""
    other = folder / "other.yaml"
    other.write_text(OTHER)
    changed = program.build(other, CMDLINE, version=NEWEST)[0]["path"]
    with factory_server() as server:
        server.serve(schematic_id, NEWEST, {KERNEL: theirs[KERNEL], CMDLINE: Path(changed)})
        document = compare_set(program, server, schematic, KERNEL, CMDLINE, code=4)
        assert verdicts(document) == {KERNEL: "identical", CMDLINE: "different"}
        differences = document["entries"][1]["comparison"]["differences"]
        assert [one["what"] for one in differences] == ["kernel argument console"]
        lacking = compare_set(program, server, schematic, KERNEL, CMDLINE, INITRAMFS, code=2)
        assert lacking["counts"]["failed"] == 1
        error = lacking["entries"][2]["error"]
        assert "version 1.13.0 is not available" in error["message"]
        text = program(
            "compare", "--build", schematic, "--version", NEWEST, "--factory", server.url,
            KERNEL, CMDLINE, INITRAMFS,
        ).expect(2, "kernel argument console", "1 identical, 1 different, 1 failed")  # fmt: skip
        assert "console=ttyS1" in text.text


def test_a_factory_that_does_not_know_the_schematic(
    program: Program, factory: FactoryServer, schematic: Path, schematic_id: str
) -> None:
    known = factory.schematics.pop(schematic_id)
    document = compare_set(program, factory, schematic, KERNEL, code=2)
    error = document["entries"][0]["error"]
    assert error["code"] == "schematic-unknown" and "--upload" in error["hint"]
    assert factory.asked("POST") == []
    assert verdicts(compare_set(program, factory, schematic, KERNEL, "--upload")) == {
        KERNEL: "identical"
    }
    assert factory.schematics[schematic_id] != known  # it has the text now


def test_a_killed_download_goes_on_where_it_stopped(
    program: Program, factory: FactoryServer, schematic_id: str, theirs: dict[str, Path]
) -> None:
    size, stop = theirs[KERNEL].stat().st_size, 64 * PIECE_BYTES
    assert size > 2 * stop
    factory.faults = Faults(stall_after=stop)
    name = f"factory:{schematic_id}/{NEWEST}/{KERNEL}"
    order = ("compare", theirs[KERNEL], name, "--factory", factory.url)
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        factory.requests.clear()
        call = program.start(*order)
        wait_until(
            lambda: len(factory.requests) == 2 and partial_bytes(program) >= stop - PIECE_BYTES,
            "the stall",
            30,
        )
        call.signal(number)
        assert call.wait(30).code == code
        assert partial_bytes(program) >= stop - PIECE_BYTES
    factory.faults = Faults()
    factory.requests.clear()
    program(*order).expect(0, "identical bytes")
    (asked,) = [said for _, target, said in factory.requests if target.startswith("/cache/")]
    assert asked["range"].startswith("bytes=") and int(asked["range"][6:-1]) >= stop - PIECE_BYTES
    assert partial_bytes(program) == 0
    program.fsck()


def partial_bytes(program: Program) -> int:
    folder = program.store / "unverified"
    found = folder.glob("foreign-*") if folder.is_dir() else ()
    return sum(os.stat(path).st_size for path in found if path.suffix != ".json")


def test_two_processes_fetch_a_file_once(
    program: Program, factory: FactoryServer, schematic_id: str, theirs: dict[str, Path]
) -> None:
    name = f"factory:{schematic_id}/{NEWEST}/{KERNEL}"
    order = ("compare", theirs[KERNEL], name, "--factory", factory.url)
    for call in [program.start(*order) for _ in range(2)]:
        call.wait().expect(0, "identical bytes")
    assert len([t for t in factory.asked() if t.startswith("/cache/")]) == 1
    program.fsck()


def test_against_a_directory_and_against_the_store(
    program: Program, theirs: dict[str, Path], schematic: Path
) -> None:
    folder = theirs[ISO].parent
    order = ("compare", "--build", schematic, "--version", NEWEST, CMDLINE, "--json")
    document = program(*order, "--against", folder.parents[1]).expect(0).json
    assert set(verdicts(document).values()) == {"identical"}
    document = program(*order, "--against", "store", "--rebuild").expect(0).json
    assert set(verdicts(document).values()) == {"identical"}
    assert not any(entry["built"]["cached"] for entry in document["entries"])


def test_images_of_a_registry_are_compared_and_who_signed_is_said(
    program: Program, lab_registry: str, folder: Path
) -> None:
    installer = f"{PREFIX}/siderolabs/installer-base"
    done = program("compare", f"{installer}:v1.13.0", f"{installer}:v1.13.0", "--arch", "amd64")
    done.expect(0, "identical bytes", "verified, signed by")
    done = program("compare", f"{installer}:v1.13.0", f"{installer}:v1.12.1", "--arch", "amd64")
    done.expect(4, "different")
    nobody = folder / "nobody.toml"
    nobody.write_text(f'[upstream]\nregistry = "{PREFIX}"\nsource = "http://{lab_registry}"\n')
    stranger = Program(nobody, program.store, program.out)
    done = stranger("compare", f"{installer}:v1.13.0", f"{installer}:v1.13.0", "--arch", "amd64")
    done.expect(0, "unverified", "identical bytes")
