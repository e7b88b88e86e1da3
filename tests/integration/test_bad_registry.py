"""Registries that lie, stumble or keep silent: an exit code and a reason, and a clean store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_imager.oci.model import MEDIA_INDEX, Digest
from tests.integration.upstreams import settings_file
from tests.labfolder import NEWEST, PREFIX, Lab
from tests.program import Program
from tests.scriptedhttp import Ask, Script, scripted_server

pytestmark = pytest.mark.lab

INDEX = json.dumps({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": []}).encode()


def answers(status: int, body: bytes = b"{}", content_type: str = MEDIA_INDEX) -> Script:
    """A registry that answers everything in the same way."""

    def script(ask: Ask) -> None:
        login = 'Basic realm="there"'
        ask.answer(status, body, Content_Type=content_type, WWW_Authenticate=login)

    return script


def not_what_was_named(ask: Ask) -> None:
    """The registry says one digest and sends other bytes."""
    ask.answer(
        200, INDEX, Docker_Content_Digest=str(Digest.of(b"another")), Content_Type=MEDIA_INDEX
    )


def cut_short(ask: Ask) -> None:
    """The connection ends before the announced length."""
    ask.answer(200, INDEX[:20], length=len(INDEX), Content_Type=MEDIA_INDEX)


def never(ask: Ask) -> None:
    """The registry takes the request and says nothing."""
    ask.silence()


# name: (script, exit codes, phrases)
REGISTRIES: dict[str, tuple[Script, int, tuple[str, ...]]] = {
    "404": (answers(404), 2, ("siderolabs/imager",)),
    "401": (answers(401), 1, ("401", "login")),
    "403": (answers(403), 1, ("403",)),
    "500": (answers(500), 1, ("500",)),
    "garbage": (answers(200, b"{garbage"), 1, ("not valid JSON",)),
    "a web page": (answers(200, b"<html>welcome</html>", "text/html"), 1, ("sends a web page",)),
    "a wrong digest": (not_what_was_named, 3, ("sha256:",)),
    "a cut answer": (cut_short, 1, ()),
    "silence": (never, 1, ("did not answer within 1 s",)),
}


def program_for(lab: Lab, folder: Path, address: str) -> Program:
    config = settings_file(folder, address, lab.root / "lab.pub", PREFIX)
    env = {"LOCAL_IMAGER_UPSTREAM_TIMEOUT_S": "1"}
    return Program(config, folder / "store", folder / "out", env=env)


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_registry_that_is_no_help(lab: Lab, folder: Path, name: str) -> None:
    script, code, phrases = REGISTRIES[name]
    with scripted_server(script) as server:
        program = program_for(lab, folder, server.url)
        fetched = program("sources", "fetch", "--version", NEWEST)
    fetched.expect(code, *phrases)
    assert fetched.duration_s < 60
    assert len(server.requests) < 30  # it does not hammer on a registry in trouble
    program.fsck()


def test_a_registry_that_is_not_there(lab: Lab, folder: Path) -> None:
    program = program_for(lab, folder, "http://127.0.0.1:1")
    program("sources", "fetch", "--version", NEWEST).expect(1, "127.0.0.1:1")


def test_a_registry_that_must_be_spoken_to_with_tls(lab: Lab, folder: Path) -> None:
    """Without the setting nobody is spoken to in plain text; the hint names it."""
    with scripted_server(answers(200)) as server:
        program = program_for(lab, folder, f"https://{server.address}")
        program("sources", "fetch", "--version", NEWEST).expect(1, server.address)
        assert not server.requests
