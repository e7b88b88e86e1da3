"""Which manifests belong to an image: the index, the wanted architectures, what tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.errors import SourceError
from local_imager.oci.model import Descriptor, Digest, Index, Manifest, Reference
from local_imager.oci.source import ImageSource
from local_imager.sources.held import pick
from local_imager.sources.survey import read_manifest

# BuildKit puts provenance and SBOM into the index itself, beside the image that they tell of.
_ANNOTATION_TELLS_OF: Final = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Outline:
    """The manifests of an image, the signed one first; ``attestations`` are listed in its index.

    ``arches`` are those of the manifests after the index, in that order; none for an image that is
    a single manifest.
    """

    manifests: tuple[Index | Manifest, ...]
    arches: tuple[str, ...]
    attestations: tuple[Descriptor, ...] = ()

    @property
    def subjects(self) -> tuple[Digest, ...]:
        """The digests that something may be attached to."""
        return tuple(manifest.digest for manifest in self.manifests)


def outline_image(
    places: Sequence[ImageSource], reference: Reference, digest: Digest, arches: Sequence[str]
) -> Outline:
    """Return the manifests of an image for these architectures; none means the first of its index.

    Raises :class:`NotFound` for an architecture that the image does not have or no place holds,
    :class:`SourceError` for what is no image.
    """
    top = read_manifest(places, reference, digest)
    if isinstance(top, Manifest):
        return Outline((top,), ())
    entries = pick(top, arches, str(reference))
    children = [read_manifest(places, reference, entry.digest) for entry in entries]
    if not all(isinstance(child, Manifest) for child in children):
        raise SourceError(f"{reference} is an index of indexes", code="malformed")
    named = tuple(entry.platform.architecture for entry in entries if entry.platform)
    digests = [entry.digest for entry in entries]
    return Outline((top, *children), named, attestations_of(top, digests))


def attestations_of(index: Index, images: Iterable[Digest]) -> tuple[Descriptor, ...]:
    """Return the entries of an index that tell of these images of it."""
    wanted = {str(digest) for digest in images}
    return tuple(
        entry for entry in index.manifests if entry.annotations.get(_ANNOTATION_TELLS_OF) in wanted
    )
