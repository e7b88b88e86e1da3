"""What a factory's refusals mean, in words and with what to do.

Statuses and texts: siderolabs/image-factory v1.5.0 (`http.json` in tests/golden/factory.json).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import httpx

from local_imager.errors import InputError, LocalImagerError, NotFound, SourceError
from local_imager.events import printable
from local_imager.oci.transport import host_of, retry_after_s

BUSY_STATUS: Final = frozenset({429, 503})
_SAID_CHARACTERS: Final = 300


def said(untrusted_body: bytes) -> str:
    """Return the first line of an answer's text that a person may be shown, or nothing."""
    text = untrusted_body[:4096].decode("utf-8", "replace").strip()
    if not text or text.startswith("<") or "\0" in text:
        return ""  # a web page
    return printable(text.splitlines()[0].strip(), limit=_SAID_CHARACTERS)


def refusal(response: httpx.Response, untrusted_body: bytes, what: str) -> LocalImagerError:
    """Turn a factory's refusal of a file into an error with cause and hint."""
    host, status = host_of(str(response.url)), response.status_code
    text = said(untrusted_body)
    suffix = f": {text}" if text else f" (status {status})"
    if status == 404:
        return _not_found(host, text, suffix, what)
    if status == 400:
        return InputError(
            f"{host} cannot make {what}{suffix}",
            hint="the schematic, the version and the asset do not go together there; "
            "`local-imager plan` says what it thinks of them",
            code="factory-refused",
        )
    if status in (401, 403):
        return SourceError(
            f"{host} refuses access to {what}{suffix}",
            hint=f"it wants a login: `docker login {host}`, then run the command again",
            code="unauthorized",
        )
    if status == 402:
        return SourceError(
            f"{host} does not give {what}{suffix}",
            hint="only the enterprise edition of the factory has this",
            code="factory-refused",
        )
    if status in BUSY_STATUS:
        return busy(response, host, suffix)
    if status >= 500:
        return SourceError(
            f"{host} failed for {what}{suffix}",
            hint="the factory's own log says why; it answers so for platforms and versions that it "
            "does not know, too",
            code="factory-failed",
        )
    return SourceError(
        f"{host} answered status {status} for {what}{f' ({text})' if text else ''}",
        hint="check that --factory is the address of an Image Factory",
        code="malformed",
    )


def _not_found(host: str, text: str, suffix: str, what: str) -> LocalImagerError:
    if "schematic" in text and "not found" in text:
        return NotFound(
            f"{host} does not know the schematic of {what}{suffix}",
            hint="a factory learns a schematic when it is sent there (POST /schematics): "
            "`compare --build FILE … --upload` does that, and nothing else does",
            code="schematic-unknown",
        )
    if "is not available" in text:
        return NotFound(
            f"{host} does not have {what}{suffix}",
            hint="the factory offers other versions; its /versions lists them",
        )
    return NotFound(
        f"{host} does not have {what}{suffix}",
        hint="check that --factory is the address of an Image Factory, with its path if it has one",
    )


def busy(response: httpx.Response, host: str, suffix: str) -> SourceError:
    """Say that a factory has no time, and when it wants to be asked again."""
    wait_s = retry_after_s(response.headers.get("Retry-After", ""))
    when = f"; it asks to come again in {wait_s:.0f} s" if wait_s > 0 else ""
    word = "limits how much may be fetched" if response.status_code == 429 else "has no time now"
    return SourceError(
        f"{host} {word}{suffix}{when}",
        hint="run the command again later: what was fetched and compared is kept",
        code="rate-limited" if response.status_code == 429 else "busy",
    )


@contextlib.contextmanager
def at_factory() -> Iterator[None]:
    """Give faults of the connection hints that fit a factory, not a registry."""
    try:
        yield
    except SourceError as error:
        if error.code not in _HINTS or type(error) is not SourceError:
            raise
        raise SourceError(error.message, hint=_HINTS[error.code], code=error.code) from error


_HINTS: Final = {
    "unreachable": "check --factory, the network and the proxy settings (HTTPS_PROXY, NO_PROXY); "
    "what was fetched before is compared without a network, `--against DIR` compares with files",
    "tls": "for a private authority set SSL_CERT_FILE; check this machine's clock too. "
    "A factory without TLS is named with http:// before its host",
}
