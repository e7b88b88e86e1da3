"""What the end-to-end tests share: lab, engine, a warm store, and the program itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import httpx
import pytest
from pytest_docker.plugin import Services

from lab.debian import need_packages
from tests.integration.upstreams import seeded_store
from tests.labfolder import NEWEST, OLDEST, Lab, big_folder, find_lab
from tests.program import SCHEMATICS, Program


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab, built."""
    return find_lab()


@pytest.fixture(scope="session")
def programs() -> None:
    """The Debian programs that look into what was built."""
    need_packages(["inspect", "clients"])


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The container engine that `lab run --engine` started or found."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as problem:
        pytest.fail(
            f"no container engine answers ({problem}): run the tests with `make test`, or with "
            "python3 -m lab run --engine --registry -- .venv/bin/pytest",
            pytrace=False,
        )
    yield client
    client.close()


@pytest.fixture(scope="session")
def session_folder(lab: Lab) -> Iterator[Path]:
    """A folder for big files that lives as long as the test run."""
    with big_folder(lab, "session") as folder:
        yield folder


@pytest.fixture
def folder(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for big files of one test, in the file system of the lab and the warm store."""
    with big_folder(lab, request.node.originalname) as path:
        yield path


@pytest.fixture(scope="session")
def warm(lab: Lab, engine: docker.DockerClient, session_folder: Path) -> Program:
    """The program over one store that all read-mostly tests share: images are fetched once."""
    return Program(lab.config, session_folder / "store", session_folder / "out")


@pytest.fixture
def fresh(lab: Lab, folder: Path) -> Program:
    """The program over an empty store of this test alone."""
    return Program(lab.config, folder / "store", folder / "out")


@pytest.fixture(scope="session")
def signing_keys(warm: Program, session_folder: Path) -> Path:
    """Secure boot keys, made by the program itself."""
    keys = session_folder / "keys"
    warm("secureboot", "keygen", keys).expect(0)
    return keys


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """Compose as a plugin of docker, or the program that Debian packages."""
    plugin = ["docker", "compose", "version"]
    known = shutil.which("docker") and subprocess.run(plugin, capture_output=True).returncode == 0
    return "docker compose" if known else "docker-compose"


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """The services that the tests start in the engine."""
    return str(Path(__file__).with_name("docker-compose.yml"))


@pytest.fixture(scope="session")
def docker_setup(lab: Lab, engine: docker.DockerClient, programs: None) -> list[str]:
    """Load the registry's image, then start the services."""
    with (lab.root / "registry-image.tar").open("rb") as archive:
        engine.images.load(archive)
    return ["up --detach"]


@pytest.fixture(scope="session")
def registry_service(docker_services: Services) -> str:
    """The address of a real registry in a container of the engine, empty at first."""
    address = f"127.0.0.1:{docker_services.port_for('registry', 5000)}"

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://{address}/v2/").status_code == 200
        return False

    docker_services.wait_until_responsive(check=answers, timeout=30, pause=0.1)
    return address


@pytest.fixture(scope="session")
def seed(lab: Lab, engine: docker.DockerClient, session_folder: Path) -> Program:
    """A store with the images and boot assets for v1.13.0 and v1.9.0, and next to no asset."""
    program = Program(lab.config, session_folder / "seed", session_folder / "seed-out")
    for version in (NEWEST, OLDEST):
        program.build(SCHEMATICS / "vanilla.yaml", "kernel-amd64", version=version)
    return program


@pytest.fixture
def own(seed: Program, folder: Path) -> Program:
    """The program over a store of this test alone, with the images in it already."""
    return Program(seed.config, seeded_store(seed.store, folder / "store"), folder / "out")


@pytest.fixture(scope="session")
def lab_registry() -> str:
    """The registry that `lab run --registry` serves the lab's images from."""
    address = os.environ.get("LAB_REGISTRY", "")
    if not address:
        pytest.fail("LAB_REGISTRY is not set: run the tests with `make test`", pytrace=False)
    return address
