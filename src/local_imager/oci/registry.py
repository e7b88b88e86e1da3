"""A registry as a source of images (distribution-spec 1.1, read only).

Image names keep their identity (``ghcr.io/…``) wherever the bytes come from: a client may read a
mirror or a private registry under another address. Nothing that the registry says is believed:
manifests are held against their digest, blobs never exceed their descriptor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci import answers
from local_imager.oci.credentials import CredentialStore
from local_imager.oci.export import sniff_media_type
from local_imager.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    MEDIA_INDEX,
    Descriptor,
    Digest,
    Index,
    Reference,
    parse_manifest,
)
from local_imager.oci.names import fallback_tag
from local_imager.oci.source import RawManifest
from local_imager.oci.transport import (
    MAX_TRIES,
    Transport,
    host_of,
    origin_of,
    read_error,
    read_small,
    unreachable,
)

_ACCEPT: Final = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
_MAX_PAGES: Final = 200
_MAX_TAGS: Final = 100_000
_MAX_REFERRERS: Final = 2048
# Manifests are asked for by several steps of one run; a few hundred KB save the round trips.
_MAX_CACHED: Final = 256
_DOCKER_HUB: Final = {"docker.io": "registry-1.docker.io"}
# What a registry without referrers API answers.
_NO_REFERRERS_API: Final = frozenset({400, 404, 405, 406, 501})


class RegistryClient:
    """Reads images from one registry; safe for threads.

    ``base_url`` is where to ask (``https://host[:port][/prefix]``); empty means the registry that
    each image name itself says, over https (or http with ``plain_http``). ``identity`` is the
    part of image names (``ghcr.io`` or ``host/path``) that ``base_url`` stands for.
    """

    def __init__(
        self,
        base_url: str = "",
        identity: str = "",
        *,
        plain_http: bool = False,
        credentials: CredentialStore | None = None,
        timeout_s: float = 30.0,
        sink: EventSink = NULL_SINK,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._identity = identity
        self._scheme = "http" if plain_http else "https"
        self._timeout_s = timeout_s
        self._transport = Transport(
            credentials=credentials, timeout_s=timeout_s, sink=sink, sleep=sleep
        )
        self._lock = threading.Lock()
        self._cache: dict[Digest, RawManifest] = {}

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @property
    def location(self) -> str:
        """The address asked, or the registry part of the names."""
        return self._base_url or self._identity or "the registries that the image names say"

    def _place(self, reference: Reference) -> tuple[str, str]:
        """Return the origin to ask and the repository there."""
        if not self._base_url:
            host = _DOCKER_HUB.get(reference.registry, reference.registry)
            return f"{self._scheme}://{host}", reference.repository
        repository = reference.repository
        if self._identity:
            if not reference.name.startswith(self._identity + "/"):
                raise NotFound(
                    f"{self.location} serves {self._identity}/…, not {reference.name}",
                    hint="the setting upstream.registry says which names the source holds",
                )
            repository = reference.name[len(self._identity) + 1 :]
        origin = origin_of(self._base_url)
        prefix = self._base_url[len(origin) :].strip("/")
        return origin, f"{prefix}/{repository}" if prefix else repository

    def resolve(self, reference: Reference) -> Descriptor:
        """Return what a tag or digest names now, from the bytes that came.

        Raises :class:`NotFound`, :class:`SourceError` or :class:`IntegrityError`.
        """
        if reference.digest is not None:
            return self.manifest(reference, reference.digest).descriptor
        return self._get_manifest(reference, reference.tag).descriptor

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Return a manifest by digest; raises :class:`IntegrityError` when other bytes come."""
        with self._lock:
            cached = self._cache.get(digest)
        return cached or self._get_manifest(reference, str(digest), digest)

    def _get_manifest(
        self, reference: Reference, name: str, digest: Digest | None = None
    ) -> RawManifest:
        origin, repository = self._place(reference)
        url = f"{origin}/v2/{repository}/manifests/{name}"
        what = f"{reference.name}{'@' if digest else ':'}{name}"
        response, data = self._get_small(url, repository, _ACCEPT, what)
        if response.status_code != 200:
            raise answers.refusal(response, data, what)
        said = response.headers.get("Docker-Content-Digest", "")
        found = Digest.of(data)
        if (digest is not None and digest != found) or (said and said != str(found)):
            raise IntegrityError(
                f"{host_of(url)} sent other bytes than it names for {what}: they have digest "
                f"{found}, wanted {digest or said[:80]}",
                hint="the registry or something between is damaged or not honest",
            )
        raw = RawManifest(data, _media_type(response, data, what))
        with self._lock:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[found] = raw
        return raw

    def _get_small(
        self, url: str, repository: str, accept: str, what: str
    ) -> tuple[httpx.Response, bytes]:
        """Return a bounded answer; a body that breaks off is asked for again."""
        for tries in range(1, MAX_TRIES + 1):
            try:
                with self._transport.get(url, repository, {"Accept": accept}) as response:
                    if response.status_code != 200:
                        return response, read_error(response)
                    answers.refuse_encoded(response, what)
                    data = read_small(response, MAX_MANIFEST_BYTES)
                if len(data) > MAX_MANIFEST_BYTES:
                    raise SourceError(
                        f"{host_of(url)} sends more than {MAX_MANIFEST_BYTES} bytes for {what}",
                        code="malformed",
                    )
                return response, data
            except httpx.TransportError as error:
                if tries == MAX_TRIES:
                    raise unreachable(url, error, self._timeout_s) from error
                self._transport.pause(tries, url, "the answer broke off")
        raise AssertionError("the loop returns or raises")

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Stream a blob; a connection that breaks is resumed by a range request.

        Raises :class:`IntegrityError` at the first byte too many or an announced other size.
        """
        origin, repository = self._place(reference)
        url = f"{origin}/v2/{repository}/blobs/{descriptor.digest}"
        what = f"blob {descriptor.digest} of {reference.name}"
        failures, position = 0, offset
        while position < descriptor.size_bytes:
            begin = position
            try:
                for chunk in self._stream(url, repository, descriptor, position, what):
                    position += len(chunk)
                    yield chunk
                reason = f"broke off after {position} of {descriptor.size_bytes} bytes"
                cause: httpx.TransportError | None = None
            except httpx.TransportError as error:
                reason, cause = str(error) or type(error).__name__, error
            if position >= descriptor.size_bytes:
                return
            failures = 1 if position - begin >= answers.PROGRESS_BYTES else failures + 1
            if failures >= MAX_TRIES:
                raise answers.broken_off(what, position, descriptor.size_bytes) from cause
            self._transport.pause(failures, url, reason)

    def _stream(
        self, url: str, repository: str, descriptor: Descriptor, offset: int, what: str
    ) -> Iterator[bytes]:
        headers = {"Accept": "*/*", **({"Range": f"bytes={offset}-"} if offset else {})}
        with self._transport.get(url, repository, headers) as response:
            if response.status_code not in (200, 206):
                raise answers.refusal(response, read_error(response), what)
            answers.refuse_encoded(response, what)
            skip = answers.bytes_to_skip(response, descriptor, offset, what)
            left = descriptor.size_bytes - offset + skip
            for chunk in response.iter_raw():
                if len(chunk) > left:
                    raise IntegrityError(
                        f"{host_of(url)} sends more than {descriptor.size_bytes} bytes for {what}",
                        hint="the registry or something between is damaged or not honest",
                    )
                left -= len(chunk)
                if skip:
                    dropped = min(skip, len(chunk))
                    chunk, skip = chunk[dropped:], skip - dropped
                if chunk:
                    yield chunk

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return all tags of a repository, over all pages."""
        origin, repository = self._place(reference)
        tags: list[str] = []
        url: str = f"{origin}/v2/{repository}/tags/list?n=1000"
        for _ in range(_MAX_PAGES):
            what = f"the tags of {reference.name}"
            response, data = self._get_small(url, repository, "application/json", what)
            if response.status_code != 200:
                raise answers.refusal(response, data, what)
            tags += answers.tags_in(data, what)
            following = answers.next_page(response, url)
            if not following:
                return tuple(dict.fromkeys(tags))
            if len(tags) > _MAX_TAGS:
                break
            url = following
        raise SourceError(f"{reference.name} has more tags than can be read", code="malformed")

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what is attached to a digest: referrers API, else the fallback tag."""
        found = self._from_api(reference, digest)
        if found:
            return found
        try:
            raw = self._get_manifest(reference, fallback_tag(digest))
        except NotFound:
            return ()
        if raw.media_type not in INDEX_TYPES:
            return ()
        return self._entries(raw.untrusted_data, raw.media_type, f"referrers of {digest}")

    def _entries(self, data: bytes, media_type: str, what: str) -> tuple[Descriptor, ...]:
        parsed = parse_manifest(data, media_type, what)
        return parsed.manifests if isinstance(parsed, Index) else ()

    def _from_api(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        origin, repository = self._place(reference)
        url: str = f"{origin}/v2/{repository}/referrers/{digest}"
        what = f"the referrers of {reference.name}@{digest}"
        found: list[Descriptor] = []
        for _ in range(_MAX_PAGES):
            response, data = self._get_small(url, repository, MEDIA_INDEX, what)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if response.status_code in _NO_REFERRERS_API:
                return ()
            if response.status_code != 200:
                raise answers.refusal(response, data, what)
            if kind != MEDIA_INDEX:  # a web page: the path means something else there
                return ()
            found += self._entries(data, MEDIA_INDEX, what)
            following = answers.next_page(response, url)
            if not following:
                return tuple(found)
            if len(found) > _MAX_REFERRERS:
                break
            url = following
        raise SourceError(f"{what} are more than can be read", code="malformed")


def _media_type(response: httpx.Response, data: bytes, what: str) -> str:
    """Return the manifest's type; an untyped answer is judged by its bytes."""
    kind: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in INDEX_TYPES | MANIFEST_TYPES:
        return kind
    if kind == "text/html" or data.lstrip()[:1] == b"<":
        raise answers.not_a_registry(response, what)
    return sniff_media_type(data, what)
