"""Registry credentials of the user: Docker's configuration, its helper programs, GITHUB_TOKEN.

Secrets stay inside :class:`Credentials`, whose text never shows them, and reach helper programs
on standard input only. Rules: docker/cli config file; docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from local_imager.errors import SourceError
from local_imager.events import printable

_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HELPER_TIMEOUT_S: Final = 30
# A hand-sized file; anything larger is not a Docker configuration.
_MAX_CONFIG_BYTES: Final = 1 << 20
# What helpers print (on stdout, with status 1) when they simply have nothing for this host.
_NOT_FOUND: Final = ("credentials not found", "no credentials", "not found in native keychain")
_TOKEN_USER: Final = "<token>"  # noqa: S105  the protocol's marker, not a secret
_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and secret, or an identity token; ``origin`` says where they came from."""

    username: str = field(repr=False)
    secret: str = field(repr=False)
    origin: str
    identity_token: str = field(default="", repr=False)
    # Credentials that were not given for this program may be wrong without any fault of the user.
    optional: bool = False

    def basic(self) -> str:
        """Return the value of a Basic ``Authorization`` header."""
        pair = f"{self.username}:{self.secret}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class CredentialStore:
    """Looks credentials up by host; reads the configuration once."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._config: dict[str, Any] | None = None

    def find(self, host: str, repository: str = "") -> Credentials | None:
        """Return the credentials for a host (with port), or None.

        A helper named for the host goes first, then entries of the file (the longest path that
        fits the repository), then the general helper, then ``GITHUB_TOKEN`` for ghcr.io.
        Raises :class:`SourceError` when a configuration or helper is broken.
        """
        config = self._load()
        helper = (config.get("credHelpers") or {}).get(host)
        if isinstance(helper, str):
            return self._ask(helper, host)
        found = self._from_file(config, host, repository)
        if found is None and isinstance(config.get("credsStore"), str) and config["credsStore"]:
            server = "https://index.docker.io/v1/" if host in _DOCKER_HUB else host
            found = self._ask(config["credsStore"], server)
        token = self._environment.get("GITHUB_TOKEN", "")
        if found is None and host == "ghcr.io" and token:
            return Credentials("token", token, "GITHUB_TOKEN", optional=True)
        return found

    def _path(self) -> Path:
        folder = self._environment.get("DOCKER_CONFIG", "")
        return (Path(folder) if folder else Path.home() / ".docker") / "config.json"

    def _load(self) -> dict[str, Any]:
        if self._config is None:
            path = self._path()
            try:
                with path.open("rb") as stream:
                    data = stream.read(_MAX_CONFIG_BYTES)
                config = json.loads(data)
                valid = isinstance(config, dict) and all(
                    isinstance(config.get(key) or {}, dict) for key in ("auths", "credHelpers")
                )
            except (FileNotFoundError, NotADirectoryError):
                config, valid = {}, True
            except (OSError, ValueError, RecursionError):
                config, valid = {}, False
            if not valid:
                raise SourceError(
                    f"{path} cannot be read as a Docker configuration",
                    hint="mend or remove the file; DOCKER_CONFIG names another directory",
                )
            self._config = config
        return self._config

    def _from_file(
        self, config: Mapping[str, Any], host: str, repository: str
    ) -> Credentials | None:
        entries = {_plain_host(key): value for key, value in (config.get("auths") or {}).items()}
        path = f"{host}/{repository}".rstrip("/")
        candidates = [path]
        while "/" in path:
            path = path.rpartition("/")[0]
            candidates.append(path)
        if host in _DOCKER_HUB:
            candidates += _DOCKER_HUB
        for candidate in candidates:
            found = _credentials(entries.get(candidate), str(self._path()))
            if found is not None:
                return found
        return None

    def _ask(self, helper: str, server: str) -> Credentials | None:
        if not _HELPER.fullmatch(helper):
            raise SourceError(f"the Docker configuration names a strange helper {helper[:40]!r}")
        program = f"docker-credential-{helper}"
        try:
            answer = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT_S,
                check=False,
            )
        except FileNotFoundError:
            raise SourceError(
                f"the credential helper {program} of your Docker configuration is not installed",
                hint="install it, or remove it from the configuration",
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(
                f"the credential helper {program} did not answer for {server}",
                hint="run it by hand; it may wait for a password or a locked keychain",
            ) from error
        if answer.returncode != 0:
            said = (answer.stdout + answer.stderr)[:2000].decode(errors="replace")
            if any(text in said.lower() for text in _NOT_FOUND):
                return None
            reason = answer.stderr[:500].decode(errors="replace").strip()
            raise SourceError(
                f"the credential helper {program} failed for {server}: {printable(reason)}",
                hint="run it by hand, or remove it from the Docker configuration",
            )
        return _from_helper(answer.stdout, program)


def _from_helper(untrusted_answer: bytes, program: str) -> Credentials | None:
    try:
        document = json.loads(untrusted_answer[:_MAX_CONFIG_BYTES])
        username, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"the credential helper {program} gave no usable answer") from None
    if not secret:
        return None
    if username == _TOKEN_USER:
        return Credentials("", "", program, identity_token=secret)
    return Credentials(username, secret, program)


def _credentials(untrusted_entry: object, origin: str) -> Credentials | None:
    """Read one entry of ``auths``: identity token, ``auth`` (base64), or plain fields."""
    if not isinstance(untrusted_entry, dict):
        return None
    token = untrusted_entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials("", "", origin, identity_token=token)
    username, secret = untrusted_entry.get("username"), untrusted_entry.get("password")
    encoded = untrusted_entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise SourceError(f"{origin} holds an auth entry that is not base64") from None
        username, _, secret = decoded.rstrip("\0").partition(":")
    if isinstance(username, str) and isinstance(secret, str) and username and secret:
        return Credentials(username, secret, origin)
    return None


def _plain_host(key: str) -> str:
    """Return the host (and path) of a key such as ``https://host/v1/``."""
    plain = re.sub(r"^https?://", "", key).rstrip("/")
    return re.sub(r"/v[12]$", "", plain)
