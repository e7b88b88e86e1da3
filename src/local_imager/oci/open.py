"""Opening a place of images by what the user wrote: a path, a URL, or a registry's name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from local_imager.errors import InputError
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.source import ImageSource, RawManifest

if TYPE_CHECKING:
    from local_imager.oci.registry import RegistryClient

_HOST: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?"
)
_PREFIX: Final = re.compile(r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


def open_source(
    location: str,
    *,
    registry: str,
    plain_http: bool = False,
    mirrors: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
    sink: EventSink = NULL_SINK,
) -> ImageSource:
    """Return the source that a location names.

    ``location``: empty (each image's own registry), a layout directory, a tar of one, ``oci:PATH``,
    ``http://host[:port][/prefix]``, ``https://…`` or ``host[:port][/prefix]``. ``registry`` is the
    part of image names that the location stands for. ``mirrors`` map such parts (a host, or a host
    with a path) to other locations. Plain http is spoken only to ``http://`` URLs, or everywhere
    with ``plain_http``. Raises :class:`InputError`, :class:`NotFound`, :class:`SourceError`.
    """

    def one(place: str, identity: str) -> ImageSource:
        if is_path(place):
            return LayoutSource.open(Path(place.removeprefix("oci:")).expanduser())
        return _client(place, identity, plain_http, timeout_s, sink)

    main = one(location, registry)
    if not mirrors:
        return main
    opened = {prefix: one(place, prefix) for prefix, place in mirrors.items()}
    # What the user gave as the place of these names goes before a mirror of the same names.
    if location:
        opened.pop(registry, None)
    return MirroredSource(main, opened)


def is_path(location: str) -> bool:
    """Return whether a location is a layout on disk and not a registry."""
    if location.startswith("oci:"):
        return True
    if not location or "://" in location:
        return False
    return location.startswith((".", "/", "~")) or os.path.exists(location)


def _client(
    location: str, identity: str, plain_http: bool, timeout_s: float, sink: EventSink
) -> RegistryClient:
    from local_imager.oci.registry import RegistryClient

    base_url = _base_url(location, plain_http) if location else ""
    return RegistryClient(
        base_url,
        identity if base_url else "",
        plain_http=plain_http,
        timeout_s=timeout_s,
        sink=sink,
    )


def _base_url(location: str, plain_http: bool) -> str:
    written = location if "://" in location else f"http{'' if plain_http else 's'}://{location}"
    parts = urlsplit(written)
    if "@" in parts.netloc:
        raise InputError(
            "a registry address may hold no user name or password",
            hint="use `docker login`; its credentials are found by host",
        )
    path = parts.path.rstrip("/")
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(parts.netloc)
        or not _PREFIX.fullmatch(path)
        or parts.query
        or parts.fragment
    ):
        raise InputError(
            f"{location[:120]!r} is neither a layout on disk nor the address of a registry",
            hint="write a directory, a tar file, host[:port][/prefix], or an http(s):// URL",
        )
    return f"{parts.scheme}://{parts.netloc}{path}"


class MirroredSource:
    """Sends each image name to the mirror of the longest matching part, else to the main source."""

    def __init__(self, main: ImageSource, mirrors: Mapping[str, ImageSource]) -> None:
        self._main = main
        self._mirrors = dict(sorted(mirrors.items(), key=lambda item: -len(item[0])))

    @property
    def location(self) -> str:
        """The main source's place; a mirror shows in its own errors."""
        return self._main.location

    def _for(self, reference: Reference) -> ImageSource:
        for prefix, source in self._mirrors.items():
            if reference.name.startswith(prefix + "/"):
                return source
        return self._main

    def resolve(self, reference: Reference) -> Descriptor:
        """Ask the source that is responsible for the name."""
        return self._for(reference).resolve(reference)

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Ask the source that is responsible for the name."""
        return self._for(reference).manifest(reference, digest)

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Ask the source that is responsible for the name."""
        return self._for(reference).blob(reference, descriptor, offset)

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Ask the source that is responsible for the name."""
        return self._for(reference).referrers(reference, digest)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Ask the source that is responsible for the name."""
        return self._for(reference).tags(reference)
