"""The contract of a place that images can be read from: a registry, a layout, a tar of one.

Nothing that a source returns is trusted: callers check digests while writing, and signatures
before anything is unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from local_imager.oci.model import Descriptor, Digest, Reference


@dataclass(frozen=True, slots=True)
class RawManifest:
    """The untrusted bytes of a manifest or index, with the media type that they were served as."""

    untrusted_data: bytes
    media_type: str

    @property
    def descriptor(self) -> Descriptor:
        """Describe the bytes that really came."""
        return Descriptor.of(self.untrusted_data, self.media_type)


class ImageSource(Protocol):
    """A read-only place of images; every method may raise :class:`SourceError`.

    ``reference`` arguments carry the image's own name (its identity); where a mirror or a layout
    keeps the bytes is the source's business and never shows in the name.
    """

    @property
    def location(self) -> str:
        """Where this is, for messages (no credentials in it)."""

    def resolve(self, reference: Reference) -> Descriptor:
        """Return the descriptor that the tag (or digest) names now.

        Raises :class:`NotFound` when there is no such image.
        """

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Return a manifest or index whose bytes have this digest (checked by the source too)."""

    def blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> Iterator[bytes]:
        """Stream a blob from a byte offset; never yields more than the descriptor's size."""

    def referrers(self, reference: Reference, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest.

        Referrers API, else the fallback tag ``sha256-<hex>``, else (in a layout) by ``subject``.
        """

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """Return all tags of the reference's repository, in the source's order."""
