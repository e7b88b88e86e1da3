"""Reading what a registry answers: refusals in plain words, ranges, pages, tag lists."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import httpx

from local_imager.errors import IntegrityError, LocalImagerError, NotFound, SourceError
from local_imager.events import printable
from local_imager.oci.model import Descriptor, load_json_object
from local_imager.oci.transport import host_of, origin_of

# A connection that brought this much before it broke is worth as many tries as a new one.
PROGRESS_BYTES: Final = 1 << 20
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(?:\d{1,15}|\*)")
_NEXT: Final = re.compile(r'<([^<>]{1,4096})>\s*;[^,]*\brel="?next"?')
_MAX_TAG_CHARS: Final = 128


def refusal(response: httpx.Response, untrusted_body: bytes, what: str) -> LocalImagerError:
    """Turn an error status into an error that says what to check."""
    host, status = host_of(str(response.url)), response.status_code
    said = _said(untrusted_body)
    suffix = f" ({said})" if said else ""
    if status == 404:
        return NotFound(
            f"{host} does not have {what}{suffix}",
            hint="check name and version; `local-imager versions` lists what the source offers",
        )
    if status in (401, 403):
        return SourceError(
            f"{host} refuses access to {what}: status {status}{suffix}",
            hint=f"if it is not public, `docker login {host}` first; some registries say this "
            "of names that do not exist",
            code="unauthorized",
        )
    if status == 429:
        return SourceError(
            f"{host} limits how much may be fetched{suffix}",
            hint="wait, log in, or use a mirror (upstream.mirrors)",
            code="rate-limited",
        )
    if status >= 500:
        return SourceError(
            f"{host} failed with status {status} for {what}{suffix}",
            hint="the fault is on the registry's side: try later, or use a mirror or bundle",
        )
    return SourceError(
        f"{host} answered status {status} for {what}{suffix}",
        hint="check that this address is a registry and not something before it",
    )


def _said(untrusted_body: bytes) -> str:
    """Return code and message of a registry's error document, cleaned, or nothing."""
    try:
        document: Any = json.loads(untrusted_body)
        first = document["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    return printable(text.strip(": "), limit=200)


def not_a_registry(response: httpx.Response, what: str) -> SourceError:
    """Say that a web page came where a manifest was asked for."""
    return SourceError(
        f"{host_of(str(response.url))} sends a web page for {what}: it is no registry, "
        "or a proxy or login page answers in its place",
        hint="check the address and the proxy settings",
        code="malformed",
    )


def refuse_encoded(response: httpx.Response, what: str) -> None:
    """Refuse a compressed transfer, which was not asked for: digests are over plain bytes."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise SourceError(
            f"{host_of(str(response.url))} sends {what} with the encoding {encoding[:20]!r}",
            hint="a proxy that compresses stands before the registry; it must leave blobs alone",
            code="malformed",
        )


def bytes_to_skip(response: httpx.Response, descriptor: Descriptor, offset: int, what: str) -> int:
    """Return how many bytes of the body were here before, and check what is announced.

    A registry without range support sends all again (200). Raises :class:`IntegrityError` when
    another range or size is announced than the descriptor's.
    """
    skip = 0
    if response.status_code == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != offset:
            raise IntegrityError(f"{host_of(str(response.url))} sends another part of {what}")
    else:
        skip = offset
    announced = response.headers.get("Content-Length", "")
    expected = descriptor.size_bytes - offset + skip
    if not announced.isdecimal() or len(announced) > 18:
        return skip
    # A range may be answered in parts; a whole blob that is shorter stays so however often asked.
    if int(announced) > expected or (int(announced) < expected and response.status_code == 200):
        raise IntegrityError(
            f"{host_of(str(response.url))} announces {announced} bytes for {what}, "
            f"which has {expected}",
            hint="the registry or something between is damaged or not honest",
        )
    return skip


def broken_off(what: str, position: int, size_bytes: int) -> SourceError:
    """Say that a download stays incomplete."""
    return SourceError(
        f"{what} broke off again and again ({position} of {size_bytes} bytes came)",
        hint="run the command again: it goes on where this one stopped",
        code="truncated",
    )


def next_page(response: httpx.Response, url: str) -> str:
    """Return the URL of the next page, or nothing; never of another host."""
    match = _NEXT.search(response.headers.get("Link", ""))
    if match is None:
        return ""
    try:
        target = str(httpx.URL(url).join(match[1]))
        stays = origin_of(target) == origin_of(url)
    except (httpx.InvalidURL, ValueError):
        stays = False
    if not stays:
        raise SourceError(f"{host_of(url)} names a next page elsewhere", code="malformed")
    return target


def tags_in(untrusted_body: bytes, what: str) -> list[str]:
    """Return the tags of one page; raises :class:`SourceError` for anything else."""
    tags = load_json_object(untrusted_body, what).get("tags") or []
    if not isinstance(tags, list) or not all(
        isinstance(tag, str) and len(tag) <= _MAX_TAG_CHARS for tag in tags
    ):
        raise SourceError(f"{what}: the list is not one of tags", code="malformed")
    return tags
