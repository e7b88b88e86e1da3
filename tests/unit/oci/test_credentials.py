"""Credentials from Docker's configuration, its helpers and the environment."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import SourceError
from local_imager.oci.auth import parse_challenges
from local_imager.oci.credentials import Credentials, CredentialStore


def store_of(folder: Path, config: Any, **environment: str) -> CredentialStore:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return CredentialStore({"DOCKER_CONFIG": str(folder), **environment})


def pair(found: Credentials | None) -> tuple[str, str] | None:
    return (found.username, found.secret) if found is not None else None


ENCODED = base64.b64encode(b"me:pass:word").decode()


@pytest.mark.parametrize(
    ("key", "host", "repository"),
    [
        ("registry.example", "registry.example", "a/b"),
        ("https://registry.example/v2/", "registry.example", ""),
        ("registry.example:5000", "registry.example:5000", "a"),
        ("registry.example/team", "registry.example", "team/image"),
        ("https://index.docker.io/v1/", "registry-1.docker.io", "library/x"),
    ],
)
def test_an_entry_fits_its_host(tmp_path: Path, key: str, host: str, repository: str) -> None:
    store = store_of(tmp_path, {"auths": {key: {"auth": ENCODED}}})
    assert pair(store.find(host, repository)) == ("me", "pass:word")
    assert store.find("other.example", repository) is None
    assert store.find("registry.example.evil", repository) is None


def test_the_longest_path_wins(tmp_path: Path) -> None:
    entry = {"username": "team", "password": "t"}
    store = store_of(tmp_path, {"auths": {"r.io": {"auth": ENCODED}, "r.io/team": entry}})
    assert pair(store.find("r.io", "team/x")) == ("team", "t")
    assert pair(store.find("r.io", "teamwork/x")) == ("me", "pass:word")


def test_github_token_is_for_ghcr_only(tmp_path: Path) -> None:
    store = store_of(tmp_path, {}, GITHUB_TOKEN="gh-secret")
    found = store.find("ghcr.io")
    assert found is not None and found.secret == "gh-secret" and found.optional
    assert store.find("ghcr.io.evil.example") is None
    store = store_of(tmp_path, {"auths": {"ghcr.io": {"auth": ENCODED}}}, GITHUB_TOKEN="gh-secret")
    assert pair(store.find("ghcr.io")) == ("me", "pass:word")


HELPER = """#!/bin/sh
echo "$@" >> "{log}"
read host
case "$host" in
  good.example) echo '{{"Username":"helped","Secret":"from-helper"}}' ;;
  token.example) echo '{{"Username":"<token>","Secret":"identity"}}' ;;
  broken.example) echo '{{"oops"' ;;
  failing.example) echo "keychain is locked" >&2; echo '{{"Secret":"leak"}}'; exit 1 ;;
  *) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""


@pytest.fixture
def helper_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-test"
    program.write_text(HELPER.format(log=tmp_path / "argv"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return tmp_path / "argv"


@pytest.mark.parametrize(
    "config", [{"credsStore": "test"}, {"credHelpers": {"good.example": "test"}}]
)
def test_helpers_are_asked_on_standard_input(tmp_path: Path, helper_log: Path, config: Any) -> None:
    assert pair(store_of(tmp_path, config).find("good.example")) == ("helped", "from-helper")
    assert helper_log.read_text() == "get\n"


@pytest.mark.usefixtures("helper_log")
def test_what_helpers_answer(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"credsStore": "test"})
    assert store.find("unknown.example") is None
    found = store.find("token.example")
    assert found is not None and found.identity_token == "identity"
    with pytest.raises(SourceError, match="no usable answer"):
        store.find("broken.example")
    with pytest.raises(SourceError, match="keychain is locked") as caught:
        store.find("failing.example")
    assert "leak" not in caught.value.message


@pytest.mark.parametrize("name", ["missing-helper", "../evil", "a b", "-x"])
def test_helpers_that_cannot_be_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError):
        store_of(tmp_path, {"credsStore": name}).find("good.example")


@pytest.mark.parametrize(
    "config", ["", "[]", "{", '{"auths":5}', '{"auths":{"r.io":{"auth":"?"}}}']
)
def test_a_broken_configuration_is_said_so(tmp_path: Path, config: str) -> None:
    with pytest.raises(SourceError):
        store_of(tmp_path, config).find("r.io")


def test_no_configuration_is_no_credentials(tmp_path: Path) -> None:
    assert CredentialStore({"DOCKER_CONFIG": str(tmp_path / "none")}).find("r.io") is None


def test_secrets_do_not_show() -> None:
    shown = repr(Credentials("user-name", "secret-word", "here", identity_token="token-word"))
    assert "secret-word" not in shown and "token-word" not in shown


def test_challenges_are_read_as_the_rfc_says() -> None:
    header = (
        'Basic realm="x, y", Bearer realm="https://t.io/token",service=reg,scope="a:b:pull,push"'
    )
    basic, bearer = parse_challenges(header)
    assert (basic.scheme, dict(basic.parameters)) == ("basic", {"realm": "x, y"})
    assert dict(bearer.parameters) == {
        "realm": "https://t.io/token",
        "service": "reg",
        "scope": "a:b:pull,push",
    }
    assert parse_challenges("Negotiate abc") == ()
    assert len(parse_challenges("Bearer " * 100_000)) < 2000
