"""The catalogues of a version: which extensions and overlays exist, by name and digest.

Formats (files at the root of the catalogue images): ``image-digests``, one
``registry/name:tag@sha256:…`` a line; ``descriptions.yaml``, a map from that line to
``{author, description}``; ``overlays.yaml``, ``overlays: [{name, image, digest}]``.

The registry host in a catalogue is upstream's own. What names an image here is its repository path
below the configured registry, so that mirrors keep names; the digest is what counts.
"""

from __future__ import annotations

from typing import Any, Final

from local_imager.errors import InputError, SourceError
from local_imager.events import printable
from local_imager.oci.model import Digest, Reference
from local_imager.profile.model import CatalogueExtension, CatalogueOverlay

# Official catalogues list about 80 extensions and 30 overlays; their files have 10 to 60 KiB.
MAX_CATALOGUE_BYTES: Final = 2 * 1024**2
MAX_ENTRIES: Final = 5000
MAX_YAML_DEPTH: Final = 16
MAX_YAML_NODES: Final = 100_000
MAX_DESCRIPTION_CHARACTERS: Final = 20_000
# How YAML writes "nothing".
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


def parse_extensions(
    untrusted_digests: bytes, untrusted_descriptions: bytes, registry: str
) -> tuple[CatalogueExtension, ...]:
    """Read the extension catalogue in its own order; raises :class:`SourceError` (malformed).

    An extension without a description stays, with empty texts.
    """
    described = None
    if untrusted_descriptions:
        described = parse_yaml(untrusted_descriptions, "descriptions.yaml")
    if not isinstance(described, dict):
        described = {}
    lines = _text(untrusted_digests, "image-digests").split("\n")
    found: list[CatalogueExtension] = []
    for line in (line.strip() for line in lines):
        if not line:
            continue
        if len(found) >= MAX_ENTRIES:
            raise _malformed("image-digests", f"has more than {MAX_ENTRIES} lines")
        name, reference, digest = identify(line, registry, "image-digests")
        about = described.get(line)
        about = about if isinstance(about, dict) else {}
        found.append(
            CatalogueExtension(
                name,
                reference,
                digest,
                _words(about.get("author")),
                _words(about.get("description")),
            )
        )
    return tuple(found)


def parse_overlays(untrusted_overlays: bytes, registry: str) -> tuple[CatalogueOverlay, ...]:
    """Read the overlay catalogue in its own order; raises :class:`SourceError` (malformed)."""
    what = "overlays.yaml"
    document = parse_yaml(untrusted_overlays, what)
    entries = document.get("overlays", "") if isinstance(document, dict) else ""
    if isinstance(entries, str) and entries in _NULLS:
        entries = []
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise _malformed(what, "has no list of overlays")
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise _malformed(what, "has an entry that is no map")
        parts = [entry.get(key) for key in ("name", "image", "digest")]
        if not all(isinstance(part, str) and part for part in parts):
            raise _malformed(what, "has an entry without name, image or digest")
        overlay, image, digest_text = parts
        name, reference, digest = identify(f"{image}@{digest_text}", registry, what)
        found.append(CatalogueOverlay(str(overlay), name, reference, digest))
    return tuple(found)


def identify(line: str, registry: str, what: str) -> tuple[str, Reference, Digest]:
    """Return the repository path, the reference below ``registry``, and the digest of a line.

    The path that the configured registry itself adds (``host/path``) is taken off where the
    catalogue repeats it.
    """
    host, _, prefix = registry.partition("/")
    try:
        named = Reference.parse(line)
    except InputError as error:
        raise _malformed(what, f"names {printable(line, limit=120)!r}, no image") from error
    if named.digest is None:
        raise _malformed(what, f"names {printable(line, limit=120)!r} without a digest")
    name = named.repository
    if prefix and name.startswith(prefix + "/"):
        name = name.removeprefix(prefix + "/")
    repository = f"{prefix}/{name}" if prefix else name
    return name, Reference(host, repository, named.tag, named.digest), named.digest


def parse_yaml(untrusted_data: bytes, what: str) -> Any:
    """Parse one YAML document, every scalar as text, within ceilings and without aliases.

    Aliases are refused because a few of them stand for gigabytes; nothing honest here uses any.
    Scalars stay text because all that counts here is text, and the library's readers of numbers
    and times take hours over some and raise whatever over others.
    Raises :class:`SourceError` (malformed).
    """
    import yaml

    text = _text(untrusted_data, what)
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        nodes = depth = 0
        for event in yaml.parse(text, Loader=loader):
            nodes += 1
            if isinstance(event, yaml.AliasEvent):
                raise _malformed(what, "uses a YAML alias")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_YAML_DEPTH or nodes > MAX_YAML_NODES:
                raise _malformed(what, "nests too deep or has too many values")
        # The base loader makes texts, lists and maps only.
        document = yaml.load(text, Loader=loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise _malformed(what, "is not valid YAML") from error
    return None if isinstance(document, str) and document in _NULLS else document


def _text(untrusted_data: bytes, what: str) -> str:
    if len(untrusted_data) > MAX_CATALOGUE_BYTES:
        raise _malformed(what, f"is larger than {MAX_CATALOGUE_BYTES} bytes")
    try:
        return untrusted_data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(what, "is not UTF-8") from error


def _words(value: object) -> str:
    if not isinstance(value, str) or value in _NULLS:
        return ""
    return value[:MAX_DESCRIPTION_CHARACTERS]


def _malformed(what: str, problem: str) -> SourceError:
    return SourceError(
        f"the catalogue cannot be used: {what} {problem}",
        hint="the image is signed, so its publisher made it so",
        code="malformed",
    )


EXTENSION_FILES: Final = ("image-digests", "descriptions.yaml")
OVERLAY_FILES: Final = ("overlays.yaml",)
