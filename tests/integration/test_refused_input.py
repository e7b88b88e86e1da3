"""Input that is not valid: each with its exit code and the words that help."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labfolder import OLDEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

VANILLA = str(SCHEMATICS / "vanilla.yaml")

# name: (arguments after `build`, phrases)
WRONG_ORDERS = {
    "unknown version": (
        (VANILLA, "metal-amd64.iso", "--version", "v1.12.99"),
        ("v1.12.99", "v1.12.1", "v1.13.0"),
    ),
    "version without patch": ((VANILLA, "metal-amd64.iso", "--version", "v1.9"), ("v1.9.0",)),
    "version without v": ((VANILLA, "metal-amd64.iso", "--version", "1.9.0"), ("v1.9.0",)),
    "no version at all": ((VANILLA, "metal-amd64.iso"), ("--version",)),
    "asset typo": (
        (VANILLA, "metal-amd64.ios", "--version", OLDEST),
        ("metal-amd64.ios", "metal-amd64.iso"),
    ),
    "platform typo": (
        (VANILLA, "nocluod-amd64.raw.xz", "--version", OLDEST),
        ("nocloud-amd64.raw.xz",),
    ),
    "architecture that is not there": (
        (VANILLA, "metal-riscv64.iso", "--version", OLDEST),
        ("metal-riscv64.iso",),
    ),
    "secure boot without keys": (
        (VANILLA, "metal-amd64-secureboot.iso", "--version", "v1.13.0"),
        ("secureboot keygen",),
    ),
    "schematic that is not there": (
        ("no-such-file.yaml", "metal-amd64.iso", "--version", OLDEST),
        ("no-such-file.yaml",),
    ),
    "builder older than the version": (
        (VANILLA, "metal-amd64.iso", "--version", "v1.13.0", "--builder", "v1.9.0"),
        ("v1.9.0", "v1.13.0"),
    ),
    "builder that is no version": (
        (VANILLA, "metal-amd64.iso", "--version", OLDEST, "--builder", "latest"),
        ("newest", "same"),
    ),
}
# name: (schematic, version, asset, phrases)
WRONG_SCHEMATICS = {
    "extension that the version lacks": (
        "customization: {systemExtensions: {officialExtensions: [siderolabs/nut-client]}}",
        (OLDEST, "metal-amd64.iso"),
        ("siderolabs/nut-client", OLDEST),
    ),
    "extension typo": (
        "customization: {systemExtensions: {officialExtensions: [siderolabs/gvisro]}}",
        (OLDEST, "metal-amd64.iso"),
        ("siderolabs/gvisro", "siderolabs/gvisor"),
    ),
    "overlay that is not there": (
        "overlay: {name: no_such_board, image: siderolabs/sbc-lab}",
        ("v1.13.0", "metal-arm64.raw.xz"),
        ("no_such_board",),
    ),
    "unknown key": (
        "customization:\n  extraKernelArg: [a]\n",
        (OLDEST, "metal-amd64.iso"),
        (":2:3", "extraKernelArg", "extraKernelArgs"),
    ),
    "wrong type": (
        "customization:\n  extraKernelArgs: yes please\n",
        (OLDEST, "metal-amd64.iso"),
        (":2:20", "list"),
    ),
    "key twice": (
        "customization: {}\ncustomization: {}\n",
        (OLDEST, "metal-amd64.iso"),
        (":2:1", "customization"),
    ),
    "owner": (
        "owner: somebody\ncustomization: {}\n",
        (OLDEST, "metal-amd64.iso"),
        ("owner",),
    ),
    "sector size that the imager would ignore": (
        "customization: {diskImage: {sectorSize: 4096}}",
        ("v1.13.0", "metal-amd64.raw.xz"),
        ("v1.14", "sector"),
    ),
    "boot loader that cannot do secure boot": (
        "customization: {bootloader: grub}",
        ("v1.13.0", "metal-amd64-secureboot.iso"),
        ("secure",),
    ),
    "not YAML at all": ("{[}", (OLDEST, "metal-amd64.iso"), (":1:",)),
}


@pytest.mark.parametrize("name", WRONG_ORDERS)
def test_an_order_that_is_wrong(seed: Program, name: str) -> None:
    arguments, phrases = WRONG_ORDERS[name]
    seed("build", *arguments, "--no-export").expect(2, *phrases)


@pytest.mark.parametrize("name", WRONG_SCHEMATICS)
def test_a_schematic_that_is_wrong(seed: Program, tmp_path: Path, name: str) -> None:
    text, (version, asset), phrases = WRONG_SCHEMATICS[name]
    path = tmp_path / "schematic.yaml"
    path.write_text(text)
    order = ("build", path, asset, "--version", version, "--no-export")
    seed(*order).expect(2, *phrases)
    told = seed(*order, "--json").expect(2).json["error"]
    assert told["code"] and told["message"]


def test_a_schematic_of_fifty_megabytes(seed: Program, tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("customization:\n  extraKernelArgs:\n" + "    - a=b\n" * 5_000_000)
    ended = seed("build", path, "metal-amd64.iso", "--version", OLDEST, "--no-export")
    ended.expect(2, "large")
    assert ended.duration_s < 5


def test_a_billion_laughs(seed: Program, tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join([*lines, "customization: {extraKernelArgs: *a11}"]))
    ended = seed("build", path, "metal-amd64.iso", "--version", OLDEST, "--no-export")
    ended.expect(2, "laughs.yaml")
    assert ended.duration_s < 5


def test_a_schematic_from_standard_input(seed: Program) -> None:
    order = ("build", "-", "kernel-amd64", "--version", OLDEST, "--no-export")
    seed(*order, stdin="customization: {}\n").expect(0, "cached")
    seed(*order, stdin="customisation: {}\n").expect(2, "customization")


@pytest.mark.parametrize("address", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1"])
def test_no_engine(own: Program, address: str) -> None:
    program = Program(own.config, own.store, own.out, env={"DOCKER_HOST": address})
    order = ("cmdline-metal-amd64", "--version", OLDEST, "--no-export")
    program("build", VANILLA, *order).expect(5, "engine", address, "DOCKER_HOST", "doctor")
    program("build", VANILLA, "kernel-amd64", *order[1:]).expect(0, "cached")
    own.fsck()


@pytest.fixture
def forbidden_socket(tmp_path: Path) -> Iterator[Path]:
    """A socket that somebody listens at, and that nobody else may use."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        yield path


def test_an_engine_without_the_right_to_use_it(own: Program, forbidden_socket: Path) -> None:
    # Root may use every socket, unless it gives that right away.
    powers = "-dac_override,-dac_read_search"
    prefix = ("setpriv", "--bounding-set", powers) if os.geteuid() == 0 else ()
    env = {"DOCKER_HOST": f"unix://{forbidden_socket}"}
    program = Program(own.config, own.store, own.out, env=env, prefix=prefix)
    order = ("cmdline-metal-amd64", "--version", OLDEST, "--no-export")
    program("build", VANILLA, *order).expect(5, "may not use", str(forbidden_socket), "group")
