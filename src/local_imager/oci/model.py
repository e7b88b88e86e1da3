"""Values of the OCI image specification: digests, references, descriptors, manifests and indexes.

Everything here is pure. Parsers take untrusted bytes, check bounds and types, keep the original
bytes beside the parsed value where a digest depends on them, and raise :class:`SourceError`.
Rules: OCI image-spec 1.1 (descriptor, manifest, image-index), distribution-spec 1.1 (names, tags).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from local_imager.errors import InputError, SourceError

MEDIA_INDEX: Final = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
MEDIA_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_EMPTY: Final = "application/vnd.oci.empty.v1+json"
MEDIA_DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MEDIA_DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES: Final = frozenset({MEDIA_INDEX, MEDIA_DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST})

ANNOTATION_REF_NAME: Final = "org.opencontainers.image.ref.name"
ANNOTATION_TITLE: Final = "org.opencontainers.image.title"

# The distribution spec lets a registry refuse manifests over 4 MiB, so no honest one is larger.
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
# Far above any real image (a few dozen layers, a few platforms) and small enough to walk.
MAX_DESCRIPTORS: Final = 2048

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REGISTRY = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 content digest; its one spelling is ``sha256:<64 lower-case hex digits>``."""

    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``; raises :class:`InputError` for any other algorithm or spelling."""
        if not _DIGEST.fullmatch(text):
            raise InputError(
                f"{text[:80]!r} is not a digest",
                hint="a digest reads sha256: and 64 lower-case hex digits",
            )
        return cls(text[7:])

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the digest of these bytes."""
        return cls(hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image name ``registry/repository[:tag][@digest]``; the registry is always explicit."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a full reference.

        Raises :class:`InputError` when the registry is missing or a part breaks the
        distribution spec's grammar; no registry, tag or ``library/`` is ever guessed.
        """
        rest, _, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if digest_text else None
        head, slash, last = rest.rpartition("/")
        last, _, tag = last.partition(":")
        registry, _, repository = (head + slash + last).partition("/")
        has_registry = "." in registry or ":" in registry or registry == "localhost"
        if (
            not has_registry
            or not _REGISTRY.fullmatch(registry)
            or not _REPOSITORY.fullmatch(repository)
            or (tag and not _TAG.fullmatch(tag))
            or "@" in digest_text
            or len(text) > 1024
        ):
            raise InputError(
                f"{text[:120]!r} is not an image reference",
                hint="write registry/repository:tag or registry/repository@sha256:…",
            )
        return cls(registry, repository, tag, digest)

    def __str__(self) -> str:
        return (
            self.name
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest}" if self.digest else "")
        )

    @property
    def name(self) -> str:
        """``registry/repository`` without tag and digest; what trust patterns are matched with."""
        return f"{self.registry}/{self.repository}"

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository at another tag, without a digest."""
        return Reference(self.registry, self.repository, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same reference pinned to a digest (the tag is kept as a comment)."""
        return Reference(self.registry, self.repository, self.tag, digest)


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system and architecture of a manifest inside an index."""

    os: str
    architecture: str
    variant: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object of the image spec."""
        base = {"architecture": self.architecture, "os": self.os}
        return {**base, "variant": self.variant} if self.variant else base


_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is (``media_type``), how long (``size_bytes``), and its digest."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS)
    platform: Platform | None = None
    artifact_type: str = ""

    @classmethod
    def of(cls, data: bytes, media_type: str, **more: Any) -> Descriptor:
        """Describe these bytes."""
        return cls(media_type, Digest.of(data), len(data), **more)

    @property
    def ref_name(self) -> str:
        """The name under which a layout's ``index.json`` lists the entry, or an empty string."""
        return self.annotations.get(ANNOTATION_REF_NAME, "")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the image spec."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.platform is not None:
            document["platform"] = self.platform.as_dict()
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return document


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image or artifact manifest; ``raw`` are the bytes that its digest names."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS)

    @property
    def digest(self) -> Digest:
        """Digest of the manifest's own bytes."""
        return Digest.of(self.raw)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index; ``raw`` are the bytes that its digest names."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS)

    @property
    def digest(self) -> Digest:
        """Digest of the index's own bytes."""
        return Digest.of(self.raw)

    def for_platform(self, os: str, architecture: str) -> Descriptor | None:
        """Return the one entry for a platform, or None; attestation entries are passed over."""
        for entry in self.manifests:
            if entry.platform is not None and (entry.platform.os, entry.platform.architecture) == (
                os,
                architecture,
            ):
                return entry
        return None


def canonical_json(document: object) -> bytes:
    """Serialise our own documents one way only: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def load_json_object(
    untrusted_data: bytes, what: str, *, max_bytes: int = MAX_MANIFEST_BYTES
) -> dict[str, Any]:
    """Parse bounded JSON bytes into an object.

    Refuses duplicate keys (two parsers could read two different documents), NaN and oversized
    input; raises :class:`SourceError` with the code ``malformed``.
    """
    if len(untrusted_data) > max_bytes:
        raise SourceError(f"{what} is larger than {max_bytes} bytes", code="malformed")
    try:
        document = json.loads(
            untrusted_data, object_pairs_hook=_unique_pairs, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{what} is not valid JSON: {error}", code="malformed") from error
    if not isinstance(document, dict):
        raise SourceError(f"{what} is not a JSON object", code="malformed")
    return document


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_descriptor(untrusted: object, what: str) -> Descriptor:
    """Read one descriptor object; raises :class:`SourceError` with the code ``malformed``."""
    if not isinstance(untrusted, dict):
        raise SourceError(f"{what}: a descriptor is not an object", code="malformed")
    size, media_type = untrusted.get("size"), untrusted.get("mediaType", "")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise SourceError(f"{what}: a descriptor has no valid size", code="malformed")
    if not isinstance(media_type, str):
        raise SourceError(f"{what}: a descriptor has no valid mediaType", code="malformed")
    try:
        digest = Digest.parse(str(untrusted.get("digest")))
    except InputError as error:
        raise SourceError(f"{what}: {error.message}", code="malformed") from error
    artifact_type = untrusted.get("artifactType", "")
    return Descriptor(
        media_type,
        digest,
        size,
        parse_annotations(untrusted.get("annotations"), what),
        _parse_platform(untrusted.get("platform")),
        artifact_type if isinstance(artifact_type, str) else "",
    )


def _parse_platform(untrusted: object) -> Platform | None:
    if not isinstance(untrusted, dict):
        return None
    parts = [untrusted.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        return None
    return Platform(*parts)


def parse_annotations(untrusted: object, what: str) -> Mapping[str, str]:
    """Read a map of strings (absent or null is empty); raises :class:`SourceError`."""
    if untrusted is None:
        return _NO_ANNOTATIONS
    if not isinstance(untrusted, dict) or not all(isinstance(v, str) for v in untrusted.values()):
        raise SourceError(f"{what}: annotations are not a map of strings", code="malformed")
    return MappingProxyType(untrusted)


def _descriptor_list(document: Mapping[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    entries = document.get(key) or []
    if not isinstance(entries, list) or len(entries) > MAX_DESCRIPTORS:
        raise SourceError(f"{what}: {key} is not a list of reasonable length", code="malformed")
    return tuple(parse_descriptor(entry, what) for entry in entries)


def parse_manifest(untrusted_data: bytes, media_type: str, what: str) -> Manifest | Index:
    """Parse the bytes of a manifest or an index, as the declared media type says.

    The ``mediaType`` inside, where present, must agree with the declared one: a document that is
    an index to one reader and a manifest to another is refused (CVE-2021-41190).
    """
    document = load_json_object(untrusted_data, what)
    inner = document.get("mediaType", media_type)
    if inner != media_type:
        raise SourceError(
            f"{what} says it is {str(inner)[:80]!r}, served as {media_type[:80]!r}",
            code="malformed",
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        raise SourceError(f"{what} is both an index and a manifest", code="malformed")
    subject = document.get("subject")
    common: dict[str, Any] = {
        "subject": parse_descriptor(subject, what) if subject is not None else None,
        "artifact_type": str(document.get("artifactType") or ""),
        "annotations": parse_annotations(document.get("annotations"), what),
    }
    if media_type in INDEX_TYPES:
        entries = _descriptor_list(document, "manifests", what)
        return Index(untrusted_data, media_type, entries, **common)
    if media_type in MANIFEST_TYPES:
        config = parse_descriptor(document.get("config"), what)
        layers = _descriptor_list(document, "layers", what)
        return Manifest(untrusted_data, media_type, config, layers, **common)
    raise SourceError(
        f"{what} has the unsupported media type {media_type[:80]!r}", code="malformed"
    )
