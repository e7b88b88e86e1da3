"""Verification opens not one socket: whole processes where there is no network and sockets raise.

Each runs in a network namespace without any interface that is up, and in each an attempt to make a
socket or to look up a name is an error and is written down. Nor is a network client even loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.names import is_image
from tests.labfolder import Lab
from tests.unit.sources.test_sigfix import CASES, OTHERWISE, REASONS, SIGFIX

ROOT: Final = Path(__file__).parents[2]
ISOLATED: Final = ("unshare", "-n") if os.geteuid() == 0 else ("unshare", "-rn")
# What goes online in the packages that are installed beside this one.
CLIENTS: Final = ("docker", "httpx", "requests", "sigstore", "tuf", "urllib3")

GUARD: Final = f"""\
import atexit, os, socket, sys

def refused(*arguments, **more):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(f"socket {{arguments}}\\n")
    raise RuntimeError(f"a socket was asked for: {{arguments}}")

def audit(event, arguments):
    if event.startswith("socket."):
        refused(event, arguments)

def loaded():
    with open(os.environ["SEEN"], "a") as seen:
        for name in {CLIENTS!r}:
            if name in sys.modules:
                seen.write(f"module {{name}}\\n")

class Socket(socket.socket):
    __new__ = refused

socket.socket, socket.create_connection, socket.getaddrinfo = Socket, refused, refused
sys.addaudithook(audit)
atexit.register(loaded)
"""

# Every case of the fixtures in one process: prints a code for each.
VERIFY_CASES: Final = """\
import json, pathlib, sys
from local_imager.errors import LocalImagerError
from tests.unit.sources.test_sigfix import CASES, verify

answers = {}
for case in CASES:
    try:
        verify(case, pathlib.Path(sys.argv[1]))
        answers[case["name"]] = "accepted"
    except LocalImagerError as error:
        answers[case["name"]] = error.code
print(json.dumps(answers))
"""

# Every image of the upstream that the settings name, in one process: prints a digest for each.
VERIFY_LAYOUT: Final = """\
import json, pathlib, sys, tomllib
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Reference
from local_imager.oci.names import is_image
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.verify import verify_image

layout, config = map(pathlib.Path, sys.argv[1:3])
settings = tomllib.loads(config.read_text())
policy = policy_from_entries(settings["trust"], base_dir=config.parent)
prefix = settings["upstream"]["registry"] + "/siderolabs/"
source, answers = LayoutSource.open(layout), {}
for entry in source.entries:
    if is_image(entry) and entry.ref_name.startswith(prefix):
        reference = Reference.parse(entry.ref_name)
        found = verify_image(source, reference, source.resolve(reference), policy)
        answers[entry.ref_name] = str(found.digest)
        assert not found.unverified
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Isolation:
    """Starts programs where there is no network, and tells what they tried."""

    folder: Path

    @property
    def seen(self) -> Path:
        """One line per socket or client module."""
        return self.folder / "seen"

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments under the guard."""
        (self.folder / "sitecustomize.py").write_text(GUARD)
        self.seen.write_text("")
        path = os.pathsep.join(map(str, (self.folder, ROOT / "src", ROOT)))
        return subprocess.run(
            [*ISOLATED, sys.executable, *map(str, argv)],
            env={**os.environ, "PYTHONPATH": path, "SEEN": str(self.seen)},
            capture_output=True,
            text=True,
            check=False,
        )

    def expect(self, code: int, *argv: str | Path) -> Any:
        """Run to this exit code, without a socket or a client module; return the JSON printed."""
        done = self.run(*argv)
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
        assert self.seen.read_text() == ""
        return json.loads(done.stdout)

    def program(self, code: int, *arguments: str | Path) -> Any:
        """Run `local-imager … --json` to this exit code."""
        return self.expect(code, "-m", "local_imager", *arguments, "--json")


@pytest.fixture
def isolation(tmp_path: Path) -> Isolation:
    return Isolation(tmp_path)


# The guard is able to fail.


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 9)",
        "__import__('_socket').socket()",
        "__import__('_socket').gethostbyname('localhost')",
    ],
)
def test_an_attempt_is_refused_and_written_down(attempt: str, isolation: Isolation) -> None:
    done = isolation.run("-c", f"import socket; {attempt}")
    assert done.returncode == 1
    assert "a socket was asked for" in done.stderr
    assert isolation.seen.read_text().startswith("socket ")


def test_a_network_client_is_noticed(isolation: Isolation) -> None:
    assert isolation.run("-c", "import httpx").returncode == 0
    assert "module httpx\n" in isolation.seen.read_text()


def test_there_is_no_network_where_the_tests_run() -> None:
    program = (
        "import socket\n"
        "assert [name for _, name in socket.if_nameindex()] == ['lo']\n"
        "try: socket.create_connection(('127.0.0.1', 9), 5)\n"
        "except ConnectionRefusedError: raise SystemExit('the loopback interface is up')\n"
        "except OSError: pass\n"
    )
    subprocess.run([*ISOLATED, sys.executable, "-c", program], check=True)


# Verification.


def test_every_case_of_the_fixtures_gets_its_answer(isolation: Isolation, tmp_path: Path) -> None:
    answers = isolation.expect(0, "-c", VERIFY_CASES, tmp_path)
    expected = {}
    for case in CASES:
        passes = (case["expect"] == "pass") != (case["name"] in OTHERWISE)
        expected[case["name"]] = "accepted" if passes else REASONS[case["name"]]
    assert answers == expected


@pytest.mark.lab
@pytest.mark.parametrize("config", ["lab.toml", "lab-keyless.toml"])
def test_every_image_of_the_lab_is_verified(config: str, lab: Lab, isolation: Isolation) -> None:
    path = lab.root / config
    answers = isolation.expect(0, "-c", VERIFY_LAYOUT, lab.upstream, path)
    registry = tomllib.loads(path.read_text())["upstream"]["registry"]
    named = [e.ref_name for e in LayoutSource.open(lab.upstream).entries if is_image(e)]
    direct = [name for name in named if name.startswith(f"{registry}/siderolabs/")]
    assert len(direct) >= 5
    assert set(direct) == set(answers)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("config", "image", "code"),
    [
        ("lab.toml", "lab.local-imager.test/siderolabs/imager:v1.13.0", 0),
        ("lab.toml", "lab.local-imager.test/siderolabs/extensions:v1.9.0", 0),
        ("lab-keyless.toml", "lab.local-imager.test/keyless/siderolabs/imager:v1.13.0", 0),
        ("lab-keyless.toml", "lab.local-imager.test/keyless/siderolabs/imager:v1.9.0", 0),
        ("lab-keyless.toml", "lab.local-imager.test/siderolabs/imager:v1.13.0", 3),
    ],
)
def test_the_program_verifies_an_image(
    config: str, image: str, code: int, lab: Lab, isolation: Isolation
) -> None:
    options = ("--config", lab.root / config, "--store", isolation.folder / "store")
    answer = isolation.program(code, *options, "verify", image, "--layout", lab.upstream)
    assert answer["verified"] is (code == 0)


def _conformance(name: str) -> tuple[dict[str, Any], list[str | Path]]:
    case = next(case for case in CASES if case["name"] == f"realworld-conformance-{name}")
    return case, [SIGFIX / case["artifact"], "--bundle", SIGFIX / case["bundle"]]


@pytest.mark.parametrize(
    ("name", "code"),
    [("happy-path-v0.3-new-mediaType", 0), ("set-invalid-signature_fail", 3)],
)
def test_the_program_verifies_a_file_with_the_packaged_root(
    name: str, code: int, isolation: Isolation
) -> None:
    case, arguments = _conformance(name)
    signer = ("--issuer", case["policy"]["issuer"], "--identity", case["policy"]["identity"])
    isolation.program(code, "verify-blob", *arguments, *signer)
