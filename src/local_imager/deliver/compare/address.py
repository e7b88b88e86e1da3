"""Addresses of an Image Factory: which one, and which of its files."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from local_imager.errors import InputError
from local_imager.profile.assetname import AssetName
from local_imager.profile.version import TalosVersion

PREFIX: Final = "factory:"
_ID: Final = re.compile(r"[0-9a-f]{64}")
_HOST: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?"
)
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_FORM: Final = "write factory:SCHEMATIC_ID/VERSION/ASSET, such as factory:376567…/v1.13.0/"


@dataclass(frozen=True, slots=True)
class FactoryAsset:
    """One file of a factory: a schematic's asset at a version."""

    schematic_id: str
    version: str
    asset: str

    @classmethod
    def parse(cls, text: str) -> FactoryAsset:
        """Read ``factory:ID/VERSION/ASSET``; a schematic file in place of the ID gives its ID.

        Raises :class:`InputError` (with the nearest asset names), :class:`SchematicError` for a
        file that is no schematic.
        """
        rest = text.removeprefix(PREFIX)
        schematic, _, tail = rest.rpartition("/")
        schematic, _, version = schematic.rpartition("/")
        if not (schematic and version and tail):
            raise InputError(
                f"{text[:200]!r} names no file of a factory", hint=f"{_FORM}metal-amd64.iso"
            )
        asset = AssetName.parse(tail)
        return cls(schematic_id_of(schematic), str(TalosVersion.parse(version)), asset.given)

    @property
    def path(self) -> str:
        """``ID/VERSION/ASSET``."""
        return f"{self.schematic_id}/{self.version}/{self.asset}"

    def url(self, base_url: str) -> str:
        """Return the address of the file at a factory."""
        return f"{base_url}/image/{quote(self.path)}"


def schematic_id_of(text: str) -> str:
    """Return a schematic ID as it is, or that of the schematic in a file.

    Raises :class:`InputError` for neither.
    """
    if _ID.fullmatch(text):
        return text
    if Path(text).is_file():
        from local_imager.schematic.canonical import schematic_id
        from local_imager.schematic.parse import read_schematic

        return str(schematic_id(read_schematic(text)))
    shortened = re.fullmatch(r"[0-9a-fA-F…]{6,64}", text)
    hint = (
        "a factory wants all 64 digits in lower case: `local-imager schematic id FILE` gives them"
        if shortened
        else "give the 64 digits of the ID, or the schematic's file"
    )
    raise InputError(f"{text[:120]!r} is neither a schematic ID nor a schematic's file", hint=hint)


def factory_address(text: str, *, plain_http: bool = False) -> str:
    """Return the base URL of a factory, without a slash at the end.

    ``https://`` is meant where no scheme is written, ``http://`` only for this machine itself or
    with ``plain_http`` (the setting ``upstream.plain_http``). Raises :class:`InputError`.
    """
    plain = plain_http or is_loopback(text)
    written = text if "://" in text else f"http{'' if plain else 's'}://{text}"
    try:
        parts = urlsplit(written if written.isprintable() else "")
    except ValueError:
        parts = urlsplit("")
    netloc, path = parts.netloc, parts.path.rstrip("/")
    if "@" in netloc:
        raise InputError(
            "the address of a factory may hold no user name or password",
            hint="`docker login HOST` keeps them; they are found by host",
        )
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(netloc)
        or not _PATH.fullmatch(path)
        or parts.query
        or parts.fragment
    ):
        raise InputError(
            f"{text[:120]!r} is not the address of a factory",
            hint="write https://host[:port][/path], or http://… where it has no TLS",
        )
    return f"{parts.scheme}://{netloc}{path}"


def is_loopback(text: str) -> bool:
    """Return whether a host (with port and path) is this machine itself."""
    host = text.partition("/")[0]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def place_of(base_url: str, wanted: FactoryAsset) -> str:
    """Return the name under which the store keeps a file of a factory (no scheme in it)."""
    return f"{base_url.partition('://')[2]}/{wanted.path}"
