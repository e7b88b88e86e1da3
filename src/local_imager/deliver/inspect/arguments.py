"""Kernel arguments as Talos reads them: words, platform, and the META values among them."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from local_imager.events import printable

PLATFORM: Final = "talos.platform"
ENVIRONMENT: Final = "talos.environment"
_META_VARIABLE: Final = "INSTALLER_META_BASE64="
_MAX_ARGUMENTS: Final = 4096
# Values on a command line are bounded by the kernel's own limit of a few KiB.
_MAX_META_BYTES: Final = 1 << 20
# Keys of META that mean something to Talos (pkg/machinery/meta), in words.
META_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x6: "upgrade",
        0x7: "staged upgrade image",
        0x8: "staged upgrade options",
        0x9: "state encryption",
        0xA: "metal network configuration",
        0xB: "download URL code",
        0xC: "user reserved 1",
        0xD: "user reserved 2",
        0xE: "user reserved 3",
        0xF: "machine UUID",
        0x10: "unique machine token",
        0x11: "disk image boot loader",
    }
)
_WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')


def split_arguments(text: str) -> tuple[str, ...]:
    """Split a command line as the kernel does: at spaces, but not inside of double quotes."""
    line = text.strip("\0").strip()
    found = (match[0] for match in _WORD.finditer(line))
    return tuple(
        printable(word, limit=8192) for _, word in zip(range(_MAX_ARGUMENTS), found, strict=False)
    )


def values_of(arguments: Iterable[str], name: str) -> tuple[str, ...]:
    """Return the values of an argument that may be given several times."""
    return tuple(word[len(name) + 1 :] for word in arguments if word.startswith(f"{name}="))


def meta_in(arguments: Iterable[str]) -> tuple[Mapping[str, str], str]:
    """Return the META values that ``talos.environment`` carries, and why some cannot be read.

    The rule (Talos ``pkg/machinery/meta``): base64 of ``0xKEY=VALUE`` joined by ``;``, from 1.7 on
    packed with gzip when longer than 256 bytes.
    """
    found: dict[str, str] = {}
    for value in values_of(arguments, ENVIRONMENT):
        if not value.startswith(_META_VARIABLE):
            continue
        try:
            text = _decoded(value.removeprefix(_META_VARIABLE))
        except (ValueError, zlib.error, binascii.Error):
            return found, f"the value of {ENVIRONMENT} is not what Talos writes there"
        for item in text.split(";") if text else ():
            key, _, content = item.partition("=")
            found[meta_key(key)] = printable(content, limit=1 << 16)
    return found, ""


def meta_key(text: str) -> str:
    """Return a META key in the one spelling ``0xa``; a key that is no number stays as it is."""
    try:
        return hex(int(text, 0))
    except ValueError:
        return printable(text, limit=80)


def meta_name(key: str) -> str:
    """Return what Talos uses a META key for, empty for one that it does not know."""
    try:
        return META_NAMES.get(int(key, 16), "")
    except ValueError:
        return ""


def _decoded(text: str) -> str:
    data = base64.b64decode(text, validate=True)
    if data[:2] == b"\x1f\x8b":
        engine = zlib.decompressobj(31)
        data = engine.decompress(data, _MAX_META_BYTES)
        if not engine.eof:
            raise ValueError("the packed values do not end")
    return data.decode()
