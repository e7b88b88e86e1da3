"""Files of an Image Factory, fetched to be compared with: bounded, resumable, never trusted.

A factory builds what it is asked for, so a file may be another one each time; bytes of two answers
are joined only when the server itself says that they belong to one version (``If-Range`` with a
strong ETag or a date, RFC 9110 section 13.1.5). The factory's own ``/image`` has no ranges; the
store of files that it may redirect to does.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from local_imager.deliver.compare.address import FactoryAsset, place_of
from local_imager.deliver.compare.refusals import BUSY_STATUS, at_factory, busy, refusal, said
from local_imager.errors import HostError, IntegrityError, NotFound, SourceError
from local_imager.events import NULL_SINK, EventSink, Message, Progress, step
from local_imager.oci.model import load_json_object
from local_imager.oci.transport import RETRY_STATUS, Transport, host_of, read_error, retry_after_s
from local_imager.profile.assetname import AssetName
from local_imager.schematic.canonical import canonical_bytes, schematic_id
from local_imager.schematic.model import Schematic
from local_imager.store.foreign import (
    ForeignFile,
    ForeignWriter,
    Version,
    foreign_writer,
    held_foreign,
    name_foreign,
)
from local_imager.store.store import Store

# Twice the largest disk of any platform; what is larger is not a boot file.
MAX_BYTES: Final = 32 * 1024**3
# A factory may build for a while before it begins to answer.
PATIENCE_S: Final = 300.0
# Then its file lies there, and comes without pauses.
STALL_S: Final = 30.0
_RESERVE_BYTES: Final = 64 * 1024**2
_MAX_TRIES: Final = 5
# A connection that brought this much before it broke is worth as many tries as a new one.
_PROGRESS_BYTES: Final = 1 << 20
_MAX_WAIT_S: Final = 30.0
_FIRST_WAIT_S: Final = 1.0
_PROGRESS_EVERY_S: Final = 0.1
_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_MAX_VALIDATOR_CHARACTERS: Final = 512
# A factory answers 500 for what it cannot build: asking again would only build again.
_RETRY: Final = RETRY_STATUS - BUSY_STATUS - {500}


class FactoryClient:
    """Reads files of one factory (``base_url``, see :func:`.address.factory_address`).

    ``timeout_s`` is how long it may take to begin an answer, ``stall_s`` how long it may be silent
    in the middle of a file before the connection counts as broken.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = PATIENCE_S,
        stall_s: float = STALL_S,
        sink: EventSink = NULL_SINK,
        sleep: Callable[[float], None] = time.sleep,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.base_url = base_url
        self.max_bytes = max_bytes
        self.stall_s = stall_s
        self.sink, self._sleep = sink, sleep
        self.transport = Transport(timeout_s=timeout_s, sink=sink, sleep=sleep, retry_status=_RETRY)

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return host_of(self.base_url)

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def held(self, store: Store, wanted: FactoryAsset) -> ForeignFile | None:
        """Return the file as it was fetched before, if it is in the store and intact."""
        return held_foreign(store.layout, place_of(self.base_url, wanted))

    def fetch(
        self, store: Store, wanted: FactoryAsset, *, refetch: bool = False, offline: bool = False
    ) -> ForeignFile:
        """Return a file of the factory, from the store if it was fetched before.

        ``refetch`` asks the factory in any case. An interrupted download is continued where the
        server allows. Raises :class:`NotFound`, :class:`SourceError`, :class:`InputError` as the
        factory's answer says, :class:`HostError` without room, :class:`StoreError`.
        """
        place = place_of(self.base_url, wanted)
        known = None if refetch else held_foreign(store.layout, place)
        if known is not None:
            self.sink.emit(Message(f"{known.short}: from the store, fetched before"))
            return known
        if offline:
            raise NotFound(
                f"the store has no {place}, and offline nothing is fetched",
                hint="run the command once without --offline",
            )
        began = held_foreign(store.layout, place)
        with foreign_writer(store.layout, place, max_bytes=self.max_bytes) as writer:
            now = held_foreign(store.layout, place)
            if now is not None and (not refetch or (began and now.digest != began.digest)):
                return now  # another process was first
            with step(self.sink, "fetch", f"{self.host} {wanted.asset}"):
                with at_factory():
                    _Download(self, store, wanted, writer).run()
                media_type = AssetName.parse(wanted.asset).content_type
                layer = writer.commit(media_type)
                return name_foreign(store.layout, place, layer, wanted.url(self.base_url))

    def upload(self, schematic: Schematic) -> str:
        """Send a schematic, so that the factory knows it; return its ID.

        Raises :class:`SourceError` when the factory refuses it or gives it another ID.
        """
        own = str(schematic_id(schematic))
        with step(self.sink, "upload", f"{self.host} schematic {own[:12]}"):
            with at_factory():
                answer = self.transport.post(
                    f"{self.base_url}/schematics", canonical_bytes(schematic), "application/yaml"
                )
            if answer.status_code in BUSY_STATUS:
                raise busy(answer, self.host, "")
            if answer.status_code not in (200, 201):
                text = said(answer.content) or f"status {answer.status_code}"
                raise SourceError(
                    f"{self.host} does not take the schematic: {text}",
                    hint="`local-imager schematic lint FILE` checks it by the same rules",
                    code="factory-refused",
                )
            document = load_json_object(answer.content, f"the answer of {self.host}")
            theirs = document.get("id")
        if theirs != own:
            raise SourceError(
                f"{self.host} gives the schematic another ID ({str(theirs)[:80]!r}, ours is {own})",
                hint="its YAML library writes this schematic differently; use its ID: "
                "compare A factory:ID/VERSION/ASSET",
                code="schematic-differs",
            )
        return own

    def wait(self, seconds: float, why: str) -> None:
        """Wait before another try, and say so."""
        text = f"{self.host}: {why}; trying again in {seconds:.1f} s"
        self.sink.emit(Message(text, "warning"))
        self._sleep(seconds)


@dataclass(slots=True)
class _Download:
    """One file on its way; ``run`` ends with all bytes in the writer or raises."""

    client: FactoryClient
    store: Store
    wanted: FactoryAsset
    writer: ForeignWriter
    reported_s: float = 0.0

    def run(self) -> None:
        failures = busy_tries = 0
        while True:
            begin = self.writer.offset
            try:
                wait_s = self._once()
            except httpx.TransportError as error:
                came = self.writer.offset - begin
                failures = 1 if came >= _PROGRESS_BYTES and self._resumable else failures + 1
                if failures >= _MAX_TRIES:
                    raise self._broken_off() from error
                what = f"the download broke off after {self.writer.offset} bytes"
                silent = (
                    f"nothing came for {self.client.stall_s:g} s, {self.writer.offset} bytes did"
                )
                reason = silent if isinstance(error, httpx.ReadTimeout) else what
                self.client.wait(min(2.0 ** (failures - 2), _MAX_WAIT_S), reason)
                continue
            if wait_s is None:
                return
            busy_tries += 1
            if busy_tries >= _MAX_TRIES:
                raise SourceError(
                    f"{self.client.host} has no time, however often it is asked",
                    hint="run the command again later",
                    code="busy",
                )
            self.client.wait(wait_s, "it has no time now")

    @property
    def _resumable(self) -> bool:
        return bool(self.writer.version.validator)

    def _once(self) -> float | None:
        """Ask once and take what comes; returns None when all is here, else seconds to wait."""
        url = self.wanted.url(self.client.base_url)
        headers = {"Accept": "*/*"}
        offset, version = self.writer.offset, self.writer.version
        if offset and version.validator:
            if offset == version.size_bytes:
                return None
            headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
        with self.client.transport.get(url, "", headers) as response:
            status = response.status_code
            if status == 416 and "Range" in headers:
                self.writer.restart(Version())
                raise httpx.ReadError("the server has no such range of the file")
            if status in BUSY_STATUS:
                return self._busy(response)
            if status not in (200, 206):
                raise refusal(response, read_error(response), self._what)
            self._check_head(response)
            if not self._continues(response, offset, version):
                self.writer.restart(_version_of(response))
            self._check_room()
            _read_within(response, self.client.stall_s)
            for chunk in response.iter_raw():
                self._take(chunk)
        self._report(done=True)
        self._check_end()
        return None

    @property
    def _what(self) -> str:
        return f"{self.wanted.schematic_id[:12]}/{self.wanted.version}/{self.wanted.asset}"

    def _busy(self, response: httpx.Response) -> float:
        asked_s = retry_after_s(response.headers.get("Retry-After", ""))
        if asked_s > _MAX_WAIT_S:
            body = said(read_error(response))
            raise busy(response, self.client.host, f": {body}" if body else "")
        return max(asked_s, _FIRST_WAIT_S)

    def _check_head(self, response: httpx.Response) -> None:
        """Refuse what cannot be the file: a web page, other encodings, more than the limit."""
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        host = host_of(str(response.url))
        if encoding not in ("", "identity"):
            raise SourceError(
                f"{host} sends {self._what} with the encoding {encoding[:20]!r}",
                hint="a proxy that compresses stands before the factory; it must leave files alone",
                code="malformed",
            )
        if kind == "text/html":
            raise SourceError(
                f"{host} sends a web page for {self._what}",
                hint="a proxy or a login page answers in the factory's place",
                code="malformed",
            )

    def _continues(self, response: httpx.Response, offset: int, version: Version) -> bool:
        """Whether the answer goes on after the bytes that are here; else it is a whole file.

        Raises :class:`IntegrityError` for a part that was not asked for.
        """
        if response.status_code != 206:
            return False
        match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        fresh = _version_of(response, partial=True)
        total = int(match[3]) if match and match[3] != "*" else -1
        if match is None or int(match[1]) != offset or not offset:
            raise IntegrityError(
                f"{host_of(str(response.url))} sends another part of {self._what} than asked for",
                hint="the server or something between is not well configured",
            )
        same = fresh.validator in ("", version.validator) and total in (-1, version.size_bytes)
        if not same:  # it passed over If-Range: these are bytes of another file
            self.writer.restart(Version())
            raise httpx.ReadError("the file at the server became another one")
        return True

    def _check_room(self) -> None:
        size = self.writer.version.size_bytes
        if size > self.client.max_bytes:
            raise SourceError(
                f"{self.client.host} announces {size} bytes for {self._what}: "
                "no boot file is that large",
                code="too-large",
            )
        if self.wanted.asset.endswith((".raw", ".vhd")):
            return  # nearly all of it is zeros, which take no room
        free = shutil.disk_usage(self.store.path).free
        if size - self.writer.offset + _RESERVE_BYTES > free:
            raise HostError(
                f"{self._what} has {size // 1024**2 + 1} MiB, and {free // 1024**2} MiB are free "
                f"at {self.store.path}",
                hint="free some space, run `local-imager store gc`, or choose another --store",
                code="disk-full",
            )

    def _take(self, chunk: bytes) -> None:
        size = self.writer.version.size_bytes
        if 0 <= size < self.writer.offset + len(chunk):
            self.writer.restart(Version())
            raise IntegrityError(
                f"{self.client.host} sends more than the {size} bytes that it announced "
                f"for {self._what}",
                hint="the server or something between is damaged or not honest",
            )
        self.writer.write(chunk)
        self._report()

    def _check_end(self) -> None:
        """Check that all came that was announced."""
        size, have = self.writer.version.size_bytes, self.writer.offset
        if have == 0:
            raise SourceError(f"{self.client.host} sends nothing for {self._what}", code="empty")
        if 0 <= size != have:
            raise httpx.ReadError(f"{have} of {size} bytes came")
        if size < 0:
            text = f"{self.client.host} announced no size for {self._what}: it may be cut short"
            self.client.sink.emit(Message(text, "warning"))

    def _report(self, *, done: bool = False) -> None:
        now = time.monotonic()
        if done or now - self.reported_s >= _PROGRESS_EVERY_S:
            self.reported_s = now
            subject = f"{self.client.host} {self.wanted.asset}"
            total = max(self.writer.version.size_bytes, 0)
            self.client.sink.emit(Progress("fetch", subject, self.writer.offset, total))

    def _broken_off(self) -> SourceError:
        size = self.writer.version.size_bytes
        again = (
            "run the command again: it goes on where this one stopped"
            if self._resumable
            else "this server cannot continue a download, so it begins anew each time"
        )
        return SourceError(
            f"{self._what} broke off again and again ({self.writer.offset} of "
            f"{size if size >= 0 else 'unknown'} bytes came)",
            hint=again,
            code="truncated",
        )


def _read_within(response: httpx.Response, seconds: float) -> None:
    """Let each further read of the answer wait so long; httpx takes it from the request then."""
    response.request.extensions["timeout"]["read"] = seconds


def _version_of(response: httpx.Response, *, partial: bool = False) -> Version:
    """Return what the answer says of the file: validator for later ranges, and whole size."""
    headers = response.headers
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    strong = etag.startswith('"') and etag.endswith('"') and len(etag) > 2
    validator = etag if strong else modified
    if len(validator) > _MAX_VALIDATOR_CHARACTERS or not validator.isascii():
        validator = ""
    announced = headers.get("Content-Length", "")
    known = announced.isdecimal() and announced.isascii() and len(announced) < 16
    return Version(validator, int(announced) if known and not partial else -1)
